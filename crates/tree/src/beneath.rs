//! Opening and examining what lies below a directory that is held open, without ever following a symlink.

use crate::{FileKind, Metadata, Timestamp, TreePath, Xattrs};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The only extended attribute a layer carries (B-017); `user.*` and all others are dropped.
pub const CAPABILITY: &str = "security.capability";
/// Longest path the kernel takes in one call, without its NUL.
const PATH_MAX: usize = 4095;
/// A `security.capability` value has 12, 20 or 24 bytes; anything longer than this is none.
const MAX_CAPABILITY: usize = 256;

/// Set once the kernel has answered that it has no `openat2` (before Linux 5.6, or a seccomp filter).
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// What went wrong at which path of a tree; the source of the `io::Error`s of this crate, whose `kind()` is kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct PathError {
    /// What was attempted, as a verb: `open`, `read`.
    pub action: &'static str,
    /// The path inside the tree.
    pub path: TreePath,
    /// What the system said.
    pub source: io::Error,
}

impl PathError {
    /// Wraps an error in an `io::Error` of the same kind that names `path`.
    pub fn wrap(action: &'static str, path: &TreePath, source: impl Into<io::Error>) -> io::Error {
        let source = source.into();
        io::Error::new(source.kind(), Self { action, path: path.clone(), source })
    }
}

/// What identifies the state of a file: when all of it is unchanged, so are the file's bytes (DESIGN promise 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatId {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of the bytes; can be set by anyone.
    pub mtime: Timestamp,
    /// Time of the last change of bytes or metadata; set by the kernel only.
    pub ctime: Timestamp,
}

impl From<&Stat> for StatId {
    fn from(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime: Timestamp { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            ctime: Timestamp { seconds: stat.st_ctime, nanos: stat.st_ctime_nsec as u32 },
        }
    }
}

/// Opens `path` below `root`. No component may be a symlink (`ELOOP`, or `ENOTDIR` before the last one), and nothing
/// outside `root` can be reached. With `O_PATH` the last component may be a symlink and is opened itself.
pub fn open_beneath(
    root: impl AsFd,
    path: &TreePath,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let root = root.as_fd();
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.as_bytes().len() > PATH_MAX || NO_OPENAT2.load(Ordering::Relaxed) {
        return open_by_component(root, path, flags, mode);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // openat2 refuses a mode without O_CREAT.
    let create_mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
    match fs::openat2(root, path.as_at(), flags, create_mode, resolve) {
        Err(Errno::NOSYS) => {
            NO_OPENAT2.store(true, Ordering::Relaxed);
            open_by_component(root, path, flags, mode)
        }
        // Old container runtimes' seccomp filters answer EPERM for calls they do not know.
        Err(Errno::PERM) => open_by_component(root, path, flags, mode),
        result => result,
    }
}

/// [`open_beneath`] with one `openat` per component.
fn open_by_component(
    root: BorrowedFd<'_>,
    path: &TreePath,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut components = path.components().peekable();
    let mut dir: Option<OwnedFd> = None;
    while let Some(name) = components.next() {
        let at = dir.as_ref().map_or(root, |fd| fd.as_fd());
        if components.peek().is_none() {
            return fs::openat(at, name, flags, mode);
        }
        dir = Some(fs::openat(at, name, step, Mode::empty())?);
    }
    fs::openat(root, ".", flags, mode)
}

/// Whether an error of [`open_beneath`] or `fstatat` only says that there is nothing at that path.
pub fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
}

/// `fstatat` of the entry `name` in `dir`, without following it.
pub fn stat_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> rustix::io::Result<Stat> {
    fs::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// The type of a file.
pub(crate) fn kind_of(stat: &Stat) -> Option<FileKind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::Unknown => return None,
    })
}

/// Metadata of the entry `name` in `dir`, whose `stat` is at hand: adds the link target and extended attributes.
pub fn metadata_at(dir: impl AsFd, name: &OsStr, stat: &Stat) -> rustix::io::Result<Metadata> {
    metadata_with(dir.as_fd(), name, stat, false)
}

/// [`metadata_at`]; a `bare` file is known to have no extended attribute that counts.
pub(crate) fn metadata_with(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    bare: bool,
) -> rustix::io::Result<Metadata> {
    let kind = kind_of(stat).ok_or(Errno::INVAL)?;
    let link_target = match kind {
        FileKind::Symlink => fs::readlinkat(dir, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let mut xattrs = Xattrs::new();
    if kind == FileKind::Regular
        && !bare
        && let Some(value) = capability_at(dir, name)?
    {
        xattrs.insert(CAPABILITY.into(), value);
    }
    Ok(metadata_from(kind, stat, link_target, xattrs))
}

fn metadata_from(kind: FileKind, stat: &Stat, link_target: Vec<u8>, xattrs: Xattrs) -> Metadata {
    let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    Metadata {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == FileKind::Regular { stat.st_size as u64 } else { 0 },
        mtime: Timestamp { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        rdev: if device { (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)) } else { (0, 0) },
        link_target,
        hard_link: (kind != FileKind::Directory && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
        xattrs,
    }
}

/// Metadata of an open directory.
pub fn metadata_of_dir(fd: impl AsFd) -> rustix::io::Result<Metadata> {
    let stat = fs::fstat(fd)?;
    Ok(metadata_from(FileKind::Directory, &stat, Vec::new(), Xattrs::new()))
}

/// `security.capability` of a regular file, by one call on `/proc/self/fd/DIR/NAME`: as safe as `*at`, since only the
/// last component can be a symlink, which `lgetxattr` does not follow. (`getxattrat` needs Linux 6.13.)
fn capability_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut path = Vec::with_capacity(32 + name.len());
    path.extend_from_slice(b"/proc/self/fd/");
    path.extend_from_slice(dir.as_raw_fd().to_string().as_bytes());
    path.push(b'/');
    path.extend_from_slice(name.as_bytes());
    let mut value = [0; MAX_CAPABILITY];
    match fs::lgetxattr(&path[..], CAPABILITY, &mut value) {
        // No /proc here, or the file is gone: opening it tells.
        Err(Errno::NOENT) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::openat(dir, name, flags, Mode::empty())?;
            capability(fs::fgetxattr(file, CAPABILITY, &mut value), &value)
        }
        result => capability(result, &value),
    }
}

fn capability(result: rustix::io::Result<usize>, value: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    match result {
        Ok(len) => Ok(Some(value[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Both ways to open must agree on every kind of path.
    #[test]
    fn nothing_is_opened_through_a_symlink() {
        let tmp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::fs::create_dir(tmp.path().join("dir")).unwrap();
        std::fs::write(tmp.path().join("dir/file"), "x").unwrap();
        symlink(outside.path(), tmp.path().join("out")).unwrap();
        symlink("dir", tmp.path().join("in")).unwrap();
        symlink("file", tmp.path().join("dir/link")).unwrap();
        let root = std::fs::File::open(tmp.path()).unwrap();
        for (path, expected) in [
            ("dir/file", None),
            ("dir", None),
            ("", None),
            ("out/secret", Some(true)),
            ("in/file", Some(true)),
            ("dir/link", Some(true)),
            ("out", Some(true)),
            ("dir/absent", Some(true)),
            ("dir/file/x", Some(true)),
        ] {
            let path = TreePath::clamped(path).unwrap();
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let one = open_beneath(&root, &path, flags, Mode::empty()).err().map(is_absent);
            let two = open_by_component(root.as_fd(), &path, flags, Mode::empty()).err().map(is_absent);
            assert_eq!((one, two), (expected, expected), "{path}");
        }
    }
}
