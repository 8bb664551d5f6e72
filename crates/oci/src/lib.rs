//! The vocabulary of OCI images: digests, platforms, references, descriptors, manifests and configs.
//!
//! Knows no I/O. Documents that came from elsewhere keep their raw bytes; these types read them and write
//! new ones, they never re-serialise what somebody else signed with a digest.

mod clean;
mod config;
#[cfg(test)]
mod conformance;
mod digest;
mod manifest;
mod platform;
mod reference;
pub mod time;

pub use clean::clean_path;
pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig, go_json};
pub use digest::{Digest, DigestError, Sha256Writer};
pub use manifest::{Descriptor, Index, Manifest, media_type};
pub use platform::{Platform, PlatformError, PlatformMatcher, best_match};
pub use reference::{DEFAULT_DOMAIN, Reference, ReferenceError};
