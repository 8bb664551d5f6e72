//! Contents, attributes and removal of files.

use super::resolve::{open_real, stat_name};
use crate::{TarEntry, TarReader, UnpackError};
use rbuild_oci::Digest;
use rbuild_tree::{Timestamp, TreePath, Xattrs};
use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, UTIME_OMIT};
use sha2::Digest as _;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// The attributes an archive may set. `trusted.*` and `user.overlay.*` would steer overlayfs, other `security.*` the
/// machine's own policy.
pub(super) fn keepable(xattrs: &Xattrs) -> Xattrs {
    let allowed = |name: &[u8]| {
        name == b"security.capability"
            || name == b"system.posix_acl_access"
            || name == b"system.posix_acl_default"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
    };
    xattrs.iter().filter(|(name, _)| allowed(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

pub(super) fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}

/// Writes the data of the current entry; its digest if `hash`.
pub(super) fn write_data<R: BufRead>(
    path: &TreePath,
    file: &File,
    entry: &TarEntry,
    tar: &mut TarReader<R>,
    hash: bool,
) -> Result<Option<Digest>, UnpackError> {
    let failed = |source| UnpackError::Io { path: path.clone(), action: "write it", source };
    let mut hasher = hash.then(sha2::Sha256::new);
    let mut end = 0;
    while let Some(data) = tar.next_data()? {
        if let Some(hasher) = &mut hasher {
            hash_zeros(hasher, data.offset - end);
            hasher.update(data.bytes);
        }
        file.write_all_at(data.bytes, data.offset).map_err(failed)?;
        end = data.offset + data.bytes.len() as u64;
    }
    if end < entry.size {
        file.set_len(entry.size).map_err(failed)?;
        if let Some(hasher) = &mut hasher {
            hash_zeros(hasher, entry.size - end);
        }
    }
    Ok(hasher.map(|h| Digest::from_bytes(h.finalize().into())))
}

fn hash_zeros(hasher: &mut sha2::Sha256, mut count: u64) {
    const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    while count > 0 {
        let n = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..n as usize]);
        count -= n;
    }
}

/// Removes a directory with everything in it, holding one descriptor at a time however deep it is.
pub(super) fn remove_tree(root: BorrowedFd<'_>, top: TreePath) -> rustix::io::Result<()> {
    let mut dirs = vec![top];
    let mut next = 0;
    while next < dirs.len() {
        let fd = open_real(root, &dirs[next])?;
        for (name, is_dir) in list(&fd)? {
            if is_dir {
                let below = dirs[next].join(&name);
                dirs.push(below);
            } else {
                rustix::fs::unlinkat(&fd, &name, AtFlags::empty())?;
            }
        }
        next += 1;
    }
    for dir in dirs.into_iter().rev() {
        let parent = open_real(root, &dir.parent().unwrap_or_default())?;
        if let Some(name) = dir.file_name() {
            rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

/// The names in a directory, and which are directories.
pub(crate) fn list(dir: &OwnedFd) -> rustix::io::Result<Vec<(OsString, bool)>> {
    let mut names = Vec::new();
    for item in rustix::fs::Dir::read_from(dir)? {
        let item = item?;
        let name = OsStr::from_bytes(item.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let is_dir = match item.file_type() {
            FileType::Unknown => stat_name(dir, name)?
                .is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        names.push((name.to_owned(), is_dir));
    }
    Ok(names)
}
