//! Layer blobs to overlayfs upper directories.

mod dirs;
mod files;
mod place;
mod resolve;
mod stage;
mod stream;

pub use dirs::MAX_DIRECTORY_BYTES;
pub(crate) use files::list;
pub(crate) use resolve::open_real;
pub use stage::{MAX_ARCHIVE_NAME_BYTES, StagedEntry, stage_archive};

use crate::{
    AUFS_PREFIX, Decompressor, OPAQUE_NAME, TarEntry, TarError, TarKind, TarReader, UnpackError,
    WHITEOUT_PREFIX,
};
use place::Placer;
use rbuild_oci::Digest;
use rbuild_tree::{TreePath, Xattrs};
use resolve::io_error;
use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// Most entries of a layer or archive.
pub const MAX_ENTRIES: u64 = 4_000_000;
/// Most bytes in all files of a layer or archive together, holes included: 1 TiB.
pub const MAX_UNPACKED_BYTES: u64 = 1 << 40;

/// What a layer or an archive may bring along. PAX records, names and sparse maps have constant limits beside these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes in all files together, holes included.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, bytes: MAX_UNPACKED_BYTES }
    }
}

/// A layer that was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed tar, up to the end of the stream.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Entries in the tar.
    pub entries: u64,
    /// Directories that no entry describes but entries lie in, where they were created: mode 0755, owner 0:0, time 0. A layer
    /// below may know better; whoever stacks the layers should copy its metadata. A directory in the place of one that this
    /// layer deletes is not among them.
    pub implied_parents: Vec<TreePath>,
}

/// Unpacks a layer blob into `dest`, an empty directory that becomes an overlayfs upper directory: whiteouts become
/// character devices 0:0, opaque markers the xattr `trusted.overlay.opaque`.
///
/// Names and hard link targets are taken relative to `dest`, `..` does not lead above it, and symlinks of this layer in
/// the middle of a name are followed inside it (containerd's rules); nothing outside is ever touched, provided nobody else
/// writes to `dest` meanwhile. A later entry replaces an earlier one of the same name, except that directories merge. On an
/// error `dest` holds a part of the layer and must be thrown away.
pub fn unpack_layer(
    reader: impl Read + Send,
    media_type: &str,
    dest: impl AsFd,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let reader = crate::decompress(reader, media_type)?;
    let (counts, diff_id, tar_size) = stream::with_decompressed(reader, |stream| {
        let mut tar = TarReader::new(stream);
        let mut unpacker = Unpacker::new(Placer::new(dest.as_fd(), true), *limits);
        unpacker.run(&mut tar)?;
        tar.drain()?;
        Ok((unpacker.entries, unpacker.placer.finish()?))
    })?;
    let (entries, implied_parents) = counts;
    Ok(Unpacked { diff_id, tar_size, entries, implied_parents })
}

/// What is known about extracted files beyond what the filesystem tells, by inode number.
pub(crate) struct Contents {
    pub(crate) digests: HashMap<u64, Digest>,
    pub(crate) xattrs: HashMap<u64, Xattrs>,
    /// Directories that no entry describes.
    pub(crate) implied_parents: Vec<TreePath>,
}

/// Extracts an archive as it is, for [`crate::unpack_archive`].
pub(crate) fn extract<R: Read + Send>(
    reader: Decompressor<R>,
    dest: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Contents, UnpackError> {
    let (contents, _, _) = stream::with_decompressed(reader, |stream| {
        let mut unpacker = Unpacker::new(Placer::new(dest, false), *limits);
        unpacker.run(&mut TarReader::new(stream))?;
        let digests = std::mem::take(&mut unpacker.placer.digests);
        let (xattrs, implied_parents) = unpacker.placer.finish_plain()?;
        Ok(Contents { digests, xattrs, implied_parents })
    })?;
    Ok(contents)
}

struct Unpacker<'d> {
    placer: Placer<'d>,
    limits: Limits,
    entries: u64,
    bytes: u64,
}

impl<'d> Unpacker<'d> {
    fn new(placer: Placer<'d>, limits: Limits) -> Self {
        Self { placer, limits, entries: 0, bytes: 0 }
    }

    fn run<R: BufRead>(&mut self, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        while let Some(entry) = tar.next_entry()? {
            let path = clean(&entry)?;
            self.count(&path, &entry)?;
            if self.placer.overlay {
                self.place_in_layer(&path, &entry, tar)?;
            } else {
                self.placer.node(&path, &entry, tar)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, path: &TreePath, entry: &TarEntry) -> Result<(), UnpackError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size);
        let limit = |what, limit| Err(UnpackError::Limit { path: path.clone(), what, limit });
        if self.entries > self.limits.entries {
            return limit("entries", self.limits.entries);
        }
        if self.bytes > self.limits.bytes {
            return limit("bytes in files", self.limits.bytes);
        }
        Ok(())
    }

    /// Sorts whiteouts and markers from nodes (image-spec, layer.md).
    fn place_in_layer<R: BufRead>(
        &mut self,
        path: &TreePath,
        entry: &TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        let bad = |reason| Err(UnpackError::Entry { path: path.clone(), reason });
        let name = path.file_name().map_or(&b""[..], |n| n.as_encoded_bytes());
        let parent = path.parent().unwrap_or_default();
        if name == OPAQUE_NAME {
            return self.placer.opaque(path, &parent);
        }
        // What aufs kept in its layers has no meaning here.
        if path.components().any(|part| part.as_encoded_bytes().starts_with(AUFS_PREFIX)) {
            return Ok(());
        }
        if parent.components().any(|part| part.as_encoded_bytes().starts_with(WHITEOUT_PREFIX)) {
            return bad("it lies inside a whiteout");
        }
        match name.strip_prefix(WHITEOUT_PREFIX) {
            Some(b"" | b"." | b"..") => bad("malformed whiteout: it names no file"),
            Some(target) => self.placer.whiteout(path, &parent, target),
            // To overlayfs this device is a whiteout, whoever makes it.
            None if entry.kind == TarKind::CharDevice(0, 0) => self.placer.whiteout(path, &parent, name),
            None => self.placer.node(path, entry, tar),
        }
    }
}

/// The entry's place below the destination.
fn clean(entry: &TarEntry) -> Result<TreePath, UnpackError> {
    TreePath::clamped(&entry.path)
        .map_err(|_| UnpackError::Tar(TarError::Malformed { reason: "a name with a NUL byte", offset: 0 }))
}

#[cfg(test)]
mod tests;
