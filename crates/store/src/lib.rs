//! What is on disk: blobs, images, layers, cache records, locks, and their removal.
//!
//! ```text
//! <root>/
//!   oci-layout, index.json        the local image store is an OCI image layout; index.json changes by rename,
//!                                 under locks/index.json
//!   index.json.previous           an earlier index.json that is known to be on the disk
//!   synced                        the boot and the time of the last flush: what is later is verified after a power loss
//!   blobs/sha256/<hex>            content-addressed blobs
//!   snapshots/<hex>/fs/           an unpacked layer, by layer id: an overlay upper directory
//!   snapshots/<hex>/sum           its size, and a digest of its entries (paths, types, sizes)
//!   snapshots/<hex>/note          what its maker wants to know again about it, if anything
//!   ingest/<pid>-<boot>-<random>/ what one process is writing; flocked by it, cleared away once it is gone
//!   index.db                      SQLite (WAL): cache records, layers, packed forms, resolutions
//!   locks/<hex>                   one file per piece of work in progress (single-flight between processes)
//!   locks/gc                      shared while something is looked up or put in place, exclusive while prune decides
//!   locks/leases/<random>         one per running build, flocked: the digests it uses (32 bytes each)
//!   locks/index.json, locks/db    writers of index.json; repair of index.db; locks/boot: verification after a power loss
//!   cache-mounts/<hex>-<n>/       RUN --mount=type=cache, by hashed id; beside each its `.lock`, flocked while it is used
//!   statcache/                    digests of context files by inode and times
//!   history/                      one record per build
//!   http/<hex>                    what a URL gave the last time (JSON), by digest of the URL; the file is a blob
//!   git/<hex>/                    a bare repository for each git remote, under the key lock of the same name
//!   quarantine/                   damaged files that fsck put away; prune removes them
//!   trash/                        renamed here first, deleted off the timed path
//! ```
//!
//! # Rules
//!
//! - Everything is written below `ingest/` and renamed into place, so that kill -9 leaves whole objects or none. Rows
//!   of `index.db` are written after the files they name. There is no fsync per object: what a
//!   power loss may have cut short is verified when the store is opened in another boot (see `durable.rs`).
//! - The files are the truth. A missing or damaged `index.db` is moved aside and rebuilt; lost rows are cache misses.
//! - A row whose files are gone is never returned.
//! - Several processes share one store. Lock order: a key lock, then `locks/gc`, then the database.
//! - A running build holds a [`Lease`]. Whatever it looks up or puts in place through its [`Store`] handle is noted in
//!   the lease's file *before* the answer is given, under a shared `locks/gc`; prune reads these notes under an
//!   exclusive one, deletes rows, renames files into `trash/`, lets go and only then deletes. So prune neither waits for
//!   builds nor removes what one uses, and builds wait for prune only as long as its renames take.

mod blob;
mod budget;
mod cache_mount;
mod db;
mod durable;
mod error;
mod evict;
mod fault;
mod fetched;
mod filter;
mod fsck;
mod fsutil;
mod gc;
mod image;
mod ingest;
mod inventory;
mod layer;
mod lease;
mod lock;
mod meter;
mod prune;
mod record;
mod resolution;
mod sum;
mod usage;

pub use blob::BlobWriter;
pub use budget::{Budget, Disk, Space};
pub use cache_mount::{CacheMount, CacheMountInfo, CacheMountSharing};
pub use error::{Result, StoreError};
#[doc(hidden)]
pub use fault::FAULT_SITES;
pub use fetched::{Fetched, GitReference};
pub use filter::Filter;
pub use fsck::{FsckOptions, FsckReport, LayerCheck, LayerOnDisk, Problem, ProblemKind};
pub use gc::is_no_space;
pub use image::{FoundImage, Image, MatchedBy, image_name};
pub use layer::{Layer, LayerId, LayerIngest, LayerKind, Packed};
pub use lease::Lease;
pub use lock::KeyLock;
pub use prune::{PruneOptions, PruneReport, Pruned};
pub use record::{Batch, Record};
pub use resolution::Resolution;
pub use usage::{Usage, UsageKind, UsageRow};

use error::IoContext;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `oci-layout` of image-spec v1.
const OCI_LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

/// Longest `index.json` that is read, in bytes.
pub const MAX_INDEX: u64 = 64 << 20;

/// Longest manifest or config that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// Magic numbers of statfs(2) for file systems shared between hosts: NFS, SMB, SMB2, Ceph, 9p, AFS.
const NETWORK_FILESYSTEMS: [i64; 6] = [0x6969, 0x517B, 0xFE53_4D42, 0x00C3_6400, 0x0102_1997, 0x5346_414F];

/// Directories of a store and their modes. Those that hold files of images are closed to other users: there are
/// setuid programs in them.
const DIRECTORIES: [(&str, u32); 12] = [
    ("blobs", 0o755),
    ("blobs/sha256", 0o755),
    ("snapshots", 0o700),
    ("ingest", 0o700),
    ("locks", 0o755),
    ("locks/leases", 0o755),
    ("cache-mounts", 0o700),
    ("statcache", 0o700),
    ("history", 0o700),
    ("http", 0o700),
    ("git", 0o700),
    ("trash", 0o700),
];

/// A handle on a store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    db: db::Db,
    gate: lease::Gate,
    lease: Mutex<Option<lease::LeaseState>>,
    session: ingest::Session,
    /// Keys of records that were found, until they are written to the index.
    used: Mutex<HashSet<rbuild_oci::Digest>>,
    /// Keys of records that were found without their layers.
    lost: Mutex<HashSet<rbuild_oci::Digest>>,
    warnings: Mutex<Vec<String>>,
    /// What builds keep to; `None` where nothing is removed unasked.
    budget: Mutex<Option<Budget>>,
    gc: Arc<gc::State>,
    durable: durable::State,
    faults: fault::Faults,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `root`, making it if there is none. An existing OCI image layout is taken over as it is.
    ///
    /// What killed processes left in `ingest/` is moved away. An existing index is opened at its first use.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let canonical = match fs::canonicalize(root) {
            Ok(path) => path,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(root).at("create", root)?;
                fs::canonicalize(root).at("resolve", root)?
            }
            Err(e) => return Err(StoreError::io("open", root, e)),
        };
        let session = ingest::Session::new(&canonical);
        prepare(&canonical, &session)?;
        let store = Self {
            inner: Arc::new(Inner {
                db: db::Db::new(&canonical),
                gate: lease::Gate::new(canonical.join("locks/gc")),
                lease: Mutex::new(None),
                session,
                used: Mutex::default(),
                lost: Mutex::default(),
                warnings: Mutex::default(),
                budget: Mutex::default(),
                gc: Arc::default(),
                durable: durable::State::default(),
                faults: fault::Faults::default(),
                root: canonical,
            }),
        };
        store.check_boot()?;
        ingest::clear_abandoned(&store.inner.root)?;
        if !store.inner.root.join("index.db").exists() {
            // Now, before layers are made that would look like those of a lost index.
            store.query(|_| Ok(()))?;
        }
        Ok(store)
    }

    /// The root directory, absolute and without symlinks.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The directory of cache mounts.
    pub fn cache_mounts_dir(&self) -> PathBuf {
        self.inner.root.join("cache-mounts")
    }

    /// The directory of the stat cache.
    pub fn stat_cache_dir(&self) -> PathBuf {
        self.inner.root.join("statcache")
    }

    /// The directory of build records.
    pub fn history_dir(&self) -> PathBuf {
        self.inner.root.join("history")
    }

    /// What was repaired since the last call, in sentences for the user.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.inner.warnings))
    }
}

/// Locks a mutex. A panic in another thread leaves none of our data half-changed, so poisoning is ignored.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes what is missing of the directory tree.
fn prepare(root: &Path, session: &ingest::Session) -> Result<()> {
    let layout = root.join("oci-layout");
    if let Some(text) = fsutil::optional(fs::read_to_string(&layout)).at("read", &layout)? {
        if !durable::is_void(&text) {
            check_layout(&layout, &text)?;
        }
        let whole = DIRECTORIES.iter().all(|(name, _)| root.join(name).is_dir());
        if whole && root.join("index.json").exists() && !durable::is_void(&text) {
            return Ok(());
        }
    }
    let kind = rustix::fs::statfs(root).map_err(|e| StoreError::io("examine", root, e.into()))?.f_type;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    if NETWORK_FILESYSTEMS.contains(&(kind as i64)) {
        return Err(StoreError::NetworkFilesystem { path: root.to_owned() });
    }
    for (name, mode) in DIRECTORIES {
        let path = root.join(name);
        fsutil::make_dir(&path, mode).at("create", &path)?;
    }
    let known = fs::read_to_string(&layout).ok().filter(|text| !durable::is_void(text));
    // Not known to be on the disk, for an emptied one: everything is verified.
    let fresh = !layout.exists() && !root.join("synced").exists();
    if known.is_none() {
        fsutil::replace_file(&session.new_path("j")?, &layout, OCI_LAYOUT.as_bytes()).at("write", &layout)?;
    }
    image::create_index(root, session)?;
    if fresh { durable::begin(root, &session.new_path("j")?) } else { Ok(()) }
}

fn check_layout(path: &Path, text: &str) -> Result<()> {
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
    let version = value["imageLayoutVersion"].as_str().unwrap_or_default();
    match version.split('.').next() {
        Some("1") => Ok(()),
        Some(major) if major.parse::<u32>().is_ok() => Err(StoreError::NewerVersion {
            path: path.to_owned(),
            found: version.to_owned(),
            known: "1.0.0".to_owned(),
        }),
        _ => Err(damaged("it has no imageLayoutVersion".to_owned())),
    }
}
