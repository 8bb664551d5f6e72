//! What can go wrong while exporting.

use rbuild_oci::Digest;
use rbuild_store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Result of an export.
pub type Result<T> = std::result::Result<T, ExportError>;

/// Why an export failed. Nothing half-written is left under the name of the destination.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store failed, or lacks a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the destination could not be written.
    #[error("export: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The destination's file system is full.
    #[error("export: no space left to write {}: free some, or choose another dest", path.display())]
    NoSpace {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// The stream that the archive goes to failed.
    #[error("export: cannot write the archive: {0}")]
    Stream(#[source] io::Error),
    /// The destination is a directory with other things in it.
    #[error("export: {} is not empty and not an OCI image layout: choose another dest", path.display())]
    NotALayout {
        /// The destination.
        path: PathBuf,
    },
    /// The destination is a directory where a file is to be written.
    #[error("export: {} is a directory: add tar=false, or give dest a file name", path.display())]
    IsDirectory {
        /// The destination.
        path: PathBuf,
    },
    /// A manifest or index that is to be exported cannot be read.
    #[error("export: manifest {digest} is not valid: {reason}")]
    Manifest {
        /// Which one.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// type=docker of an image index.
    #[error(
        "docker exporter does not currently support exporting manifest lists: choose one platform with --platform, or use type=oci"
    )]
    SeveralPlatforms,
    /// Trees of several platforms, to be written into one directory, have the same file.
    #[error(
        "cannot overwrite {} from {first} with {second} when split option is disabled: leave out platform-split=false",
        path.display()
    )]
    Overwrite {
        /// The file, relative to the directory.
        path: PathBuf,
        /// The platform whose file it is.
        first: String,
        /// The platform that has another one.
        second: String,
    },
}

impl ExportError {
    /// Wraps an I/O error on a file of the destination.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { action, path, source },
        }
    }
}

/// Adds what was tried to an I/O result.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| ExportError::io(action, path, e))
    }
}
