//! Removal of what is not used.

use crate::budget::Budget;
use crate::db::run;
use crate::error::Result;
use crate::filter::Filter;
use crate::fsutil::{lock_path, now};
use crate::ingest::{clear_abandoned, empty_trash, to_trash};
use crate::inventory::{Inventory, UnitKind};
use crate::layer::snapshot_id;
use crate::record::delete_record;
use crate::usage::UsageKind;
use crate::{Store, StoreError, evict, lease};
use rusqlite::{Transaction, params};
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::fs;

/// Tombstones that are kept, the newest.
const MAX_TOMBSTONES: i64 = 10_000;

/// What to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also what came from elsewhere: layers and blobs of base images that no tagged image has, resolutions, downloads,
    /// repositories.
    pub all: bool,
    /// Only what was last used before this time, seconds since 1970.
    pub unused_since: Option<i64>,
    /// Only what all of these match.
    pub filters: Vec<Filter>,
    /// Only as much as is needed to keep to this; everything if there is none.
    pub budget: Option<Budget>,
    /// Only report what would be removed.
    pub dry_run: bool,
}

/// An object that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// What it was.
    pub kind: UsageKind,
    /// Key, layer id, digest, or the hash of a cache mount's id or of a URL.
    pub id: String,
    /// What it took on disk; 0 for records.
    pub bytes: u64,
    /// The step that made it, or where it came from; empty if that is unknown.
    pub description: String,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// The objects.
    pub removed: Vec<Pruned>,
    /// Their sizes together.
    pub bytes: u64,
}

impl Store {
    /// Removes what the options want, as far as nothing else needs it: images without a name, cache records with the layers and packed forms that
    /// no remaining record has, blobs that nothing leads to, cache mounts, and what killed processes left. Under a budget
    /// the least worth goes first.
    ///
    /// What running builds use stays, in whatever process (see the rules in the crate's documentation); builds that go
    /// on meanwhile wait at most for the renames.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        self.flush_uses()?;
        self.inner.gc.settle();
        let gate = self.inner.gate.exclusive()?;
        let inventory = self.inventory(lease::notes_of_running(self.root())?, false)?;
        let target = match &options.budget {
            None => Some(0),
            Some(budget) => budget.target(inventory.cache_bytes(), self.disk()?),
        };
        let wanted = |inventory: &Inventory, unit: usize| options.wants(inventory, unit);
        let chosen = target.map_or_else(Vec::new, |target| choose(&inventory, wanted, target).0);
        let report = self.remove(&inventory, &chosen, options.dry_run, false)?;
        if !options.dry_run {
            if options.all && options.is_unconditional() {
                self.forget_sources()?;
            }
            self.note_measured(inventory.cache_bytes() - report.bytes)?;
            self.remove_leftovers();
            drop(gate);
            clear_abandoned(self.root())?;
            empty_trash(&self.root().join("trash"));
            self.sync()?;
        }
        Ok(report)
    }

    /// Removes these units: their rows, then what only they hold. With `files_first` the rows go last, and it is no error
    /// if they cannot be deleted: a full disk may not have room for that, and a row without its files is never returned.
    pub(crate) fn remove(
        &self,
        inventory: &Inventory,
        chosen: &[usize],
        dry_run: bool,
        files_first: bool,
    ) -> Result<PruneReport> {
        let gone: HashSet<usize> = chosen.iter().copied().collect();
        let delete_rows = || self.change(|tx| delete_rows(tx, inventory, chosen));
        if !dry_run && !files_first && !chosen.is_empty() {
            delete_rows()?;
        }
        let mut report = PruneReport::default();
        let mut seen = HashSet::new();
        for &index in chosen {
            let unit = &inventory.units[index];
            let entry = |kind, id: &str, bytes| Pruned {
                kind,
                id: id.to_owned(),
                bytes,
                description: unit.description.clone(),
            };
            if let Some(image) = &unit.entry {
                if !dry_run {
                    self.remove_index_entries(std::slice::from_ref(image))?;
                }
                report.removed.push(entry(UsageKind::Image, &unit.id, 0));
            }
            report
                .removed
                .extend(unit.records.iter().map(|key| entry(UsageKind::Record, &key.to_string(), 0)));
            for &object in &unit.objects {
                if !inventory.is_freed(object, &gone) || !seen.insert(object) {
                    continue;
                }
                let object = &inventory.objects[object];
                let removed = dry_run
                    || match object.kind {
                        UsageKind::CacheMount => self.remove_cache_mount(&object.path)?,
                        UsageKind::Git => self.remove_git_dir(&object.path)?,
                        _ => to_trash(self.root(), &object.path)?.is_some(),
                    };
                if removed {
                    report.bytes += object.bytes;
                    report.removed.push(entry(object.kind, &object.id, object.bytes));
                }
            }
        }
        if files_first && !chosen.is_empty() {
            empty_trash(&self.root().join("trash"));
            match delete_rows() {
                Ok(()) | Err(StoreError::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Forgets which registries have blobs, when nothing pulled is left.
    fn forget_sources(&self) -> Result<()> {
        let sql = "DELETE FROM blob_sources WHERE NOT EXISTS (SELECT 1 FROM resolutions)
            AND NOT EXISTS (SELECT 1 FROM layers WHERE kind = 1)";
        self.change(|tx| run(tx, sql, []).map(drop))
    }

    /// Removes lock files that a killed process left, damaged indexes that were moved aside, and what fsck put away.
    fn remove_leftovers(&self) {
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
        for entry in fs::read_dir(self.root().join("quarantine")).into_iter().flatten().flatten() {
            let _ = to_trash(self.root(), &entry.path());
        }
    }
}

impl PruneOptions {
    fn is_unconditional(&self) -> bool {
        self.unused_since.is_none() && self.filters.is_empty() && self.budget.is_none()
    }

    fn wants(&self, inventory: &Inventory, index: usize) -> bool {
        let unit = &inventory.units[index];
        if unit.is_fetched() && !self.all {
            return false;
        }
        if self.unused_since.is_some_and(|limit| unit.last_used >= limit) {
            return false;
        }
        self.filters.is_empty() || {
            let facts = inventory.facts(index);
            self.filters.iter().all(|filter| filter.matches(&facts))
        }
    }
}

/// The units that are to go so that at most `target` bytes of cache remain, in the order of their removal; and what
/// remains then.
pub(crate) fn choose(
    inventory: &Inventory,
    wanted: impl Fn(&Inventory, usize) -> bool,
    target: u64,
) -> (Vec<usize>, u64) {
    let mut left = inventory.cache_bytes();
    let order = evict::order(&inventory.candidates(wanted));
    let mut gone = HashSet::new();
    let mut chosen = Vec::new();
    for unit in order {
        if left <= target && target > 0 {
            break;
        }
        gone.insert(unit);
        chosen.push(unit);
        for &object in &inventory.units[unit].objects {
            if inventory.is_freed(object, &gone) {
                left = left.saturating_sub(inventory.objects[object].bytes);
            }
        }
    }
    (chosen, left)
}

fn delete_rows(tx: &Transaction<'_>, inventory: &Inventory, chosen: &[usize]) -> rusqlite::Result<()> {
    let now = now();
    for &index in chosen {
        let unit = &inventory.units[index];
        for key in &unit.records {
            delete_record(tx, key, now)?;
        }
        if let Some(layer) = &unit.layer {
            run(tx, "DELETE FROM layers WHERE id = ?1", [layer.as_bytes()])?;
            run(tx, "DELETE FROM packed WHERE layer = ?1", [layer.as_bytes()])?;
        }
        if let Some((reference, platform)) = &unit.resolution {
            let sql = "DELETE FROM resolutions WHERE reference = ?1 AND platform = ?2";
            run(tx, sql, params![reference, platform])?;
        }
        // What stood on it was used when its parents were needed last, as far as anybody knows.
        for parent in unit.parents.iter().filter_map(|parent| inventory.units[*parent].layer) {
            let sql = "UPDATE layers SET last_used = max(last_used, ?2) WHERE id = ?1";
            run(tx, sql, params![parent.as_bytes(), unit.last_used])?;
        }
    }
    run(
        tx,
        "DELETE FROM tombstones WHERE key NOT IN (SELECT key FROM tombstones ORDER BY evicted DESC LIMIT ?1)",
        params![MAX_TOMBSTONES],
    )
    .map(drop)
}

impl Inventory {
    /// Whether nothing leads to it, and it was put there at or after `since`.
    pub(crate) fn is_settling(&self, unit: usize, since: i64) -> bool {
        let unit = &self.units[unit];
        unit.kind() == UnitKind::Orphan && unit.last_used >= since
    }
}
