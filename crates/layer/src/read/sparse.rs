//! Sparse files: GNU's own format and the three PAX ones (GNU tar manual, "Sparse Formats").

use super::pax::SparseRecords;
use super::{BLOCK, MAX_PATH_BYTES, MAX_SPARSE_SEGMENTS, TarReader, number};
use crate::TarError;
use std::io::BufRead;
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

/// Bytes of data that stand together in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where in the file.
    pub(super) offset: u64,
    /// How many, in the archive as in the file.
    pub(super) len: u64,
}

/// Longest line of a PAX 1.0 map: a number of 20 digits and the newline.
const MAX_MAP_LINE: usize = 21;

/// Checks that the segments are in order, do not overlap, end within the file, and together are the data in the
/// archive; empty ones are dropped.
pub(super) fn check(map: Vec<Segment>, real_size: u64, data_size: u64) -> Result<Vec<Segment>, &'static str> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in &map {
        let next = segment.offset.checked_add(segment.len).ok_or("sparse map overflows")?;
        if segment.offset < end || next > real_size {
            return Err("sparse map out of order or beyond the end of the file");
        }
        end = next;
        total += segment.len;
    }
    if total != data_size {
        return Err("sparse map does not match the data in the archive");
    }
    Ok(map.into_iter().filter(|s| s.len > 0).collect())
}

impl<R: BufRead> TarReader<R> {
    /// The map of an old GNU sparse entry: four segments in the header, more in blocks after it. Gives the real size too.
    pub(super) fn gnu_sparse(&mut self, header: &Header) -> Result<(Vec<Segment>, u64), TarError> {
        let gnu = header.as_gnu().ok_or_else(|| self.malformed("sparse entry without a GNU header"))?;
        let real = number::field(&gnu.realsize).and_then(|n| u64::try_from(n).ok());
        let real = real.ok_or_else(|| self.malformed("bad real size of a sparse file"))?;
        let mut map = Vec::new();
        let mut more = self.gnu_segments(&gnu.sparse, gnu.isextended[0], &mut map)?;
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            more = self.gnu_segments(&block.sparse, block.isextended[0], &mut map)?;
        }
        Ok((map, real))
    }

    fn gnu_segments(
        &self,
        raw: &[GnuSparseHeader],
        extended: u8,
        map: &mut Vec<Segment>,
    ) -> Result<bool, TarError> {
        for raw in raw {
            if raw.offset[0] == 0 || raw.numbytes[0] == 0 {
                break;
            }
            let number = |field| number::field(field).and_then(|n| u64::try_from(n).ok());
            let (Some(offset), Some(len)) = (number(&raw.offset), number(&raw.numbytes)) else {
                return Err(self.malformed("bad number in a sparse map"));
            };
            self.push(map, Segment { offset, len })?;
        }
        Ok(extended != 0)
    }

    fn push(&self, map: &mut Vec<Segment>, segment: Segment) -> Result<(), TarError> {
        if map.len() as u64 >= MAX_SPARSE_SEGMENTS {
            return Err(self.limit("segments of a sparse file", MAX_SPARSE_SEGMENTS));
        }
        map.push(segment);
        Ok(())
    }

    /// The map of a PAX sparse entry, if `records` describe one. For format 1.0 it is read from the front of the data,
    /// and `self.left` is what remains.
    pub(super) fn pax_sparse(
        &mut self,
        records: &mut SparseRecords,
    ) -> Result<Option<(Vec<Segment>, u64)>, TarError> {
        let version = (records.major, records.minor);
        let map = match version {
            (Some(1), Some(0) | None) => None,
            (None, None) | (Some(0), Some(0 | 1)) => match records.map.take() {
                Some(map) => Some(map),
                None if version == (None, None) => return Ok(None),
                None => return Err(self.malformed("PAX sparse file without a map")),
            },
            _ => return Err(self.malformed("unknown version of the PAX sparse format")),
        };
        if records.name.as_ref().is_some_and(|n| n.len() as u64 > MAX_PATH_BYTES) {
            return Err(self.limit("bytes in a name", MAX_PATH_BYTES));
        }
        let real =
            records.real_size.ok_or_else(|| self.malformed("PAX sparse file without its real size"))?;
        let map = match map {
            Some(map) => map,
            None => self.read_map()?,
        };
        Ok(Some((map, real)))
    }

    /// Decimal lines: the number of segments, then offset and length of each; padded to a block.
    fn read_map(&mut self) -> Result<Vec<Segment>, TarError> {
        let mut lines = MapLines { block: [0; BLOCK], at: BLOCK };
        let count = lines.next(self)?;
        if count > MAX_SPARSE_SEGMENTS {
            return Err(self.limit("segments of a sparse file", MAX_SPARSE_SEGMENTS));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            let offset = lines.next(self)?;
            map.push(Segment { offset, len: lines.next(self)? });
        }
        Ok(map)
    }
}

/// Reads a map block by block, so that what follows is at the start of the data.
struct MapLines {
    block: [u8; BLOCK],
    at: usize,
}

impl MapLines {
    fn next<R: BufRead>(&mut self, reader: &mut TarReader<R>) -> Result<u64, TarError> {
        let mut line = Vec::with_capacity(MAX_MAP_LINE);
        loop {
            if self.at == BLOCK {
                if reader.left < BLOCK as u64 {
                    return Err(reader.malformed("PAX sparse map longer than its entry"));
                }
                reader.read_exact(&mut self.block)?;
                reader.left -= BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return number::decimal(&line).ok_or_else(|| reader.malformed("bad number in a sparse map"));
            }
            if line.len() == MAX_MAP_LINE {
                return Err(reader.malformed("bad number in a sparse map"));
            }
            line.push(byte);
        }
    }
}
