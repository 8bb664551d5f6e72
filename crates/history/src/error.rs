//! What can be wrong with history.

use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, HistoryError>;

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("the build record `{}` cannot be read: {reason}; `rbuild builds rm` removes it", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no such build.
    #[error("no such build: {0} (`rbuild builds` lists them)")]
    NoSuchBuild(String),
    /// Several builds are meant.
    #[error("`{text}` may be any of {}: give more of the id", candidates.join(", "))]
    Ambiguous {
        /// What was given.
        text: String,
        /// Some that begin so.
        candidates: Vec<String>,
    },
    /// The build is running.
    #[error("build {0} is running: stop it first")]
    Running(String),
}

impl HistoryError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}
