//! `ingest/`: where everything is written before it is renamed into place; and `trash/`.

use crate::error::{IoContext, Result};
use crate::fsutil::{flock_fd, is_at, optional, random_name, remove_tree};
use crate::{StoreError, locked};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// This process's directory below `ingest/`, made at its first use and flocked until the store is closed.
pub(crate) struct Session {
    root: PathBuf,
    dir: Mutex<Option<(PathBuf, File)>>,
    next: AtomicU64,
}

impl Session {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), dir: Mutex::new(None), next: AtomicU64::new(0) }
    }

    /// A path that nothing has yet, in a directory that exists. `prefix` says what it is for.
    pub(crate) fn new_path(&self, prefix: &str) -> Result<PathBuf> {
        let mut slot = locked(&self.dir);
        let dir = match &*slot {
            Some((dir, _)) => dir,
            None => &slot.insert(self.make()?).0,
        };
        Ok(dir.join(format!("{prefix}{}", self.next.fetch_add(1, Ordering::Relaxed))))
    }

    /// A directory that is locked and still in its place: somebody clearing up may have taken it in the instant
    /// between its creation and the lock.
    fn make(&self) -> Result<(PathBuf, File)> {
        loop {
            let name = format!("{}-{}-{}", std::process::id(), boot_id(), random_name());
            let dir = self.root.join("ingest").join(name);
            fs::DirBuilder::new().mode(0o700).create(&dir).at("create", &dir)?;
            // From here on it may be gone at any time, until the lock is known to be on what is in its place.
            let Some(file) = optional(File::open(&dir)).at("open", &dir)? else { continue };
            let ours = flock_fd(&file, FlockOperation::NonBlockingLockExclusive).at("lock", &dir)?;
            if ours && is_at(&file, &dir).at("examine", &dir)? {
                file.set_permissions(fs::Permissions::from_mode(0o700)).at("change the mode of", &dir)?;
                return Ok((dir, file));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((dir, _lock)) = locked(&self.dir).take() {
            // Empty after an orderly build; what cannot be removed now is cleared away by the next process.
            let _ = fs::remove_dir(&dir).or_else(|_| remove_tree(&dir));
        }
    }
}

/// The first 8 digits of the kernel's boot id: it tells leftovers of this boot from older ones.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
        |_| "unknown".to_owned(),
        |id| id.chars().filter(char::is_ascii_hexdigit).take(8).collect(),
    )
}

/// Moves what killed processes left in `ingest/` to `trash/` and deletes the trash in the background.
pub(crate) fn clear_abandoned(root: &Path) -> Result<()> {
    let ingest = root.join("ingest");
    for entry in fs::read_dir(&ingest).at("list", &ingest)? {
        let path = entry.at("list", &ingest)?.path();
        if let Some(_lock) = lock_abandoned(&path) {
            let _ = to_trash(root, &path);
        }
    }
    let trash = root.join("trash");
    if fs::read_dir(&trash).at("list", &trash)?.next().is_some() {
        // Detached: what is not deleted when the process ends is deleted by the next one.
        let _ = std::thread::Builder::new().name("store-trash".into()).spawn(move || empty_trash(&trash));
    }
    Ok(())
}

/// The lock of a directory whose process is gone. It is kept over the rename: a process that has just made the
/// directory gets its own lock afterwards and sees by `is_at` that the place is gone.
fn lock_abandoned(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let free = flock_fd(&file, FlockOperation::NonBlockingLockExclusive).unwrap_or(false);
    (free && is_at(&file, path).unwrap_or(false)).then_some(file)
}

/// Renames `path` into `trash/`; returns its new path, `None` if there was nothing.
pub(crate) fn to_trash(root: &Path, path: &Path) -> Result<Option<PathBuf>> {
    let target = root.join("trash").join(random_name());
    match fs::rename(path, &target) {
        Ok(()) => Ok(Some(target)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("move away", path, e)),
    }
}

/// Deletes everything in the trash. Several processes may do so at once; what resists is left for the next time.
pub(crate) fn empty_trash(trash: &Path) {
    let Ok(entries) = fs::read_dir(trash) else { return };
    for entry in entries.flatten() {
        let _ = remove_tree(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Other processes clear up whenever they open the store, also between the creation of a session's directory and its lock.
    #[test]
    fn sessions_begin_while_others_clear_up() {
        let root = tempfile::tempdir().unwrap();
        for name in ["ingest", "trash"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let done = AtomicBool::new(false);
        let begin = || {
            for _ in 0..400 {
                Session::new(root.path()).new_path("x").map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        // Without the trash being emptied, which takes all the time.
                        for entry in fs::read_dir(root.path().join("ingest")).unwrap() {
                            let path = entry.unwrap().path();
                            if let Some(_lock) = lock_abandoned(&path) {
                                drop(to_trash(root.path(), &path));
                            }
                        }
                    }
                });
            }
            let failed = begin();
            done.store(true, Ordering::Relaxed);
            assert_eq!(failed, Ok(()));
        });
        empty_trash(&root.path().join("trash"));
    }
}
