//! What can go wrong with snapshots.

use rbuild_oci::Digest;
use rbuild_tree::TreePath;
use std::io;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes of a file are no longer those its recipe was made from.
    #[error("{path} changed after it was hashed (expected {expected}, found {found}): build again")]
    SourceChanged {
        /// Where the file goes in the layer.
        path: TreePath,
        /// What the recipe wants.
        expected: String,
        /// What was read.
        found: String,
    },
    /// Entries that do not make a layer.
    #[error("invalid layer entry {path}: {reason}")]
    InvalidRecipe {
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl SnapshotError {
    pub(crate) fn changed(path: &TreePath, expected: Digest, found: Digest) -> Self {
        Self::SourceChanged { path: path.clone(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn changed_size(path: &TreePath, expected: u64, found: u64) -> Self {
        Self::SourceChanged {
            path: path.clone(),
            expected: format!("{expected} bytes"),
            found: format!("{found} bytes"),
        }
    }
}
