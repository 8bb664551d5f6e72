//! What can be wrong with a COPY or ADD.

use rbuild_tree::TreePath;
use std::io;

/// Why a COPY, ADD or WORKDIR cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source without wildcards does not exist.
    #[error("{0}")]
    NotFound(Box<NotFound>),
    /// A source or an `--exclude` is no valid pattern.
    #[error("{what} `{pattern}`: syntax error in pattern")]
    BadPattern {
        /// Where the pattern comes from: `source` or `--exclude`.
        what: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// `--chmod` is neither octal nor symbolic.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    BadChmod(String),
    /// A file would take the place of a directory.
    #[error("cannot replace to directory {0} with file")]
    FileOverDirectory(TreePath),
    /// A directory would take the place of something else.
    #[error("cannot copy to non-directory: {0}")]
    DirectoryOverFile(TreePath),
    /// A parent of the destination is not a directory.
    #[error("mkdir {0}: not a directory")]
    ParentNotDirectory(TreePath),
    /// A hard link of an archive names nothing that could have another name.
    #[error(
        "cannot unpack {path}: its hard link target {target} is no file, neither of the archive nor of the destination"
    )]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// What it should be another name of.
        target: TreePath,
    },
    /// A source or destination is no path.
    #[error("invalid path `{path}`: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// /etc/passwd or /etc/group of the image cannot be used to look up a name.
    #[error("{path} of the image {reason}; give numeric ids instead of names")]
    UserFile {
        /// The file.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A tree cannot be read.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: TreePath,
        /// What the system said.
        source: io::Error,
    },
}

/// A source that does not exist, and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotFound {
    /// The source as it was looked for.
    pub path: TreePath,
    /// Where the symlinks on the way lead, when there are any.
    pub leads_to: Option<TreePath>,
    /// What excludes it, such as `.dockerignore:3`, when it exists but is excluded.
    pub excluded_by: Option<String>,
    /// Existing paths with a similar name, the best first.
    pub similar: Vec<TreePath>,
}

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\": not found", self.path)?;
        if let Some(target) = &self.leads_to {
            write!(f, " (a symlink on the way leads to {target})")?;
        }
        if let Some(rule) = &self.excluded_by {
            write!(f, ": excluded by {rule}")?;
        } else if let Some(similar) = self.similar.first() {
            write!(f, " (did you mean {similar}?)")?;
        }
        Ok(())
    }
}

/// Adds action and path to an I/O error.
pub(crate) fn io<'a>(action: &'static str, path: &'a TreePath) -> impl FnOnce(io::Error) -> CopyError + 'a {
    move |source| CopyError::Io { action, path: path.clone(), source }
}

/// A path out of what a Dockerfile says, clamped to the root.
pub(crate) fn clamped(path: &str) -> Result<TreePath, CopyError> {
    TreePath::clamped(path)
        .map_err(|error| CopyError::BadPath { path: path.to_owned(), reason: error.reason })
}
