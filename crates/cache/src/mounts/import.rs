//! Reading cache mounts: what there is once, their content when a step wants it.

use super::document::{CHUNK_SIZES, Chunk, MAX_CHUNK_BLOB, Mounts, StoredMount};
use crate::backend::{Backend, read};
use crate::error::CacheError;
use futures_util::{StreamExt, stream};
use rbuild_event::{Event, Reporter};
use rbuild_layer::Limits;
use rbuild_oci::Digest;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};

/// How long the list of mounts may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(20);
/// Chunks that are fetched at once.
const PARALLEL: usize = 4;

/// What was brought here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Bytes that were fetched.
    pub fetched: u64,
    /// Bytes of the archive.
    pub size: u64,
}

/// The places of `--cache-mounts-from`. Nothing is read before somebody asks.
pub struct MountsImporter {
    backends: Vec<Arc<dyn Backend>>,
    reporter: Reporter,
    loaded: OnceCell<Vec<(Arc<dyn Backend>, Mounts)>>,
}

impl MountsImporter {
    /// An importer of these places; the first that has a mount gives it. A place that cannot be read is a warning.
    pub fn new(backends: Vec<Arc<dyn Backend>>, reporter: Reporter) -> Self {
        Self { backends, reporter, loaded: OnceCell::new() }
    }

    async fn loaded(&self) -> &[(Arc<dyn Backend>, Mounts)] {
        let load = || async {
            let reading = self.backends.iter().map(|backend| async move {
                let reading = tokio::time::timeout(METADATA_TIMEOUT, Mounts::read(&**backend));
                match reading.await {
                    Ok(Ok(Some((_, mounts)))) => Some((Arc::clone(backend), mounts)),
                    // The first build that exports to it finds nothing there.
                    Ok(Ok(None)) => None,
                    Ok(Err(error)) => self.warn(backend.name(), &error.to_string()),
                    Err(_) => self.warn(backend.name(), "no answer"),
                }
            });
            futures_util::future::join_all(reading).await.into_iter().flatten().collect()
        };
        self.loaded.get_or_init(load).await
    }

    fn warn<T>(&self, name: &str, reason: &str) -> Option<T> {
        let text = format!("cache mounts of {name} cannot be used: {reason}");
        self.reporter.report(Event::Warning { text });
        None
    }

    /// Every mount of every place.
    pub async fn list(&self) -> Vec<StoredMount> {
        self.loaded().await.iter().flat_map(|(_, mounts)| mounts.mounts.clone()).collect()
    }

    /// Brings a mount into `dest`, an empty directory; `None` if no place has it.
    ///
    /// # Errors
    /// When its content cannot be had or is not what it should be; `dest` holds a part of it then.
    pub async fn restore(&self, directory: &Digest, dest: &Path) -> Result<Option<Restored>, CacheError> {
        for (backend, mounts) in self.loaded().await {
            if let Some(mount) = mounts.mounts.iter().find(|mount| mount.directory == *directory) {
                return bring(backend, mounts, mount, dest).await.map(Some);
            }
        }
        Ok(None)
    }
}

async fn bring(
    backend: &Arc<dyn Backend>,
    mounts: &Mounts,
    mount: &StoredMount,
    dest: &Path,
) -> Result<Restored, CacheError> {
    let open = std::fs::File::open(dest).map_err(CacheError::io("open", dest))?;
    let root = Arc::new(OwnedFd::from(open));
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(PARALLEL);
    let limits = Limits { bytes: mount.size, ..Limits::default() };
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { receiver, piece: Vec::new(), at: 0 };
        let unpacked = rbuild_layer::unpack_archive(&mut pieces, &root, &limits).map(drop);
        // What follows the end of the archive is not an error, but has to be taken.
        std::io::copy(&mut pieces, &mut std::io::sink()).ok();
        unpacked
    });
    let chunks = mount.chunks.iter().map(|place| &mounts.chunks[*place]);
    let mut fetching = stream::iter(chunks).map(|chunk| fetch(backend, chunk)).buffered(PARALLEL);
    let mut failed = None;
    let mut fetched = 0;
    while let Some(chunk) = fetching.next().await {
        match chunk {
            Ok((piece, blob)) => {
                fetched += blob;
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacking.await;
    if let Some(error) = failed {
        return Err(error);
    }
    let damaged = |reason: String| CacheError::damaged(backend.name(), format!("{}: {reason}", mount.id));
    if mount.size > 0 {
        unpacked.map_err(|error| damaged(error.to_string()))?.map_err(|error| damaged(error.to_string()))?;
    }
    std::os::unix::fs::chown(dest, Some(mount.uid), Some(mount.gid))
        .and_then(|()| std::fs::set_permissions(dest, std::fs::Permissions::from_mode(mount.mode & 0o7777)))
        .map_err(CacheError::io("set the owner of", dest))?;
    Ok(Restored { fetched, size: mount.size })
}

/// A chunk, verified, and the bytes that were fetched for it.
async fn fetch(backend: &Arc<dyn Backend>, chunk: &Chunk) -> Result<(Vec<u8>, u64), CacheError> {
    let compressed = read(&**backend, &chunk.descriptor(), MAX_CHUNK_BLOB).await?;
    let fetched = compressed.len() as u64;
    let expanding = tokio::task::spawn_blocking(move || zstd::bulk::decompress(&compressed, CHUNK_SIZES.2));
    let expanded = expanding.await.map_err(std::io::Error::other).and_then(|done| done);
    let damaged = |found: String| CacheError::WrongBlob {
        name: backend.name().to_owned(),
        expected: chunk.digest,
        found,
    };
    let piece = expanded.map_err(|error| damaged(error.to_string()))?;
    let found = Digest::of(&piece);
    if found != chunk.digest || piece.len() as u64 != chunk.size {
        return Err(damaged(found.to_string()));
    }
    Ok((piece, fetched))
}

/// Chunks as they come, read as one stream.
struct Pieces {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = out.len().min(self.piece.len() - self.at);
        out[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
