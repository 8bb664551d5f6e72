//! How solving fails.

use std::ops::Range;

/// What an operation or a cache store reports: any error; the solver adds which step it was.
pub type OpError = Box<dyn std::error::Error + Send + Sync>;

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
    /// The build was stopped from outside.
    #[error("canceled")]
    Canceled,
}
