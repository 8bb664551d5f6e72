//! Keeping to the budget: after builds, and when there is no room to write.

use crate::db::{first, run};
use crate::error::Result;
use crate::fsutil::now;
use crate::ingest::{clear_abandoned, empty_trash};
use crate::inventory::Inventory;
use crate::prune::{PruneReport, choose};
use crate::{Budget, Store, StoreError, lease, locked};
use rusqlite::{Connection, params};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Blobs and layers that nothing leads to are left alone for this many seconds if anything else will do: a tool that is no
/// rbuild, and has no lease, may be about to lead to them.
const SETTLING: i64 = 600;

/// Collecting goes on to this share of the target, in hundredths, so that not every build has to.
const LOW_WATER: u64 = 90;

/// When there is no room, at least this much is made, bytes.
const LEAST_ROOM: u64 = 64 << 20;

/// A file system with less than this free is full, bytes.
const FULL: u64 = 256 << 10;

/// How long collecting waits for others to finish what they look up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two attempts to free space before something is written.
const INTERVAL: Duration = Duration::from_secs(10);

/// Sizes that are known without looking at the files: `measured` is what the cache took when it was last looked at
/// as a whole, `since` what was put in place afterwards.
pub(crate) const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS sizes (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID";

/// What this handle knows of collecting.
#[derive(Default)]
pub(crate) struct State {
    /// Bytes put in place by this handle that the index does not know of yet.
    placed: AtomicU64,
    /// Threads that measure new layers.
    measuring: Mutex<Vec<JoinHandle<()>>>,
    /// When making room was last tried, and whether it helped.
    tried: Mutex<Option<(Instant, bool)>>,
}

impl State {
    pub(crate) fn add_placed(&self, bytes: u64) {
        self.placed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_measuring(&self, thread: JoinHandle<()>) {
        locked(&self.measuring).push(thread);
    }

    /// Waits until all new layers are measured.
    pub(crate) fn settle(&self) {
        let threads = std::mem::take(&mut *locked(&self.measuring));
        for thread in threads {
            // A layer that could not be measured is measured by whoever asks for its size.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Whether anything was put in place by this handle that [`Store::collect_garbage`] has not looked at.
    pub fn has_placed(&self) -> bool {
        self.inner.gc.placed.load(Ordering::Relaxed) > 0 || !locked(&self.inner.gc.measuring).is_empty()
    }

    /// Removes what is worth least if the cache has outgrown the budget that was set; `None` if it has not.
    ///
    /// To be called at the end of a build, which keeps what it used by its lease. If nothing was put in place this does
    /// nothing; else it asks the index and the file system for two numbers, and looks further only if these are too high.
    pub fn collect_garbage(&self) -> Result<Option<PruneReport>> {
        let Some(known) = self.flush_placed()? else { return Ok(None) };
        let Some(budget) = *locked(&self.inner.budget) else { return Ok(None) };
        if budget.is_unlimited() {
            return Ok(None);
        }
        let is_over = |used: u64| Ok::<_, StoreError>(budget.target(used, self.disk()?).is_some());
        if let Some(known) = known
            && !is_over(known)?
        {
            return Ok(None);
        }
        // What is in the trash already is the first that must go.
        clear_abandoned(self.root())?;
        empty_trash(&self.root().join("trash"));
        self.collect(|used| {
            let target = budget.target(used, self.disk()?);
            Ok(target.map(|target| low_water(target, &budget, self)))
        })
    }

    /// Writes down what this handle has put in place since the last call. What the cache takes then, `None` within if it was
    /// never measured; `None` if nothing was put in place.
    pub(crate) fn flush_placed(&self) -> Result<Option<Option<u64>>> {
        self.inner.gc.settle();
        match self.inner.gc.placed.swap(0, Ordering::Relaxed) {
            0 => Ok(None),
            placed => self.change(|tx| add_size(tx, placed)).map(Some),
        }
    }

    /// [`Store::flush_placed`] without waiting for layers that are still being measured; it answers in any case.
    fn flush_placed_now(&self) -> Result<Option<u64>> {
        let placed = self.inner.gc.placed.swap(0, Ordering::Relaxed);
        self.change(|tx| add_size(tx, placed))
    }

    /// One round of collecting down to what `target` says of the size; `None` if it says nothing or the gate is not to
    /// be had.
    fn collect(&self, target: impl Fn(u64) -> Result<Option<u64>>) -> Result<Option<PruneReport>> {
        let Some(gate) = self.inner.gate.exclusive_within(PATIENCE)? else { return Ok(None) };
        let inventory = self.inventory(lease::notes_of_running(self.root())?, false)?;
        let used = inventory.cache_bytes();
        let Some(target) = target(used)? else {
            self.note_measured(used)?;
            return Ok(None);
        };
        let since = now() - SETTLING;
        let settled = |inventory: &Inventory, unit: usize| !inventory.is_settling(unit, since);
        let (mut chosen, left) = choose(&inventory, settled, target.max(1));
        if left > target {
            chosen = choose(&inventory, |_, _| true, target.max(1)).0;
        }
        let report = match self.remove(&inventory, &chosen, false, false) {
            Err(StoreError::NoSpace { .. }) => self.remove(&inventory, &chosen, false, true)?,
            other => other?,
        };
        let _ = self.note_measured(used.saturating_sub(report.bytes));
        drop(gate);
        empty_trash(&self.root().join("trash"));
        Ok(Some(report))
    }

    /// Removes this much unused cache, the least worth first, whatever is reserved: there is no room to write. Whether any
    /// was removed. Not to be called by a thread that holds the gate.
    pub(crate) fn make_room(&self, wanted: u64) -> bool {
        if locked(&self.inner.budget).is_none() {
            return false;
        }
        // One at a time. Where there was nothing to remove there still is none.
        let mut tried = locked(&self.inner.gc.tried);
        if tried.is_some_and(|(at, helped)| at.elapsed() < INTERVAL && !helped) {
            return false;
        }
        let _ = clear_abandoned(self.root());
        empty_trash(&self.root().join("trash"));
        let wanted = wanted.max(LEAST_ROOM);
        let collected = self.collect(|used| Ok(Some(used.saturating_sub(wanted))));
        let helped = collected.ok().flatten().is_some_and(|report| report.bytes > 0);
        *tried = Some((Instant::now(), helped));
        helped
    }

    /// Whether nothing more can be written to the store's file system.
    pub fn is_disk_full(&self) -> bool {
        rustix::fs::statvfs(self.root()).is_ok_and(|found| {
            let free = found.f_bfree.saturating_mul(found.f_frsize.max(1));
            free < FULL || (found.f_files > 0 && found.f_ffree == 0)
        })
    }

    /// Removes unused cache after a program has found the disk full; whether it is worth running it again.
    pub fn makes_room_for_step(&self) -> bool {
        self.make_room(self.disk().map_or(0, |disk| disk.total / 20))
    }

    /// Frees space if less of the disk is free than the budget wants, before `wanted` bytes are written.
    pub(crate) fn keep_free(&self, wanted: u64) {
        let Some(budget) = *locked(&self.inner.budget) else { return };
        let Ok(disk) = self.disk() else { return };
        let least = budget.min_free.map_or(0, |space| space.of(disk.total));
        if least == 0 || disk.free >= least.saturating_add(wanted) {
            return;
        }
        let mut tried = locked(&self.inner.gc.tried);
        if tried.is_some_and(|(at, helped)| !helped || at.elapsed() < INTERVAL) {
            return;
        }
        // What is known of the size is enough to see that nothing would go, as where other files fill the disk.
        let known = self.flush_placed_now();
        if let Ok(Some(known)) = known
            && budget.target(known, disk).is_none()
        {
            *tried = Some((Instant::now(), true));
            return;
        }
        // Only a reason to try: what is written may have room all the same.
        let collected = self.collect(|used| Ok(budget.target(used, self.disk()?)));
        let helped = collected.ok().flatten().is_some_and(|report| report.bytes > 0);
        *tried = Some((Instant::now(), helped));
    }

    /// Runs `f`, and once more if there was no space for it and some could be made. Not to be called by a thread that
    /// holds the gate.
    pub(crate) fn with_room<T>(&self, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        match f() {
            Err(StoreError::NoSpace { path }) => {
                if self.make_room(0) {
                    f()
                } else {
                    Err(StoreError::NoSpace { path })
                }
            }
            other => other,
        }
    }

    /// Whether it is worth trying again after this error: it (or one of its causes) was a full disk, and unused cache
    /// could be removed.
    pub fn makes_room_after(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        is_no_space(error) && self.make_room(0)
    }

    /// Writes down what the cache takes.
    pub(crate) fn note_measured(&self, bytes: u64) -> Result<()> {
        self.change(|tx| {
            tx.execute_batch(TABLE)?;
            let sql = "INSERT OR REPLACE INTO sizes (name, bytes) VALUES ('measured', ?1), ('since', 0)";
            run(tx, sql, params![bytes.cast_signed()]).map(drop)
        })
    }
}

/// Whether an error, or one of its causes, is a full disk or an exhausted quota.
pub fn is_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if is_full(error) {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let full = |error: &std::io::Error| matches!(error.kind(), StorageFull | QuotaExceeded);
    error.downcast_ref().is_some_and(full)
        || matches!(error.downcast_ref(), Some(StoreError::NoSpace { .. }))
        || matches!(error.downcast_ref(), Some(&(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)))
}

fn low_water(target: u64, budget: &Budget, store: &Store) -> u64 {
    let total = store.disk().map_or(0, |disk| disk.total);
    let reserved = budget.reserved.map_or(0, |space| space.of(total));
    (target / 100 * LOW_WATER).max(reserved.min(target))
}

/// Adds to what was put in place since the last measurement. The whole, `None` if nothing was measured yet.
fn add_size(db: &Connection, placed: u64) -> rusqlite::Result<Option<u64>> {
    db.execute_batch(TABLE)?;
    let sql = "INSERT INTO sizes (name, bytes) VALUES ('since', ?1)
        ON CONFLICT (name) DO UPDATE SET bytes = bytes + excluded.bytes";
    run(db, sql, params![placed.cast_signed()])?;
    let get =
        |name: &str| first(db, "SELECT bytes FROM sizes WHERE name = ?1", [name], |row| row.get::<_, i64>(0));
    let (measured, since) = (get("measured")?, get("since")?.unwrap_or(0));
    Ok(measured.map(|measured| measured.saturating_add(since).cast_unsigned()))
}
