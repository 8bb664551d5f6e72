//! One entry after the other to its place, by directory descriptor only.

use super::dirs::{DirMeta, Dirs};
use super::files::{keepable, remove_tree, times, write_data};
use super::resolve::{Dir, Missing, io_error, is_whiteout, open_real, set_opaque, stat_name, walk};
use crate::{TarEntry, TarKind, TarReader, UnpackError};
use rbuild_oci::Digest;
use rbuild_tree::{TreePath, Xattrs};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// Puts entries into a directory.
pub(super) struct Placer<'d> {
    root: BorrowedFd<'d>,
    /// Whether whiteouts have a meaning.
    pub(super) overlay: bool,
    /// Owner that new files get by themselves; `None` when that depends on the directory.
    own: Option<(u32, u32)>,
    dirs: Dirs,
    /// The parent used last, by its name in the archive. Valid until something is removed.
    last: Option<(TreePath, Dir)>,
    /// Content of regular files by inode number; only kept for plain archives.
    pub(super) digests: HashMap<u64, Digest>,
    /// Extended attributes by inode number; only kept for plain archives.
    pub(super) xattrs: HashMap<u64, Xattrs>,
}

impl<'d> Placer<'d> {
    pub(super) fn new(root: BorrowedFd<'d>, overlay: bool) -> Self {
        let setgid = rustix::fs::fstat(root).map_or(true, |s| s.st_mode & 0o2000 != 0);
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            root,
            overlay,
            own: (!setgid).then_some(own),
            dirs: Dirs::default(),
            last: None,
            digests: HashMap::new(),
            xattrs: HashMap::new(),
        }
    }

    /// A file of any type that is no whiteout.
    pub(super) fn node<R: BufRead>(
        &mut self,
        path: &TreePath,
        entry: &TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        let bad = |reason| Err(UnpackError::Entry { path: path.clone(), reason });
        let Some(name) = path.file_name() else {
            match (&entry.kind, self.overlay) {
                (TarKind::Directory, _) => {}
                // An archive that users ADD is unpacked into a directory that is there: such an entry is passed over.
                (_, false) => return Ok(()),
                (_, true) => return bad("the root can only be a directory"),
            }
            return self.dirs.insert(path, path, DirMeta::of(entry));
        };
        let dir = self.parent(path)?;
        match &entry.kind {
            TarKind::Directory => self.directory(path, &dir, name, entry),
            TarKind::Regular => self.regular(path, &dir, name, entry, tar),
            TarKind::HardLink(target) => self.hard_link(path, &dir, name, target),
            TarKind::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.replacing(path, &dir, name, || rustix::fs::symlinkat(target, &dir.fd, name))?;
                self.finish_special(path, &dir, name, entry, false)
            }
            TarKind::CharDevice(0, 0) => bad("a character device 0:0 would delete a file of the layer below"),
            TarKind::CharDevice(major, minor) => {
                self.special(path, &dir, name, entry, FileType::CharacterDevice, (*major, *minor))
            }
            TarKind::BlockDevice(major, minor) => {
                self.special(path, &dir, name, entry, FileType::BlockDevice, (*major, *minor))
            }
            TarKind::Fifo => self.special(path, &dir, name, entry, FileType::Fifo, (0, 0)),
        }
    }

    /// Deletes `name` in `parent` from the layers below. What this layer itself has there stays.
    pub(super) fn whiteout(
        &mut self,
        path: &TreePath,
        parent: &TreePath,
        name: &[u8],
    ) -> Result<(), UnpackError> {
        let dir = self.dir(path, parent)?;
        let name = OsStr::from_bytes(name);
        match stat_name(&dir.fd, name).map_err(io_error(path, "look for what it deletes"))? {
            None => {
                let device = rustix::fs::makedev(0, 0);
                rustix::fs::mknodat(&dir.fd, name, FileType::CharacterDevice, Mode::empty(), device)
                    .map_err(io_error(path, "create the whiteout"))
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = open_real(self.root, &dir.real.join(name))
                    .map_err(io_error(path, "open the directory"))?;
                set_opaque(&fd).map_err(io_error(path, "mark the directory opaque"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Hides everything that the layers below have in `dir`.
    pub(super) fn opaque(&mut self, path: &TreePath, dir: &TreePath) -> Result<(), UnpackError> {
        let dir = self.dir(path, dir)?;
        set_opaque(&dir.fd).map_err(io_error(path, "mark the directory opaque"))
    }

    /// Gives directories their metadata, deepest first; the implied ones come back.
    pub(super) fn finish(mut self) -> Result<Vec<TreePath>, UnpackError> {
        let mut implied = Vec::new();
        for (path, meta) in std::mem::take(&mut self.dirs.by_path).into_iter().rev() {
            let fd = open_real(self.root, &path).map_err(io_error(&path, "open the directory"))?;
            self.own_and_mode(&path, &fd, (meta.uid, meta.gid), meta.mode)?;
            self.set_xattrs(&path, &fd, &meta.xattrs)?;
            rustix::fs::futimens(&fd, &times(meta.mtime)).map_err(io_error(&path, "set its time"))?;
            if meta.implied {
                implied.push(path);
            }
        }
        implied.reverse();
        Ok(implied)
    }

    /// Like [`Self::finish`], for plain archives: the attributes that were set, by inode number, and the implied directories.
    pub(super) fn finish_plain(mut self) -> Result<(HashMap<u64, Xattrs>, Vec<TreePath>), UnpackError> {
        let dirs: Vec<_> =
            self.dirs.by_path.iter().filter(|(_, m)| !m.xattrs.is_empty()).map(|(p, _)| p.clone()).collect();
        for path in dirs {
            let fd = open_real(self.root, &path).map_err(io_error(&path, "open the directory"))?;
            let ino = rustix::fs::fstat(&fd).map_err(io_error(&path, "look at it"))?.st_ino;
            let kept = self.dirs.by_path.get(&path).map(|m| keepable(&m.xattrs)).unwrap_or_default();
            self.xattrs.insert(ino, kept);
        }
        let xattrs = std::mem::take(&mut self.xattrs);
        Ok((xattrs, self.finish()?))
    }

    fn parent(&mut self, path: &TreePath) -> Result<Dir, UnpackError> {
        self.dir(path, &path.parent().unwrap_or_default())
    }

    /// The directory `wanted`, created where missing.
    fn dir(&mut self, entry: &TreePath, wanted: &TreePath) -> Result<Dir, UnpackError> {
        if let Some((name, dir)) = &self.last
            && name == wanted
        {
            return Ok(dir.clone());
        }
        let dir = match open_real(self.root, wanted) {
            Ok(fd) => Dir { fd: Rc::new(fd), real: wanted.clone() },
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => {
                let dirs = &mut self.dirs;
                walk(self.root, entry, wanted, Missing::Create, |real, hides| {
                    // What hides the directory below does not take after it.
                    dirs.insert(entry, real, DirMeta { implied: !hides, ..DirMeta::implied() })
                })?
                .ok_or_else(|| io_error(entry, "create its directory")(Errno::NOENT))?
            }
            Err(e) => return Err(io_error(entry, "open its directory")(e)),
        };
        self.last = Some((wanted.clone(), dir.clone()));
        Ok(dir)
    }

    fn directory(
        &mut self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        entry: &TarEntry,
    ) -> Result<(), UnpackError> {
        let make = || rustix::fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(0o700));
        let real = dir.real.join(name);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = stat_name(&dir.fd, name).map_err(io_error(path, "look at what it replaces"))?;
                match there {
                    Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                    there => {
                        self.remove(path, dir, name, there.as_ref())?;
                        make().map_err(io_error(path, "create it"))?;
                        if self.overlay && there.as_ref().is_some_and(is_whiteout) {
                            let fd = open_real(self.root, &real).map_err(io_error(path, "open it"))?;
                            set_opaque(&fd).map_err(io_error(path, "mark it opaque"))?;
                        }
                    }
                }
            }
            Err(e) => return Err(io_error(path, "create it")(e)),
        }
        self.dirs.insert(path, &real, DirMeta::of(entry))
    }

    fn regular<R: BufRead>(
        &mut self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        entry: &TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = self.replacing(path, dir, name, || rustix::fs::openat(&dir.fd, name, flags, mode))?;
        let file = File::from(file);
        let digest = write_data(path, &file, entry, tar, !self.overlay)?;
        self.own_and_mode(path, &file, (entry.uid, entry.gid), entry.mode)?;
        self.set_xattrs(path, &file, &entry.xattrs)?;
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(io_error(path, "set its time"))?;
        if let Some(digest) = digest {
            let ino = rustix::fs::fstat(&file).map_err(io_error(path, "look at it"))?.st_ino;
            self.digests.insert(ino, digest);
            self.xattrs.remove(&ino);
            if !entry.xattrs.is_empty() {
                self.xattrs.insert(ino, keepable(&entry.xattrs));
            }
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let bad = |reason| UnpackError::Entry { path: path.clone(), reason };
        let target = TreePath::clamped(target).map_err(|_| bad("a hard link target with a NUL byte"))?;
        let missing = || UnpackError::LinkTarget { path: path.clone(), target: target.clone() };
        let target_name = target.file_name().ok_or_else(|| bad("a hard link to the root"))?;
        let parent = target.parent().unwrap_or_default();
        let from = walk(self.root, path, &parent, Missing::Fail, |_, _| Ok(()))?.ok_or_else(missing)?;
        let stat = stat_name(&from.fd, target_name).map_err(io_error(path, "look at its target"))?;
        let stat = stat.filter(|s| !(self.overlay && is_whiteout(s))).ok_or_else(missing)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(bad("a hard link to a directory"));
        }
        if from.real == dir.real && target_name == name {
            return Err(bad("a hard link to itself"));
        }
        if let Some(there) = stat_name(&dir.fd, name).map_err(io_error(path, "look at what it replaces"))? {
            if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            self.remove(path, dir, name, Some(&there))?;
        }
        match rustix::fs::linkat(&from.fd, target_name, &dir.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(missing()),
            other => other.map_err(io_error(path, "link it")),
        }
    }

    fn special(
        &mut self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        entry: &TarEntry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), UnpackError> {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o600);
        self.replacing(path, dir, name, || rustix::fs::mknodat(&dir.fd, name, kind, mode, device))?;
        self.finish_special(path, dir, name, entry, true)
    }

    /// Metadata of what cannot be opened. The name was just made by us, so it is no link to elsewhere.
    fn finish_special(
        &self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        entry: &TarEntry,
        has_mode: bool,
    ) -> Result<(), UnpackError> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(&dir.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error(path, "set its owner"))?;
        if has_mode {
            rustix::fs::chmodat(&dir.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(io_error(path, "set its mode"))?;
        }
        rustix::fs::utimensat(&dir.fd, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error(path, "set its time"))
    }

    /// Owner first: changing it clears setuid bits and capabilities.
    fn own_and_mode(
        &self,
        path: &TreePath,
        fd: impl AsFd,
        (uid, gid): (u32, u32),
        mode: u32,
    ) -> Result<(), UnpackError> {
        let created_by_us_so = self.own == Some((uid, gid)) && !path.is_root();
        if !created_by_us_so {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(io_error(path, "set its owner"))?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(io_error(path, "set its mode"))
    }

    /// Capabilities must succeed in a layer; anything else is set where the filesystem lets us.
    fn set_xattrs(&self, path: &TreePath, fd: impl AsFd, xattrs: &Xattrs) -> Result<(), UnpackError> {
        for (name, value) in keepable(xattrs) {
            let result = rustix::fs::fsetxattr(&fd, OsStr::from_bytes(&name), &value, XattrFlags::empty());
            if self.overlay && name == b"security.capability" {
                result.map_err(io_error(path, "set its capabilities"))?;
            }
        }
        Ok(())
    }

    /// Runs `make`; if something has the name already, removes that and runs `make` again.
    fn replacing<T>(
        &mut self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, UnpackError> {
        match make() {
            Err(Errno::EXIST) => {
                let there = stat_name(&dir.fd, name).map_err(io_error(path, "look at what it replaces"))?;
                self.remove(path, dir, name, there.as_ref())?;
                make().map_err(io_error(path, "create it"))
            }
            other => other.map_err(io_error(path, "create it")),
        }
    }

    /// Removes a file or a whole directory of this layer.
    fn remove(
        &mut self,
        path: &TreePath,
        dir: &Dir,
        name: &OsStr,
        there: Option<&Stat>,
    ) -> Result<(), UnpackError> {
        let Some(stat) = there else { return Ok(()) };
        self.last = None;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty())
                .map_err(io_error(path, "replace what is there"));
        }
        let real = dir.real.join(name);
        self.dirs.forget(&real);
        remove_tree(self.root, real).map_err(io_error(path, "replace the directory that is there"))
    }
}
