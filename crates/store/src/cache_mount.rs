//! `cache-mounts/`: directories of RUN --mount=type=cache, which outlive builds.
//!
//! `<hex>-<n>/` is the n-th directory of an id, `<hex>-<n>.lock` its lock: shared while steps use it side by side,
//! exclusive while one has it alone, fills it or throws its content away. Only `private` users ever get another
//! directory than number 0. A directory that exists is complete: it was filled elsewhere and renamed into place.

use crate::error::{IoContext, Result};
use crate::fsutil::{flock_fd, lock_path, optional};
use crate::ingest::to_trash;
use crate::{LayerIngest, Store};
use rbuild_oci::Digest;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, futimens};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most directories of one id; as many `private` users at once.
const MAX_DIRECTORIES: usize = 1024;

/// Ends the name of a lock file.
const LOCK: &str = ".lock";

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
