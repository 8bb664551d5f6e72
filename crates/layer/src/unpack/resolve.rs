//! Directories below the destination, by descriptor.

use crate::UnpackError;
use crate::pack::retry_again;
use rbuild_tree::TreePath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;

/// Symlinks followed in one name, as in the kernel.
const MAX_LINKS: u32 = 40;

/// A directory and where it really is.
#[derive(Clone)]
pub(super) struct Dir {
    pub(super) fd: Rc<OwnedFd>,
    /// Its path below the destination without any symlink.
    pub(super) real: TreePath,
}

/// What to do about a directory that is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Fail,
}

pub(super) fn io_error(path: &TreePath, action: &'static str) -> impl FnOnce(Errno) -> UnpackError {
    move |e| UnpackError::Io { path: path.clone(), action, source: e.into() }
}

/// Opens the directory at a path that has no symlink in it.
pub(crate) fn open_real(root: BorrowedFd<'_>, real: &TreePath) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    retry_again(|| rustix::fs::openat2(root, real.as_at(), flags, Mode::empty(), confined))
}

/// Opens a directory by its name in another one, which costs the same however deep that is.
fn open_child(dir: &OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// `lstat` of a name in a directory; `None` when there is nothing.
pub(super) fn stat_name(dir: &OwnedFd, name: &std::ffi::OsStr) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Walks from the root to the directory `wanted`, one component after the other, following symlinks inside the root
/// (`..` and absolute targets end there). Missing directories are created and handed to `created`, with whether they hide
/// what a layer below has in their place.
/// `None` when one is missing and is not to be created.
pub(super) fn walk(
    root: BorrowedFd<'_>,
    entry: &TreePath,
    wanted: &TreePath,
    missing: Missing,
    mut created: impl FnMut(&TreePath, bool) -> Result<(), UnpackError>,
) -> Result<Option<Dir>, UnpackError> {
    let bad = |reason| UnpackError::Entry { path: entry.clone(), reason };
    let open = |real: &TreePath| open_real(root, real).map_err(io_error(entry, "open its directory"));
    let mut todo: VecDeque<OsString> = wanted.components().map(OsString::from).collect();
    let mut real = TreePath::root();
    let mut fd = open(&real)?;
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            real = real.parent().unwrap_or_default();
            fd = open(&real)?;
            continue;
        }
        let next = real.join(&name);
        let stat = stat_name(&fd, &name).map_err(io_error(entry, "look at its directory"))?;
        match stat.as_ref().map(|s| FileType::from_raw_mode(s.st_mode)) {
            Some(FileType::Directory) => {}
            Some(FileType::Symlink) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(bad("too many symbolic links in its name"));
                }
                let target = rustix::fs::readlinkat(&fd, &name, Vec::new())
                    .map_err(io_error(entry, "read a link in its name"))?
                    .into_bytes();
                if target.starts_with(b"/") {
                    real = TreePath::root();
                    fd = open(&real)?;
                }
                let parts = target.split(|c| *c == b'/').filter(|p| !p.is_empty() && *p != b".");
                for part in parts.rev() {
                    todo.push_front(OsString::from_vec(part.to_vec()));
                }
                if todo.len() > 4096 {
                    return Err(bad("its name is too long after following symbolic links"));
                }
                continue;
            }
            Some(_) if missing == Missing::Fail => return Ok(None),
            None if missing == Missing::Fail => return Ok(None),
            Some(_) if stat.as_ref().is_some_and(is_whiteout) => {
                // Deleted below and made anew here: an opaque directory.
                rustix::fs::unlinkat(&fd, &name, AtFlags::empty())
                    .map_err(io_error(entry, "replace a whiteout"))?;
                make_dir(&fd, &name, entry)?;
                let made = open_child(&fd, &name).map_err(io_error(entry, "open its directory"))?;
                set_opaque(&made).map_err(io_error(entry, "mark its directory opaque"))?;
                created(&next, true)?;
            }
            Some(_) => return Err(bad("a file stands where it needs a directory")),
            None => {
                make_dir(&fd, &name, entry)?;
                created(&next, false)?;
            }
        }
        fd = open_child(&fd, &name).map_err(io_error(entry, "open its directory"))?;
        real = next;
    }
    Ok(Some(Dir { fd: Rc::new(fd), real }))
}

fn make_dir(fd: &OwnedFd, name: &std::ffi::OsStr, entry: &TreePath) -> Result<(), UnpackError> {
    rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o700)).map_err(io_error(entry, "create its directory"))
}

/// Whether overlayfs takes the file for a whiteout.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Hides what lower layers have in the directory.
pub(super) fn set_opaque(dir: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(dir, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
}
