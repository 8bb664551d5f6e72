//! Writing entries into a directory.

use crate::source::open_source;
use crate::{OPAQUE_XATTR, Recipe, SnapshotError, remove};
use rayon::prelude::*;
use rbuild_oci::{Digest, Sha256Writer};
use rbuild_tree::{
    CAPABILITY, DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, PathError, Timestamp,
    TreePath, open_beneath,
};
use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, openat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;
/// Files smaller than this are copied: a reflink costs more than it saves.
const MIN_REFLINK: u64 = 64 * 1024;

/// Makes the recipe a directory that overlayfs can use as a layer: `dest` is created, or must be empty.
///
/// Times (with nanoseconds), owners, modes, `security.capability`, devices and hard links are as the recipe says;
/// whiteouts become character devices 0:0. Every file whose digest is known is hashed and must meet it. Files are
/// written in parallel on the current rayon pool. What was written before an error stays: see [`crate::remove_tree`].
///
/// # Errors
/// [`SnapshotError::SourceChanged`] names a file whose bytes are no longer those of the recipe.
pub fn materialize(recipe: &Recipe, dest: impl AsRef<Path>) -> Result<(), SnapshotError> {
    let dest = dest.as_ref();
    match fs::mkdir(dest, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => {
            let message = format!("cannot create {}: {}", dest.display(), io::Error::from(error));
            return Err(io::Error::new(io::Error::from(error).kind(), message).into());
        }
    }
    write_entries(recipe.entries(), dest, Style::Layer)
}

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A new layer directory, with everything.
    Layer,
    /// Into a directory of the user: owned by the caller, in place of what is there, without extended attributes.
    Export,
}

pub(crate) fn write_entries(entries: &[LayerEntry], dest: &Path, style: Style) -> Result<(), SnapshotError> {
    let root = openat(CWD, dest, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot open {}: {e}", dest.display())))?;
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let inherits_group = fs::fstat(&root).map_err(io::Error::from)?.st_mode & 0o2000 != 0;
    let writer = Writer {
        root,
        style,
        owner: (!inherits_group).then_some(me),
        no_reflink: AtomicBool::new(false),
        temporary: AtomicU64::new(0),
    };
    writer.directories(entries)?;
    writer.files(entries)?;
    writer.hard_links(entries)?;
    writer.directory_metadata(entries)
}

struct Writer {
    root: OwnedFd,
    style: Style,
    /// Who owns what is created here, if known: nobody needs to say it again.
    owner: Option<(u32, u32)>,
    /// Set when the file system has answered that it cannot reflink.
    no_reflink: AtomicBool,
    temporary: AtomicU64,
}

/// The name of an entry while it is being written.
struct Place<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    temporary: Option<OsString>,
}

impl Place<'_> {
    fn writing(&self) -> &OsStr {
        self.temporary.as_deref().unwrap_or(self.name)
    }
}

impl Writer {
    fn open_parent(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let parent = path.parent().unwrap_or_default();
        open_beneath(&self.root, &parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|e| PathError::wrap("open", &parent, e))
    }

    fn directories(&self, entries: &[LayerEntry]) -> io::Result<()> {
        let mut last: Option<(TreePath, OwnedFd)> = None;
        for entry in entries {
            let LayerEntryKind::Node { meta, .. } = &entry.kind else { continue };
            let (true, Some(parent)) = (meta.is_dir(), entry.path.parent()) else { continue };
            let dir = match last.take() {
                Some((path, fd)) if path == parent => fd,
                _ => self.open_parent(&entry.path)?,
            };
            self.directory(&dir, &entry.path).map_err(|e| PathError::wrap("create", &entry.path, e))?;
            last = Some((parent, dir));
        }
        Ok(())
    }

    fn directory(&self, dir: &OwnedFd, path: &TreePath) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        // Writable for us until its metadata is set at the end.
        let mode = Mode::from_raw_mode(0o700);
        match fs::mkdirat(dir, name, mode) {
            Err(Errno::EXIST) if self.style == Style::Export => {}
            result => return Ok(result?),
        }
        match FileType::from_raw_mode(rbuild_tree::stat_at(dir, name)?.st_mode) {
            FileType::Directory => Ok(()),
            _ => {
                fs::unlinkat(dir, name, AtFlags::empty())?;
                Ok(fs::mkdirat(dir, name, mode)?)
            }
        }
    }

    /// Everything but directories and further names of files, directory by directory.
    fn files(&self, entries: &[LayerEntry]) -> Result<(), SnapshotError> {
        let mut by_parent: HashMap<&[u8], Vec<&LayerEntry>> = HashMap::new();
        for entry in entries {
            let here = match &entry.kind {
                LayerEntryKind::Node { meta, hard_link_to, .. } => !meta.is_dir() && hard_link_to.is_none(),
                LayerEntryKind::Whiteout => self.style == Style::Layer,
                LayerEntryKind::Opaque => false,
            };
            if here {
                let path = entry.path.as_bytes();
                let end = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
                by_parent.entry(&path[..end]).or_default().push(entry);
            }
        }
        by_parent.into_par_iter().try_for_each(|(_, entries)| {
            let dir = self.open_parent(&entries[0].path)?;
            entries.par_iter().try_for_each_init(Vec::new, |buffer, entry| {
                self.file(dir.as_fd(), entry, buffer).map_err(|error| match error {
                    SnapshotError::Io(e) => SnapshotError::Io(PathError::wrap("write", &entry.path, e)),
                    other => other,
                })
            })
        })
    }

    fn place<'a>(&self, dir: BorrowedFd<'a>, path: &'a TreePath) -> Place<'a> {
        let temporary = (self.style == Style::Export).then(|| {
            let number = self.temporary.fetch_add(1, Ordering::Relaxed);
            format!(".rbuild-{}-{number}.tmp", std::process::id()).into()
        });
        Place { dir, name: path.file_name().unwrap_or_default(), temporary }
    }

    /// Puts what was written under the temporary name in the place of what is there.
    fn commit(&self, place: &Place<'_>) -> io::Result<()> {
        let Some(temporary) = &place.temporary else { return Ok(()) };
        match fs::renameat(place.dir, temporary, place.dir, place.name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                remove::remove_at(place.dir, place.name)?;
                fs::renameat(place.dir, temporary, place.dir, place.name)?;
            }
            result => result?,
        }
        Ok(())
    }

    fn file(
        &self,
        dir: BorrowedFd<'_>,
        entry: &LayerEntry,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SnapshotError> {
        let place = self.place(dir, &entry.path);
        let LayerEntryKind::Node { meta, data, .. } = &entry.kind else {
            fs::mknodat(dir, place.name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(io::Error::from)?;
            return Ok(());
        };
        let result = match (meta.kind, data) {
            (FileKind::Regular, Some(data)) => self.regular(&place, &entry.path, meta, data, buffer),
            _ => self.special(&place, meta).map_err(SnapshotError::from),
        };
        let result = result.and_then(|()| Ok(self.commit(&place)?));
        if let (Err(_), Some(temporary)) = (&result, &place.temporary) {
            let _ = fs::unlinkat(dir, temporary, AtFlags::empty());
        }
        result
    }

    fn regular(
        &self,
        place: &Place<'_>,
        path: &TreePath,
        meta: &Metadata,
        data: &DataRef,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SnapshotError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(place.dir, place.writing(), flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.map_err(io::Error::from)?);
        self.copy(&mut file, path, data, buffer)?;
        self.set_owner(meta, |uid, gid| fs::fchown(&file, Some(uid), Some(gid)))?;
        if self.style == Style::Layer {
            for (name, value) in &meta.xattrs {
                // A file system without them loses what it cannot hold, but not silently the capabilities.
                match fs::fsetxattr(&file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                    Err(Errno::OPNOTSUPP) if name != CAPABILITY.as_bytes() => {}
                    result => result.map_err(io::Error::from)?,
                }
            }
        }
        fs::fchmod(&file, Mode::from_raw_mode(meta.mode)).map_err(io::Error::from)?;
        fs::futimens(&file, &times(meta.mtime)).map_err(io::Error::from)?;
        Ok(())
    }

    fn special(&self, place: &Place<'_>, meta: &Metadata) -> io::Result<()> {
        let (dir, name) = (place.dir, place.writing());
        let mode = Mode::from_raw_mode(meta.mode);
        let kind = match meta.kind {
            FileKind::Symlink => None,
            FileKind::CharDevice => Some(FileType::CharacterDevice),
            FileKind::BlockDevice => Some(FileType::BlockDevice),
            FileKind::Fifo => Some(FileType::Fifo),
            FileKind::Regular | FileKind::Directory | FileKind::Socket => {
                return Err(io::Error::other("an entry of this type cannot be written"));
            }
        };
        match kind {
            None => fs::symlinkat(OsStr::from_bytes(&meta.link_target), dir, name)?,
            Some(kind) => fs::mknodat(dir, name, kind, mode, fs::makedev(meta.rdev.0, meta.rdev.1))?,
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        self.set_owner(meta, |uid, gid| fs::chownat(dir, name, Some(uid), Some(gid), flags))?;
        if kind.is_some() {
            // The umask took its part of the mode, chown the setuid bit. By descriptor: the name may be another's now.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(dir, name, flags, Mode::empty())?;
            fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)?;
        }
        Ok(fs::utimensat(dir, name, &times(meta.mtime), flags)?)
    }

    fn set_owner(
        &self,
        meta: &Metadata,
        set: impl FnOnce(Uid, Gid) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        if self.style == Style::Layer && self.owner != Some((meta.uid, meta.gid)) {
            set(Uid::from_raw(meta.uid), Gid::from_raw(meta.gid))?;
        }
        Ok(())
    }

    fn hard_links(&self, entries: &[LayerEntry]) -> io::Result<()> {
        for entry in entries {
            let LayerEntryKind::Node { hard_link_to: Some(target), .. } = &entry.kind else { continue };
            let link = || -> io::Result<()> {
                let (from, to) = (self.open_parent(target)?, self.open_parent(&entry.path)?);
                let place = self.place(to.as_fd(), &entry.path);
                let name = target.file_name().unwrap_or_default();
                fs::linkat(&from, name, &to, place.writing(), AtFlags::empty())?;
                self.commit(&place)?;
                if let Some(temporary) = &place.temporary {
                    // Renaming one name of a file onto another does nothing.
                    let _ = fs::unlinkat(&to, temporary, AtFlags::empty());
                }
                Ok(())
            };
            link().map_err(|e| PathError::wrap("link", &entry.path, e))?;
        }
        Ok(())
    }

    /// Last of all, children before parents: writing into a directory changes its time, and its mode may forbid it.
    fn directory_metadata(&self, entries: &[LayerEntry]) -> Result<(), SnapshotError> {
        let mut opaque = None;
        for entry in entries.iter().rev() {
            match &entry.kind {
                LayerEntryKind::Opaque => opaque = Some(&entry.path),
                LayerEntryKind::Node { meta, .. } if meta.is_dir() => {
                    let opaque = opaque.take() == Some(&entry.path) && self.style == Style::Layer;
                    self.finish_directory(&entry.path, meta, opaque)
                        .map_err(|e| PathError::wrap("set the metadata of", &entry.path, e))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish_directory(&self, path: &TreePath, meta: &Metadata, opaque: bool) -> io::Result<()> {
        let dir = open_beneath(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        if opaque {
            fs::fsetxattr(&dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
        }
        // The root was not created here.
        match path.is_root() && self.style == Style::Layer {
            true => fs::fchown(&dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?,
            false => self.set_owner(meta, |uid, gid| fs::fchown(&dir, Some(uid), Some(gid)))?,
        }
        fs::fchmod(&dir, Mode::from_raw_mode(meta.mode))?;
        Ok(fs::futimens(&dir, &times(meta.mtime))?)
    }

    /// Copies the bytes and holds them against the digest, if there is one.
    fn copy(
        &self,
        file: &mut File,
        path: &TreePath,
        data: &DataRef,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SnapshotError> {
        let (found, size) = match &data.source {
            DataSource::Inline(bytes) => {
                file.write_all(bytes)?;
                (data.digest.map(|_| Digest::of(bytes)), bytes.len() as u64)
            }
            source => {
                let mut from = open_source(source, path)?;
                match (self.reflink(&from, file, data.size), data.digest) {
                    (true, None) => (None, file.metadata()?.len()),
                    // What is in the new file is what has to be right.
                    (true, Some(_)) => pump(file, &mut io::sink(), buffer)?,
                    (false, None) => (None, copy_in_kernel(&mut from, file, buffer)?),
                    (false, Some(_)) => pump(&mut from, file, buffer)?,
                }
            }
        };
        if size != data.size {
            return Err(SnapshotError::changed_size(path, data.size, size));
        }
        match (data.digest, found) {
            (Some(expected), Some(found)) if expected != found => {
                Err(SnapshotError::changed(path, expected, found))
            }
            _ => Ok(()),
        }
    }

    fn reflink(&self, from: &File, to: &File, size: u64) -> bool {
        if size < MIN_REFLINK || self.no_reflink.load(Ordering::Relaxed) {
            return false;
        }
        match fs::ioctl_ficlone(to, from) {
            Ok(()) => true,
            Err(error) => {
                // EXDEV is a matter of this source only.
                if matches!(error, Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) {
                    self.no_reflink.store(true, Ordering::Relaxed);
                }
                false
            }
        }
    }
}

/// Copies and hashes.
fn pump(
    from: &mut impl Read,
    to: &mut impl Write,
    buffer: &mut Vec<u8>,
) -> io::Result<(Option<Digest>, u64)> {
    buffer.resize(CHUNK, 0);
    let mut to = Sha256Writer::new(to);
    loop {
        match from.read(buffer) {
            Ok(0) => break,
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (_, digest, size) = to.finish();
    Ok((Some(digest), size))
}

/// Copies without looking at the bytes.
fn copy_in_kernel(from: &mut File, to: &mut File, buffer: &mut Vec<u8>) -> io::Result<u64> {
    /// As much as one call can move.
    const MOST: usize = 1 << 30;
    let mut size = 0;
    loop {
        match fs::copy_file_range(&*from, None, &*to, None, MOST) {
            Ok(0) => return Ok(size),
            Ok(n) => size += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::IO)
                if size == 0 =>
            {
                from.rewind()?;
                return Ok(pump(from, to, buffer)?.1);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
