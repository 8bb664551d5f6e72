//! PAX records (POSIX.1-2017, pax, "pax Extended Header").

use super::number;
use super::sparse::Segment;
use super::{MAX_SPARSE_SEGMENTS, MAX_XATTR_BYTES};
use crate::PAX_XATTR;
use rbuild_tree::{Timestamp, Xattrs};

/// The records of one extended header that mean something here. An empty value deletes a record.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
    xattr_bytes: u64,
}

/// What GNU tar's three PAX sparse formats say.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// The map of formats 0.0 and 0.1.
    pub(super) map: Option<Vec<Segment>>,
    /// The offset of format 0.0 that waits for its length.
    offset: Option<u64>,
}

impl Records {
    /// Whether these records, as global ones, would change which bytes belong to which entry.
    pub(super) fn would_rename_or_resize(&self) -> bool {
        let sparse = &self.sparse;
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || sparse.major.is_some()
            || sparse.minor.is_some()
            || sparse.name.is_some()
            || sparse.real_size.is_some()
            || sparse.map.is_some()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = count(value)?,
            b"uid" => self.uid = count(value)?,
            b"gid" => self.gid = count(value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(number::time(value).ok_or("PAX mtime is no time")?),
            _ => {
                if let Some(name) = key.strip_prefix(PAX_XATTR) {
                    self.set_xattr(name, value)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.is_empty() || name.contains(&0) {
            return Err("PAX extended attribute without a name or with a NUL in it");
        }
        self.xattr_bytes += (name.len() + value.len()) as u64;
        if self.xattr_bytes > MAX_XATTR_BYTES {
            return Err("too many bytes of extended attributes");
        }
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }
}

impl SparseRecords {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"major" => self.major = count(value)?,
            b"minor" => self.minor = count(value)?,
            b"name" => self.name = text(value)?,
            b"size" | b"realsize" => self.real_size = count(value)?,
            b"map" => self.map = Some(map(value)?),
            b"offset" if self.offset.is_some() => return Err(BAD_MAP),
            b"offset" => self.offset = Some(count(value)?.ok_or(BAD_MAP)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(BAD_MAP)?;
                let len = count(value)?.ok_or(BAD_MAP)?;
                push(self.map.get_or_insert_default(), Segment { offset, len })?;
            }
            _ => {}
        }
        Ok(())
    }
}

const BAD_MAP: &str = "malformed PAX sparse map";

fn push(map: &mut Vec<Segment>, segment: Segment) -> Result<(), &'static str> {
    if map.len() as u64 >= MAX_SPARSE_SEGMENTS {
        return Err("sparse file with too many segments");
    }
    map.push(segment);
    Ok(())
}

/// `offset,length,offset,length,…`
fn map(value: &[u8]) -> Result<Vec<Segment>, &'static str> {
    let mut map = Vec::new();
    if value.is_empty() {
        return Ok(map);
    }
    let mut numbers = value.split(|c| *c == b',').map(number::decimal);
    while let Some(offset) = numbers.next() {
        let (Some(offset), Some(Some(len))) = (offset, numbers.next()) else { return Err(BAD_MAP) };
        push(&mut map, Segment { offset, len })?;
    }
    Ok(map)
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("PAX name with a NUL in it");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn count(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    number::decimal(value).map(Some).ok_or("PAX record that should be a number is none")
}

/// Parses the body of an extended header: `LEN KEY=VALUE\n` until its very end.
pub(super) fn parse(mut body: &[u8]) -> Result<Records, &'static str> {
    const BAD: &str = "malformed PAX record";
    let mut records = Records::default();
    while !body.is_empty() {
        let space = body.iter().take(20).position(|c| *c == b' ').ok_or(BAD)?;
        let len = number::decimal(&body[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(BAD)?;
        if len <= space + 1 || len > body.len() {
            return Err(BAD);
        }
        let (record, rest) = body.split_at(len);
        let record = record[space + 1..].strip_suffix(b"\n").ok_or(BAD)?;
        let equals = record.iter().position(|c| *c == b'=').filter(|i| *i > 0).ok_or(BAD)?;
        if record[..equals].contains(&0) {
            return Err(BAD);
        }
        records.set(&record[..equals], &record[equals + 1..])?;
        body = rest;
    }
    if records.sparse.offset.is_some() {
        return Err(BAD_MAP);
    }
    Ok(records)
}
