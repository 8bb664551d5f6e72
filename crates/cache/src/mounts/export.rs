//! Writing cache mounts: only chunks that the place does not hold are compressed and sent.

use super::document::{
    CHUNK_MEDIA_TYPE, CHUNK_SIZES, CONFIG_MEDIA_TYPE, Chunk, MAX_CHUNKS, MAX_ID, MAX_MOUNTS, Mounts,
    StoredMount,
};
use crate::backend::Backend;
use crate::error::CacheError;
use fastcdc::v2020::StreamCDC;
use futures_util::{StreamExt, TryStreamExt, stream};
use rbuild_layer::{Compression, PackOptions};
use rbuild_oci::{Descriptor, Digest, media_type};
use rbuild_tree::{DataRef, DataSource, DirTree, FileKind, LayerEntry, LayerEntryKind, Tree, TreePath};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks that are compressed and sent at once.
const PARALLEL: usize = 4;
/// zstd level of chunks.
const LEVEL: i32 = 3;

/// A cache mount to write. Whoever gives it holds it, so that nobody writes to it meanwhile.
#[derive(Debug, Clone)]
pub struct MountSnapshot {
    /// Name of its directory: a hash of the id and of what the mount begins with.
    pub directory: Digest,
    /// The id, as it was written.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What an export did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountsPublished {
    /// Chunks that were sent.
    pub sent: usize,
    /// Their bytes, compressed.
    pub sent_bytes: u64,
    /// Whether the manifest was written; it is not when nothing changed.
    pub written: bool,
    /// Mounts that were left out, each with the reason.
    pub skipped: Vec<String>,
}

/// Writes cache mounts to one place.
pub struct MountsExporter {
    backend: Arc<dyn Backend>,
    max_size: u64,
}

/// The chunks that are known to be, or to be about to be, at the place.
#[derive(Default)]
struct Known {
    places: HashMap<Digest, usize>,
    chunks: Vec<Chunk>,
    /// Those that the manifest will name.
    used: HashSet<usize>,
}

impl MountsExporter {
    /// An exporter; mounts that would make the whole larger than `max_size` bytes (before compression) are left out.
    pub fn new(backend: Arc<dyn Backend>, max_size: u64) -> Self {
        Self { backend, max_size }
    }

    /// The place it writes to.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Writes these mounts, the most important first; mounts that the place holds besides stay as they are, as far as there
    /// is room.
    ///
    /// # Errors
    /// When the place cannot be read or written, or holds something else. The manifest that was there before stays then.
    pub async fn export(&self, mounts: &[MountSnapshot]) -> Result<MountsPublished, CacheError> {
        let existing = match Mounts::read(&*self.backend).await {
            Err(CacheError::Damaged { .. } | CacheError::WrongBlob { .. }) => None,
            // The manifest names a config that is lost.
            Err(error) if error.is_not_found() => None,
            found => found?,
        };
        let (manifest, old) = existing.map_or_else(Default::default, |(digest, old)| (Some(digest), old));
        let had_chunks = !old.chunks.is_empty();
        let (all, mut published) = self.collect(mounts, old).await?;
        match self.publish(&all, manifest, &mut published).await {
            // A registry that refuses may have lost blobs that its manifest named: everything is sent again.
            Err(error) if had_chunks && !error.is_unreachable() => {}
            done => return done.map(|()| published),
        }
        let (all, mut published) = self.collect(mounts, Mounts::default()).await?;
        self.publish(&all, None, &mut published).await?;
        Ok(published)
    }

    /// Sends the chunks of all mounts that `old` has not; gives what the manifest is to hold.
    async fn collect(
        &self,
        mounts: &[MountSnapshot],
        old: Mounts,
    ) -> Result<(Mounts, MountsPublished), CacheError> {
        let mut published = MountsPublished::default();
        let mut stored: Vec<StoredMount> = Vec::new();
        let mut known = Known::of(&old);
        let mut total = 0;
        for mount in mounts {
            let kept = match self.store(mount, &mut known, total, &mut published).await? {
                Ok(_) if stored.len() >= MAX_MOUNTS => Err("there are too many".to_owned()),
                Ok(mount) if !known.use_all(&mount.chunks) => {
                    Err("the manifest would have too many chunks".to_owned())
                }
                kept => kept,
            };
            match kept {
                Ok(mount) => {
                    total += mount.size;
                    stored.push(mount);
                }
                Err(reason) => published.skipped.push(format!("{}: {reason}", mount.id)),
            }
        }
        for mount in old.mounts {
            let replaced = stored.iter().any(|new| new.directory == mount.directory);
            let fits = total.saturating_add(mount.size) <= self.max_size && stored.len() < MAX_MOUNTS;
            if !replaced && fits && known.use_all(&mount.chunks) {
                total += mount.size;
                stored.push(mount);
            }
        }
        stored.sort_by_key(|mount| mount.directory);
        Ok((known.only(stored), published))
    }

    async fn publish(
        &self,
        mounts: &Mounts,
        old: Option<Digest>,
        published: &mut MountsPublished,
    ) -> Result<(), CacheError> {
        let config = mounts.config();
        let descriptor = Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of(&config), config.len() as u64);
        let manifest = mounts.manifest(descriptor.clone());
        if old == Some(Digest::of(&manifest)) {
            return Ok(());
        }
        self.backend.put_bytes(&descriptor, &config).await?;
        self.backend.put_manifest(media_type::OCI_MANIFEST, &manifest).await?;
        published.written = true;
        Ok(())
    }

    /// Cuts a mount into chunks and sends those that are new. The inner error is why the mount is left out.
    async fn store(
        &self,
        mount: &MountSnapshot,
        known: &mut Known,
        total: u64,
        published: &mut MountsPublished,
    ) -> Result<Result<StoredMount, String>, CacheError> {
        if mount.id.len() > MAX_ID {
            return Ok(Err("its id is too long".to_owned()));
        }
        let path = mount.path.clone();
        let read = tokio::task::spawn_blocking(move || Snapshot::of(&path));
        let snapshot = match read.await.map_err(|error| error.to_string()).and_then(|read| read) {
            Ok(snapshot) => snapshot,
            Err(reason) => return Ok(Err(reason)),
        };
        let room = self.max_size.saturating_sub(total);
        if snapshot.bytes > room {
            let reason = format!("it has {} bytes, and only {room} may be added", snapshot.bytes);
            return Ok(Err(reason));
        }
        let (mode, uid, gid) = snapshot.root;
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(PARALLEL);
        let cutting = tokio::task::spawn_blocking(move || cut(&snapshot.entries, &sender));
        let mut stored = StoredMount {
            directory: mount.directory,
            id: mount.id.clone(),
            mode,
            uid,
            gid,
            size: 0,
            chunks: Vec::new(),
        };
        let mut new = Vec::new();
        while let Some(piece) = pieces.recv().await {
            stored.size += piece.len() as u64;
            if stored.chunks.len() >= MAX_CHUNKS {
                // What waits was never sent: nothing may refer to it.
                known.forget(new.len());
                return Ok(Err("it has too many chunks".to_owned()));
            }
            let digest = Digest::of(&piece);
            let place = *known.places.entry(digest).or_insert(known.chunks.len());
            stored.chunks.push(place);
            if place == known.chunks.len() {
                // Known at once, so that a repetition is not sent again; the blob follows.
                known.chunks.push(Chunk { digest, size: piece.len() as u64, blob: digest, blob_size: 0 });
                new.push((place, piece));
            }
            if new.len() >= PARALLEL {
                self.send(std::mem::take(&mut new), known, published).await?;
            }
        }
        self.send(new, known, published).await?;
        match cutting.await.map_err(|error| error.to_string()).and_then(|cut| cut) {
            Ok(()) => Ok(Ok(stored)),
            Err(reason) => Ok(Err(reason)),
        }
    }

    /// Compresses and sends chunks side by side.
    async fn send(
        &self,
        pieces: Vec<(usize, Vec<u8>)>,
        known: &mut Known,
        published: &mut MountsPublished,
    ) -> Result<(), CacheError> {
        let sent = stream::iter(pieces).map(|(place, piece)| async move {
            let compressing = tokio::task::spawn_blocking(move || zstd::bulk::compress(&piece, LEVEL));
            let compressed = compressing.await.map_err(std::io::Error::other).and_then(|done| done);
            let compressed = compressed.map_err(CacheError::io("compress", self.backend.name()))?;
            let blob = Descriptor::new(CHUNK_MEDIA_TYPE, Digest::of(&compressed), compressed.len() as u64);
            self.backend.put_bytes(&blob, &compressed).await?;
            Ok::<_, CacheError>((place, blob))
        });
        let sent: Vec<(usize, Descriptor)> = sent.buffer_unordered(PARALLEL).try_collect().await?;
        for (place, blob) in sent {
            published.sent += 1;
            published.sent_bytes += blob.size;
            let chunk = &mut known.chunks[place];
            (chunk.blob, chunk.blob_size) = (blob.digest, blob.size);
        }
        Ok(())
    }
}

impl Known {
    fn of(old: &Mounts) -> Self {
        let places = old.chunks.iter().enumerate().map(|(place, chunk)| (chunk.digest, place));
        Self { places: places.collect(), chunks: old.chunks.clone(), used: HashSet::new() }
    }

    /// Takes back the newest chunks.
    fn forget(&mut self, count: usize) {
        for chunk in self.chunks.drain(self.chunks.len() - count..) {
            self.places.remove(&chunk.digest);
        }
    }

    /// Notes that a mount uses these chunks; `false`, and nothing is noted, if the manifest would become too long.
    fn use_all(&mut self, chunks: &[usize]) -> bool {
        let more: HashSet<usize> =
            chunks.iter().copied().filter(|place| !self.used.contains(place)).collect();
        let fits = self.used.len() + more.len() <= MAX_CHUNKS;
        if fits {
            self.used.extend(more);
        }
        fits
    }

    /// The chunks that these mounts use, in the order of use.
    fn only(&self, mut mounts: Vec<StoredMount>) -> Mounts {
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut chunks = Vec::new();
        for place in mounts.iter_mut().flat_map(|mount| &mut mount.chunks) {
            *place = *places.entry(*place).or_insert_with(|| {
                chunks.push(self.chunks[*place].clone());
                chunks.len() - 1
            });
        }
        Mounts { mounts, chunks }
    }
}

/// What is in a mount.
struct Snapshot {
    entries: Vec<LayerEntry>,
    /// Mode, owner and group of the root.
    root: (u32, u32, u32),
    /// Bytes of all files.
    bytes: u64,
}

impl Snapshot {
    fn of(path: &Path) -> Result<Self, String> {
        let read = || -> std::io::Result<Self> {
            let meta = std::fs::symlink_metadata(path)?;
            let tree = DirTree::open(path)?;
            let root = Arc::new(OwnedFd::from(std::fs::File::open(path)?));
            let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
            let mut bytes = 0;
            let mut entries = Vec::new();
            for (path, meta) in tree.walk(&TreePath::root())? {
                if meta.kind == FileKind::Socket {
                    continue;
                }
                let hard_link_to = meta.hard_link.and_then(|inode| first_names.get(&inode).cloned());
                if let (Some(inode), None) = (meta.hard_link, &hard_link_to) {
                    first_names.insert(inode, path.clone());
                }
                let data = (meta.kind == FileKind::Regular && hard_link_to.is_none()).then(|| {
                    bytes += meta.size;
                    let source = DataSource::Below { root: Arc::clone(&root), path: path.clone() };
                    DataRef { size: meta.size, digest: None, source }
                });
                entries.push(LayerEntry { path, kind: LayerEntryKind::Node { meta, data, hard_link_to } });
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(Self { entries, root: (meta.mode() & 0o7777, meta.uid(), meta.gid()), bytes })
        };
        read().map_err(|error| error.to_string())
    }
}

/// The archive of these entries, in chunks.
fn cut(entries: &[LayerEntry], sender: &mpsc::Sender<Vec<u8>>) -> Result<(), String> {
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let options =
                PackOptions { compression: Compression::None, nanoseconds: true, ..PackOptions::default() };
            let entries = entries.iter().cloned().map(Ok::<_, Infallible>);
            rbuild_layer::pack(entries, &options, writer).map(drop)
        });
        let (smallest, average, largest) = CHUNK_SIZES;
        let mut cut = Ok(());
        let chunks = StreamCDC::new(reader, smallest, average, largest);
        for chunk in chunks {
            match chunk {
                Ok(chunk) => {
                    // A closed channel: the export has ended already.
                    if sender.blocking_send(chunk.data).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    cut = Err(error.to_string());
                    break;
                }
            }
        }
        match packing.join() {
            Ok(packed) => packed.map_err(|error| error.to_string()).and(cut),
            Err(_) => Err("packing it failed".to_owned()),
        }
    })
}

#[cfg(test)]
mod tests;
