//! Paths inside a root filesystem that is not trusted: nothing here ever leaves the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, mkdirat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

/// As the kernel's own limit.
const MAX_SYMLINKS: usize = 40;

/// Opens `path` with the root's own symbolic links and no magic link (`/proc/…/fd/7`).
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename somewhere else raced with a `..`; the kernel asks to try again.
    for _ in 0..64 {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// `f_type` of procfs.
pub(crate) const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What the last component of a created path becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    Directory,
    File,
}

/// Something [`create_in_root`] made.
pub(crate) struct Created {
    /// The directory it is in.
    pub(crate) parent: OwnedFd,
    pub(crate) name: String,
    /// The thing itself, held so that its inode number stays its own.
    pub(crate) itself: OwnedFd,
    /// The directory's times before it was made.
    pub(crate) before: rustix::fs::Stat,
}

/// Opens `path` (`O_PATH`), making what is missing: directories 0755, a file 0644, all root:root. Dangling
/// symbolic links are followed inside the root. Reports what was made, outermost first.
pub(crate) fn create_in_root(
    root: BorrowedFd<'_>,
    path: &str,
    leaf: Leaf,
    created: &mut Vec<Created>,
) -> Result<OwnedFd, Errno> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => Walk::new(root, path)?.run(leaf, created),
        other => other,
    }
}

/// A walk by hand, component by component, that pops its own stack for `..` and reads links itself.
struct Walk {
    stack: Vec<OwnedFd>,
    /// Components still to go, last first.
    rest: Vec<String>,
    links: usize,
}

impl Walk {
    fn new(root: BorrowedFd<'_>, path: &str) -> Result<Self, Errno> {
        let mut walk = Walk {
            stack: vec![root.try_clone_to_owned().map_err(|_| Errno::MFILE)?],
            rest: Vec::new(),
            links: 0,
        };
        walk.push(path);
        Ok(walk)
    }

    fn push(&mut self, path: &str) {
        self.rest.extend(path.split('/').filter(|c| !c.is_empty() && *c != ".").rev().map(str::to_owned));
    }

    fn here(&self) -> BorrowedFd<'_> {
        // The root itself is never popped.
        self.stack[self.stack.len() - 1].as_fd()
    }

    fn run(mut self, leaf: Leaf, created: &mut Vec<Created>) -> Result<OwnedFd, Errno> {
        while let Some(name) = self.rest.pop() {
            if name == ".." {
                if self.stack.len() > 1 {
                    self.stack.pop();
                }
                continue;
            }
            let fd = match open_nofollow(self.here(), &name) {
                Err(Errno::NOENT) => {
                    let kind = if self.rest.is_empty() { leaf } else { Leaf::Directory };
                    make(self.here(), name, kind, created)?
                }
                other => other?,
            };
            // Nothing can be made below /proc, and its links are not to be followed.
            if fstatfs(&fd)?.f_type as u64 == PROC_SUPER_MAGIC {
                return Err(Errno::NOENT);
            }
            match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
                FileType::Symlink => self.follow(&fd)?,
                FileType::Directory => self.stack.push(fd),
                _ if self.rest.is_empty() => return Ok(fd),
                _ => return Err(Errno::NOTDIR),
            }
        }
        self.stack.pop().ok_or(Errno::NOENT)
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_SYMLINKS {
            return Err(Errno::LOOP);
        }
        let target = readlinkat(link, "", Vec::new())?;
        let target = target.to_str().map_err(|_| Errno::ILSEQ)?.to_owned();
        if target.starts_with('/') {
            self.stack.truncate(1);
        }
        self.push(&target);
        Ok(())
    }
}

fn open_nofollow(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn make(dir: BorrowedFd<'_>, name: String, kind: Leaf, created: &mut Vec<Created>) -> Result<OwnedFd, Errno> {
    let before = fstat(dir)?;
    let made = match kind {
        Leaf::Directory => mkdirat(dir, &name, Mode::from_raw_mode(0o755)),
        Leaf::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir, &name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    let fd = match made {
        // Another step made it in a cache mount that both share: then it is not ours to remove.
        Err(Errno::EXIST) => return open_nofollow(dir, &name),
        Err(e) => return Err(e),
        Ok(()) => open_nofollow(dir, &name)?,
    };
    let itself = rustix::io::fcntl_dupfd_cloexec(&fd, 3)?;
    let parent = rustix::io::fcntl_dupfd_cloexec(dir, 3)?;
    created.push(Created { parent, name, itself, before });
    Ok(fd)
}

/// Opens a trusted host path, or what lies below it at `subpath`, which may be hostile (`O_PATH`).
pub(crate) fn open_source(source: &std::path::Path, subpath: &str) -> Result<OwnedFd, Errno> {
    let fd = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if subpath.is_empty() { Ok(fd) } else { open_in_root(fd.as_fd(), subpath, OFlags::PATH) }
}

/// Opens a directory directly below the root, making it when missing; a symbolic link in its place is an error.
pub(crate) fn own_directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(root, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            mkdirat(root, name, Mode::from_raw_mode(0o755))?;
            openat(root, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// As [`own_directory`]; a link to a directory of the root's own filesystem will do as well.
pub(crate) fn own_or_linked_directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    match own_directory(root, name) {
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // Not into `/proc` or another mount: nothing may lie over those.
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
            openat2(root, name, flags, Mode::empty(), resolve)
        }
        other => other,
    }
}

/// Whether `name` in `dir` is still the file `itself`.
pub(crate) fn is_still(dir: BorrowedFd<'_>, name: &str, itself: BorrowedFd<'_>) -> bool {
    match (statat(dir, name, AtFlags::SYMLINK_NOFOLLOW), fstat(itself)) {
        (Ok(a), Ok(b)) => {
            (a.st_dev, a.st_ino, a.st_mode & libc::S_IFMT) == (b.st_dev, b.st_ino, b.st_mode & libc::S_IFMT)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
