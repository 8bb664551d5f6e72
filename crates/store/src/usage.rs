//! What takes how much space (`du`, C-020).

use crate::error::{IoContext, Result};
use crate::filter::{Facts, Filter};
use crate::inventory::Inventory;
use crate::layer::snapshot_id;
use crate::meter::Meter;
use crate::{Store, lease, locked};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a row of the usage is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageKind {
    /// The entry of an image that was built without a name; it takes no space of its own.
    Image,
    /// A cache record that has no layer of its own; it takes no space but in the index.
    Record,
    /// A file of `blobs/sha256`.
    Blob,
    /// An unpacked layer.
    Layer,
    /// A directory of RUN --mount=type=cache.
    CacheMount,
    /// What is known of a URL.
    Fetched,
    /// The repository of a git remote.
    Git,
    /// What a running build is writing.
    Ingest,
    /// What is about to be deleted.
    Trash,
    /// What fsck has put away.
    Quarantine,
    /// Records of builds.
    History,
    /// Digests of context files.
    StatCache,
    /// `index.db`.
    Index,
    /// The layout's own files and directories, locks, and what is not ours.
    Other,
}

impl UsageKind {
    /// As it is shown, and as `type` in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Record => "record",
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::CacheMount => "cache-mount",
            Self::Fetched => "download",
            Self::Git => "git",
            Self::Ingest => "ingest",
            Self::Trash => "trash",
            Self::Quarantine => "quarantine",
            Self::History => "history",
            Self::StatCache => "stat-cache",
            Self::Index => "index",
            Self::Other => "other",
        }
    }
}

/// Something on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// What it is.
    pub kind: UsageKind,
    /// Its digest, layer id, or the hash of a cache mount's id or of a URL; else a file name.
    pub id: String,
    /// BuildKit's record type (C-020) or the nearest: `regular`, `internal`, `source.image`, `source.http`,
    /// `source.git.checkout`, `source.local`, `exec.cachemount`, and `image` for what only tagged images have.
    pub record_type: &'static str,
    /// What it takes on disk, in bytes.
    pub bytes: u64,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// When it was last used, seconds since 1970.
    pub last_used: i64,
    /// How often its records were found since.
    pub uses: u64,
    /// Milliseconds that making it took, or is estimated to take.
    pub cost_ms: u64,
    /// Whether `prune --all` would free it.
    pub reclaimable: bool,
    /// Whether several steps, or steps and images, have it.
    pub shared: bool,
    /// Whether its content changes.
    pub mutable: bool,
    /// Whether a running build uses it.
    pub in_use: bool,
    /// The step that made it, where it came from, or the images that have it.
    pub description: String,
    /// Layers that it stands on.
    pub parents: Vec<String>,
    /// Tagged images that have it.
    pub images: Vec<String>,
}

/// What the whole store takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Everything, the largest first; their sizes add up to what du(1) says of the store.
    pub rows: Vec<UsageRow>,
}

impl Usage {
    /// The sizes of all rows.
    pub fn total(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// The sizes of the rows that `which` picks.
    pub fn sum(&self, which: impl Fn(&UsageRow) -> bool) -> u64 {
        self.rows.iter().filter(|row| which(row)).map(|row| row.bytes).sum()
    }

    /// Leaves only what the filter matches.
    pub fn retain(&mut self, filter: &Filter) {
        self.rows.retain(|row| {
            filter.matches(&Facts {
                id: &row.id,
                parents: row.parents.iter().map(String::as_str).collect(),
                kind: row.kind.name(),
                record_type: row.record_type,
                description: &row.description,
                last_used: row.last_used,
                in_use: row.in_use,
                shared: row.shared,
                mutable: row.mutable,
            })
        });
    }
}

impl Store {
    /// What everything takes on disk, measured now. A store that is being written to is seen at several moments.
    pub fn usage(&self) -> Result<Usage> {
        self.inner.gc.settle();
        let in_use = {
            let _gate = self.inner.gate.exclusive()?;
            lease::notes_of_running(self.root())?
        };
        let mut inventory = self.inventory(in_use, true)?;
        let mut rows = rows_of_objects(&inventory);
        rows.extend(rows_of_records(&inventory));
        rows.extend(self.rows_of_the_rest(&mut inventory.meter)?);
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (a.kind, &a.id).cmp(&(b.kind, &b.id))));
        Ok(Usage { rows })
    }

    /// Everything that is no object: each place's own directories and files, and what does not belong there.
    fn rows_of_the_rest(&self, meter: &mut Meter) -> Result<Vec<UsageRow>> {
        let mut rows = Vec::new();
        let mut other = 0;
        let root = self.root();
        other += fs::symlink_metadata(root).map_or(0, |meta| meter.one(&meta));
        for entry in fs::read_dir(root).at("list", root)? {
            let path = entry.at("list", root)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match name.as_str() {
                "blobs" => {
                    other += own_blocks(&path, meter, &|child| child.ends_with("sha256"));
                    other += own_blocks(&path.join("sha256"), meter, &|child| snapshot_id(child).is_some());
                }
                "snapshots" | "http" | "git" => {
                    other += own_blocks(&path, meter, &|child| snapshot_id(child).is_some());
                }
                "cache-mounts" => {
                    let mounts: Vec<_> = self.cache_mounts()?.into_iter().map(|(_, path)| path).collect();
                    other += own_blocks(&path, meter, &|child| mounts.iter().any(|mount| mount == child));
                }
                "ingest" => rows.extend(row_of(UsageKind::Ingest, &path, meter)),
                "trash" => rows.extend(row_of(UsageKind::Trash, &path, meter)),
                "quarantine" => rows.extend(row_of(UsageKind::Quarantine, &path, meter)),
                "history" => rows.extend(row_of(UsageKind::History, &path, meter)),
                "statcache" => rows.extend(row_of(UsageKind::StatCache, &path, meter)),
                name if name.starts_with("index.db") => rows.extend(row_of(UsageKind::Index, &path, meter)),
                _ => other += meter.tree(&path),
            }
        }
        rows.extend(row_of(UsageKind::Other, root, &mut Meter::default()).map(|row| UsageRow {
            bytes: other,
            id: "layout and locks".to_owned(),
            ..row
        }));
        Ok(rows)
    }

    /// Whether this handle holds a lease.
    pub fn is_leased(&self) -> bool {
        locked(&self.inner.lease).is_some()
    }
}

/// The blocks of a directory and of everything in it but its objects.
fn own_blocks(dir: &Path, meter: &mut Meter, is_object: &dyn Fn(&Path) -> bool) -> u64 {
    let mut total = fs::symlink_metadata(dir).map_or(0, |meta| meter.one(&meta));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !is_object(&entry.path()) {
            total += meter.tree(&entry.path());
        }
    }
    total
}

fn row_of(kind: UsageKind, path: &Path, meter: &mut Meter) -> Option<UsageRow> {
    let meta = fs::symlink_metadata(path).ok()?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = if kind == UsageKind::Other { 0 } else { meter.tree(path) };
    let removable = matches!(kind, UsageKind::Trash | UsageKind::Quarantine);
    Some(UsageRow {
        kind,
        id: name,
        record_type: if kind == UsageKind::StatCache { "source.local" } else { "internal" },
        bytes,
        created: meta.ctime(),
        last_used: meta.mtime(),
        uses: 0,
        cost_ms: 0,
        reclaimable: removable && bytes > meta.blocks() * 512,
        shared: false,
        mutable: true,
        in_use: kind == UsageKind::Ingest,
        description: String::new(),
        parents: Vec::new(),
        images: Vec::new(),
    })
}

fn rows_of_objects(inventory: &Inventory) -> Vec<UsageRow> {
    let row = |object: &crate::inventory::Object| {
        let holder = object.holders.first().map(|holder| (*holder, &inventory.units[*holder]));
        let mut images =
            object.digest.and_then(|digest| inventory.images.get(&digest)).cloned().unwrap_or_default();
        if !object.of_image {
            images.clear();
        }
        images.dedup();
        let in_use = object.in_use || object.holders.iter().any(|holder| inventory.units[*holder].in_use);
        let holders = object.holders.iter().map(|holder| &inventory.units[*holder]);
        let named = holders.map(|unit| &unit.description).find(|text| !text.is_empty());
        UsageRow {
            kind: object.kind,
            id: object.id.clone(),
            record_type: holder.map_or("image", |(_, unit)| unit.record_type()),
            bytes: object.bytes,
            created: holder.map_or(object.changed, |(_, unit)| unit.created),
            last_used: holder.map_or(object.changed, |(_, unit)| unit.last_used),
            uses: holder.map_or(0, |(_, unit)| unit.uses),
            cost_ms: holder.map_or(0, |(_, unit)| unit.cost_ms),
            reclaimable: !object.of_image && !in_use,
            shared: object.holders.len() + usize::from(object.of_image) > 1,
            mutable: holder.is_some_and(|(index, _)| inventory.facts(index).mutable),
            in_use,
            description: named.cloned().unwrap_or_else(|| images.join(", ")),
            parents: holder.map_or_else(Vec::new, |(index, _)| {
                inventory.facts(index).parents.into_iter().map(str::to_owned).collect()
            }),
            images,
        }
    };
    inventory.objects.iter().map(row).collect()
}

/// Records whose units have nothing on disk, which else nobody would see.
fn rows_of_records(inventory: &Inventory) -> Vec<UsageRow> {
    let bare = inventory.units.iter().filter(|unit| unit.objects.is_empty() && !unit.records.is_empty());
    bare.map(|unit| UsageRow {
        kind: UsageKind::Record,
        id: unit.records[0].to_string(),
        record_type: unit.record_type(),
        bytes: 0,
        created: unit.created,
        last_used: unit.last_used,
        uses: unit.uses,
        cost_ms: unit.cost_ms,
        reclaimable: !unit.in_use,
        shared: false,
        mutable: false,
        in_use: unit.in_use,
        description: unit.description.clone(),
        parents: Vec::new(),
        images: Vec::new(),
    })
    .collect()
}
