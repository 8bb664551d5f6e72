//! Archives that users ADD (features.md ).

use crate::unpack::{self, Limits, list, open_real};
use crate::{DecompressError, TarError, TarReader, UnpackError, decompress_sniffed};
use rbuild_oci::Digest;
use rbuild_tree::{
    DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath, Xattrs,
};
use rustix::fs::{AtFlags, FileType, Stat};
use std::collections::HashMap;
use std::io::{BufReader, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Whether ADD would unpack this file: decompressed by what its first bytes are, it begins with a valid tar header. Empty
/// and broken files are no archives.
///
/// # Errors
/// The file cannot be read, or its compression wants more memory than is given to it, so that nobody knows what is in it.
pub fn is_archive(reader: impl Read) -> Result<bool, DecompressError> {
    let reader = match decompress_sniffed(reader) {
        Ok(reader) => reader,
        Err(DecompressError::Io(e)) => return Err(DecompressError::Io(e)),
        Err(DecompressError::Mismatch { .. }) => return Ok(false),
    };
    match TarReader::new(BufReader::new(reader)).next_entry() {
        Err(TarError::Io(e)) if e.raw_os_error().is_some() || e.kind() == ErrorKind::OutOfMemory => {
            Err(DecompressError::Io(e))
        }
        first => Ok(matches!(first, Ok(Some(_)))),
    }
}

/// A user's archive that was unpacked.
#[derive(Debug)]
pub struct UnpackedArchive {
    /// What is in it, in order, with paths relative to the archive's root and data in the staging directory.
    pub entries: Vec<LayerEntry>,
    /// Those of the directories that the archive has no entry for, only entries below them; made with mode 0755, owner 0:0, time 0.
    pub implied_parents: Vec<TreePath>,
}

/// Extracts an archive (tar, optionally compressed with gzip, bzip2, xz or zstd) into `staging`, an empty directory, and gives what is in it as
/// entries. Whiteout names have no meaning
/// here; everything else is as in [`crate::unpack_layer`]. The archive's entry for its own root, if any, is left out.
pub fn unpack_archive(
    reader: impl Read + Send,
    staging: &Arc<OwnedFd>,
    limits: &Limits,
) -> Result<UnpackedArchive, UnpackError> {
    let contents = unpack::extract(decompress_sniffed(reader)?, staging.as_fd(), limits)?;
    let mut collector = Collector {
        staging,
        digests: contents.digests,
        xattrs: contents.xattrs,
        links: HashMap::new(),
        entries: Vec::new(),
    };
    let mut pending = vec![TreePath::root()];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        let fd = open_real(staging.as_fd(), &dir).map_err(|e| failed(&dir, e.into()))?;
        for (name, is_dir) in list(&fd).map_err(|e| failed(&dir, e.into()))? {
            let path = dir.join(&name);
            if is_dir {
                pending.push(path.clone());
            }
            let stat = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed(&path, e.into()))?;
            let target = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => rustix::fs::readlinkat(&fd, &name, Vec::new())
                    .map_err(|e| failed(&path, e.into()))?
                    .into_bytes(),
                _ => Vec::new(),
            };
            found.push((path, stat, target));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, stat, target) in found {
        collector.add(path, &stat, target);
    }
    Ok(UnpackedArchive { entries: collector.entries, implied_parents: contents.implied_parents })
}

fn failed(path: &TreePath, source: std::io::Error) -> UnpackError {
    UnpackError::Io { path: path.clone(), action: "list it", source }
}

struct Collector<'a> {
    staging: &'a Arc<OwnedFd>,
    digests: HashMap<u64, Digest>,
    xattrs: HashMap<u64, Xattrs>,
    /// First name of every file with several.
    links: HashMap<u64, TreePath>,
    entries: Vec<LayerEntry>,
}

impl Collector<'_> {
    fn add(&mut self, path: TreePath, stat: &Stat, link_target: Vec<u8>) {
        let Some(kind) = file_kind(FileType::from_raw_mode(stat.st_mode)) else { return };
        let many = kind != FileKind::Directory && stat.st_nlink > 1;
        let hard_link_to = match (many, self.links.get(&stat.st_ino)) {
            (true, Some(first)) => Some(first.clone()),
            (true, None) => {
                self.links.insert(stat.st_ino, path.clone());
                None
            }
            (false, _) => None,
        };
        let size = if kind == FileKind::Regular { stat.st_size as u64 } else { 0 };
        let data = (kind == FileKind::Regular && hard_link_to.is_none()).then(|| DataRef {
            size,
            digest: self.digests.get(&stat.st_ino).copied(),
            source: DataSource::Below { root: Arc::clone(self.staging), path: path.clone() },
        });
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let rdev = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let meta = Metadata {
            kind,
            mode: if kind == FileKind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            mtime: Timestamp { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            rdev: if is_device { rdev } else { (0, 0) },
            link_target,
            hard_link: many.then_some((stat.st_dev, stat.st_ino)),
            xattrs: self.xattrs.get(&stat.st_ino).cloned().unwrap_or_default(),
        };
        self.entries.push(LayerEntry { path, kind: LayerEntryKind::Node { meta, data, hard_link_to } });
    }
}

fn file_kind(kind: FileType) -> Option<FileKind> {
    Some(match kind {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Fifo,
        _ => return None,
    })
}
