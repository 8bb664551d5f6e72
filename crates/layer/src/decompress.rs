//! Compressed streams to their bytes.

use crate::DecompressError;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use std::io::{self, BufRead, BufReader, Read};

/// Largest window a zstd frame may ask for, as a power of two: 128 MiB, what RFC 8878 calls reasonable at most for
/// untrusted data at its upper end and what `zstd --long=27` uses.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Most memory that an xz stream may ask for, in KiB: a dictionary of 128 MiB (`xz -9` makes 64 MiB) and what the
/// decoder needs beside it. A bzip2 stream never needs more than 4 MiB.
pub const MAX_XZ_MEMORY_KIB: u32 = (128 << 10) + 256;

/// Bytes read ahead from the compressed stream.
const BUFFER: usize = 128 << 10;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// None.
    Plain,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one or more frames.
    Zstd,
    /// bzip2, one or more streams.
    Bzip2,
    /// The .xz format 1.2, one or more streams with padding between them.
    Xz,
}

impl Codec {
    /// The codec that a layer's media type names; `None` for a type that says nothing about it.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let media_type = media_type.split(';').next().unwrap_or("").trim();
        let is_tar = media_type.contains("tar");
        match media_type.rsplit(['.', '+']).next().unwrap_or("") {
            "gzip" if is_tar => Some(Self::Gzip),
            "zstd" if is_tar => Some(Self::Zstd),
            "tar" => Some(Self::Plain),
            _ => None,
        }
    }

    /// The codec whose magic `head` begins with; [`Codec::Plain`] when it is none that is known.
    pub fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }
}

/// Reads a layer blob of the given media type. A type that names no codec (`application/octet-stream`, empty) is
/// decided by the first bytes; one that names gzip or zstd must tell the truth.
pub fn decompress<R: Read>(reader: R, media_type: &str) -> Result<Decompressor<R>, DecompressError> {
    let (reader, head) = peek(reader)?;
    let sniffed = Codec::sniff(&head);
    match Codec::of_media_type(media_type) {
        None => Decompressor::new(reader, sniffed),
        Some(Codec::Plain) => Decompressor::new(reader, Codec::Plain),
        Some(codec) if codec == sniffed => Decompressor::new(reader, codec),
        Some(codec) => {
            Err(DecompressError::Mismatch { expected: codec.name(), media_type: media_type.to_owned() })
        }
    }
}

/// Reads data whose codec is decided by its first bytes alone.
pub fn decompress_sniffed<R: Read>(reader: R) -> Result<Decompressor<R>, DecompressError> {
    let (reader, head) = peek(reader)?;
    Decompressor::new(reader, Codec::sniff(&head))
}

/// The reader again, with the first ten bytes (fewer at the end) put back.
type Peeked<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

fn peek<R: Read>(mut reader: R) -> Result<(Peeked<R>, Vec<u8>), DecompressError> {
    let mut head = Vec::with_capacity(10);
    reader.by_ref().take(10).read_to_end(&mut head)?;
    Ok((BufReader::with_capacity(BUFFER, io::Cursor::new(head.clone()).chain(reader)), head))
}

/// The decompressed bytes of a stream; made by [`decompress`] and [`decompress_sniffed`].
///
/// After the last gzip member only zero bytes may follow (tape padding); any other trailing byte is an error, as it is for
/// Go's and Docker's readers. A truncated stream is an error, never a short read; after an error nothing more is read.
///
/// A stream that wants more memory than [`MAX_ZSTD_WINDOW_LOG`] and [`MAX_XZ_MEMORY_KIB`] allow gives an error of kind
/// [`io::ErrorKind::OutOfMemory`].
pub struct Decompressor<R: Read>(Inner<R>);

enum Inner<R: Read> {
    Plain(Peeked<R>),
    /// `None` only while a member is exchanged.
    Gzip(Option<Box<GzDecoder<Peeked<R>>>>),
    Zstd(zstd::Decoder<'static, Peeked<R>>),
    Bzip2(Box<MultiBzDecoder<Peeked<R>>>),
    Xz(Box<XzReader<Peeked<R>>>),
    /// There was an error. What the decoder would go on with is not the data.
    Failed(Codec),
}

impl<R: Read> Decompressor<R> {
    fn new(reader: Peeked<R>, codec: Codec) -> Result<Self, DecompressError> {
        Ok(Self(match codec {
            Codec::Plain => Inner::Plain(reader),
            Codec::Gzip => Inner::Gzip(Some(Box::new(GzDecoder::new(reader)))),
            Codec::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Inner::Zstd(decoder)
            }
            Codec::Bzip2 => Inner::Bzip2(Box::new(MultiBzDecoder::new(reader))),
            Codec::Xz => Inner::Xz(Box::new(XzReader::new_mem_limit(reader, true, MAX_XZ_MEMORY_KIB))),
        }))
    }

    /// The codec in use.
    pub fn codec(&self) -> Codec {
        match self.0 {
            Inner::Plain(_) => Codec::Plain,
            Inner::Gzip(_) => Codec::Gzip,
            Inner::Zstd(_) => Codec::Zstd,
            Inner::Bzip2(_) => Codec::Bzip2,
            Inner::Xz(_) => Codec::Xz,
            Inner::Failed(codec) => codec,
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let result = self.0.read(buf);
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let codec = self.codec();
                self.0 = Inner::Failed(codec);
                Err(explained(codec, error))
            }
            other => other,
        }
    }
}

impl<R: Read> Inner<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
            Self::Bzip2(decoder) => decoder.read(buf),
            Self::Xz(decoder) => decoder.read(buf),
            Self::Failed(codec) => Err(io::Error::other(format!("the {} data is damaged", codec.name()))),
            Self::Gzip(slot) => loop {
                let Some(decoder) = slot else { return Ok(0) };
                let n = decoder.read(buf)?;
                if n > 0 {
                    return Ok(n);
                }
                *slot = match slot.take() {
                    Some(done) => next_member(done.into_inner())?,
                    None => None,
                };
            },
        }
    }
}

/// What a decoder says, with the name of the format; what the system says stays as it is.
fn explained(codec: Codec, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() || codec == Codec::Plain {
        return error;
    }
    // The text is that of zstd's `ZSTD_error_frameParameter_windowTooLarge`, which has no other mark.
    let too_much = error.kind() == io::ErrorKind::OutOfMemory
        || codec == Codec::Zstd && error.to_string().contains("too much memory");
    if too_much {
        let text =
            format!("the {} data needs more than 128 MiB to decompress; use a smaller window", codec.name());
        return io::Error::new(io::ErrorKind::OutOfMemory, text);
    }
    io::Error::new(error.kind(), format!("bad {} data: {error}", codec.name()))
}

/// What follows a gzip member: another one, or padding and the end.
fn next_member<B: BufRead>(mut reader: B) -> io::Result<Option<Box<GzDecoder<B>>>> {
    loop {
        let buf = reader.fill_buf()?;
        match buf.first() {
            None => return Ok(None),
            Some(0x1f) => return Ok(Some(Box::new(GzDecoder::new(reader)))),
            Some(0) => {
                let len = buf.len();
                if buf.iter().any(|b| *b != 0) {
                    break;
                }
                reader.consume(len);
                // Padding has begun: only zeros may follow.
                if let Some(first) = reader.fill_buf()?.first()
                    && *first != 0
                {
                    break;
                }
            }
            Some(_) => break,
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "garbage after the end of the gzip data"))
}
