//! One gzip member (RFC 1952) out of independently deflated chunks.
//!
//! Each chunk is raw deflate (RFC 1951) with the 32 KiB before it as dictionary, ended by a sync flush, so that chunks
//! can be made in parallel and joined; their CRCs are combined. The bytes depend on the data, the level and
//! [`CHUNK`](crate::pack::CHUNK) alone. Changing any of the constants here changes the bytes of every layer.

use flate2::{Compress, Compression, FlushCompress, Status};

/// No name, no time, no extra flags, unknown operating system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The farthest that deflate looks back.
pub(crate) const WINDOW: usize = 32 << 10;
/// An empty last block: all chunks before it end with a sync flush.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];
/// Longest stored block (RFC 1951, 3.2.4).
const STORED_MAX: usize = 65_535;

/// How the sample that decides about storing is taken: this many pieces of this many bytes, evenly spread.
const SAMPLE_PIECES: usize = 4;
const SAMPLE_PIECE: usize = 16 << 10;
/// How much likelier than in uniform noise two bytes of the sample may be equal, in percent, for a chunk to be a candidate.
const SAMPLE_COLLISIONS: u64 = 115;
/// A chunk is stored when deflating the sample leaves more than this many thousandths of it.
const SAMPLE_KEPT: usize = 985;

/// A deflated chunk.
pub(crate) struct Piece {
    /// Raw deflate, byte aligned at its end.
    pub(crate) bytes: Vec<u8>,
    /// CRC of the data, not of `bytes`.
    pub(crate) crc: crc32fast::Hasher,
    /// Length of the data.
    pub(crate) len: u64,
}

/// What ends the member.
pub(crate) fn trailer(crc: u32, size: u64) -> Vec<u8> {
    let mut out = LAST_BLOCK.to_vec();
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&(size as u32).to_le_bytes());
    out
}

/// Deflates `data`, which follows `dictionary` in the stream. The error says what zlib disliked.
pub(crate) fn deflate(level: u32, dictionary: &[u8], data: &[u8]) -> Result<Piece, String> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(data);
    let bytes = if level == 0 || (data.len() > SAMPLE_PIECES * SAMPLE_PIECE && is_incompressible(data)?) {
        stored(data)
    } else {
        run(level, dictionary, data)?
    };
    Ok(Piece { bytes, crc, len: data.len() as u64 })
}

/// The state is made anew each time: after `Compress::reset` zlib-rs 0.6 still follows hash chains of the data before, and
/// the bytes would depend on which thread deflated what. Making it costs a thousandth of a chunk's time.
fn run(level: u32, dictionary: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
    let mut state = Compress::new(Compression::new(level), false);
    if !dictionary.is_empty() {
        state.set_dictionary(dictionary).map_err(|e| e.to_string())?;
    }
    let mut out = Vec::with_capacity(data.len() / 2 + 1024);
    loop {
        let done = state.total_in() as usize;
        let status =
            state.compress_vec(&data[done..], &mut out, FlushCompress::Sync).map_err(|e| e.to_string())?;
        if out.len() < out.capacity() && state.total_in() as usize == data.len() {
            return Ok(out);
        }
        if status == Status::BufError && out.len() < out.capacity() {
            return Err("deflate makes no progress".into());
        }
        out.reserve(data.len() / 4 + 1024);
    }
}

/// Whether deflating `data` would not pay, judged by a sample that depends on the data alone.
fn is_incompressible(data: &[u8]) -> Result<bool, String> {
    let mut sample = Vec::with_capacity(SAMPLE_PIECES * SAMPLE_PIECE);
    let stride = (data.len() - SAMPLE_PIECE) / (SAMPLE_PIECES - 1);
    for piece in 0..SAMPLE_PIECES {
        sample.extend_from_slice(&data[piece * stride..][..SAMPLE_PIECE]);
    }
    if !is_noise(&sample) {
        return Ok(false);
    }
    let packed = run(1, &[], &sample)?;
    Ok(packed.len() * 1000 > SAMPLE_KEPT * sample.len())
}

/// Whether all byte values are about equally frequent. In integers, so that no machine decides differently.
fn is_noise(sample: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|n| n * n).sum();
    let uniform = (sample.len() as u64).pow(2) / 256;
    squares * 100 <= uniform * SAMPLE_COLLISIONS
}

/// `data` as stored blocks, none of them the last.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 5 * data.len().div_ceil(STORED_MAX));
    for block in data.chunks(STORED_MAX) {
        let len = block.len() as u16;
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out
}
