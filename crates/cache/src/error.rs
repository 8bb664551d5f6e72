//! How importing and exporting fail.

use rbuild_oci::Digest;
use rbuild_registry::RegistryError;
use std::path::PathBuf;

/// Why a cache could not be read or written. A build goes on without it, unless the user said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The registry or the network failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of a local cache failed.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// e.g. `read`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such cache.
    #[error("not found (a cache appears there with the first --cache-to)")]
    NotFound,
    /// What is there cannot be a cache.
    #[error("{0}")]
    Damaged(
        /// What is wrong, and what to do if anything.
        String,
    ),
    /// A blob is not what its digest says.
    #[error("{name}: blob {expected} is damaged: it has {found}")]
    WrongBlob {
        /// The cache.
        name: String,
        /// What was asked for.
        expected: Digest,
        /// What is there: another digest, or a length.
        found: String,
    },
    /// Nobody answered in time.
    #[error("no answer within {seconds} s")]
    Slow {
        /// How long it was waited for.
        seconds: u64,
    },
}

impl CacheError {
    /// Whether nobody answered, rather than that the answer was no.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Slow { .. } | Self::Registry(RegistryError::Connect { .. } | RegistryError::Timeout { .. })
        )
    }

    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound => true,
            Self::Registry(error) => error.is_not_found(),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
