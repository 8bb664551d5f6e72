//! How solving fails.

use std::ops::Range;

/// What an operation or a cache store reports: any error; the solver adds which step it was.
pub type OpError = Box<dyn std::error::Error + Send + Sync>;

/// What an operation reports when a result of the cache cannot be had any more. The cache must not give it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cached result is lost: {0}")]
pub struct ResultLost(
    /// What is missing, and where it was looked for.
    pub String,
);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// A step failed.
    #[error("{name}: {source}")]
    Step {
        /// The step as shown.
        name: String,
        /// Its lines in the Dockerfile (1-based, end exclusive).
        lines: Range<u32>,
        /// What went wrong.
        #[source]
        source: OpError,
    },
    /// A cached result turned out to be gone: solving again works without it.
    #[error(transparent)]
    Lost(#[from] ResultLost),
    /// The build was stopped from outside.
    #[error("canceled")]
    Canceled,
}
