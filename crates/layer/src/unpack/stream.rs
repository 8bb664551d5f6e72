//! Decompression on a thread of its own, so that it overlaps with writing files.

use crate::{TarError, UnpackError};
use rbuild_oci::Digest;
use sha2::Digest as _;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes decompressed at a time, and how many such chunks may wait.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 8;

/// Runs `body` on the bytes of `reader`; gives the digest and the length of all of them beside its result. `body`
/// must read to the end unless it fails.
pub(super) fn with_decompressed<R: Read + Send, T>(
    reader: R,
    body: impl FnOnce(Chunks) -> Result<T, UnpackError>,
) -> Result<(T, Digest, u64), UnpackError> {
    std::thread::scope(|scope| {
        let (sender, chunks) = sync_channel(WAITING);
        let pump = scope.spawn(move || {
            let mut reader = reader;
            let (mut hasher, mut size) = (sha2::Sha256::new(), 0_u64);
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let result = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
                hasher.update(&chunk);
                size += chunk.len() as u64;
                let last = chunk.is_empty() || result.is_err();
                // What could be read goes first; the error follows.
                if !chunk.is_empty() && sender.send(Ok(chunk)).is_err() {
                    break;
                }
                if let Err(error) = result {
                    // Nobody listens if unpacking has failed already.
                    let _ = sender.send(Err(error));
                }
                if last {
                    break;
                }
            }
            (Digest::from_bytes(hasher.finalize().into()), size)
        });
        let result = body(Chunks { chunks, current: Vec::new(), at: 0 });
        let (digest, size) =
            pump.join().map_err(|_| TarError::Io(io::Error::other("the decompressing thread died")))?;
        Ok((result?, digest, size))
    })
}

/// What the decompressing thread has made.
pub(super) struct Chunks {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk?, 0),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.current.len());
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let n = data.len().min(buf.len());
        buf[..n].copy_from_slice(&data[..n]);
        self.consume(n);
        Ok(n)
    }
}
