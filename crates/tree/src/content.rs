//! Digests of files on disk that may be written to meanwhile.

use crate::{PathError, StatId, TreePath, open_beneath};
use rbuild_oci::{Digest, Sha256Writer};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes read at once; more does not make hashing faster, and each hashing thread has one such buffer.
pub(crate) const CHUNK: usize = 256 * 1024;
/// How often a file that changes while it is read is tried before giving up (DESIGN promise 1).
pub(crate) const ATTEMPTS: u32 = 3;

/// A digest of a file and the state the file was in while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// Digest of the bytes.
    pub digest: Digest,
    /// The same before the first and after the last byte was read.
    pub stat: StatId,
}

/// A file that would not hold still.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} changed while it was being read, {ATTEMPTS} times: stop whatever writes to it and build again"
)]
pub struct ChangedWhileRead {
    /// The path inside the tree.
    pub path: TreePath,
}

/// Opens the regular file `path` below `root` for reading.
pub fn open_regular(root: impl AsFd, path: &TreePath) -> io::Result<OwnedFd> {
    // A FIFO put there in the meantime must not block the open.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open_beneath(root, path, flags, Mode::empty()).map_err(|e| PathError::wrap("open", path, e))?;
    let stat = fstat(&fd).map_err(|e| PathError::wrap("stat", path, e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(fd),
        FileType::Directory => Err(PathError::wrap("read", path, Errno::ISDIR)),
        _ => Err(PathError::wrap("read", path, io::Error::other("not a regular file"))),
    }
}

/// Hashes the regular file `path` below `root`, again if it changes meanwhile. `before` is called with the open file
/// right before its first byte is read, each time.
///
/// # Errors
/// [`ChangedWhileRead`] (inside the `io::Error`) after [`ATTEMPTS`] times; else what the system said, with the path.
pub fn hash_file(
    root: impl AsFd,
    path: &TreePath,
    buffer: &mut Vec<u8>,
    mut before: impl FnMut(&OwnedFd),
) -> io::Result<Hashed> {
    let root = root.as_fd();
    buffer.resize(CHUNK, 0);
    for _ in 0..ATTEMPTS {
        // Opened anew each time: editors replace files by rename.
        let fd = open_regular(root, path)?;
        if let Some(hashed) =
            hash_once(&fd, buffer, &mut before).map_err(|e| PathError::wrap("read", path, e))?
        {
            return Ok(hashed);
        }
    }
    Err(io::Error::other(ChangedWhileRead { path: path.clone() }))
}

/// `None` when the file changed during the reading.
fn hash_once(
    fd: &OwnedFd,
    buffer: &mut [u8],
    before: &mut impl FnMut(&OwnedFd),
) -> rustix::io::Result<Option<Hashed>> {
    let stat = StatId::from(&fstat(fd)?);
    before(fd);
    let mut hasher = Sha256Writer::new(io::sink());
    let mut total = 0u64;
    loop {
        let n = match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        total += n as u64;
        // Writing to a sink cannot fail.
        let _ = hasher.write_all(&buffer[..n]);
        // Files that end within the first buffer are the most by far: a short read that reaches the size is the end.
        if n == 0 || total > stat.size || (total == stat.size && n < buffer.len()) {
            break;
        }
    }
    if total != stat.size || StatId::from(&fstat(fd)?) != stat {
        return Ok(None);
    }
    let (_, digest, _) = hasher.finish();
    Ok(Some(Hashed { digest, stat }))
}
