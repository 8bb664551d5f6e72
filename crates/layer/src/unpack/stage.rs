//! Archives that are unpacked into a tree which is no directory yet.

use super::files::{keepable, write_data};
use super::{Limits, clean, io_error, stream};
use crate::{TarEntry, TarKind, TarReader, UnpackError, decompress_sniffed};
use rbuild_tree::{DataRef, DataSource, FileKind, Metadata, TreePath};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Most bytes in the names, link targets and attributes of all entries of an archive, which are held in memory.
pub const MAX_ARCHIVE_NAME_BYTES: u64 = 192 << 20;

/// One entry of an archive, as it says.
#[derive(Debug, Clone)]
pub struct StagedEntry {
    /// Its name, `..` not leading above the archive's root.
    pub path: TreePath,
    /// Metadata, with the attributes an archive may set. Of a hard link what the archive says of it, as a regular file.
    pub meta: Metadata,
    /// The bytes of a regular file.
    pub data: Option<DataRef>,
    /// What it is another name of.
    pub hard_link_to: Option<TreePath>,
}

/// Reads an archive (tar, optionally compressed with gzip, bzip2, xz or zstd) into its entries, in order, the same path
/// as often as the archive has it. The bytes of files are put into `staging`, an empty directory, under numbers.
/// Whiteout names have no meaning here; the entry of the archive's own root is left out.
///
/// # Errors
/// Bad archives, and those beyond `limits` or [`MAX_ARCHIVE_NAME_BYTES`]. Links are not followed and not checked.
pub fn stage_archive(
    reader: impl Read + Send,
    staging: &Arc<OwnedFd>,
    limits: &Limits,
) -> Result<Vec<StagedEntry>, UnpackError> {
    let reader = decompress_sniffed(reader)?;
    let (entries, _, _) = stream::with_decompressed(reader, |chunks| {
        let mut tar = TarReader::new(chunks);
        let mut stager = Stager { staging, limits, files: 0, entries: 0, bytes: 0, names: 0 };
        let mut entries = Vec::new();
        while let Some(entry) = tar.next_entry()? {
            let path = clean(&entry)?;
            stager.count(&path, &entry)?;
            // It is unpacked into a directory that is there.
            if !path.is_root() {
                entries.push(stager.stage(path, entry, &mut tar)?);
            }
        }
        Ok(entries)
    })?;
    Ok(entries)
}

struct Stager<'a> {
    staging: &'a Arc<OwnedFd>,
    limits: &'a Limits,
    /// Files made so far.
    files: u64,
    entries: u64,
    bytes: u64,
    names: u64,
}

impl Stager<'_> {
    fn count(&mut self, path: &TreePath, entry: &TarEntry) -> Result<(), UnpackError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size);
        let link = match &entry.kind {
            TarKind::HardLink(target) | TarKind::Symlink(target) => target.len(),
            _ => 0,
        };
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.names += (path.as_bytes().len() + link + xattrs) as u64;
        for (count, limit, what) in [
            (self.entries, self.limits.entries, "entries"),
            (self.bytes, self.limits.bytes, "bytes in files"),
            (self.names, MAX_ARCHIVE_NAME_BYTES, "bytes in names and attributes"),
        ] {
            if count > limit {
                return Err(UnpackError::Limit { path: path.clone(), what, limit });
            }
        }
        Ok(())
    }

    fn stage<R: BufRead>(
        &mut self,
        path: TreePath,
        entry: TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<StagedEntry, UnpackError> {
        let bad = |reason| UnpackError::Entry { path: path.clone(), reason };
        let (mut rdev, mut link_target, mut hard_link_to) = ((0, 0), Vec::new(), None);
        let mut data = None;
        let kind = match &entry.kind {
            TarKind::Directory => FileKind::Directory,
            TarKind::Fifo => FileKind::Fifo,
            TarKind::Symlink(target) => {
                link_target.clone_from(target);
                FileKind::Symlink
            }
            TarKind::CharDevice(0, 0) => {
                return Err(bad("a character device 0:0 would delete a file of the layer below"));
            }
            TarKind::CharDevice(major, minor) => {
                rdev = (*major, *minor);
                FileKind::CharDevice
            }
            TarKind::BlockDevice(major, minor) => {
                rdev = (*major, *minor);
                FileKind::BlockDevice
            }
            TarKind::HardLink(target) => {
                let target =
                    TreePath::clamped(target).map_err(|_| bad("a hard link target with a NUL byte"))?;
                if target.is_root() {
                    return Err(bad("a hard link to the root"));
                }
                hard_link_to = Some(target);
                FileKind::Regular
            }
            TarKind::Regular => {
                data = Some(self.file(&path, &entry, tar)?);
                FileKind::Regular
            }
        };
        let meta = Metadata {
            kind,
            mode: if kind == FileKind::Symlink { 0o777 } else { entry.mode },
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            mtime: entry.mtime,
            rdev,
            link_target,
            hard_link: None,
            xattrs: keepable(&entry.xattrs),
        };
        Ok(StagedEntry { path, meta, data, hard_link_to })
    }

    /// Writes a file's bytes beside the others.
    fn file<R: BufRead>(
        &mut self,
        path: &TreePath,
        entry: &TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<DataRef, UnpackError> {
        if entry.size == 0 {
            let nothing: Arc<[u8]> = Arc::from(&b""[..]);
            let digest = Some(rbuild_oci::Digest::of(&nothing));
            return Ok(DataRef { size: 0, digest, source: DataSource::Inline(nothing) });
        }
        let name = self.files.to_string();
        self.files += 1;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&**self.staging, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(io_error(path, "stage it"))?;
        let digest = write_data(path, &File::from(file), entry, tar, true)?;
        let below = TreePath::root().join(std::ffi::OsStr::new(&name));
        let source = DataSource::Below { root: Arc::clone(self.staging), path: below };
        Ok(DataRef { size: entry.size, digest, source })
    }
}
