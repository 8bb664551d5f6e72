//! The tar stream, cut into chunks, to diff ID and blob.

use super::{CHUNK, Compression, Packed};
use crate::{PackError, gzip};
use rbuild_oci::{Digest, Sha256Writer};
use sha2::Digest as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Chunks on their way, at most: bounds memory to about twice as many MiB.
const MAX_IN_FLIGHT: usize = 12;
/// zstd: bytes per compression job (0 would let it depend on the level) and most threads; memory is about
/// `(threads + 2) * (job + window)`. The job size is part of the bytes' definition, the number of threads is not.
const ZSTD_JOB: u32 = 2 << 20;
const ZSTD_MAX_THREADS: u32 = 6;

type Chunk = Arc<Vec<u8>>;
type Piece = Result<gzip::Piece, String>;

/// The pipeline takes no more: its writer has failed.
pub(super) struct Closed;

/// What the writer thread gets, in order.
enum Work {
    Raw(Chunk),
    Deflated(Receiver<Piece>),
}

struct Threads<'scope> {
    work: SyncSender<Work>,
    writer: ScopedJoinHandle<'scope, Result<(Digest, u64), PackError>>,
    /// `None` when the blob is the tar.
    hasher: Option<(SyncSender<Chunk>, ScopedJoinHandle<'scope, Digest>)>,
}

/// Chunks in, blob out. Threads start with the first full chunk.
pub(super) struct Pipeline<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    compression: Compression,
    pooled: bool,
    out: Option<Box<dyn Write + Send + 'env>>,
    threads: Option<Threads<'scope>>,
    buffer: Vec<u8>,
    used: usize,
    previous: Option<Chunk>,
    tar_size: u64,
}

impl<'scope, 'env> Pipeline<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        compression: Compression,
        pooled: bool,
        out: impl Write + Send + 'env,
    ) -> Self {
        Self {
            scope,
            compression,
            pooled,
            out: Some(Box::new(out)),
            threads: None,
            buffer: vec![0; CHUNK],
            used: 0,
            previous: None,
            tar_size: 0,
        }
    }

    /// Appends to the tar stream.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let n = bytes.len().min(CHUNK - self.used);
            let (now, later) = bytes.split_at(n);
            self.space()[..n].copy_from_slice(now);
            self.filled(n)?;
            bytes = later;
        }
        Ok(())
    }

    /// Where the next bytes of the stream may be read to; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.used..]
    }

    /// `n` bytes of [`Self::space`] now belong to the stream.
    pub(super) fn filled(&mut self, n: usize) -> Result<(), Closed> {
        self.used += n;
        self.tar_size += n as u64;
        if self.used == CHUNK {
            self.used = 0;
            let chunk = std::mem::replace(&mut self.buffer, vec![0; CHUNK]);
            return self.dispatch(chunk);
        }
        Ok(())
    }

    fn dispatch(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        let chunk = Arc::new(chunk);
        if self.threads.is_none() {
            self.start();
        }
        let Some(threads) = &self.threads else { return Err(Closed) };
        if let Some((sender, _)) = &threads.hasher {
            sender.send(Arc::clone(&chunk)).map_err(|_| Closed)?;
        }
        let work = match self.compression {
            Compression::None | Compression::Zstd { .. } => Work::Raw(chunk),
            Compression::Gzip { level } => {
                let before = self.previous.replace(Arc::clone(&chunk));
                Work::Deflated(self.deflate(level, before, chunk))
            }
        };
        threads.work.send(work).map_err(|_| Closed)
    }

    fn deflate(&self, level: u32, before: Option<Chunk>, chunk: Chunk) -> Receiver<Piece> {
        let (sender, receiver) = sync_channel(1);
        let job = move || {
            let dictionary = before.as_ref().map_or(&[][..], |b| &b[b.len().saturating_sub(gzip::WINDOW)..]);
            // Nobody listens any more if writing has failed.
            let _ = sender.send(gzip::deflate(level, dictionary, &chunk));
        };
        if self.pooled {
            rayon::spawn(job)
        } else {
            job()
        }
        receiver
    }

    fn start(&mut self) {
        let Some(out) = self.out.take() else { return };
        let depth = (2 * rayon::current_num_threads() + 2).min(MAX_IN_FLIGHT);
        let (work, todo) = sync_channel(depth);
        let compression = self.compression;
        let writer = self.scope.spawn(move || write_blob(compression, todo.into_iter(), out));
        let hasher = (compression != Compression::None).then(|| {
            let (sender, chunks) = sync_channel::<Chunk>(depth);
            let thread = self.scope.spawn(move || {
                let mut hasher = sha2::Sha256::new();
                for chunk in chunks {
                    hasher.update(&*chunk);
                }
                Digest::from_bytes(hasher.finalize().into())
            });
            (sender, thread)
        });
        self.threads = Some(Threads { work, writer, hasher });
    }

    /// Ends the stream and waits until all is written.
    pub(super) fn finish(mut self) -> Result<Packed, PackError> {
        let mut last = std::mem::take(&mut self.buffer);
        last.truncate(self.used);
        let small = self.threads.is_none();
        if !small && !last.is_empty() && self.dispatch(last.split_off(0)).is_err() {
            return Err(self.failure());
        }
        let (diff_id, blob, size) = match (self.threads.take(), self.out.take()) {
            (Some(Threads { work, writer, hasher }), _) => {
                drop(work);
                let (blob, size) = join(writer)??;
                let diff_id = match hasher {
                    Some((sender, thread)) => {
                        drop(sender);
                        join(thread)?
                    }
                    None => blob,
                };
                (diff_id, blob, size)
            }
            (None, Some(out)) => {
                let diff_id = Digest::of(&last);
                let chunk = Arc::new(last);
                let work = match self.compression {
                    Compression::Gzip { level } => {
                        self.pooled = false;
                        Work::Deflated(self.deflate(level, None, chunk))
                    }
                    _ => Work::Raw(chunk),
                };
                let (blob, size) = write_blob(self.compression, std::iter::once(work), out)?;
                (diff_id, blob, size)
            }
            (None, None) => return Err(self.failure()),
        };
        let media_type = self.compression.media_type();
        Ok(Packed { diff_id, tar_size: self.tar_size, blob, size, media_type })
    }

    /// Why the pipeline has closed.
    pub(super) fn failure(&mut self) -> PackError {
        let Some(Threads { work, writer, .. }) = self.threads.take() else {
            return PackError::Codec("the writer never started".into());
        };
        drop(work);
        match join(writer) {
            Ok(Err(error)) | Err(error) => error,
            Ok(Ok(_)) => PackError::Codec("the writer stopped early".into()),
        }
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T, PackError> {
    thread.join().map_err(|_| PackError::Codec("a packing thread died".into()))
}

/// The writer: chunks in order to `out`, through the codec where it is not parallel by itself.
fn write_blob<W: Write>(
    compression: Compression,
    todo: impl Iterator<Item = Work>,
    out: W,
) -> Result<(Digest, u64), PackError> {
    let mut out = Sha256Writer::new(out);
    match compression {
        Compression::None => {
            for work in todo {
                if let Work::Raw(chunk) = work {
                    out.write_all(&chunk).map_err(PackError::Write)?;
                }
            }
        }
        Compression::Gzip { .. } => write_gzip(todo, &mut out)?,
        Compression::Zstd { level } => {
            let mut encoder = zstd_encoder(level, &mut out).map_err(PackError::Write)?;
            for work in todo {
                if let Work::Raw(chunk) = work {
                    encoder.write_all(&chunk).map_err(PackError::Write)?;
                }
            }
            encoder.finish().map_err(PackError::Write)?;
        }
    }
    out.flush().map_err(PackError::Write)?;
    let (_, digest, size) = out.finish();
    Ok((digest, size))
}

fn write_gzip(todo: impl Iterator<Item = Work>, out: &mut impl Write) -> Result<(), PackError> {
    let mut crc = crc32fast::Hasher::new();
    out.write_all(&gzip::HEADER).map_err(PackError::Write)?;
    let mut size = 0_u64;
    for work in todo {
        let Work::Deflated(result) = work else { continue };
        let piece = result.recv().map_err(|_| PackError::Codec("a compression thread died".into()))?;
        let piece = piece.map_err(PackError::Codec)?;
        out.write_all(&piece.bytes).map_err(PackError::Write)?;
        crc.combine(&piece.crc);
        size += piece.len;
    }
    out.write_all(&gzip::trailer(crc.finalize(), size)).map_err(PackError::Write)
}

/// At least one worker always: with none, zstd makes other bytes than with some.
fn zstd_encoder<W: Write>(level: i32, out: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    encoder.include_checksum(true)?;
    let threads = u32::try_from(rayon::current_num_threads()).unwrap_or(1);
    encoder.multithread(threads.clamp(1, ZSTD_MAX_THREADS))?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
    Ok(encoder)
}
