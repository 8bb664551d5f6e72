//! Removing a directory tree.

use rbuild_tree::{PathError, TreePath, is_absent, kind_at, open_beneath, read_names};
use rustix::fs::{self, AtFlags, CWD, IFlags, Mode, OFlags, ResolveFlags, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Removes the directory `path` with all that is in it, in parallel on the current rayon pool. No symlink is followed
/// and no mount point entered (that is an error, as what is mounted there may be anybody's). Read-only and immutable
/// directories and files are made removable first. That there is nothing at `path` is no error.
pub fn remove_tree(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot remove a path without a name"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let dir = match openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    remove_at(dir.as_fd(), name)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot remove {}: {e}", path.display())))
}

/// Removes the entry `name` of `dir`, whatever it is.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlink(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let root = Arc::new(match enter(dir, name) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    });
    let removal = Removal { directories: Mutex::default(), error: Mutex::default() };
    rayon::scope(|scope| removal.empty(scope, Arc::clone(&root), TreePath::root()));
    if let Some(error) = removal.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut directories = removal.directories.into_inner().unwrap_or_else(PoisonError::into_inner);
    directories.sort_unstable_by(|a, b| b.cmp(a));
    for path in directories {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let removed = open_beneath(&root, &parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .and_then(|parent| unlink(parent.as_fd(), name, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(PathError::wrap("remove", &path, error)),
        }
    }
    Ok(unlink(dir, name, AtFlags::REMOVEDIR)?)
}

struct Removal {
    /// All below the root, emptied of everything but each other.
    directories: Mutex<Vec<TreePath>>,
    error: Mutex<Option<io::Error>>,
}

impl Removal {
    fn empty<'s>(&'s self, scope: &rayon::Scope<'s>, dir: Arc<OwnedFd>, path: TreePath) {
        if let Err(error) = self.try_empty(scope, &dir, &path) {
            self.fail(PathError::wrap("empty", &path, error));
        }
    }

    fn fail(&self, error: io::Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn try_empty<'s>(
        &'s self,
        scope: &rayon::Scope<'s>,
        dir: &Arc<OwnedFd>,
        path: &TreePath,
    ) -> rustix::io::Result<()> {
        for (name, kind) in read_names(&**dir)? {
            let is_dir = match kind_at(&**dir, &name, kind) {
                Ok(kind) => kind == Some(rbuild_tree::FileKind::Directory),
                Err(error) if is_absent(error) => continue,
                Err(error) => return Err(error),
            };
            if !is_dir {
                match unlink(dir.as_fd(), &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error),
                }
            }
            let child = path.join(&name);
            self.directories.lock().unwrap_or_else(PoisonError::into_inner).push(child.clone());
            let parent = Arc::clone(dir);
            scope.spawn(move |scope| match enter(parent.as_fd(), &name) {
                Ok(dir) => {
                    drop(parent);
                    self.empty(scope, Arc::new(dir), child);
                }
                Err(error) if is_absent(error) => {}
                Err(error) => self.fail(PathError::wrap("enter", &child, error)),
            });
        }
        Ok(())
    }
}

/// Opens a directory that is not a mount point, for reading and removing from.
fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS) => {
                let fd = openat(dir, name, flags, Mode::empty())?;
                // Without openat2 a bind mount of the same file system is not seen, but another device is.
                match fs::fstat(&fd)?.st_dev == fs::fstat(dir)?.st_dev {
                    true => Ok(fd),
                    false => Err(Errno::XDEV),
                }
            }
            result => result,
        }
    };
    let fd = match open() {
        Err(Errno::ACCESS) => {
            // Of our own, but without permission for ourselves.
            let _ = fs::chmodat(dir, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW);
            open()?
        }
        result => result?,
    };
    let stat = fs::fstat(&fd)?;
    if stat.st_mode & 0o700 != 0o700 {
        let _ = fs::fchmod(&fd, Mode::RWXU);
    }
    Ok(fd)
}

/// `unlinkat` that takes away the immutable and append-only flags of the entry and its directory if they are in the way.
fn unlink(dir: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> rustix::io::Result<()> {
    match fs::unlinkat(dir, name, flags) {
        Err(Errno::PERM) => {}
        result => return result,
    }
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut changed = clear_flags(dir);
    if let Ok(entry) = openat(dir, name, open, Mode::empty()) {
        changed |= clear_flags(entry.as_fd());
    }
    if changed { fs::unlinkat(dir, name, flags) } else { Err(Errno::PERM) }
}

/// Whether the file had flags that forbid removing and has no more.
fn clear_flags(file: BorrowedFd<'_>) -> bool {
    let forbidding = IFlags::IMMUTABLE | IFlags::APPEND;
    match fs::ioctl_getflags(file) {
        Ok(flags) if flags.intersects(forbidding) => fs::ioctl_setflags(file, flags - forbidding).is_ok(),
        _ => false,
    }
}
