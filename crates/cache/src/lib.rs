//! Cache records that live elsewhere: in a registry, in a directory, in an image's own config.
//!
//! ```text
//! Backend (registry · local)   blobs and one manifest; knows nothing of records
//!    ▲              ▲
//! Importer       Exporter      metadata first, blobs when needed · nothing sent twice
//!    ▲              ▲
//!    └── Contents ──┘          the one record schema, as JSON in a cache config (documents) or an image config (inline)
//! ```
//!
//! # What a cache is
//!
//! An ordinary OCI image manifest whose config has the media type `application/vnd.buildkit.cacheconfig.v0` and whose
//! layers are image layer blobs. The config's `layers` and `records` have the fields and types that BuildKit reads; its
//! keys are not rbuild's, so each takes the other's cache for one without anything of use. What rbuild reads is under
//! `rbuild`: see [`Contents`].
//!
//! # What is trusted
//!
//! Documents are bounded and checked before anything is made of them; every blob is verified by digest here and every
//! unpacked layer by diff ID by whoever unpacks it. That a layer is what its step would have made is the word of whoever
//! may write to the cache.

mod backend;
mod contents;
mod documents;
mod error;
mod export;
mod import;
mod inline;
mod local;
mod registry;

pub use backend::{Backend, Found, Progress};
pub use contents::{Contents, MAX_CHAIN, MAX_LAYERS, MAX_RECORDS, RemoteLayer, RemoteRecord};
pub use documents::{CONFIG_MEDIA_TYPE, Form, MAX_CONFIG, config_json, manifest_json, parse_config};
pub use error::CacheError;
pub use export::{Exporter, Published};
pub use import::{Cached, ImportFailure, Importer, OnFailure};
pub use inline::{INLINE_KEY, inline_value, parse_inline};
pub use local::LocalBackend;
pub use registry::RegistryBackend;
