//! How much history is kept.

use crate::record::Millis;
use crate::{History, Result, file};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is kept. BuildKit keeps 50 builds of two days (C-024); here a miss is explained by the build before, so that of
/// a nightly pipeline should still be there. A record takes a few kilobytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Builds, the newest; 0 records nothing.
    pub entries: usize,
    /// How old a build may be.
    pub age: Duration,
    /// Bytes of records, logs and lists of files together.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1000, age: Duration::from_secs(30 * 86_400), bytes: 512 << 20 }
    }
}

/// A list of files that is used has a time of use that is at most this old.
pub(crate) const TOUCHED: Duration = Duration::from_secs(86_400);

/// A build that wrote more than this part of the limit is followed by a count of all sizes.
const MUCH: u64 = 64;
/// Sizes are counted at most this often otherwise.
const BETWEEN: Duration = Duration::from_secs(15 * 60);

impl History {
    /// Removes the oldest builds until the limits are kept, and lists of files that no build is left for. Running builds
    /// stay. Returns the ids of the removed builds.
    ///
    /// # Errors
    /// When a directory cannot be read, or something in it not be removed.
    pub fn trim(&self, limits: &Limits, now: Millis) -> Result<Vec<String>> {
        self.mark_trimmed();
        let mut bytes = size_of_files(&self.listings_dir());
        let (removed, kept) = self.remove_beyond(limits, now, |id| {
            bytes += self.size(id);
            bytes > limits.bytes
        })?;
        self.trim_listings(kept.last().map(String::as_str))?;
        Ok(removed)
    }

    /// [`History::trim`] at the end of a build that wrote so many bytes: sizes are counted only now and then, since that
    /// costs as much as a small build.
    pub(crate) fn trim_after_build(&self, limits: &Limits, now: Millis, written: u64) -> Result<()> {
        if written > limits.bytes / MUCH || self.is_untrimmed() {
            return self.trim(limits, now).map(drop);
        }
        self.remove_beyond(limits, now, |_| false).map(drop)
    }

    /// Removes the builds that are too many, too old, or of which `too_much` says so; the newest are asked about first.
    fn remove_beyond(
        &self,
        limits: &Limits,
        now: Millis,
        mut too_much: impl FnMut(&str) -> bool,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let oldest = now.saturating_sub(u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX));
        let oldest = crate::id::time_of(oldest);
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        for (place, id) in self.ids()?.into_iter().enumerate() {
            let over = place >= limits.entries || *id < *oldest || too_much(&id);
            if over && !file::is_held(&self.record_path(&id)) {
                self.remove_files(&id)?;
                removed.push(id);
            } else {
                kept.push(id);
            }
        }
        Ok((removed, kept))
    }

    fn marker(&self) -> PathBuf {
        self.dir.join("trimmed")
    }

    /// Whether sizes were not counted for a while.
    fn is_untrimmed(&self) -> bool {
        let trimmed = fs::metadata(self.marker()).and_then(|meta| meta.modified());
        // A clock that was set back counts as long ago.
        trimmed.ok().and_then(|trimmed| trimmed.elapsed().ok()).is_none_or(|since| since > BETWEEN)
    }

    fn mark_trimmed(&self) {
        // Without it sizes are counted too often.
        drop(fs::write(self.marker(), ""));
    }

    /// Removes lists of files that only builds before `oldest` used; all of them if there is no build left.
    fn trim_listings(&self, oldest: Option<&str>) -> Result<()> {
        let since = match oldest {
            Some(id) => match file::read_begin(&self.record_path(id)) {
                Ok(begin) => UNIX_EPOCH + Duration::from_millis(begin.started),
                // When it began is not known: nothing is removed.
                Err(_) => return Ok(()),
            },
            None => SystemTime::now(),
        };
        for entry in fs::read_dir(self.listings_dir()).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|meta| meta.modified());
            if used.is_ok_and(|used| used + TOUCHED < since) {
                // Whoever was first has removed it.
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }

    /// What a build takes, without the lists of files that it shares.
    fn size(&self, id: &str) -> u64 {
        let record = fs::metadata(self.record_path(id)).map_or(0, |meta| meta.len());
        record + size_of_files(&self.logs_dir(id))
    }

    /// What all of it takes.
    pub fn bytes(&self) -> Result<u64> {
        let builds: u64 = self.ids()?.iter().map(|id| self.size(id)).sum();
        Ok(builds + size_of_files(&self.listings_dir()))
    }

    /// Removes records' logs without a record: a removal that was interrupted.
    pub fn remove_orphans(&self) -> Result<()> {
        let ids: BTreeSet<String> = self.ids()?.into_iter().collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".logs"));
            if id.is_some_and(|id| crate::id::is_id(id) && !ids.contains(id)) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        Ok(())
    }
}

fn size_of_files(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}
