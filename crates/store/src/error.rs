//! What can go wrong with the store, and what to do about it.

use rbuild_oci::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Result of the store's operations.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation failed.
    #[error("store: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system is full, or the quota is used up.
    #[error(
        "no space left on the file system of {}: free some with `rbuild prune`, or move the store with $RBUILD_ROOT",
        path.display()
    )]
    NoSpace {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// The store lies on a network file system, where neither SQLite's WAL nor flock hold between hosts.
    #[error("the store {} is on a network file system: set $RBUILD_ROOT to a local disk", path.display())]
    NetworkFilesystem {
        /// The root of the store.
        path: PathBuf,
    },
    /// A newer rbuild has written the store.
    #[error(
        "{} has version {found}, this rbuild knows versions up to {known}: use a newer rbuild, or another $RBUILD_ROOT",
        path.display()
    )]
    NewerVersion {
        /// The file that carries the version.
        path: PathBuf,
        /// The version found there.
        found: String,
        /// The newest version that can be read.
        known: String,
    },
    /// SQLite failed for another reason than damage (which is repaired).
    #[error("cache index {}: {source}", path.display())]
    Database {
        /// `index.db`.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// A JSON document of the layout cannot be read.
    #[error("{} is damaged: {reason}; restore it, or move it away to start with no images", path.display())]
    Damaged {
        /// The document.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The blob is not in the store.
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    /// Bytes have another digest than the one they were to have.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What they should be.
        expected: Digest,
        /// What they are.
        actual: Digest,
    },
    /// There are more or fewer bytes than announced.
    #[error("size mismatch of {digest}: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// Which blob.
        digest: Digest,
        /// Announced length in bytes.
        expected: u64,
        /// Actual length in bytes.
        actual: u64,
    },
    /// A blob is larger than its reader accepts.
    #[error("blob {digest} has {size} bytes, more than the {max} accepted here")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// More than one image has an id with this prefix (D-053).
    #[error("image id prefix `{prefix}` is ambiguous, {count} images have it: give more digits")]
    AmbiguousImage {
        /// What was looked for.
        prefix: String,
        /// How many distinct images have it.
        count: usize,
    },
    /// A filter of du or prune is not understood.
    #[error("filter `{filter}`: {reason}")]
    BadFilter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Waiting for a lock was given up because the caller was cancelled.
    #[error("cancelled while waiting for another rbuild")]
    Cancelled,
}

impl StoreError {
    /// Wraps an I/O error; a full disk and an exhausted quota become [`StoreError::NoSpace`].
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn database(path: &Path, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::NoSpace { path: path.to_owned() },
            _ => Self::Database { path: path.to_owned(), source },
        }
    }
}

/// Adds what was tried to an I/O result.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| StoreError::io(action, path, e))
    }
}
