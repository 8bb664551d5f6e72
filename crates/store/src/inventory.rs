//! All that can be removed, who needs it, and what it takes: what du shows and prune chooses from.
//!
//! *Objects* are what lies on disk. *Units* are what goes as a whole: a step's records with its unpacked layer and packed
//! forms, a resolved base image, a download, a repository, a cache mount, or an object that nothing leads to. An object
//! is freed when all units that hold it are gone and no tagged image has it.

use crate::db::{digest, optional_digest};
use crate::error::{IoContext, Result};
use crate::evict::Candidate;
use crate::fetched::Fetched;
use crate::filter::Facts;
use crate::fsutil::optional;
use crate::image::{Index, is_unnamed, name_of};
use crate::layer::snapshot_id;
use crate::meter::Meter;
use crate::sum::Sum;
use crate::usage::UsageKind;
use crate::{LayerId, LayerKind, MAX_DOCUMENT, Store};
use rbuild_oci::Digest;
use rusqlite::Connection;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Assumed rate at which a layer is unpacked again, bytes a millisecond.
const UNPACKED_PER_MS: u64 = 100_000;

/// Assumed rate of downloads, bytes a millisecond, and what one takes beside, in milliseconds.
const DOWNLOADED_PER_MS: u64 = 10_000;
const DOWNLOAD_MS: u64 = 1_000;

/// Assumed time in which an image is put together again from cached steps, in milliseconds.
const EXPORT_MS: u64 = 100;

/// How much of a preimage is looked at for the step's name.
const NAME_LIMIT: usize = 2048;

/// Something on disk.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: UsageKind,
    pub(crate) id: String,
    pub(crate) digest: Option<Digest>,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// When it was put in its place, seconds since 1970.
    pub(crate) changed: i64,
    /// Units that hold it.
    pub(crate) holders: Vec<usize>,
    /// Whether a tagged image has it.
    pub(crate) of_image: bool,
    /// Whether a running build has noted it.
    pub(crate) in_use: bool,
}

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitKind {
    /// Steps that led to one layer.
    Step,
    /// A layer of a base image.
    Base,
    /// What a reference was resolved to.
    Image,
    /// An image that was built without a name.
    Unnamed,
    /// A file behind a URL.
    Fetched,
    /// A repository.
    Git,
    /// A cache mount.
    CacheMount,
    /// Something that nothing leads to.
    Orphan,
}

/// Something that is removed as a whole.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub(crate) kind: Option<UnitKind>,
    pub(crate) id: String,
    pub(crate) layer: Option<LayerId>,
    pub(crate) objects: Vec<usize>,
    pub(crate) records: Vec<Digest>,
    /// The entry of `index.json`.
    pub(crate) entry: Option<Value>,
    /// Reference and platform.
    pub(crate) resolution: Option<(String, String)>,
    pub(crate) parents: Vec<usize>,
    pub(crate) created: i64,
    pub(crate) last_used: i64,
    pub(crate) uses: u64,
    pub(crate) cost_ms: u64,
    pub(crate) in_use: bool,
    pub(crate) description: String,
}

impl Unit {
    pub(crate) fn kind(&self) -> UnitKind {
        self.kind.unwrap_or(UnitKind::Step)
    }

    /// BuildKit's record type (C-020), or the nearest.
    pub(crate) fn record_type(&self) -> &'static str {
        match self.kind() {
            UnitKind::Step | UnitKind::Orphan => "regular",
            UnitKind::Unnamed => "image",
            UnitKind::Base | UnitKind::Image => "source.image",
            UnitKind::Fetched => "source.http",
            UnitKind::Git => "source.git.checkout",
            UnitKind::CacheMount => "exec.cachemount",
        }
    }

    /// What came from elsewhere is only removed with `--all`, or to keep to a budget.
    pub(crate) fn is_fetched(&self) -> bool {
        matches!(self.kind(), UnitKind::Base | UnitKind::Image | UnitKind::Fetched | UnitKind::Git)
    }

    fn used(&mut self, at: i64) {
        self.last_used = self.last_used.max(at);
    }
}

/// Everything, at one moment. To be taken under the exclusive gate by whoever removes something.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) objects: Vec<Object>,
    pub(crate) units: Vec<Unit>,
    /// Counted files: what is walked later by the same meter is not counted twice.
    pub(crate) meter: Meter,
    /// Names of tagged images by the blobs that they have.
    pub(crate) images: HashMap<Digest, Vec<String>>,
    /// Entries of `index.json` of images that were built without a name.
    unnamed: Vec<(Digest, Value)>,
    blobs: HashMap<Digest, usize>,
    dirs: HashMap<LayerId, usize>,
    layers: HashMap<LayerId, usize>,
    in_use: HashSet<Digest>,
}

impl Store {
    /// Looks at everything; `in_use` is what running builds have noted. `exact` measures layers even if their size is
    /// known, since files that several layers have as links count once.
    pub(crate) fn inventory(&self, in_use: HashSet<Digest>, exact: bool) -> Result<Inventory> {
        // A damaged index.json must not look like one without images.
        let index = Index::read(self.root())?;
        let mut inventory = Inventory { in_use, ..Inventory::default() };
        for entry in index.entries() {
            let Some(digest) = digest_of(entry) else { continue };
            if is_unnamed(entry) {
                inventory.unnamed.push((digest, entry.clone()));
                continue;
            }
            let name = name_of(entry).unwrap_or("<none>");
            for blob in self.reachable([digest]) {
                inventory.images.entry(blob).or_default().push(name.to_owned());
            }
        }
        inventory.add_files(self, exact)?;
        self.query(|db| {
            // The function may run twice.
            inventory.units.clear();
            inventory.layers.clear();
            inventory.objects.iter_mut().for_each(|object| object.holders.clear());
            inventory.add_rows(self, db)
        })?;
        inventory.add_unnamed(self);
        inventory.add_mounts(self)?;
        inventory.add_fetched(self)?;
        inventory.add_rest();
        inventory.estimate_costs();
        Ok(inventory)
    }

    /// These manifests or indexes, and all that they lead to, whether it is here or not.
    pub(crate) fn reachable(&self, roots: impl IntoIterator<Item = Digest>) -> HashSet<Digest> {
        let mut pending: Vec<Digest> = roots.into_iter().collect();
        let mut visited = HashSet::new();
        let mut found = HashSet::new();
        while let Some(next) = pending.pop() {
            if !visited.insert(next) {
                continue;
            }
            found.insert(next);
            let Some(document) = read_document(&self.blob_path(&next)) else { continue };
            let lists = ["layers", "blobs"].iter().filter_map(|name| document[*name].as_array());
            found.extend(lists.flatten().chain([&document["config"]]).filter_map(digest_of));
            pending.extend(document["manifests"].as_array().into_iter().flatten().filter_map(digest_of));
            pending.extend(digest_of(&document["subject"]));
        }
        found
    }
}

impl Inventory {
    fn add_files(&mut self, store: &Store, exact: bool) -> Result<()> {
        for (name, kind) in [("blobs/sha256", UsageKind::Blob), ("snapshots", UsageKind::Layer)] {
            let dir = store.root().join(name);
            for entry in fs::read_dir(&dir).at("list", &dir)? {
                let path = entry.at("list", &dir)?.path();
                // Names of another form are not ours.
                let Some(id) = snapshot_id(&path) else { continue };
                let Ok(meta) = fs::symlink_metadata(&path) else { continue };
                let known = Some(&path)
                    .filter(|_| kind == UsageKind::Layer && !exact)
                    .and_then(|path| Sum::read(path));
                let bytes = match known {
                    Some(sum) => sum.bytes,
                    None => self.meter.tree(&path),
                };
                let index = self.add_object(kind, id.to_string(), path, bytes, meta.ctime());
                self.objects[index].digest = Some(id);
                match kind {
                    UsageKind::Blob => self.blobs.insert(id, index),
                    _ => self.dirs.insert(id, index),
                };
                self.objects[index].of_image = kind == UsageKind::Blob && self.images.contains_key(&id);
                self.objects[index].in_use = self.in_use.contains(&id);
            }
        }
        Ok(())
    }

    fn add_object(&mut self, kind: UsageKind, id: String, path: PathBuf, bytes: u64, changed: i64) -> usize {
        self.objects.push(Object {
            kind,
            id,
            digest: None,
            path,
            bytes,
            changed,
            holders: Vec::new(),
            of_image: false,
            in_use: false,
        });
        self.objects.len() - 1
    }

    fn hold(&mut self, unit: usize, object: usize) {
        if !self.units[unit].objects.contains(&object) {
            self.units[unit].objects.push(object);
            self.objects[object].holders.push(unit);
        }
    }

    /// The unit of a layer, with its directory.
    fn layer_unit(&mut self, id: LayerId) -> usize {
        if let Some(&unit) = self.layers.get(&id) {
            return unit;
        }
        let in_use = self.in_use.contains(&id);
        self.units.push(Unit { id: id.to_string(), layer: Some(id), in_use, ..Unit::default() });
        let unit = self.units.len() - 1;
        self.layers.insert(id, unit);
        if let Some(&object) = self.dirs.get(&id) {
            self.hold(unit, object);
        }
        unit
    }

    fn add_rows(&mut self, store: &Store, db: &Connection) -> rusqlite::Result<()> {
        let mut statement = db.prepare("SELECT id, kind, created, last_used FROM layers")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let unit = self.layer_unit(digest(row, 0)?);
            let unit = &mut self.units[unit];
            unit.kind = (row.get::<_, i64>(1)? == LayerKind::Pulled as i64).then_some(UnitKind::Base);
            unit.created = row.get(2)?;
            unit.used(row.get(3)?);
        }
        self.add_records(db)?;
        let mut statement = db.prepare("SELECT DISTINCT layer, blob FROM packed")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (layer, blob) = (digest(row, 0)?, digest(row, 1)?);
            let unit = self.layer_unit(layer);
            if let Some(&object) = self.blobs.get(&blob) {
                self.hold(unit, object);
            }
        }
        let mut statement =
            db.prepare("SELECT reference, platform, descriptor, resolved FROM resolutions")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let descriptor: Value = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
            self.add_resolution(store, (row.get(0)?, row.get(1)?), digest_of(&descriptor), row.get(3)?);
        }
        Ok(())
    }

    fn add_records(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT r.key, r.layer, r.chain, r.created, r.last_used, r.uses, r.cost_ms, substr(p.text, 1, {NAME_LIMIT})
             FROM records r LEFT JOIN preimages p ON p.key = r.key"
        );
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = digest(row, 0)?;
            let chain: Vec<u8> = row.get(2)?;
            let chain = chain.chunks_exact(32).filter_map(|id| <[u8; 32]>::try_from(id).ok());
            let mut chain: Vec<LayerId> = chain.map(Digest::from_bytes).collect();
            if let Some(layer) = optional_digest(row, 1)?
                && chain.last() != Some(&layer)
            {
                chain.push(layer);
            }
            let index = match self.add_chain(&chain) {
                Some(unit) => unit,
                None => {
                    self.units.push(Unit { id: key.to_string(), ..Unit::default() });
                    self.units.len() - 1
                }
            };
            let in_use = self.in_use.contains(&key);
            let unit = &mut self.units[index];
            unit.records.push(key);
            unit.created = unit.created.max(row.get(3)?);
            unit.used(row.get(4)?);
            unit.uses += row.get::<_, i64>(5)?.cast_unsigned();
            unit.cost_ms = unit.cost_ms.max(row.get::<_, i64>(6)?.cast_unsigned());
            unit.in_use |= in_use;
            if unit.description.is_empty() {
                unit.description = name_of_step(&row.get::<_, Option<String>>(7)?.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Each layer of a chain stands on the one before it. Returns the unit of the last.
    fn add_chain(&mut self, chain: &[LayerId]) -> Option<usize> {
        let mut below = None;
        for id in chain {
            let unit = self.layer_unit(*id);
            if let Some(parent) = below
                && parent != unit
                && !self.units[unit].parents.contains(&parent)
            {
                self.units[unit].parents.push(parent);
            }
            below = Some(unit);
        }
        below
    }

    fn add_resolution(
        &mut self,
        store: &Store,
        name: (String, String),
        manifest: Option<Digest>,
        resolved: i64,
    ) {
        let unit = Unit {
            kind: Some(UnitKind::Image),
            id: manifest.map(|manifest| manifest.to_string()).unwrap_or_default(),
            description: format!("{} {}", name.0, name.1),
            resolution: Some(name),
            created: resolved,
            last_used: resolved,
            ..Unit::default()
        };
        self.add_image(store, unit, manifest);
    }

    /// A unit with all blobs that a manifest leads to.
    fn add_image(&mut self, store: &Store, unit: Unit, manifest: Option<Digest>) {
        let in_use = manifest.is_some_and(|manifest| self.in_use.contains(&manifest));
        self.units.push(Unit { in_use, ..unit });
        let unit = self.units.len() - 1;
        let mut blobs: Vec<Digest> = store.reachable(manifest).into_iter().collect();
        blobs.sort_unstable();
        for blob in blobs {
            if let Some(&object) = self.blobs.get(&blob) {
                self.hold(unit, object);
            }
        }
    }

    fn add_unnamed(&mut self, store: &Store) {
        for (manifest, entry) in std::mem::take(&mut self.unnamed) {
            let made = self.blobs.get(&manifest).map_or(0, |blob| self.objects[*blob].changed);
            let unit = Unit {
                kind: Some(UnitKind::Unnamed),
                id: manifest.to_string(),
                description: "an image without a name".to_owned(),
                entry: Some(entry),
                created: made,
                last_used: made,
                ..Unit::default()
            };
            self.add_image(store, unit, Some(manifest));
        }
    }

    fn add_mounts(&mut self, store: &Store) -> Result<()> {
        for (id, path) in store.cache_mounts()? {
            let bytes = self.meter.tree(&path);
            let (used, free) = store.cache_mount_state(&path)?;
            let changed = fs::symlink_metadata(&path).map_or(0, |meta| meta.ctime());
            let object = self.add_object(UsageKind::CacheMount, id.to_string(), path, bytes, changed);
            self.objects[object].in_use = !free;
            let unit = Unit { last_used: used, created: changed, in_use: !free, ..Unit::default() };
            self.add_single(UnitKind::CacheMount, object, unit);
        }
        Ok(())
    }

    fn add_single(&mut self, kind: UnitKind, object: usize, unit: Unit) -> usize {
        let id = self.objects[object].id.clone();
        self.units.push(Unit { kind: Some(kind), id, ..unit });
        self.hold(self.units.len() - 1, object);
        self.units.len() - 1
    }

    fn add_fetched(&mut self, store: &Store) -> Result<()> {
        for (name, kind, unit_kind) in
            [("http", UsageKind::Fetched, UnitKind::Fetched), ("git", UsageKind::Git, UnitKind::Git)]
        {
            let dir = store.root().join(name);
            for entry in fs::read_dir(&dir).at("list", &dir)? {
                let path = entry.at("list", &dir)?.path();
                let Some(key) = snapshot_id(&path) else { continue };
                let Some(meta) = optional(fs::symlink_metadata(&path)).at("examine", &path)? else {
                    continue;
                };
                let bytes = self.meter.tree(&path);
                let fetched =
                    fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Fetched>(&text).ok());
                // Work in a repository is done under the key's lock.
                let busy = kind == UsageKind::Git && store.is_key_locked(&key)?;
                let used =
                    meta.mtime().max(fs::metadata(path.join("FETCH_HEAD")).map_or(0, |meta| meta.mtime()));
                let object = self.add_object(kind, key.to_string(), path, bytes, meta.ctime());
                self.objects[object].in_use = busy;
                let blob = fetched.and_then(|fetched| self.blobs.get(&fetched.digest).copied());
                let in_use = busy || blob.is_some_and(|blob| self.objects[blob].in_use);
                let unit = Unit { created: meta.ctime(), last_used: used, in_use, ..Unit::default() };
                let unit = self.add_single(unit_kind, object, unit);
                if let Some(blob) = blob {
                    self.hold(unit, blob);
                }
            }
        }
        Ok(())
    }

    /// Units for what no row and no image leads to.
    fn add_rest(&mut self) {
        let mut unknown: Vec<LayerId> = self.dirs.keys().copied().collect();
        unknown.retain(|id| !self.layers.contains_key(id));
        unknown.sort_unstable();
        for id in unknown {
            self.layer_unit(id);
        }
        for object in 0..self.objects.len() {
            let found = &self.objects[object];
            if found.holders.is_empty() && !found.of_image {
                let (used, in_use) = (found.changed, found.in_use);
                let unit = Unit { created: used, last_used: used, in_use, ..Unit::default() };
                self.add_single(UnitKind::Orphan, object, unit);
            }
        }
        let standing: HashSet<usize> = self.units.iter().flat_map(|unit| unit.parents.clone()).collect();
        for (index, unit) in self.units.iter_mut().enumerate() {
            if unit.kind() == UnitKind::Step && unit.records.is_empty() && !standing.contains(&index) {
                unit.kind = Some(UnitKind::Orphan);
                for object in &unit.objects {
                    let changed = self.objects[*object].changed;
                    unit.last_used = unit.last_used.max(changed);
                }
            }
        }
    }

    fn estimate_costs(&mut self) {
        for unit in &mut self.units {
            let bytes: u64 = unit.objects.iter().map(|object| self.objects[*object].bytes).sum();
            let download = DOWNLOAD_MS + bytes / DOWNLOADED_PER_MS;
            unit.cost_ms = match unit.kind() {
                UnitKind::Step if unit.records.is_empty() => 0,
                UnitKind::Step => unit.cost_ms.max(1),
                UnitKind::Base => 1 + bytes / UNPACKED_PER_MS,
                UnitKind::Image | UnitKind::Fetched | UnitKind::Git | UnitKind::CacheMount => download,
                UnitKind::Unnamed => EXPORT_MS,
                UnitKind::Orphan => 0,
            };
        }
    }

    /// What the removal of this unit alone would free, as far as it alone holds it.
    fn freed_by(&self, unit: usize) -> u64 {
        let objects = self.units[unit].objects.iter().map(|object| &self.objects[*object]);
        let shares = objects.filter(|object| !object.of_image && !object.in_use);
        shares.map(|object| object.bytes / object.holders.len().max(1) as u64).sum()
    }

    /// Whether other units or an image have something of it too.
    pub(crate) fn is_shared(&self, unit: usize) -> bool {
        let mut objects = self.units[unit].objects.iter().map(|object| &self.objects[*object]);
        objects.any(|object| object.of_image || object.holders.len() > 1)
    }

    /// The units as candidates for removal.
    pub(crate) fn candidates(&self, wanted: impl Fn(&Self, usize) -> bool) -> Vec<Candidate> {
        let candidate = |(index, unit): (usize, &Unit)| Candidate {
            bytes: self.freed_by(index),
            cost_ms: unit.cost_ms,
            uses: unit.uses,
            last_used: unit.last_used,
            parents: unit.parents.clone(),
            removable: !unit.in_use && wanted(self, index),
        };
        self.units.iter().enumerate().map(candidate).collect()
    }

    /// What filters look at.
    pub(crate) fn facts(&self, index: usize) -> Facts<'_> {
        let unit = &self.units[index];
        Facts {
            id: &unit.id,
            parents: unit.parents.iter().map(|parent| self.units[*parent].id.as_str()).collect(),
            kind: unit.objects.first().map_or("record", |object| self.objects[*object].kind.name()),
            record_type: unit.record_type(),
            description: &unit.description,
            last_used: unit.last_used,
            in_use: unit.in_use,
            shared: self.is_shared(index),
            mutable: unit.kind() == UnitKind::CacheMount || unit.kind() == UnitKind::Git,
        }
    }

    /// What the cache takes: all but what tagged images have.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.objects.iter().filter(|object| !object.of_image).map(|object| object.bytes).sum()
    }

    /// What remains to be freed of an object when these units are gone: nothing may hold it.
    pub(crate) fn is_freed(&self, object: usize, gone: &HashSet<usize>) -> bool {
        let object = &self.objects[object];
        !object.of_image && !object.in_use && object.holders.iter().all(|holder| gone.contains(holder))
    }
}

pub(crate) fn digest_of(descriptor: &Value) -> Option<Digest> {
    descriptor.get("digest")?.as_str()?.parse().ok()
}

/// A JSON document among the blobs; `None` for whatever else is there.
pub(crate) fn read_document(path: &Path) -> Option<Value> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_DOCUMENT).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The name at the beginning of a preimage, of which only the beginning is here.
fn name_of_step(preimage: &str) -> String {
    let Some(rest) = preimage.strip_prefix("{\"name\":") else { return String::new() };
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    values.next().and_then(std::result::Result::ok).unwrap_or_default()
}
