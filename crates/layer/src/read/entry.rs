//! Headers to entries.

use super::{
    BLOCK, MAX_LINK_BYTES, MAX_PATH_BYTES, MAX_PAX_BYTES, Pending, Segment, TarEntry, TarKind, TarReader,
    number, sparse,
};
use crate::{TarError, header};
use rbuild_tree::Timestamp;
use std::io::{self, BufRead};
use tar::{EntryType, Header};

impl<R: BufRead> TarReader<R> {
    pub(super) fn malformed(&self, reason: &'static str) -> TarError {
        TarError::Malformed { reason, offset: self.header_offset }
    }

    pub(super) fn limit(&self, what: &'static str, limit: u64) -> TarError {
        TarError::Limit { what, limit, offset: self.header_offset }
    }

    pub(super) fn return_lent(&mut self) {
        self.reader.consume(self.lent);
        self.lent = 0;
    }

    pub(super) fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), TarError> {
        let mut done = 0;
        while done < buf.len() {
            match self.reader.read(&mut buf[done..]) {
                Ok(0) => return Err(TarError::Truncated { offset: self.offset }),
                Ok(n) => {
                    done += n;
                    self.offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TarError::Io(e)),
            }
        }
        Ok(())
    }

    /// Skips what is left of the current entry.
    pub(super) fn skip_data(&mut self) -> Result<(), TarError> {
        self.return_lent();
        let mut left = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        self.segments.clear();
        while left > 0 {
            let n = self.reader.fill_buf().map_err(TarError::Io)?.len();
            if n == 0 {
                return Err(TarError::Truncated { offset: self.offset });
            }
            let n = left.min(n as u64);
            self.reader.consume(n as usize);
            self.offset += n;
            left -= n;
        }
        Ok(())
    }

    /// The next header block, or `None` at the end of the archive: two zero blocks, or the end of the stream where a
    /// header could begin (many tools leave the zero blocks out).
    pub(super) fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        let Some(header) = self.read_block()? else { return Ok(None) };
        if header.as_bytes().iter().any(|b| *b != 0) {
            self.verify(&header)?;
            return Ok(Some(header));
        }
        match self.read_block()? {
            Some(second) if second.as_bytes().iter().any(|b| *b != 0) => {
                Err(self.malformed("a zero block followed by data"))
            }
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<Header>, TarError> {
        if self.reader.fill_buf().map_err(TarError::Io)?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    /// The checksum, which old tars summed over signed bytes.
    fn verify(&self, header: &Header) -> Result<(), TarError> {
        let bytes = header.as_bytes();
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (i, byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        match number::field(&header.as_old().cksum) {
            Some(sum) if sum == unsigned || sum == signed => Ok(()),
            _ => Err(self.malformed("wrong header checksum; this is not a tar archive, or it is damaged")),
        }
    }

    fn number(&self, field: &[u8], what: &'static str) -> Result<u64, TarError> {
        number::field(field).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| self.malformed(what))
    }

    /// The body of an extended header, without its padding.
    pub(super) fn meta_body(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = self.number(&header.as_old().size, "bad size of an extended header")?;
        if size > MAX_PAX_BYTES {
            return Err(self.limit("bytes in an extended header", MAX_PAX_BYTES));
        }
        let mut body = vec![0; size as usize + header::padding(size)];
        self.read_exact(&mut body)?;
        body.truncate(size as usize);
        Ok(body)
    }

    /// A GNU long name or link name: ends at the first NUL.
    pub(super) fn gnu_long(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let mut body = self.meta_body(header)?;
        body.truncate(until_nul(&body).len());
        Ok(body)
    }

    /// The entry of `header`, with what extended headers said; its data is next in the stream.
    pub(super) fn entry(&mut self, header: &Header, pending: Pending) -> Result<TarEntry, TarError> {
        let mut pax = pending.pax.unwrap_or_default();
        let raw = header.as_old();
        let header_size = self.number(&raw.size, "bad size")?;
        let stored = pax.size.unwrap_or(header_size);
        let path = pending.name.or(pax.path.take()).unwrap_or_else(|| ustar_name(header));
        let link = pending.link.or(pax.link.take()).unwrap_or_else(|| until_nul(&raw.linkname).to_vec());
        let kind = self.kind(header, &path, link)?;
        let is_file = kind == TarKind::Regular;
        self.left = if is_file { stored } else { 0 };
        self.padding = header::padding(self.left) as u64;
        let map = if header.entry_type() == EntryType::GNUSparse {
            Some(self.gnu_sparse(header)?)
        } else if is_file {
            self.pax_sparse(&mut pax.sparse)?
        } else {
            None
        };
        let is_sparse = map.is_some();
        let (segments, size) = match map {
            Some((map, real)) => (sparse::check(map, real, self.left).map_err(|r| self.malformed(r))?, real),
            None if self.left == 0 => (Vec::new(), 0),
            None => (vec![Segment { offset: 0, len: self.left }], self.left),
        };
        self.segments = segments;
        self.segments.reverse();
        let path = pax.sparse.name.take().filter(|_| is_sparse).unwrap_or(path);
        if path.len() as u64 > MAX_PATH_BYTES {
            return Err(self.limit("bytes in a name", MAX_PATH_BYTES));
        }
        Ok(TarEntry {
            path,
            kind,
            mode: (self.number(&raw.mode, "bad mode")? & 0o7777) as u32,
            uid: self.id(pax.uid, &raw.uid)?,
            gid: self.id(pax.gid, &raw.gid)?,
            size,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Timestamp { seconds: self.seconds(&raw.mtime)?, nanos: 0 },
            },
            xattrs: pax.xattrs,
            sparse: is_sparse,
        })
    }

    fn seconds(&self, field: &[u8]) -> Result<i64, TarError> {
        number::field(field).ok_or_else(|| self.malformed("bad modification time"))
    }

    /// An owner. `u32::MAX` means "no change" to the kernel and is no id.
    fn id(&self, pax: Option<u64>, field: &[u8]) -> Result<u32, TarError> {
        let id = match pax {
            Some(id) => id,
            None => self.number(field, "bad owner")?,
        };
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.malformed("an owner that is no user or group id")),
        }
    }

    fn kind(&self, header: &Header, path: &[u8], link: Vec<u8>) -> Result<TarKind, TarError> {
        let device = || -> Result<(u32, u32), TarError> {
            let bytes = header.as_bytes();
            let number = |field: &[u8]| number::field(field).and_then(|n| u32::try_from(n).ok());
            match (bytes[257..262] == *b"ustar", number(&bytes[329..337]), number(&bytes[337..345])) {
                (true, Some(major), Some(minor)) => Ok((major, minor)),
                _ => Err(self.malformed("a device without valid numbers")),
            }
        };
        let link = || -> Result<Vec<u8>, TarError> {
            match link.len() as u64 {
                0 => Err(self.malformed("a link without a target")),
                n if n > MAX_LINK_BYTES => Err(self.limit("bytes in a link target", MAX_LINK_BYTES)),
                _ => Ok(link),
            }
        };
        Ok(match header.entry_type() {
            // In v7 archives a directory is a file whose name ends with a slash.
            EntryType::Regular if header.as_old().linkflag == [0] && path.ends_with(b"/") => {
                TarKind::Directory
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => TarKind::Regular,
            EntryType::Link => TarKind::HardLink(link()?),
            EntryType::Symlink => TarKind::Symlink(link()?),
            EntryType::Char => device().map(|(major, minor)| TarKind::CharDevice(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| TarKind::BlockDevice(major, minor))?,
            EntryType::Directory => TarKind::Directory,
            EntryType::Fifo => TarKind::Fifo,
            _ => return Err(self.malformed("unknown type of entry")),
        })
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|c| *c == 0).next().unwrap_or(field)
}

/// The name of a header without extended headers: POSIX archives may have its front in the prefix field (shorter in
/// the star dialect, which keeps times behind it).
fn ustar_name(header: &Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    let bytes = header.as_bytes();
    let prefix = match (bytes[257..263] == *b"ustar\0", bytes.ends_with(b"tar\0")) {
        (true, true) => until_nul(&bytes[345..476]),
        (true, false) => until_nul(&bytes[345..500]),
        (false, _) => b"",
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}
