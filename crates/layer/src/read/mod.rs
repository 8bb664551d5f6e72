//! A strict reader of tar streams (POSIX ustar and pax, GNU, v7).
//!
//! The danger in tar is two readers that disagree about where an entry ends. The rules here are those of Go's
//! `archive/tar`, which Docker and containerd use: a PAX `size` replaces the header's; links, directories and devices have
//! no data whatever their size says; the first of two zero blocks ends the archive. What Go lets pass but would be guesswork
//! (unknown entry types, PAX headers of PAX headers, global records that would rename or resize every entry) is refused.

mod entry;
mod number;
mod pax;
mod sparse;

use crate::{BLOCK, TarError};
use pax::Records;
use rbuild_tree::{Timestamp, Xattrs};
use sparse::Segment;
use std::io::{BufRead, BufReader, Read};
use tar::EntryType;

/// Longest name of an entry in bytes: the kernel's PATH_MAX.
pub const MAX_PATH_BYTES: u64 = 4096;
/// Longest link target in bytes.
pub const MAX_LINK_BYTES: u64 = 4096;
/// Most bytes of PAX records (or of a GNU long name) before one entry; Go has the same.
pub const MAX_PAX_BYTES: u64 = 1 << 20;
/// Most bytes in names and values of one entry's extended attributes.
pub const MAX_XATTR_BYTES: u64 = 256 << 10;
/// Most data segments of a sparse file.
pub const MAX_SPARSE_SEGMENTS: u64 = 1 << 18;

/// Most global PAX headers of an archive; they mean nothing here and hide behind no other limit.
const MAX_GLOBAL_HEADERS: u64 = 1 << 16;
/// Most bytes after the end of an archive. Writers pad to their record size, at most a few MiB.
const MAX_TRAILING_BYTES: u64 = 1 << 30;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    /// Regular file with data.
    Regular,
    /// Another name of the file with this name.
    HardLink(Vec<u8>),
    /// Symbolic link with this target.
    Symlink(Vec<u8>),
    /// Character device.
    CharDevice(u32, u32),
    /// Block device.
    BlockDevice(u32, u32),
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
}

/// One entry as the archive has it: the name is neither cleaned nor checked for `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Name, at most [`MAX_PATH_BYTES`], without NUL.
    pub path: Vec<u8>,
    /// Type.
    pub kind: TarKind,
    /// Permission bits, `0..=0o7777`.
    pub mode: u32,
    /// Owner; never `u32::MAX`.
    pub uid: u32,
    /// Group; never `u32::MAX`.
    pub gid: u32,
    /// Length of the file in bytes, holes included; 0 unless regular.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
    sparse: bool,
}

impl TarEntry {
    /// Whether the data has holes.
    pub fn is_sparse(&self) -> bool {
        self.sparse
    }
}

/// Reads entries one after the other; the data of the current one is read with [`TarReader::next_data`] or skipped.
pub struct TarReader<R> {
    reader: R,
    /// Bytes of the stream read so far; where the last header began.
    offset: u64,
    header_offset: u64,
    /// Global headers seen.
    globals: u64,
    /// Bytes lent by [`Self::next_data`] that the reader still holds.
    lent: usize,
    /// Bytes of the current entry's data in the stream, and of its padding, that were not read yet.
    left: u64,
    padding: u64,
    /// Data segments not read yet, in reverse; for a plain file one.
    segments: Vec<Segment>,
    done: bool,
}

/// A reader of the tar stream in `reader`.
pub fn read_tar<R: Read>(reader: R) -> TarReader<BufReader<R>> {
    TarReader::new(BufReader::with_capacity(128 << 10, reader))
}

/// A part of a file's data.
#[derive(Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Where in the file it belongs; what is skipped is a hole.
    pub offset: u64,
    /// The bytes, never empty.
    pub bytes: &'a [u8],
}

impl<R: BufRead> TarReader<R> {
    /// Reads from the start of an archive.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            offset: 0,
            header_offset: 0,
            globals: 0,
            lent: 0,
            left: 0,
            padding: 0,
            segments: Vec::new(),
            done: false,
        }
    }

    /// The next entry, or `None` after the last. Data of the entry before it that was not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        if self.done {
            return Ok(None);
        }
        self.skip_data()?;
        let mut pending = Pending::default();
        loop {
            self.header_offset = self.offset;
            let Some(header) = self.read_header()? else {
                self.done = true;
                return if pending.is_empty() {
                    Ok(None)
                } else {
                    Err(self.malformed("header without an entry"))
                };
            };
            match header.entry_type() {
                EntryType::XHeader if pending.pax.is_none() => {
                    let body = self.meta_body(&header)?;
                    pending.pax = Some(pax::parse(&body).map_err(|r| self.malformed(r))?);
                }
                EntryType::XGlobalHeader if pending.is_empty() => {
                    self.globals += 1;
                    if self.globals > MAX_GLOBAL_HEADERS {
                        return Err(self.limit("global extended headers", MAX_GLOBAL_HEADERS));
                    }
                    let body = self.meta_body(&header)?;
                    let records = pax::parse(&body).map_err(|r| self.malformed(r))?;
                    if records.would_rename_or_resize() {
                        return Err(self.malformed("global PAX header with a name or a size"));
                    }
                }
                EntryType::GNULongName if pending.name.is_none() => {
                    pending.name = Some(self.gnu_long(&header)?);
                }
                EntryType::GNULongLink if pending.link.is_none() => {
                    pending.link = Some(self.gnu_long(&header)?);
                }
                EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink => return Err(self.malformed("two extended headers for one entry")),
                _ => return self.entry(&header, pending).map(Some),
            }
        }
    }

    /// The next part of the current entry's data, or `None` at its end. [`TarEntry::size`] tells how long the file is
    /// when it ends with a hole.
    pub fn next_data(&mut self) -> Result<Option<Data<'_>>, TarError> {
        self.return_lent();
        let Some(segment) = self.segments.last_mut() else { return Ok(None) };
        let offset = segment.offset;
        let buf = self.reader.fill_buf().map_err(TarError::Io)?;
        if buf.is_empty() {
            return Err(TarError::Truncated { offset: self.offset });
        }
        let n = segment.len.min(buf.len() as u64);
        segment.offset += n;
        segment.len -= n;
        if segment.len == 0 {
            self.segments.pop();
        }
        self.left -= n;
        self.offset += n;
        self.lent = n as usize;
        Ok(Some(Data { offset, bytes: &buf[..n as usize] }))
    }

    /// Reads to the end of the stream, after the end of the archive. Bytes there have no meaning, but belong to the
    /// digest of a layer.
    pub fn drain(&mut self) -> Result<(), TarError> {
        self.return_lent();
        let start = self.offset;
        loop {
            let n = self.reader.fill_buf().map_err(TarError::Io)?.len();
            if n == 0 {
                return Ok(());
            }
            self.reader.consume(n);
            self.offset += n as u64;
            if self.offset - start > MAX_TRAILING_BYTES {
                return Err(self.limit("bytes after the end of the archive", MAX_TRAILING_BYTES));
            }
        }
    }

    /// The stream itself.
    pub fn into_inner(mut self) -> R {
        self.return_lent();
        self.reader
    }
}

/// Extended headers seen before an entry's own.
#[derive(Default)]
struct Pending {
    pax: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.name.is_none() && self.link.is_none()
    }
}
