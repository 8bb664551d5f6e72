//! `cache-mounts/`: directories of RUN --mount=type=cache, which outlive builds.
//!
//! `<hex>-<n>/` is the n-th directory of an id, `<hex>-<n>.lock` its lock: shared while steps use it side by side,
//! exclusive while one has it alone, fills it or throws its content away. Only `private` users ever get another
//! directory than number 0. The lock file's content is the id as it was written, so that it can be told to people; files
//! of older stores are empty until the mount is used again. A directory that exists is complete: it was filled elsewhere and renamed into place.

use crate::error::{IoContext, Result};
use crate::fsutil::{flock_fd, lock_path, optional};
use crate::ingest::{empty_trash, to_trash};
use crate::meter::Meter;
use crate::{LayerIngest, Store};
use rbuild_oci::Digest;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, futimens};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Most directories of one id; as many `private` users at once.
const MAX_DIRECTORIES: usize = 1024;

/// Ends the name of a lock file.
const LOCK: &str = ".lock";

/// Longest id that is remembered, in bytes.
const MAX_ID: usize = 4096;

/// What there is of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// Name of its directory: a hash of the id and of what the mount begins with.
    pub directory: Digest,
    /// Which of its directories; only `private` users have others than 0.
    pub number: usize,
    /// The id, as it was written; `None` if the store is older than the memory of ids.
    pub id: Option<String>,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last used, seconds since 1970.
    pub last_used: i64,
    /// Whether somebody uses it now.
    pub in_use: bool,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheMountSharing {
    /// Everyone, one directory.
    Shared,
    /// Everyone, own directories.
    Private,
    /// One after the other.
    Locked,
}

/// A directory that is held. Dropping it lets go; the kernel does when the process dies.
#[derive(Debug)]
pub struct CacheMount {
    store: Store,
    data: PathBuf,
    file: File,
    exclusive: bool,
}

impl Store {
    /// Takes hold of a directory of the id; `None` while others are in the way.
    ///
    /// Without `alone`, `Shared` users hold one that is there already together. In every other case it is held
    /// exclusively, and may not exist yet ([`CacheMount::is_new`]): fill it, then [`CacheMount::share`] it.
    pub fn try_cache_mount(
        &self,
        id: &Digest,
        sharing: CacheMountSharing,
        alone: bool,
    ) -> Result<Option<CacheMount>> {
        if sharing == CacheMountSharing::Private {
            for number in 0..MAX_DIRECTORIES {
                if let Some(mount) = self.hold(id, number, FlockOperation::NonBlockingLockExclusive)? {
                    return Ok(Some(mount));
                }
            }
            return Ok(None);
        }
        if sharing == CacheMountSharing::Shared && !alone {
            let mount = self.hold(id, 0, FlockOperation::NonBlockingLockShared)?;
            match mount {
                Some(mount) if mount.is_new()? => drop(mount),
                held => return Ok(held),
            }
        }
        self.hold(id, 0, FlockOperation::NonBlockingLockExclusive)
    }

    fn hold(&self, id: &Digest, number: usize, operation: FlockOperation) -> Result<Option<CacheMount>> {
        let data = self.cache_mounts_dir().join(format!("{}-{number}", id.hex()));
        let lock = lock_of(&data);
        let Some(file) = lock_path(&lock, operation).at("lock", &lock)? else { return Ok(None) };
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // The time of last use; without it prune chooses worse, nothing else.
        let _ = futimens(&file, &Timestamps { last_access: now, last_modification: now });
        let exclusive = operation == FlockOperation::NonBlockingLockExclusive;
        Ok(Some(CacheMount { store: self.clone(), data, file, exclusive }))
    }

    /// Every cache mount, by id.
    pub fn list_cache_mounts(&self) -> Result<Vec<CacheMountInfo>> {
        let mut found = Vec::new();
        for (directory, path) in self.cache_mounts()? {
            let (last_used, free) = self.cache_mount_state(&path)?;
            found.push(CacheMountInfo {
                directory,
                number: number_of(&path),
                id: cache_mount_id(&path),
                bytes: Meter::default().tree(&path),
                last_used,
                in_use: !free,
                path,
            });
        }
        found.sort_by(|a, b| (&a.id, a.directory, a.number).cmp(&(&b.id, b.directory, b.number)));
        Ok(found)
    }

    /// Removes a cache mount that was listed, unless somebody uses it; whether it did.
    pub fn remove_listed_cache_mount(&self, mount: &CacheMountInfo) -> Result<bool> {
        let removed = self.remove_cache_mount(&mount.path)?;
        empty_trash(&self.root().join("trash"));
        Ok(removed)
    }

    /// Every cache mount: its directory, and the id it has in reports.
    pub(crate) fn cache_mounts(&self) -> Result<Vec<(Digest, PathBuf)>> {
        let dir = self.cache_mounts_dir();
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.split_once('-').filter(|(_, number)| number.parse::<usize>().is_ok());
            if let Some(id) = id.and_then(|(hex, _)| Digest::from_hex(hex)) {
                found.push((id, path));
            }
        }
        Ok(found)
    }

    /// When a cache mount was last used, seconds since 1970, and whether nobody uses it now.
    pub(crate) fn cache_mount_state(&self, data: &Path) -> Result<(i64, bool)> {
        let lock = lock_of(data);
        let used = optional(fs::symlink_metadata(&lock)).at("examine", &lock)?.map_or(0, |meta| meta.mtime());
        let held = lock_path(&lock, FlockOperation::NonBlockingLockExclusive).at("lock", &lock)?;
        Ok((used, held.is_some()))
    }

    /// Moves a cache mount away unless somebody uses it; whether it did.
    pub(crate) fn remove_cache_mount(&self, data: &Path) -> Result<bool> {
        let lock = lock_of(data);
        let held = lock_path(&lock, FlockOperation::NonBlockingLockExclusive).at("lock", &lock)?;
        if held.is_none() {
            return Ok(false);
        }
        to_trash(self.root(), data)?;
        // While it is still locked: see `lock_path`.
        optional(fs::remove_file(&lock)).at("remove", &lock)?;
        Ok(true)
    }
}

fn number_of(data: &Path) -> usize {
    let name = data.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
}

/// The id of a cache mount as it was written, if it is remembered.
pub(crate) fn cache_mount_id(data: &Path) -> Option<String> {
    let mut text = Vec::new();
    let lock = File::open(lock_of(data)).ok()?;
    lock.take(MAX_ID as u64).read_to_end(&mut text).ok()?;
    String::from_utf8(text).ok().filter(|id| !id.is_empty())
}

fn lock_of(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(LOCK);
    name.into()
}

impl CacheMount {
    /// The directory. Its content is not to be trusted: steps wrote it.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Remembers the id, which is the same for everyone who holds this directory: who writes it a second time changes
    /// nothing. Without it lists are worse to read, nothing else, so that it cannot fail.
    pub fn remember_id(&self, id: &str) {
        if !id.is_empty() && id.len() <= MAX_ID && cache_mount_id(&self.data).as_deref() != Some(id) {
            let written = self.file.write_all_at(id.as_bytes(), 0);
            drop(written.and_then(|()| self.file.set_len(id.len() as u64)));
        }
    }

    /// Whether nobody else uses it.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Whether the directory does not exist yet.
    pub fn is_new(&self) -> Result<bool> {
        Ok(optional(fs::symlink_metadata(&self.data)).at("examine", &self.data)?.is_none())
    }

    /// Throws the content away. To be called by an exclusive holder.
    pub fn clear(&self) -> Result<()> {
        to_trash(self.store.root(), &self.data).map(drop)
    }

    /// Makes the upper directory of `ingest` the content of a new one. To be called by an exclusive holder.
    pub fn fill(&self, ingest: &LayerIngest) -> Result<()> {
        fs::rename(&ingest.upper, &self.data).at("put in place", &self.data)
    }

    /// Lets other `Shared` users in. `None` if somebody got in between, who may have thrown the content away: take hold
    /// again.
    pub fn share(mut self) -> Result<Option<Self>> {
        let lock = lock_of(&self.data);
        if !flock_fd(&self.file, FlockOperation::NonBlockingLockShared).at("share", &lock)? {
            return Ok(None);
        }
        self.exclusive = false;
        let same = crate::fsutil::is_at(&self.file, &lock).at("examine", &lock)?;
        Ok(if same && !self.is_new()? { Some(self) } else { None })
    }
}
