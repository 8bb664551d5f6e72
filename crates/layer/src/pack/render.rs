//! One entry to tar bytes; file data is read and verified here.

use crate::header::{self, Fields};
use crate::{OPAQUE_NAME, PackError, WHITEOUT_PREFIX};
use rbuild_oci::Digest;
use rbuild_tree::{DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, TreePath};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::Digest as _;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};

/// Appends the header of `entry`; the data it wants after that, if any.
pub(crate) fn append_header<'a>(
    out: &mut Vec<u8>,
    entry: &'a LayerEntry,
    times: Times,
) -> Result<Option<&'a DataRef>, PackError> {
    let path = &entry.path;
    let bad = |reason| PackError::Unrepresentable { path: path.clone(), reason };
    if let Some(name) = path.file_name()
        && name.as_encoded_bytes().starts_with(WHITEOUT_PREFIX)
    {
        return Err(bad("names that begin with `.wh.` mean deletion in a layer; rename it"));
    }
    let (meta, data, hard_link) = match &entry.kind {
        LayerEntryKind::Node { meta, data, hard_link_to } => (meta, data.as_ref(), hard_link_to.as_ref()),
        LayerEntryKind::Whiteout => {
            let name = path.file_name().ok_or_else(|| bad("the root cannot be deleted"))?;
            let name = [WHITEOUT_PREFIX, name.as_encoded_bytes()].concat();
            append_marker(out, &path.parent().unwrap_or_default(), &name, times).map_err(bad)?;
            return Ok(None);
        }
        LayerEntryKind::Opaque => {
            append_marker(out, path, OPAQUE_NAME, times).map_err(bad)?;
            return Ok(None);
        }
    };
    if meta.kind == FileKind::Socket {
        return Ok(None);
    }
    let data = if hard_link.is_some() || meta.kind != FileKind::Regular { None } else { data };
    if data.is_none() && hard_link.is_none() && meta.kind == FileKind::Regular && meta.size > 0 {
        return Err(bad("nothing says where its bytes are"));
    }
    append_node(out, path, meta, data, hard_link, times).map_err(bad)?;
    Ok(data)
}

fn append_node(
    out: &mut Vec<u8>,
    path: &TreePath,
    meta: &Metadata,
    data: Option<&DataRef>,
    hard_link: Option<&TreePath>,
    times: Times,
) -> Result<(), &'static str> {
    let is_device = matches!(meta.kind, FileKind::CharDevice | FileKind::BlockDevice) && hard_link.is_none();
    header::append(
        out,
        &Fields {
            name: &tar_name(path, meta.is_dir()),
            type_flag: match (hard_link, meta.kind) {
                (Some(_), _) => b'1',
                (None, FileKind::Directory) => b'5',
                (None, FileKind::Symlink) => b'2',
                (None, FileKind::CharDevice) => b'3',
                (None, FileKind::BlockDevice) => b'4',
                (None, FileKind::Fifo) => b'6',
                (None, FileKind::Regular | FileKind::Socket) => b'0',
            },
            link: match hard_link {
                Some(target) => target.as_bytes(),
                None if meta.kind == FileKind::Symlink => &meta.link_target,
                None => b"",
            },
            mode: meta.mode & 0o7777,
            uid: meta.uid,
            gid: meta.gid,
            size: data.map_or(0, |d| d.size),
            mtime: times.seconds(meta.mtime.seconds),
            mtime_nanos: times.nanos(meta.mtime.nanos),
            dev: if is_device { meta.rdev } else { (0, 0) },
            xattrs: Some(&meta.xattrs),
        },
    )
}

fn append_marker(out: &mut Vec<u8>, dir: &TreePath, name: &[u8], times: Times) -> Result<(), &'static str> {
    let name = if dir.is_root() { name.to_vec() } else { [dir.as_bytes(), b"/", name].concat() };
    header::append(
        out,
        &Fields {
            name: &name,
            type_flag: b'0',
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: times.seconds(0),
            mtime_nanos: 0,
            dev: (0, 0),
            xattrs: None,
        },
    )
}

/// How modification times are written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// Later times are written as this.
    pub(crate) epoch: Option<i64>,
    /// Whether fractions of seconds are written.
    pub(crate) nanoseconds: bool,
}

impl Times {
    fn seconds(self, seconds: i64) -> i64 {
        self.epoch.map_or(seconds, |limit| seconds.min(limit))
    }

    fn nanos(self, nanos: u32) -> u32 {
        if self.nanoseconds && self.epoch.is_none() { nanos } else { 0 }
    }
}

fn tar_name(path: &TreePath, is_dir: bool) -> Cow<'_, [u8]> {
    match (path.is_root(), is_dir) {
        (true, _) => Cow::Borrowed(b"./"),
        (false, true) => Cow::Owned([path.as_bytes(), b"/"].concat()),
        (false, false) => Cow::Borrowed(path.as_bytes()),
    }
}

/// Renders small entries completely, data and padding included.
pub(crate) fn render(entries: &[LayerEntry], times: Times) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::with_capacity(entries.iter().map(|e| 1024 + data_size(e) as usize).sum());
    for entry in entries {
        if let Some(data) = append_header(&mut out, entry, times)? {
            append_data(&mut out, &entry.path, data)?;
            out.resize(out.len() + header::padding(data.size), 0);
        }
    }
    Ok(out)
}

/// Bytes of data that `entry` brings along.
pub(crate) fn data_size(entry: &LayerEntry) -> u64 {
    match &entry.kind {
        LayerEntryKind::Node { data: Some(data), hard_link_to: None, .. } => data.size,
        _ => 0,
    }
}

fn append_data(out: &mut Vec<u8>, path: &TreePath, data: &DataRef) -> Result<(), PackError> {
    let start = out.len();
    let size = data.size as usize;
    let changed = || PackError::Changed { path: path.clone() };
    match open(path, &data.source)? {
        Opened::Memory(bytes) => {
            if bytes.len() != size {
                return Err(changed());
            }
            out.extend_from_slice(bytes);
        }
        Opened::File(mut file) => {
            // One byte more than expected, so that one read shows both the end and growth.
            out.resize(start + size + 1, 0);
            let got = fill(&mut file, &mut out[start..]).map_err(|e| read_error(path, e))?;
            if got != size {
                return Err(changed());
            }
            out.truncate(start + size);
        }
    }
    match data.digest {
        Some(digest) if Digest::of(&out[start..]) != digest => Err(changed()),
        _ => Ok(()),
    }
}

/// Reads until `buf` is full or a read comes up short, which is the end of a regular file.
fn fill(file: &mut File, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match file.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if got + 1 == buf.len() {
            break;
        }
    }
    Ok(got)
}

/// The bytes of a file, verified while they are read.
pub(crate) struct VerifiedReader<'a> {
    path: &'a TreePath,
    source: Opened<'a>,
    left: u64,
    hasher: Option<(sha2::Sha256, Digest)>,
}

impl<'a> VerifiedReader<'a> {
    pub(crate) fn open(path: &'a TreePath, data: &'a DataRef) -> Result<Self, PackError> {
        let hasher = data.digest.map(|digest| (sha2::Sha256::new(), digest));
        Ok(Self { path, source: open(path, &data.source)?, left: data.size, hasher })
    }

    /// Fills the front of `buf`; 0 once all bytes were given.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, PackError> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = match &mut self.source {
            Opened::Memory(bytes) => Read::read(bytes, &mut buf[..want]),
            Opened::File(file) => loop {
                match file.read(&mut buf[..want]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            },
        };
        let got = got.map_err(|e| read_error(self.path, e))?;
        if got == 0 {
            return Err(self.changed());
        }
        self.left -= got as u64;
        if let Some((hasher, _)) = &mut self.hasher {
            hasher.update(&buf[..got]);
        }
        Ok(got)
    }

    /// Checks that the file ends here and had the promised digest.
    pub(crate) fn finish(mut self) -> Result<(), PackError> {
        let mut one = [0];
        let more = match &mut self.source {
            Opened::Memory(bytes) => bytes.len(),
            Opened::File(file) => file.read(&mut one).map_err(|e| read_error(self.path, e))?,
        };
        let error = self.changed();
        let same = match self.hasher {
            Some((hasher, digest)) => Digest::from_bytes(hasher.finalize().into()) == digest,
            None => true,
        };
        if more == 0 && same { Ok(()) } else { Err(error) }
    }

    fn changed(&self) -> PackError {
        PackError::Changed { path: self.path.clone() }
    }
}

enum Opened<'a> {
    Memory(&'a [u8]),
    File(File),
}

/// Opens without blocking on a FIFO that took the file's place, and without following any link below a root.
fn open<'a>(path: &TreePath, source: &'a DataSource) -> Result<Opened<'a>, PackError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match source {
        DataSource::Inline(bytes) => return Ok(Opened::Memory(bytes)),
        DataSource::Below { root, path } => {
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            retry_again(|| rustix::fs::openat2(root, path.as_at(), flags, Mode::empty(), beneath))
        }
        DataSource::Owned(file) => rustix::fs::open(file, flags, Mode::empty()),
    };
    match file {
        Ok(file) => Ok(Opened::File(File::from(file))),
        Err(e) => Err(read_error(path, e.into())),
    }
}

/// The kernel answers EAGAIN when a rename somewhere raced with a confined lookup.
pub(crate) fn retry_again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..128 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

/// A file that is gone, or is no longer a file, has changed.
fn read_error(path: &TreePath, source: io::Error) -> PackError {
    let gone =
        [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::ISDIR, Errno::NXIO, Errno::AGAIN, Errno::XDEV];
    match source.raw_os_error() {
        Some(code) if gone.iter().any(|e| e.raw_os_error() == code) => {
            PackError::Changed { path: path.clone() }
        }
        _ => PackError::Read { path: path.clone(), source },
    }
}
