//! Entries to a layer blob.
//!
//! The calling thread is the producer: it takes entries from the iterator, has batches of small files read, hashed and
//! rendered to tar on the rayon pool ahead of the place where they are needed, reads large files itself, and cuts the
//! tar stream into chunks ([`CHUNK`]). Chunks are hashed for the diff ID on one thread, deflated on the pool, and written in
//! order on another thread that hashes the blob. A layer that fits into one chunk is made on the calling thread alone.

mod batch;
mod pipeline;
mod render;

use crate::PackError;
use pipeline::Pipeline;
use rbuild_oci::{Digest, media_type};
use rbuild_tree::LayerEntry;
pub(crate) use render::retry_again;
use std::convert::Infallible;
use std::io::Write;

/// Bytes of tar that are compressed at a time. Part of the bytes' definition, see [`crate::gzip`].
pub(crate) const CHUNK: usize = 1 << 20;

/// gzip level of layers unless the user asks for another: within 3 % of what `gzip -6` makes of binaries, sources and
/// documentation, at 1.2 times the speed of zlib-rs's own level 6 (level 4 is 5 % faster, and up to 5 % larger than gzip).
pub const DEFAULT_GZIP_LEVEL: u32 = 5;
/// zstd level of layers unless the user asks for another.
pub const DEFAULT_ZSTD_LEVEL: i32 = 3;

/// How a layer is compressed (features.md B-021).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// One gzip member.
    Gzip {
        /// 0 (stored) to 9.
        level: u32,
    },
    /// One zstd frame.
    Zstd {
        /// 0 (zstd's default) to 22.
        level: i32,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: DEFAULT_GZIP_LEVEL }
    }
}

impl Compression {
    /// The OCI media type of a layer compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => media_type::OCI_LAYER,
            Self::Gzip { .. } => media_type::OCI_LAYER_GZIP,
            Self::Zstd { .. } => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// A name for what these settings do to the same entries. It changes whenever the bytes would (DESIGN promise 3).
    pub fn codec(self) -> String {
        match self {
            Self::None => "tar-1".to_owned(),
            Self::Gzip { level } => format!("gzip-1.{level}"),
            Self::Zstd { level } => format!("zstd-1.{level}"),
        }
    }

    fn check(self) -> Result<(), PackError> {
        match self {
            Self::Gzip { level } if level > 9 => Err(PackError::Level {
                codec: "gzip",
                level: i32::try_from(level).unwrap_or(i32::MAX),
                min: 0,
                max: 9,
            }),
            Self::Zstd { level } if !(0..=22).contains(&level) => {
                Err(PackError::Level { codec: "zstd", level, min: 0, max: 22 })
            }
            _ => Ok(()),
        }
    }
}

/// What decides, with the entries, about the bytes of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// The codec.
    pub compression: Compression,
    /// SOURCE_DATE_EPOCH: a modification time later than this (seconds) is stored as this (DESIGN promise 3).
    pub epoch: Option<i64>,
    /// Whether fractions of seconds of modification times are kept, as PAX records; layers have whole seconds (B-014).
    pub nanoseconds: bool,
}

/// A layer blob that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Digest of what was written.
    pub blob: Digest,
    /// Length of what was written in bytes.
    pub size: u64,
    /// OCI media type of the blob.
    pub media_type: &'static str,
}

/// Writes the layer that holds `entries`, which must be in strictly ascending order of their paths (an
/// [`Opaque`](rbuild_tree::LayerEntryKind::Opaque) entry right after its directory, or alone), to `out`.
///
/// File bytes are read from where their [`rbuild_tree::DataRef`] says, hashed, and compared with its size and digest;
/// any difference is [`PackError::Changed`]. Sockets are left out (B-017). Whoever calls this from inside a rayon pool gets
/// the same bytes without parallelism.
pub fn pack<I, E, W>(entries: I, options: &PackOptions, out: W) -> Result<Packed, PackError>
where
    I: IntoIterator<Item = Result<LayerEntry, E>>,
    E: std::error::Error + Send + Sync + 'static,
    W: Write + Send,
{
    options.compression.check()?;
    let pooled = rayon::current_thread_index().is_none();
    let entries = entries.into_iter().map(|entry| entry.map_err(|e| PackError::Entries(Box::new(e))));
    std::thread::scope(|scope| {
        let mut pipeline = Pipeline::new(scope, options.compression, pooled, out);
        // A failed writer makes the producer stop; its error is the one that counts.
        let times = render::Times { epoch: options.epoch, nanoseconds: options.nanoseconds };
        match batch::produce(entries, times, pooled, &mut pipeline) {
            Ok(()) => pipeline.finish(),
            Err(batch::Stop::Entries(error)) => Err(error),
            Err(batch::Stop::Pipeline) => Err(pipeline.failure()),
        }
    })
}

/// [`pack`] for entries in memory.
pub fn pack_slice<W: Write + Send>(
    entries: &[LayerEntry],
    options: &PackOptions,
    out: W,
) -> Result<Packed, PackError> {
    pack(entries.iter().cloned().map(Ok::<_, Infallible>), options, out)
}

#[cfg(test)]
mod tests;
