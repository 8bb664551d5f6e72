//! What was built: one record for each build, the whole output of its steps, and from that why a step was executed.
//!
//! ```text
//! <store>/history/
//!   <id>.build       a record (see `file`): what was built, every vertex with its structured key, how it ended; flocked
//!                    while the build runs
//!   <id>.logs/<n>    the output of a step, whole (see `logs`); nothing if it wrote nothing
//!   trimmed          its time says when sizes were counted the last time
//!   listings/<hex>   files of a COPY or a bind mount by the digest in their keys, zstd, shared by all records
//! ```
//!
//! A record is written in three parts: at the beginning, when all keys are known, and at the end. A build that is killed
//! leaves a record without an end. Nothing of it is waited for by a step; what cannot be written costs the record, not the
//! build.
//!
//! A miss is explained by comparing the structured keys of a build with those of an earlier one of the same Dockerfile:
//! [`align`] finds the counterpart of each step, [`explain`] says what is different about it, [`Comparison`] tells roots
//! from what follows from them.

mod align;
mod cause;
mod diff;
mod error;
mod explain;
mod file;
mod id;
mod limits;
mod listing;
mod logs;
pub mod mask;
mod previous;
mod record;
mod recorder;

pub use align::align;
pub use cause::{Cause, FileChange, FileChangeKind};
pub use diff::{Listings, MAX_CHANGES, explain, file_changes};
pub use error::{HistoryError, Result};
pub use explain::{Comparison, Facts, Fate, Reason};
pub use limits::Limits;
pub use logs::{LogLine, parse_line};
pub use record::{
    Arg, Begin, End, ImageFacts, Keys, Millis, Miss, Other, Outcome, Record, Status, StepEnd, StepKey,
    Subject,
};
pub use recorder::{AskFate, Detail, Finished, Hits, Recorder, WriteDetail};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The records below one directory.
#[derive(Debug, Clone)]
pub struct History {
    dir: PathBuf,
}

impl History {
    /// The history in `dir`, which exists.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.build"))
    }

    fn logs_dir(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.logs"))
    }

    fn listings_dir(&self) -> PathBuf {
        self.dir.join("listings")
    }

    /// The file with a step's output; [`StepEnd::log`] has its name.
    pub fn log_path(&self, id: &str, log: &str) -> PathBuf {
        self.logs_dir(id).join(log)
    }

    /// All builds, the newest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| HistoryError::io("list", &self.dir, source))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| HistoryError::io("list", &self.dir, source))?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".build"));
            ids.extend(id.filter(|id| id::is_id(id)).map(str::to_owned));
        }
        ids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(ids)
    }

    /// A build.
    ///
    /// # Errors
    /// When there is none of this id, or it cannot be read.
    pub fn read(&self, id: &str) -> Result<Record> {
        file::read(&self.record_path(id))
    }

    /// The id that is meant: the beginning of one, `latest` or `@` for the newest, `~1` (also `@~1`) for the one before.
    ///
    /// # Errors
    /// When there is no such build, or several.
    pub fn find(&self, text: &str) -> Result<String> {
        let ids = self.ids()?;
        let missing = || HistoryError::NoSuchBuild(text.to_owned());
        let rest = text.strip_prefix("latest").or_else(|| text.strip_prefix('@')).unwrap_or(text);
        let back = match rest.strip_prefix('~') {
            Some("") => Some(1),
            Some(count) => Some(count.parse().map_err(|_| missing())?),
            None if rest.is_empty() => Some(0),
            None => None,
        };
        if let Some(back) = back {
            return ids.into_iter().nth(back).ok_or_else(missing);
        }
        let mut found: Vec<String> = ids.into_iter().filter(|id| id.starts_with(text)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(id), true) => Ok(id),
            (None, _) => Err(missing()),
            (Some(last), false) => {
                let candidates = found.into_iter().chain([last]).take(5).collect();
                Err(HistoryError::Ambiguous { text: text.to_owned(), candidates })
            }
        }
    }

    /// Removes a build that has ended.
    ///
    /// # Errors
    /// When it is running, or the file system refuses.
    pub fn remove(&self, id: &str) -> Result<()> {
        if file::is_held(&self.record_path(id)) {
            return Err(HistoryError::Running(id.to_owned()));
        }
        self.remove_files(id)
    }

    fn remove_files(&self, id: &str) -> Result<()> {
        // The record goes last: without it nobody finds the logs.
        let logs = self.logs_dir(id);
        ignore_missing(fs::remove_dir_all(&logs))
            .map_err(|source| HistoryError::io("remove", &logs, source))?;
        let path = self.record_path(id);
        ignore_missing(fs::remove_file(&path)).map_err(|source| HistoryError::io("remove", &path, source))
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Milliseconds since 1970 of a time.
pub fn millis(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Makes a directory for the owner alone, unless it is there.
fn make_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;
