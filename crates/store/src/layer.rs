//! `snapshots/`: unpacked layers; and their packed forms.

use crate::db::{digest, first, optional_digest, run};
use crate::error::{IoContext, Result};
use crate::fsutil::{make_dir, optional, remove_tree};
use crate::ingest::{empty_trash, to_trash};
use crate::sum::Sum;
use crate::{Store, StoreError, locked};
use rbuild_oci::Digest;
use rusqlite::{Connection, Row, params};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names a layer: the key it was made under, or the diff ID of a pulled one.
pub type LayerId = Digest;

/// `packed.epoch` of a form that was packed without SOURCE_DATE_EPOCH.
const NO_EPOCH: i64 = i64::MIN;

/// Name of the note beside the `fs` of a layer.
const NOTE: &str = "note";

/// Where a layer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A step made it here.
    Built,
    /// It came with an image and can be had again: it counts as available even when nothing of it is here.
    Pulled,
    /// A step described it entry by entry: its directory holds exactly those entries, and nothing that has to be
    /// compared with the layers below.
    Written,
}

impl LayerKind {
    fn from_row(value: i64) -> Self {
        match value {
            0 => Self::Built,
            1 => Self::Pulled,
            _ => Self::Written,
        }
    }
}

/// A layer that the index knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub id: LayerId,
    /// Where it came from.
    pub kind: LayerKind,
    /// Digest of its content but for times, if it was computed: equal ones are interchangeable (early cutoff).
    pub content_digest: Option<Digest>,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// Nanoseconds of that.
    pub created_nanos: u32,
    /// What its files take on disk, as its maker counted it; 0 if unknown.
    pub bytes: u64,
    /// Whether it is unpacked here. Ignored when the layer is written.
    pub has_dir: bool,
}

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The layer.
    pub layer: LayerId,
    /// What made the blob, with everything that its bytes depend on: `gzip-4.1`; `pulled` for a registry's own.
    pub codec: String,
    /// SOURCE_DATE_EPOCH it was packed under.
    pub epoch: Option<i64>,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the blob.
    pub blob: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Length of the uncompressed tar in bytes; 0 if unknown.
    pub tar_size: u64,
    /// Media type of the blob.
    pub media_type: String,
}

/// An overlay upper directory that is being filled, with its work directory. Dropping it removes both.
#[derive(Debug)]
pub struct LayerIngest {
    root: PathBuf,
    dir: PathBuf,
    /// The upper directory: mode 0755, empty at first. It becomes the layer.
    pub upper: PathBuf,
    /// overlayfs's work directory, on the same file system.
    pub work: PathBuf,
}

impl LayerIngest {
    /// Keeps a few bytes beside the layer's files, for [`Store::layer_note`].
    pub fn set_note(&self, note: &[u8]) -> Result<()> {
        let path = self.dir.join(NOTE);
        fs::write(&path, note).at("write", &path)
    }
}

impl Drop for LayerIngest {
    fn drop(&mut self) {
        if self.dir.as_os_str().is_empty() {
            return;
        }
        // A failed step may leave a gigabyte: out of the way at once, deleted in the background.
        if let Ok(Some(_)) = to_trash(&self.root, &self.dir) {
            let trash = self.root.join("trash");
            let _ = std::thread::Builder::new().name("store-trash".into()).spawn(move || empty_trash(&trash));
        }
    }
}

impl Store {
    /// Makes an empty upper and a work directory for a new layer.
    pub fn new_layer_dir(&self) -> Result<LayerIngest> {
        self.keep_free(0);
        self.with_room(|| self.make_layer_dir())
    }

    fn make_layer_dir(&self) -> Result<LayerIngest> {
        let dir = self.inner.session.new_path("l")?;
        let ingest =
            LayerIngest { root: self.root().to_owned(), upper: dir.join("fs"), work: dir.join("work"), dir };
        self.fault("layer create").at("create", &ingest.dir)?;
        for (path, mode) in [(&ingest.dir, 0o700), (&ingest.upper, 0o755), (&ingest.work, 0o755)] {
            make_dir(path, mode).at("create", path)?;
        }
        Ok(ingest)
    }

    /// Makes the upper directory the layer `id`, by rename; nothing may have it mounted. If that layer exists already it
    /// is kept and the new directory removed. Returns the directory of the layer.
    pub fn commit_layer_dir(&self, mut ingest: LayerIngest, id: &LayerId) -> Result<PathBuf> {
        remove_tree(&ingest.work).at("remove", &ingest.work)?;
        let target = self.snapshot(id);
        let placed = self.with_room(|| {
            let _gate = self.protect(&[*id])?;
            match self.fault("layer place").and_then(|()| fs::rename(&ingest.dir, &target)) {
                Ok(()) => Ok(true),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    Ok(false)
                }
                Err(e) => Err(StoreError::io("put in place", &target, e)),
            }
        })?;
        if placed {
            ingest.dir = PathBuf::new();
            self.measure(target.clone());
            self.sync_at_times();
        }
        Ok(target.join("fs"))
    }

    /// Sums up a new layer beside the build. Without a thread, or if it fails, the layer has no sum: it is measured by
    /// whoever needs its size.
    fn measure(&self, snapshot: PathBuf) {
        let state = Arc::clone(&self.inner.gc);
        let measure = move || {
            let Ok(mut sum) = Sum::measure(&snapshot) else { return };
            state.add_placed(sum.bytes);
            let _ = sum.write(&snapshot);
        };
        if let Ok(thread) = std::thread::Builder::new().name("store-measure".into()).spawn(measure) {
            self.inner.gc.add_measuring(thread);
        }
    }

    /// The directory of a layer; `None` if it is not unpacked here. Under a lease it is kept until the lease ends.
    pub fn layer_dir(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let _gate = self.protect(&[*id])?;
        let dir = self.snapshot(id).join("fs");
        let found = optional(fs::symlink_metadata(&dir)).at("examine", &dir)?;
        Ok(found.filter(fs::Metadata::is_dir).map(|_| dir))
    }

    /// What [`LayerIngest::set_note`] kept; empty if nothing was, or the layer is not unpacked here.
    pub fn layer_note(&self, id: &LayerId) -> Result<Vec<u8>> {
        let path = self.snapshot(id).join(NOTE);
        Ok(optional(fs::read(&path)).at("read", &path)?.unwrap_or_default())
    }

    fn snapshot(&self, id: &LayerId) -> PathBuf {
        self.root().join("snapshots").join(id.hex())
    }

    /// The layer's row.
    pub fn layer(&self, id: &LayerId) -> Result<Option<Layer>> {
        let sql = format!("SELECT {LAYER} FROM layers WHERE id = ?1");
        let found = self.query(|db| first(db, &sql, [id.as_bytes()], layer_row))?;
        found.map(|layer| self.with_dir(layer)).transpose()
    }

    /// The oldest available layer with this content digest.
    pub fn layer_by_content(&self, content: &Digest) -> Result<Option<Layer>> {
        let sql =
            format!("SELECT {LAYER} FROM layers WHERE content = ?1 ORDER BY created, created_nanos LIMIT 16");
        let _gate = self.protect(&[])?;
        let found = self.query(|db| {
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement
                .query_map([content.as_bytes()], layer_row)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for layer in rows {
                if self.is_available(db, &layer.id)? {
                    return Ok(Some(layer));
                }
            }
            Ok(None)
        })?;
        let Some(layer) = found else { return Ok(None) };
        let _noted = self.protect(&[layer.id])?;
        Ok(Some(self.with_dir(layer)?))
    }

    fn with_dir(&self, mut layer: Layer) -> Result<Layer> {
        layer.has_dir = self.layer_dir(&layer.id)?.is_some();
        Ok(layer)
    }

    /// The layer packed by this codec under this SOURCE_DATE_EPOCH, if its blob is here. Under a lease the blob is kept.
    pub fn packed(&self, layer: &LayerId, codec: &str, epoch: Option<i64>) -> Result<Option<Packed>> {
        Ok(self.packed_forms(layer, Some((codec, epoch)))?.into_iter().next())
    }

    /// All packed forms of a layer whose blobs are here. Under a lease these are kept.
    pub fn packed_any(&self, layer: &LayerId) -> Result<Vec<Packed>> {
        self.packed_forms(layer, None)
    }

    fn packed_forms(&self, layer: &LayerId, form: Option<(&str, Option<i64>)>) -> Result<Vec<Packed>> {
        let gate = self.protect(&[])?;
        let mut rows = self.packed_known(layer)?;
        rows.retain(|row| {
            form.is_none_or(|(codec, epoch)| row.codec == codec && row.epoch == epoch)
                && self.is_whole(&row.blob, row.size)
        });
        let kept: Vec<Digest> = rows.iter().map(|row| row.blob).chain([*layer]).collect();
        let _noted = self.protect(&kept)?;
        drop(gate);
        Ok(rows)
    }

    /// All packed forms of a layer that were ever written down, whether their blobs are here or not: where a pulled
    /// layer can be had again (see [`Store::blob_sources`]).
    pub fn packed_known(&self, layer: &LayerId) -> Result<Vec<Packed>> {
        let sql = "SELECT layer, codec, epoch, diff_id, blob, size, tar_size, media_type FROM packed WHERE layer = ?1";
        self.query(|db| db.prepare_cached(sql)?.query_map([layer.as_bytes()], packed_row)?.collect())
    }

    /// Whether the layer can be had: it is unpacked here, or packed, or can be pulled again.
    pub(crate) fn is_available(&self, db: &Connection, id: &LayerId) -> rusqlite::Result<bool> {
        if locked(&self.inner.lease).as_ref().is_some_and(|lease| lease.present.contains(id)) {
            return Ok(true);
        }
        let found = self.snapshot(id).join("fs").exists() || self.is_packed_or_pulled(db, id)?;
        if found && let Some(lease) = &mut *locked(&self.inner.lease) {
            lease.present.insert(*id);
        }
        Ok(found)
    }

    fn is_packed_or_pulled(&self, db: &Connection, id: &LayerId) -> rusqlite::Result<bool> {
        let kind =
            first(db, "SELECT kind FROM layers WHERE id = ?1", [id.as_bytes()], |row| row.get::<_, i64>(0))?;
        if kind == Some(LayerKind::Pulled as i64) {
            return Ok(true);
        }
        let mut statement = db.prepare_cached("SELECT blob, size FROM packed WHERE layer = ?1")?;
        let mut blobs =
            statement.query_map([id.as_bytes()], |row| Ok((digest(row, 0)?, row.get::<_, i64>(1)?)))?;
        blobs.try_fold(false, |found, row| {
            let (blob, size) = row?;
            Ok(found || self.is_whole(&blob, size.cast_unsigned()))
        })
    }

    /// Whether the blob is here with that length: after a power loss it may be shorter.
    fn is_whole(&self, blob: &Digest, size: u64) -> bool {
        fs::metadata(self.blob_path(blob)).is_ok_and(|meta| meta.len() == size)
    }
}

pub(crate) const LAYER: &str = "id, kind, content, created, created_nanos, bytes";

pub(crate) fn layer_row(row: &Row<'_>) -> rusqlite::Result<Layer> {
    Ok(Layer {
        id: digest(row, 0)?,
        kind: LayerKind::from_row(row.get(1)?),
        content_digest: optional_digest(row, 2)?,
        created: row.get(3)?,
        created_nanos: row.get(4)?,
        bytes: row.get::<_, i64>(5)?.cast_unsigned(),
        has_dir: false,
    })
}

fn packed_row(row: &Row<'_>) -> rusqlite::Result<Packed> {
    Ok(Packed {
        layer: digest(row, 0)?,
        codec: row.get(1)?,
        epoch: Some(row.get(2)?).filter(|epoch| *epoch != NO_EPOCH),
        diff_id: digest(row, 3)?,
        blob: digest(row, 4)?,
        size: row.get::<_, i64>(5)?.cast_unsigned(),
        tar_size: row.get::<_, i64>(6)?.cast_unsigned(),
        media_type: row.get(7)?,
    })
}

/// Writes a layer's row; one that is there keeps its time, and learns the content digest and size if it had none.
pub(crate) fn insert_layer(db: &Connection, layer: &Layer, now: i64) -> rusqlite::Result<()> {
    run(
        db,
        "INSERT INTO layers (id, kind, content, created, created_nanos, last_used, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET content = coalesce(content, excluded.content),
            bytes = max(bytes, excluded.bytes), last_used = excluded.last_used",
        params![
            layer.id.as_bytes(),
            layer.kind as i64,
            layer.content_digest.as_ref().map(|d| d.as_bytes()),
            layer.created,
            layer.created_nanos,
            now,
            layer.bytes.cast_signed(),
        ],
    )
    .map(drop)
}

pub(crate) fn insert_packed(db: &Connection, packed: &Packed) -> rusqlite::Result<()> {
    run(
        db,
        "INSERT OR REPLACE INTO packed (layer, codec, epoch, diff_id, blob, size, tar_size, media_type)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            packed.layer.as_bytes(),
            packed.codec,
            packed.epoch.unwrap_or(NO_EPOCH),
            packed.diff_id.as_bytes(),
            packed.blob.as_bytes(),
            packed.size.cast_signed(),
            packed.tar_size.cast_signed(),
            packed.media_type,
        ],
    )
    .map(drop)
}

/// Whether a directory entry of `snapshots/` is a layer, and which.
pub(crate) fn snapshot_id(path: &Path) -> Option<LayerId> {
    Digest::from_hex(path.file_name()?.to_str()?)
}
