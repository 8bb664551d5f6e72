//! Why a build has no result, and whose fault it is.

use rbuild_op::OpFailure;
use rbuild_registry::RegistryError;
use rbuild_solver::{OpError, ResultLost, SolveError};
use std::ops::Range;

/// Whose fault an error is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A step of the build failed.
    Step,
    /// The Dockerfile, the context or an option is wrong.
    Usage,
    /// A registry or the network.
    Registry,
    /// The machine: file system, kernel, permissions.
    Environment,
    /// Us.
    Internal,
    /// The user stopped the build.
    Canceled,
}

impl ErrorKind {
    /// The exit code of a command that ends with it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Step => 1,
            Self::Usage => 2,
            Self::Registry => 3,
            Self::Environment => 4,
            Self::Internal => 5,
            Self::Canceled => 130,
        }
    }
}

/// An error of a build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be built; the text is a whole report.
    #[error("{0}")]
    Dockerfile(String),
    /// The request cannot be met.
    #[error("{0}")]
    Request(String),
    /// A base image cannot be had.
    #[error("{message}")]
    Image {
        /// The whole message, with the lines of the Dockerfile if they are known.
        message: String,
        /// Whether a registry was asked.
        registry: bool,
    },
    /// A step failed.
    #[error("failed to solve: {source}")]
    Step {
        /// The step as shown.
        name: String,
        /// Its lines in the Dockerfile, with what stands around them: to be shown before the message. Ends in a line end;
        /// empty if the step has no lines.
        excerpt: String,
        /// What went wrong.
        source: OpError,
    },
    /// Pushing failed.
    #[error("failed to push {name}: {source}")]
    Push {
        /// The image's name.
        name: String,
        /// Why.
        source: Box<RegistryError>,
    },
    /// A cache could not be exported, and the user wanted that to count.
    #[error("exporting cache to {name}: {message}")]
    CacheExport {
        /// The cache.
        name: String,
        /// Why.
        message: String,
    },
    /// Cache mounts could not be exported or imported, and the user wanted that to count.
    #[error("{action} cache mounts {name}: {message}")]
    CacheMounts {
        /// `exporting` or `importing`.
        action: &'static str,
        /// Where to or from: `to registry/name`.
        name: String,
        /// Why.
        message: String,
    },
    /// Reading or writing something of the user's failed.
    #[error("{action} `{path}`: {source}{}", hint(.source))]
    Io {
        /// e.g. `cannot read`.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] rbuild_store::StoreError),
    /// The machine failed while images were looked up; the whole message.
    #[error("{0}")]
    Environment(String),
    /// Writing a result failed.
    #[error("{0}")]
    Export(OpError),
    /// The user stopped the build.
    #[error("canceled")]
    Canceled,
    /// Something that cannot happen.
    #[error("internal error: {0}")]
    Internal(String),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => " (check the permissions, or who runs rbuild)",
        std::io::ErrorKind::StorageFull => " (free some space: `rbuild prune`)",
        _ => "",
    }
}

impl BuildError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Dockerfile(_) | Self::Request(_) => ErrorKind::Usage,
            Self::Image { registry: true, .. }
            | Self::Push { .. }
            | Self::CacheExport { .. }
            | Self::CacheMounts { .. } => ErrorKind::Registry,
            Self::Image { .. } => ErrorKind::Usage,
            Self::Step { source, .. } | Self::Export(source) => crate::kind::kind_of(source),
            Self::Io { .. } | Self::Store(_) | Self::Environment(_) => ErrorKind::Environment,
            Self::Canceled => ErrorKind::Canceled,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// The cached result that turned out to be gone, if that is all that went wrong.
    pub(crate) fn lost(&self) -> Option<&ResultLost> {
        match self {
            Self::Export(source) | Self::Step { source, .. } => source.downcast_ref(),
            _ => None,
        }
    }

    /// The failed step of a solve, with its lines cut out of the Dockerfile.
    pub(crate) fn from_solve(error: SolveError, file: &str, text: &str) -> Self {
        match error {
            SolveError::Canceled => Self::Canceled,
            SolveError::Lost(lost) => Self::Export(lost.into()),
            SolveError::Step { name, lines, source } => {
                if matches!(source.downcast_ref(), Some(OpFailure::Canceled)) {
                    return Self::Canceled;
                }
                Self::Step { name, excerpt: excerpt(file, text, &lines), source }
            }
        }
    }
}

/// Lines shown around the ones at fault.
const CONTEXT_LINES: u32 = 2;

/// BuildKit's excerpt: line numbers, and `>>>` before the lines at fault. Empty if there are none.
fn excerpt(file: &str, text: &str, lines: &Range<u32>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = format!("{file}:{}\n--------------------\n", lines.start);
    let first = lines.start.saturating_sub(CONTEXT_LINES).max(1);
    for (number, line) in (1u32..).zip(text.lines()) {
        if number < first || number >= lines.end + CONTEXT_LINES {
            continue;
        }
        let mark = if lines.contains(&number) { ">>>" } else { "   " };
        // Credentials in a URL are shown nowhere.
        let line = rbuild_ir::redacted(line);
        out.push_str(format!("{number:4} | {mark} {line}").trim_end());
        out.push('\n');
    }
    out.push_str("--------------------\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_marks_the_lines_at_fault() {
        let text = "FROM a\nRUN one\nRUN two \\\n  three\nRUN four\nRUN five\nRUN six\n";
        let expected = "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN one\n   3 | >>> RUN two \\\n   \
                        4 | >>>   three\n   5 |     RUN four\n   6 |     RUN five\n--------------------\n";
        assert_eq!(excerpt("Dockerfile", text, &(3..5)), expected);
        assert_eq!(excerpt("Dockerfile", text, &(0..0)), "");
    }
}
