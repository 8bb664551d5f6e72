//! Digests remembered with the state each file was in when it was hashed.
//!
//! One file per context root. It is read at once and searched as it is:
//!
//! ```text
//! magic "rbstat" 0 version(u8) · count(u64) · count records, sorted by path · path bytes · SHA-256 of all before
//! record: path offset(u32) · path length(u32) · dev · ino · size (u64) · mtime · ctime (i64 s, u32 ns) · digest(32)
//!         · bare(u8): 1 if the file has no `security.capability`
//! ```
//!
//! All numbers are little-endian. A file that is damaged, of another version or not there is an empty cache.
//! Processes replace it by rename, each with what it found merged into what is there then: the last one wins, which
//! at worst forgets something.

use crate::order::path_order;
use rbuild_oci::Digest;
use rbuild_tree::{CAPABILITY, StatId, Timestamp, TreePath};
use rustix::fs::{StatFs, fgetxattr, fstatfs};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Atomic};
use std::sync::{Mutex, PoisonError};

const MAGIC: &[u8; 8] = b"rbstat\0\x01";
const HEADER: usize = 16;
const RECORD: usize = 8 + 24 + 24 + 32 + 1;
const CHECKSUM: usize = 32;
/// A cache file larger than this is not read; it would be of a context of about ten million files.
const MAX_FILE: u64 = 1 << 30;
/// Records of files that were not seen are kept for other .dockerignore files of the same root, but no more of them
/// than there are seen ones, and this.
const SPARE_UNSEEN: usize = 1000;

/// What the clock that stamps files may lag behind: a tick is 10 ms at most.
const TICK_NANOS: i128 = 20_000_000;
/// The same for inodes that only hold seconds.
const SECONDS_NANOS: i128 = 2_000_000_000;
/// File systems whose times are this machine's own and never come from a cache of attributes: ext2 to ext4, XFS, Btrfs,
/// tmpfs, overlayfs, F2FS, ZFS, bcachefs.
const LOCAL: [u64; 8] =
    [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0xF2F5_2010, 0x2FC1_2FC1, 0xCA45_1A4E];

/// The digests of the files of one context root, as they were found by earlier builds (DESIGN promise 1).
///
/// A digest is only recorded when the file's ctime, at the time of hashing, was older than the granularity of its
/// clock, so that any later write gives the file another ctime; and only on local file systems, whose attributes are
/// always current. It is only answered when device, inode, size, mtime and ctime are all as recorded.
#[derive(Debug)]
pub struct StatCache {
    file: PathBuf,
    table: Table,
    found: Mutex<HashMap<TreePath, Known>>,
    /// For each thread where the last record was that it looked for.
    hints: Vec<AtomicUsize>,
}

/// What is remembered of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// The state it was in.
    pub(crate) stat: StatId,
    /// Digest of its bytes.
    pub(crate) digest: Digest,
    /// Whether it has no `security.capability`.
    pub(crate) bare: bool,
}

impl StatCache {
    /// Loads the cache of the context `root` from the directory `dir`, which need not exist yet.
    pub fn open(dir: impl AsRef<Path>, root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let file = dir.as_ref().join(Digest::of(root.as_os_str().as_bytes()).hex());
        let table = Table::load(&file);
        let hints = (0..rayon::current_num_threads()).map(|_| AtomicUsize::new(0)).collect();
        Self { file, table, found: Mutex::default(), hints }
    }

    /// The remembered digest of a file that is in the state `stat`. `hint` makes lookups in path order fast.
    pub(crate) fn get(&self, hint: &mut usize, path: &TreePath, stat: &StatId) -> Option<Digest> {
        if let Some(known) = self.found().get(path)
            && known.stat == *stat
        {
            return Some(known.digest);
        }
        self.in_table(hint, path, stat).map(|known| known.digest)
    }

    fn in_table(&self, hint: &mut usize, path: &TreePath, stat: &StatId) -> Option<Known> {
        let index = self.table.find(hint, path.as_bytes())?;
        self.table.record(index).map(|record| record.known).filter(|known| known.stat == *stat)
    }

    /// Whether the file, in this state, is known to have no `security.capability`. For parallel walks.
    pub(crate) fn is_bare(&self, path: &TreePath, stat: &StatId) -> bool {
        let shared = rayon::current_thread_index().and_then(|thread| self.hints.get(thread));
        let mut hint = shared.map_or(0, |hint| hint.load(Atomic::Relaxed));
        let known = self.in_table(&mut hint, path, stat);
        if let Some(shared) = shared {
            shared.store(hint, Atomic::Relaxed);
        }
        known.is_some_and(|known| known.bare)
    }

    pub(crate) fn put(&self, path: &TreePath, known: Known) {
        self.found().insert(path.clone(), known);
    }

    fn found(&self) -> std::sync::MutexGuard<'_, HashMap<TreePath, Known>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was found since the cache was opened; `false` if there was nothing. `seen` says of a path whether
    /// the file is known to be there still.
    pub(crate) fn save(&self, mut seen: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
        let found = std::mem::take(&mut *self.found());
        if found.is_empty() {
            return Ok(false);
        }
        // Another process may have written in the meantime.
        let current = Table::load(&self.file);
        let mut records: Vec<Record<'_>> =
            found.iter().map(|(path, known)| Record { path: path.as_bytes(), known: *known }).collect();
        let old = (0..current.count).filter_map(|index| current.record(index));
        let (seen, unseen): (Vec<_>, Vec<_>) =
            old.filter(|record| !is_known(&found, record.path)).partition(|record| seen(record.path));
        records.extend(seen);
        let spare = records.len() + SPARE_UNSEEN;
        records.extend(unseen.into_iter().take(spare));
        records.sort_unstable_by(|a, b| path_order(a.path, b.path));
        self.write(&encode(&records)?)?;
        Ok(true)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Atomic::Relaxed);
        let temporary = self.file.with_extension(format!("{}.{number}.tmp", std::process::id()));
        let written = || -> io::Result<()> {
            if let Some(dir) = self.file.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let mut out = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            out.write_all(bytes)?;
            drop(out);
            std::fs::rename(&temporary, &self.file)
        };
        written().map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            let message = format!("cannot write the stat cache {}: {error}", self.file.display());
            io::Error::new(error.kind(), message)
        })
    }
}

fn is_known(found: &HashMap<TreePath, Known>, path: &[u8]) -> bool {
    TreePath::strict(path).is_ok_and(|path| found.contains_key(&path))
}

/// Whether an open file has no `security.capability`.
pub(crate) fn is_bare(file: impl AsFd) -> bool {
    let mut value = [0; 64];
    matches!(fgetxattr(file, CAPABILITY, &mut value), Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// Whether a later write to an open file with this ctime would certainly change it; asked before it is read.
pub(crate) fn is_settled(file: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(&file) else { return false };
    let Ok(StatFs { f_type, .. }) = fstatfs(&file) else { return false };
    let now = clock_gettime(ClockId::Realtime);
    let now = Timestamp { seconds: now.tv_sec, nanos: now.tv_nsec as u32 };
    LOCAL.contains(&(f_type as u64 & 0xFFFF_FFFF)) && is_past(StatId::from(&stat).ctime, now)
}

/// Whether a clock that shows `now` stamps nothing with `then` any more.
fn is_past(then: Timestamp, now: Timestamp) -> bool {
    let nanos = |t: Timestamp| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
    let granularity = if then.nanos == 0 { SECONDS_NANOS } else { TICK_NANOS };
    nanos(then) + granularity < nanos(now)
}

struct Record<'a> {
    path: &'a [u8],
    known: Known,
}

fn encode(records: &[Record<'_>]) -> io::Result<Vec<u8>> {
    let paths: usize = records.iter().map(|record| record.path.len()).sum();
    let mut out = Vec::with_capacity(HEADER + records.len() * RECORD + paths + CHECKSUM);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(records.len() as u64).to_le_bytes());
    let mut offset = 0u32;
    for Record { path, known: Known { stat, digest, bare } } in records {
        let length = u32::try_from(path.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        for number in [stat.dev, stat.ino, stat.size] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [stat.mtime, stat.ctime] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanos.to_le_bytes());
        }
        out.extend_from_slice(digest.as_bytes());
        out.push(u8::from(*bare));
        offset = offset.checked_add(length).ok_or_else(|| io::Error::other("too many paths"))?;
    }
    records.iter().for_each(|record| out.extend_from_slice(record.path));
    let checksum = Digest::of(&out);
    out.extend_from_slice(checksum.as_bytes());
    Ok(out)
}

/// A cache file in memory.
#[derive(Debug, Default)]
struct Table {
    bytes: Vec<u8>,
    count: usize,
}

impl Table {
    fn load(file: &Path) -> Self {
        match std::fs::metadata(file) {
            Ok(meta) if meta.is_file() && meta.len() <= MAX_FILE => {}
            _ => return Self::default(),
        }
        std::fs::read(file).ok().and_then(Self::check).unwrap_or_default()
    }

    fn check(bytes: Vec<u8>) -> Option<Self> {
        let body = bytes.len().checked_sub(CHECKSUM)?;
        let count = u64::from_le_bytes(bytes.get(8..HEADER)?.try_into().ok()?);
        let count = usize::try_from(count).ok()?;
        let fits = count.checked_mul(RECORD)?.checked_add(HEADER)? <= body;
        let right =
            bytes.get(..8)? == MAGIC && fits && Digest::of(&bytes[..body]).as_bytes()[..] == bytes[body..];
        right.then_some(Self { bytes, count })
    }

    fn path(&self, index: usize) -> Option<&[u8]> {
        let at = HEADER + index.checked_mul(RECORD)?;
        let start = u32::from_le_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?) as usize;
        let length = u32::from_le_bytes(self.bytes.get(at + 4..at + 8)?.try_into().ok()?) as usize;
        let heap = self.bytes.get(HEADER + self.count * RECORD..self.bytes.len() - CHECKSUM)?;
        heap.get(start..start.checked_add(length)?)
    }

    fn record(&self, index: usize) -> Option<Record<'_>> {
        let at = HEADER + index.checked_mul(RECORD)?;
        let bytes = self.bytes.get(at..at + RECORD)?;
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let time = |at: usize| -> Option<Timestamp> {
            let nanos = bytes.get(at + 8..at + 12)?.try_into().ok().map(u32::from_le_bytes)?;
            Some(Timestamp { seconds: number(at)? as i64, nanos })
        };
        let stat = StatId {
            dev: number(8)?,
            ino: number(16)?,
            size: number(24)?,
            mtime: time(32)?,
            ctime: time(44)?,
        };
        let digest = Digest::from_bytes(bytes.get(56..88)?.try_into().ok()?);
        let bare = *bytes.get(88)? == 1;
        Some(Record { path: self.path(index)?, known: Known { stat, digest, bare } })
    }

    /// The record of `path`: the one at `hint`, or by binary search. Leaves `hint` after it.
    fn find(&self, hint: &mut usize, path: &[u8]) -> Option<usize> {
        let index = if *hint < self.count && self.path(*hint)? == path {
            *hint
        } else {
            let (mut low, mut high) = (0, self.count);
            loop {
                if low >= high {
                    return None;
                }
                let middle = low + (high - low) / 2;
                match path_order(self.path(middle)?, path) {
                    Ordering::Less => low = middle + 1,
                    Ordering::Greater => high = middle,
                    Ordering::Equal => break middle,
                }
            }
        };
        *hint = index + 1;
        Some(index)
    }
}

#[cfg(test)]
mod tests;
