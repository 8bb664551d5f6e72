//! `synced`: what is known to be on the disk, and what is done about the rest after a power loss.
//!
//! Nothing is fsynced one by one. As long as the kernel that took the writes is running, they are there, whoever is
//! killed. So the file `synced` names a boot and a time: what was put in place before that time was flushed by syncfs(2).
//! A store that is opened in another boot had no chance to flush the rest: whatever was put in place since (by its ctime,
//! which a rename sets) is verified before anybody sees it, blobs by their digests, unpacked layers by their sums. What was
//! cut short is removed, with a warning; records fall away with their layers, and a tag whose image is not whole any more is
//! removed and named. `index.db` is SQLite's own affair (a WAL with checksums: the last transactions may be missing), and
//! `index.json` has a predecessor that was on the disk.
//!
//! Not verified: cache mounts, whose content belongs to the programs that use them, and the bytes of unpacked layers
//! beyond their lengths. The latter is enough where data reaches the disk before the length that covers it: ext4 in its
//! default mode, XFS, btrfs.

use crate::Store;
use crate::error::{IoContext, Result};
use crate::fsck::FsckOptions;
use crate::fsutil::{lock_path, now, optional, replace_file};
use crate::ingest::to_trash;
use crate::layer::snapshot_id;
use crate::sum::Sum;
use rbuild_oci::Digest;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const MAGIC: &str = "rbuild.synced.v1";

/// Longest file that is read as a mark.
const MAX_LENGTH: u64 = 256;

/// By how many seconds times of files and of marks may be apart: steps of the clock, and inodes with coarse times.
const SLACK: i64 = 600;

/// A mark that is so far in the future was made by another clock, and says nothing.
const FUTURE: i64 = 2 * SLACK;

/// Seconds after which a build flushes what earlier ones have written.
const SYNC_AFTER: i64 = 600;

/// What a handle knows of flushing.
#[derive(Default)]
pub(crate) struct State {
    /// Time of the mark, seconds since 1970.
    mark: AtomicI64,
    started: AtomicBool,
}

/// The content of `synced`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    boot: String,
    time: i64,
}

impl Mark {
    /// `None` for one that is not there, or cannot be read: then nothing is known to be on the disk.
    fn read(root: &Path) -> Option<Self> {
        let path = root.join("synced");
        if fs::symlink_metadata(&path).ok()?.len() > MAX_LENGTH {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        if words.next() != Some(MAGIC) {
            return None;
        }
        let boot = words.next()?.to_owned();
        let time = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self { boot, time })
    }
}

/// The kernel's name for this boot.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    // Without /proc every boot looks like the same one: as if there were no check.
    if id.is_empty() { "unknown".to_owned() } else { id.to_owned() }
}

/// Writes the mark of a store that was just made: there is nothing yet to be lost.
pub(crate) fn begin(root: &Path, temporary: &Path) -> Result<()> {
    write_mark(root, temporary, now())
}

fn write_mark(root: &Path, temporary: &Path, time: i64) -> Result<()> {
    let path = root.join("synced");
    let text = format!("{MAGIC} {} {time}\n", boot_id());
    replace_file(temporary, &path, text.as_bytes()).at("write", &path)
}

/// When everything was flushed last, seconds since 1970; `None` if that was in an earlier boot or is not known.
pub(crate) fn flushed_at(root: &Path) -> Option<i64> {
    Mark::read(root).filter(|mark| mark.boot == boot_id()).map(|mark| mark.time)
}

impl Store {
    /// Flushes the store's file system, and marks all that is there now as being on the disk. Waits for the disk.
    pub fn sync(&self) -> Result<()> {
        let before = now();
        let root = File::open(self.root()).at("open", self.root())?;
        rustix::fs::syncfs(&root).map_err(std::io::Error::from).at("flush", self.root())?;
        write_mark(self.root(), &self.inner.session.new_path("j")?, before)?;
        self.inner.durable.mark.store(before, Ordering::Relaxed);
        Ok(())
    }

    /// Beside whatever goes on: flushes what earlier builds have put in place, if that was not done for a while. Called when
    /// something is put in place: what builds nothing flushes nothing.
    pub(crate) fn sync_at_times(&self) {
        let state = &self.inner.durable;
        let due = now().saturating_sub(state.mark.load(Ordering::Relaxed)) > SYNC_AFTER;
        if !due || state.started.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(temporary) = self.inner.session.new_path("j") else { return };
        let (root, before) = (self.root().to_owned(), now());
        let flush = move || {
            let flushed = File::open(&root).is_ok_and(|dir| rustix::fs::syncfs(&dir).is_ok());
            // Without a mark more is verified after a power loss, nothing else.
            if flushed {
                let _ = write_mark(&root, &temporary, before);
            }
        };
        let _ = std::thread::Builder::new().name("store-sync".into()).spawn(flush);
    }

    /// Verifies what a power loss may have taken, if this is the first time that the store is opened in this boot.
    pub(crate) fn check_boot(&self) -> Result<()> {
        let boot = boot_id();
        let mark = Mark::read(self.root());
        if let Some(mark) = &mark
            && mark.boot == boot
        {
            self.inner.durable.mark.store(mark.time, Ordering::Relaxed);
            if now() < mark.time {
                // The clock was set back: what is put in place now must not look older than the mark.
                write_mark(self.root(), &self.inner.session.new_path("j")?, now() - SLACK)?;
            }
            return Ok(());
        }
        let path = self.root().join("locks/boot");
        let _lock = lock_path(&path, FlockOperation::LockExclusive).at("lock", &path)?;
        let mark = match Mark::read(self.root()) {
            // Somebody else was first, and is done.
            Some(mark) if mark.boot == boot => return Ok(()),
            Some(mark) if mark.time <= now() + FUTURE => mark.time,
            _ => i64::MIN,
        };
        self.drop_lost(mark.saturating_sub(SLACK))?;
        // Nothing is flushed here: a store that was just unpacked may be all in memory, and large.
        let mark = mark.max(0);
        write_mark(self.root(), &self.inner.session.new_path("j")?, mark)?;
        self.inner.durable.mark.store(mark, Ordering::Relaxed);
        Ok(())
    }

    /// Removes what was put in place at or after `since` and is not whole.
    fn drop_lost(&self, since: i64) -> Result<()> {
        let is_new = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.ctime() >= since);
        let blobs = self.suspects("blobs/sha256", &is_new)?;
        let blobs: Vec<Digest> = blobs.iter().filter_map(|path| snapshot_id(path)).collect();
        let bad = self.verify_blobs(&blobs)?.bad;
        for (digest, _) in &bad {
            to_trash(self.root(), &self.blob_path(digest))?;
        }
        let mut layers = self.suspects("snapshots", &is_new)?;
        layers.retain(|path| {
            let whole = Sum::read(path)
                .is_some_and(|sum| Sum::measure(path).is_ok_and(|measured| measured.same_entries(&sum)));
            !whole
        });
        for path in &layers {
            to_trash(self.root(), path)?;
        }
        let mut fetched = self.suspects("http", &is_new)?;
        fetched.retain(|path| {
            let text = fs::read(path).unwrap_or_default();
            serde_json::from_slice::<serde_json::Value>(&text).is_err()
        });
        // git checks what it reads only now and then: what it has just fetched is fetched again.
        let mut repositories = self.suspects("git", &|_| true)?;
        let places = ["", "objects", "objects/pack", "refs", "FETCH_HEAD", "packed-refs", "HEAD"];
        repositories.retain(|path| places.iter().any(|place| is_new(&path.join(place))));
        for path in fetched.iter().chain(&repositories) {
            to_trash(self.root(), path)?;
        }
        if !(bad.is_empty() && layers.is_empty()) {
            crate::locked(&self.inner.warnings).push(format!(
                "the machine went down while writing: {} blobs and {} unpacked layers of {} were not whole and have been \
                 removed; they are made or fetched again when they are needed",
                bad.len(),
                layers.len(),
                self.root().display()
            ));
        }
        let report = self.fsck_images(&FsckOptions { repair: true, layers: None })?;
        for problem in report.problems {
            let repair = problem.repair.unwrap_or_default();
            crate::locked(&self.inner.warnings)
                .push(format!("{}: {}: {repair}", problem.object, problem.detail));
        }
        Ok(())
    }

    fn suspects(&self, place: &str, is_new: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
        let dir = self.root().join(place);
        let mut found = Vec::new();
        for entry in optional(fs::read_dir(&dir)).at("list", &dir)?.into_iter().flatten() {
            let path = entry.at("list", &dir)?.path();
            if snapshot_id(&path).is_some() && is_new(&path) {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// Whether a document that a power loss may have emptied says nothing at all.
pub(crate) fn is_void(text: &str) -> bool {
    text.chars().all(|c| c == '\0' || c.is_whitespace())
}

/// Keeps the `index.json` that is on the disk as `index.json.previous` before it is replaced. Failing to is no reason not to
/// replace it.
pub(crate) fn keep_previous(path: &Path, temporary: &Path) {
    let Some(root) = path.parent() else { return };
    let flushed = flushed_at(root).unwrap_or(i64::MIN);
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.ctime() < flushed)
        && fs::hard_link(path, temporary).is_ok()
    {
        let _ = fs::rename(temporary, root.join("index.json.previous"));
        // Renaming one link to another of the same file does nothing.
        let _ = fs::remove_file(temporary);
    }
}
