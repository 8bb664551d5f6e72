//! A build, from a resolved request to its result: the library that joins all rooms.
//!
//! ```text
//! BuildRequest ─▶ remote (fetched contexts) ─▶ dockerfile ─▶ contexts ─▶ images (resolve) ─▶ frontend ─▶ graph ─▶ solver ◀─▶ op
//!                                                                                      │ layers of the target
//!                                     outputs ◀─ image (config, manifest) ◀─ shadow ◀──┘ are packed meanwhile
//!                                     cache: what is imported, and exported when the outputs are written
//! ```
//!
//! Knows neither the command line, nor the environment, nor the terminal.

mod build;
mod cache;
mod cgroup;
mod contexts;
mod csv;
mod devices;
mod dockerfile;
mod entitlements;
mod epoch;
mod error;
mod fsck;
mod image;
mod images;
mod keep;
mod kind;
mod layout;
mod lockfile;
mod lower;
mod outputs;
mod push;
mod record;
mod remote;
mod request;
mod shadow;

pub use build::{BuildResult, Environment, build};
pub use cache::{
    Became, CacheExport, CacheImport, CacheMode, CacheTarget, DEFAULT_CACHE_EXPORT_BUDGET,
    DEFAULT_MOUNTS_EXPORT_SIZE, DEFAULT_MOUNTS_IMPORT_SIZE, ImportedMount, MountsExport, MountsImport,
    MountsOutcome, export_cache_mounts, import_cache_mounts,
};
pub use csv::csv_fields;
pub use dockerfile::{other_frontend, read_dockerfile};
pub use error::{BuildError, ErrorKind};
pub use fsck::ContentCheck;
pub use lockfile::{Change, LOCK_FILE, LockEntry, LockOptions, Locked, Update, lock, read_lock};
pub use lower::{Examined, examine};
pub use rbuild_cache::Form as CacheForm;
pub use rbuild_context::Modes as ContextModes;
pub use rbuild_history::Limits;
pub use rbuild_ir::{NetworkMode, RemoteUrl};
pub use rbuild_layer::{Compression, DEFAULT_ZSTD_LEVEL};
pub use rbuild_oci::time;
pub use rbuild_op::{Confidential, MAX_KEY_BYTES, MAX_SECRET_BYTES, Secret, SshAgent, SshKey, SshKeyError};
pub use rbuild_registry::ClientConfig;
pub use rbuild_runtime::{Cgroup, Limits as ResourceLimits, MemorySwap};
pub use rbuild_solver::NoCache;
pub use request::{
    BuildRequest, ContextSource, Destination, DockerfileSource, Entitlement, LayoutImage, NamedContext,
    Output,
};
