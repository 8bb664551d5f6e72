//! Removal of what is not used.

use crate::db::{digest, run};
use crate::error::{IoContext, Result};
use crate::fsutil::{disk_bytes, lock_path, now};
use crate::image::{Index, is_unnamed};
use crate::ingest::{empty_trash, to_trash};
use crate::layer::{LAYER, layer_row, snapshot_id};
use crate::record::delete_record;
use crate::{LayerId, LayerKind, MAX_DOCUMENT, Store, lease};
use rbuild_oci::Digest;
use rusqlite::{Transaction, TransactionBehavior, params};
use rustix::fs::FlockOperation;
use serde_json::Value;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Tombstones that are kept, the newest.
const MAX_TOMBSTONES: i64 = 10_000;

/// What to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also what came from registries: layers and blobs of base images that no tagged image has, and resolutions.
    pub all: bool,
    /// Only what was last used before this time, seconds since 1970.
    pub unused_since: Option<i64>,
    /// Only report what would be removed.
    pub dry_run: bool,
}

/// What kind of object was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrunedKind {
    /// The entry of an image that was built without a name.
    Image,
    /// A cache record.
    Record,
    /// An unpacked layer.
    Layer,
    /// A blob.
    Blob,
    /// A directory of RUN --mount=type=cache.
    CacheMount,
}

/// An object that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// What it was.
    pub kind: PrunedKind,
    /// Key, layer id, digest, or the hash of a cache mount's id.
    pub id: Digest,
    /// What it took on disk; 0 for records.
    pub bytes: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// The objects.
    pub removed: Vec<Pruned>,
    /// Their sizes together.
    pub bytes: u64,
}

/// What stays.
#[derive(Default)]
struct Kept {
    records: HashSet<Digest>,
    layers: HashSet<LayerId>,
    blobs: HashSet<Digest>,
}

impl Store {
    /// Removes images without a name from `index.json`, cache records, then the layers and packed forms that no remaining record has, then the blobs that no
    /// entry of `index.json`, remaining packed form or resolution leads to, cache mounts, and what killed processes left.
    ///
    /// What running builds use stays, in whatever process (see the rules in the crate's documentation); builds that go
    /// on meanwhile wait at most for the renames.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        self.flush_uses()?;
        let gate = self.inner.gate.exclusive()?;
        let in_use = lease::notes_of_running(self.root())?;
        let mut kept = Kept::default();
        // Before anything is removed: a damaged index.json must not look like one without images.
        let mut removed = self.prune_images(options, &in_use, &mut kept)?;
        kept.blobs.extend(&in_use);
        removed.extend(self.prune_rows(options, &in_use, &mut kept)?);
        let files = self.unkept_files(options, &kept)?;
        for (kind, id, path) in &files {
            removed.push(Pruned { kind: *kind, id: *id, bytes: disk_bytes(path) });
        }
        for (id, path) in self.cache_mounts()? {
            let bytes = disk_bytes(&path);
            if self.prune_cache_mount(&path, options.unused_since, options.dry_run)? {
                removed.push(Pruned { kind: PrunedKind::CacheMount, id, bytes });
            }
        }
        if !options.dry_run {
            for (_, _, path) in &files {
                to_trash(self.root(), path)?;
            }
            if options.all && options.unused_since.is_none() {
                self.prune_fetched()?;
            }
            self.remove_stale_locks();
            drop(gate);
            crate::ingest::clear_abandoned(self.root())?;
            empty_trash(&self.root().join("trash"));
        }
        let bytes = removed.iter().map(|object| object.bytes).sum();
        Ok(PruneReport { removed, bytes })
    }

    /// Removes the entries of images that were built without a name; what the others lead to is kept.
    fn prune_images(
        &self,
        options: &PruneOptions,
        in_use: &HashSet<Digest>,
        kept: &mut Kept,
    ) -> Result<Vec<Pruned>> {
        let mut index = Index::lock(self.root())?;
        let gone = |entry: &Value| {
            let id = digest_of(entry).filter(|_| is_unnamed(entry));
            id.filter(|id| !in_use.contains(id) && !is_recent(&self.blob_path(id), options))
        };
        let removed: Vec<Digest> = index.entries().iter().filter_map(gone).collect();
        if index.retain(|entry| gone(entry).is_none()) && !options.dry_run {
            index.write(&self.inner.session)?;
        }
        self.keep_reachable(index.entries().iter().filter_map(digest_of), &mut kept.blobs);
        Ok(removed.into_iter().map(|id| Pruned { kind: PrunedKind::Image, id, bytes: 0 }).collect())
    }

    /// Deletes rows in one transaction and completes `kept`.
    fn prune_rows(
        &self,
        options: &PruneOptions,
        in_use: &HashSet<Digest>,
        kept: &mut Kept,
    ) -> Result<Vec<Pruned>> {
        let of_images = std::mem::take(&mut kept.blobs);
        let (removed, found, manifests) = self.query(|db| {
            let mut found = Kept::default();
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let removed = prune_records(&tx, options, in_use, &mut found)?;
            prune_layers(&tx, options, in_use, &mut found)?;
            let manifests = prune_resolutions(&tx, options, in_use)?;
            if options.dry_run {
                tx.rollback()?;
            } else {
                tx.commit()?;
            }
            Ok((removed, found, manifests))
        })?;
        *kept = found;
        kept.blobs.extend(of_images);
        self.keep_reachable(manifests, &mut kept.blobs);
        Ok(removed)
    }

    /// Adds these manifests or indexes, and all that they lead to, as far as it is here.
    fn keep_reachable(&self, roots: impl IntoIterator<Item = Digest>, kept: &mut HashSet<Digest>) {
        let mut pending: Vec<Digest> = roots.into_iter().collect();
        let mut visited = HashSet::new();
        while let Some(next) = pending.pop() {
            if !visited.insert(next) {
                continue;
            }
            kept.insert(next);
            let Some(document) = read_document(&self.blob_path(&next)) else { continue };
            let lists = ["layers", "blobs"].iter().filter_map(|name| document[*name].as_array());
            kept.extend(lists.flatten().chain([&document["config"]]).filter_map(digest_of));
            pending.extend(document["manifests"].as_array().into_iter().flatten().filter_map(digest_of));
            pending.extend(digest_of(&document["subject"]));
        }
    }

    fn unkept_files(
        &self,
        options: &PruneOptions,
        kept: &Kept,
    ) -> Result<Vec<(PrunedKind, Digest, PathBuf)>> {
        let mut files = Vec::new();
        let places =
            [("snapshots", PrunedKind::Layer, &kept.layers), ("blobs/sha256", PrunedKind::Blob, &kept.blobs)];
        for (name, kind, keep) in places {
            let dir = self.root().join(name);
            for entry in fs::read_dir(&dir).at("list", &dir)? {
                let path = entry.at("list", &dir)?.path();
                // Names of another form are not ours.
                let Some(id) = snapshot_id(&path) else { continue };
                if !keep.contains(&id) && !is_recent(&path, options) {
                    files.push((kind, id, path));
                }
            }
        }
        Ok(files)
    }

    /// Removes lock files that a killed process left, and damaged indexes that were moved aside.
    fn remove_stale_locks(&self) {
        for entry in fs::read_dir(self.root().join("locks")).into_iter().flatten().flatten() {
            let path = entry.path();
            if snapshot_id(&path).is_some()
                && let Ok(Some(_lock)) = lock_path(&path, FlockOperation::NonBlockingLockExclusive)
            {
                let _ = fs::remove_file(&path);
            }
        }
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"index.db.damaged-") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn prune_records(
    tx: &Transaction<'_>,
    options: &PruneOptions,
    in_use: &HashSet<Digest>,
    kept: &mut Kept,
) -> rusqlite::Result<Vec<Pruned>> {
    let mut removed = Vec::new();
    let mut statement = tx.prepare("SELECT key, last_used, layer, chain FROM records")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = digest(row, 0)?;
        if in_use.contains(&key) || is_since(options, row.get(1)?) {
            kept.records.insert(key);
            kept.layers.extend(crate::db::optional_digest(row, 2)?);
            let chain: Vec<u8> = row.get(3)?;
            let ids = chain.chunks_exact(32).filter_map(|id| <[u8; 32]>::try_from(id).ok());
            kept.layers.extend(ids.map(Digest::from_bytes));
        } else {
            removed.push(Pruned { kind: PrunedKind::Record, id: key, bytes: 0 });
        }
    }
    let now = now();
    for record in &removed {
        delete_record(tx, &record.id, now)?;
    }
    run(
        tx,
        "DELETE FROM tombstones WHERE key NOT IN (SELECT key FROM tombstones ORDER BY evicted DESC LIMIT ?1)",
        params![MAX_TOMBSTONES],
    )?;
    Ok(removed)
}

/// Deletes the rows of layers that nothing keeps, with their packed forms; what remains keeps its blobs.
fn prune_layers(
    tx: &Transaction<'_>,
    options: &PruneOptions,
    in_use: &HashSet<Digest>,
    kept: &mut Kept,
) -> rusqlite::Result<()> {
    kept.layers.extend(in_use);
    let mut statement = tx.prepare(&format!("SELECT {LAYER}, last_used FROM layers"))?;
    let mut rows = statement.query([])?;
    let mut gone = Vec::new();
    while let Some(row) = rows.next()? {
        let layer = layer_row(row)?;
        let base = layer.kind == LayerKind::Pulled && !options.all;
        if base || kept.layers.contains(&layer.id) || is_since(options, row.get(6)?) {
            kept.layers.insert(layer.id);
        } else {
            gone.push(layer.id);
        }
    }
    for id in gone {
        run(tx, "DELETE FROM layers WHERE id = ?1", [id.as_bytes()])?;
    }
    let mut statement = tx.prepare("SELECT DISTINCT layer, blob FROM packed")?;
    let rows = statement.query_map([], |row| Ok((digest(row, 0)?, digest(row, 1)?)))?;
    for (layer, blob) in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        if kept.layers.contains(&layer) {
            kept.blobs.insert(blob);
        } else {
            run(tx, "DELETE FROM packed WHERE layer = ?1", [layer.as_bytes()])?;
        }
    }
    Ok(())
}

/// Deletes resolutions if asked to; returns the manifests of those that remain.
fn prune_resolutions(
    tx: &Transaction<'_>,
    options: &PruneOptions,
    in_use: &HashSet<Digest>,
) -> rusqlite::Result<Vec<Digest>> {
    let mut manifests = Vec::new();
    let mut gone = Vec::new();
    let mut statement = tx.prepare("SELECT reference, platform, descriptor, resolved FROM resolutions")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let descriptor: Value = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
        match digest_of(&descriptor) {
            Some(id) if !options.all || in_use.contains(&id) || is_since(options, row.get(3)?) => {
                manifests.push(id);
            }
            _ => gone.push((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        }
    }
    for (reference, platform) in &gone {
        run(
            tx,
            "DELETE FROM resolutions WHERE reference = ?1 AND platform = ?2",
            params![reference, platform],
        )?;
    }
    if options.all && manifests.is_empty() && options.unused_since.is_none() && in_use.is_empty() {
        run(tx, "DELETE FROM blob_sources", [])?;
    }
    Ok(manifests)
}

/// Whether the options spare what was used at this time.
fn is_since(options: &PruneOptions, used: i64) -> bool {
    options.unused_since.is_some_and(|limit| used >= limit)
}

fn is_recent(path: &Path, options: &PruneOptions) -> bool {
    options.unused_since.is_some()
        && fs::symlink_metadata(path).is_ok_and(|meta| is_since(options, meta.ctime()))
}

fn digest_of(descriptor: &Value) -> Option<Digest> {
    descriptor.get("digest")?.as_str()?.parse().ok()
}

fn read_document(path: &Path) -> Option<Value> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_DOCUMENT).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
