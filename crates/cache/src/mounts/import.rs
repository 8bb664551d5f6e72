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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
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
    places: Vec<Place>,
    reporter: Reporter,
    loaded: OnceCell<Vec<Option<Mounts>>>,
}

struct Place {
    backend: Arc<dyn Backend>,
    /// Largest mount that is brought from there, in bytes.
    max_size: u64,
    /// Whether nobody answers there any more: every further request would wait again.
    dead: AtomicBool,
    /// Why its list could not be read.
    problem: OnceLock<String>,
}

impl MountsImporter {
    /// An importer of these places, each with the size of the largest mount that is wanted from there in bytes; the first
    /// that has a mount gives it. A place that cannot be read is a warning.
    pub fn new(places: Vec<(Arc<dyn Backend>, u64)>, reporter: Reporter) -> Self {
        let place = |(backend, max_size)| Place {
            backend,
            max_size,
            dead: AtomicBool::new(false),
            problem: OnceLock::new(),
        };
        Self { places: places.into_iter().map(place).collect(), reporter, loaded: OnceCell::new() }
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the place of this name did not answer, of which the user was told.
    pub fn is_dead(&self, name: &str) -> bool {
        self.places.iter().any(|place| place.backend.name() == name && place.dead.load(Ordering::Relaxed))
    }

    async fn loaded(&self) -> impl Iterator<Item = (&Place, &Mounts)> {
        let load = || async {
            let reading = self.places.iter().map(|place| async move {
                let reading = tokio::time::timeout(METADATA_TIMEOUT, Mounts::read(&*place.backend));
                let slow = CacheError::Slow { seconds: METADATA_TIMEOUT.as_secs() };
                match reading.await.unwrap_or(Err(slow)) {
                    Ok(Some((_, mounts))) => Some(mounts),
                    // The first build that exports to it finds nothing there.
                    Ok(None) => None,
                    Err(error) => {
                        place.dead.store(error.is_unreachable(), Ordering::Relaxed);
                        let error = place.problem.get_or_init(|| error.to_string());
                        let text =
                            format!("cache mounts of {} cannot be used: {error}", place.backend.name());
                        self.reporter.report(Event::Warning { text });
                        None
                    }
                }
            });
            futures_util::future::join_all(reading).await
        };
        let loaded = self.loaded.get_or_init(load).await;
        self.places.iter().zip(loaded).filter_map(|(place, mounts)| Some((place, mounts.as_ref()?)))
    }

    /// Why the list of a place could not be read, if one could not.
    pub fn problem(&self) -> Option<&str> {
        self.places.iter().find_map(|place| place.problem.get()).map(String::as_str)
    }

    /// Every mount of every place, without those that an earlier place has, too.
    pub async fn list(&self) -> Vec<StoredMount> {
        let mut found: Vec<StoredMount> = Vec::new();
        for mount in self.loaded().await.flat_map(|(_, mounts)| &mounts.mounts) {
            if !found.iter().any(|other| other.directory == mount.directory) {
                found.push(mount.clone());
            }
        }
        found
    }

    /// Brings a mount into `dest`, an empty directory; `None` if no place has it.
    ///
    /// # Errors
    /// When its content cannot be had or is not what it should be; `dest` holds a part of it then.
    pub async fn restore(&self, directory: &Digest, dest: &Path) -> Result<Option<Restored>, CacheError> {
        for (place, mounts) in self.loaded().await {
            let mount = mounts.mounts.iter().find(|mount| mount.directory == *directory);
            let Some(mount) = mount.filter(|_| !place.dead.load(Ordering::Relaxed)) else { continue };
            if mount.size > place.max_size {
                let (size, most) = (mount.size, place.max_size);
                let reason = format!("it has {size} bytes, more than max-size={most}");
                return Err(CacheError::Damaged(reason));
            }
            let brought = bring(&place.backend, mounts, mount, dest).await;
            if brought.as_ref().is_err_and(CacheError::is_unreachable) {
                place.dead.store(true, Ordering::Relaxed);
            }
            return brought.map(Some);
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
        // If that fails, the pieces go with it, so that nothing more is fetched.
        rbuild_layer::unpack_archive(&mut pieces, &root, &limits)?;
        // What follows the end of the archive is not an error, but has to be taken.
        std::io::copy(&mut pieces, &mut std::io::sink()).map_err(rbuild_layer::DecompressError::Io)?;
        Ok::<_, rbuild_layer::UnpackError>(())
    });
    let chunks: Vec<Chunk> = mount.chunks.iter().map(|place| mounts.chunks[*place].clone()).collect();
    let mut fetching = stream::iter(chunks).map(|chunk| fetch(Arc::clone(backend), chunk)).buffered(PARALLEL);
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
    if mount.size > 0 {
        let unpacked = unpacked
            .map_err(|error| error.to_string())
            .and_then(|done| done.map_err(|error| error.to_string()));
        unpacked.map_err(CacheError::Damaged)?;
    }
    std::os::unix::fs::chown(dest, Some(mount.uid), Some(mount.gid))
        .and_then(|()| std::fs::set_permissions(dest, std::fs::Permissions::from_mode(mount.mode & 0o7777)))
        .map_err(CacheError::io("set the owner of", dest))?;
    Ok(Restored { fetched, size: mount.size })
}

/// A chunk, verified, and the bytes that were fetched for it.
async fn fetch(backend: Arc<dyn Backend>, chunk: Chunk) -> Result<(Vec<u8>, u64), CacheError> {
    let compressed = read(&*backend, &chunk.descriptor(), MAX_CHUNK_BLOB).await?;
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
