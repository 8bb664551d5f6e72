//! `rbuild fsck`: verifies everything, and repairs what can be repaired.
//!
//! *Damage* is what would give somebody a wrong byte or no byte: blobs and layers that are not what their names say, tags
//! whose blobs are gone, rows whose files are gone, a broken index. *Leftovers* are what killed processes leave and prune
//! removes: they are reported and harm nobody.
//!
//! Blobs and layers are read without holding anybody up; only the comparison of rows with files, and repairs, take the
//! gate. Repair moves damaged files to `quarantine/` and removes what leads to them: packed forms, records and tags. What
//! comes from a registry or a URL is fetched again, and what a step made is made again.

mod blobs;
mod images;
mod layers;
mod rows;

pub use layers::{LayerCheck, LayerOnDisk};

use crate::error::{IoContext, Result};
use crate::fsutil::{lock_path, make_dir, optional, random_name};
use crate::inventory::Inventory;
use crate::layer::snapshot_id;
use crate::{LayerId, Store, StoreError, lease};
use rbuild_oci::Digest;
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// How thorough, and whether to repair.
#[derive(Default)]
pub struct FsckOptions<'a> {
    /// Repair what is found.
    pub repair: bool,
    /// Also compare unpacked layers with their content digests, by means of this.
    pub layers: Option<&'a dyn LayerCheck>,
}

/// What a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// `oci-layout` or `index.json` cannot be read.
    Layout,
    /// `index.db` is damaged.
    Index,
    /// A blob's bytes are not what its name says.
    Blob,
    /// A tagged image lacks something.
    Image,
    /// An unpacked layer is not what it was.
    Layer,
    /// A row of the index leads to files that are gone.
    Row,
    /// A repository or a download that cannot be used.
    Fetched,
    /// What a killed process left, or nothing leads to: no damage.
    Leftover,
}

impl ProblemKind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::Index => "index",
            Self::Blob => "blob",
            Self::Image => "image",
            Self::Layer => "layer",
            Self::Row => "row",
            Self::Fetched => "download",
            Self::Leftover => "leftover",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub kind: ProblemKind,
    /// Digest, key, file or image name.
    pub object: String,
    /// What is wrong, in words.
    pub detail: String,
    /// What was done about it; `None` if nothing was.
    pub repair: Option<String>,
}

impl Problem {
    /// Whether it is more than a leftover.
    pub fn is_damage(&self) -> bool {
        self.kind != ProblemKind::Leftover
    }

    fn new(kind: ProblemKind, object: impl ToString, detail: impl Into<String>) -> Self {
        Self { kind, object: object.to_string(), detail: detail.into(), repair: None }
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Unpacked layers that were compared.
    pub layers: usize,
    /// Records of the index.
    pub records: usize,
    /// Entries of `index.json`.
    pub images: usize,
    /// What was found.
    pub problems: Vec<Problem>,
}

impl FsckReport {
    /// Damage that is still there.
    pub fn damage(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_damage() && problem.repair.is_none())
    }
}

/// One run.
struct Fsck<'a> {
    store: &'a Store,
    options: &'a FsckOptions<'a>,
    report: FsckReport,
    bad_blobs: HashSet<Digest>,
    bad_layers: HashSet<LayerId>,
    in_use: HashSet<Digest>,
}

impl Store {
    /// [`Store::open`], with repair of what it cannot open.
    pub fn open_for_repair(root: impl AsRef<Path>) -> Result<(Self, Vec<Problem>)> {
        let root = root.as_ref();
        match Self::open(root) {
            Err(StoreError::Damaged { path, reason }) if path.ends_with("oci-layout") => {
                let aside = quarantine_to(&root.join("quarantine"), &path)?;
                let mut problem = Problem::new(ProblemKind::Layout, path.display(), reason);
                problem.repair = Some(format!("written anew; the old one is {aside}"));
                Ok((Self::open(root)?, vec![problem]))
            }
            opened => Ok((opened?, Vec::new())),
        }
    }

    /// Only the part that is about `index.json` and the images in it.
    pub(crate) fn fsck_images(&self, options: &FsckOptions<'_>) -> Result<FsckReport> {
        let mut fsck = Fsck::new(self, options);
        fsck.check_index_json()?;
        fsck.check_images()?;
        Ok(fsck.report)
    }

    /// Verifies the store, and repairs it if the options say so.
    pub fn fsck(&self, options: &FsckOptions<'_>) -> Result<FsckReport> {
        self.inner.gc.settle();
        let mut fsck = Fsck::new(self, options);
        fsck.check_blobs()?;
        fsck.check_index()?;
        fsck.check_layers()?;
        {
            let _gate = self.inner.gate.exclusive()?;
            fsck.check_leases()?;
            fsck.in_use = lease::notes_of_running(self.root())?;
            fsck.repair_blobs()?;
            fsck.repair_layers()?;
            fsck.check_index_json()?;
            fsck.check_images()?;
            fsck.check_rows()?;
            fsck.check_fetched()?;
            fsck.check_leftovers()?;
        }
        // What opening and asking the index have repaired by themselves.
        for warning in self.take_warnings() {
            let mut problem = Problem::new(ProblemKind::Index, "index.db", warning);
            problem.repair = Some("rebuilt from the files".to_owned());
            fsck.report.problems.push(problem);
        }
        if options.repair {
            self.sync()?;
        }
        fsck.report.problems.sort_by(|a, b| (a.kind, &a.object).cmp(&(b.kind, &b.object)));
        Ok(fsck.report)
    }

    /// Moves a damaged file or directory to `quarantine/`; where it is then.
    fn quarantine(&self, path: &Path) -> Result<String> {
        quarantine_to(&self.root().join("quarantine"), path)
    }
}

fn quarantine_to(dir: &Path, path: &Path) -> Result<String> {
    make_dir(dir, 0o700).at("create", dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let target = dir.join(format!("{name}-{}", random_name()));
    optional(fs::rename(path, &target)).at("move away", path)?;
    Ok(format!("quarantine/{}", target.file_name().unwrap_or_default().to_string_lossy()))
}

impl<'a> Fsck<'a> {
    fn new(store: &'a Store, options: &'a FsckOptions<'a>) -> Self {
        Self {
            store,
            options,
            report: FsckReport::default(),
            bad_blobs: HashSet::new(),
            bad_layers: HashSet::new(),
            in_use: HashSet::new(),
        }
    }

    fn add(&mut self, kind: ProblemKind, object: impl ToString, detail: impl Into<String>) {
        self.report.problems.push(Problem::new(kind, object, detail));
    }

    fn add_repaired(
        &mut self,
        kind: ProblemKind,
        object: impl ToString,
        detail: impl Into<String>,
        repair: impl Into<String>,
    ) {
        let mut problem = Problem::new(kind, object, detail);
        problem.repair = self.options.repair.then(|| repair.into());
        self.report.problems.push(problem);
    }

    /// Lease files that nobody holds.
    fn check_leases(&mut self) -> Result<()> {
        let dir = self.store.root().join("locks/leases");
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            if let Ok(Some(_lock)) = lock_path(&path, FlockOperation::NonBlockingLockExclusive) {
                // Taken away in any case: whoever reads the leases does so.
                let _ = fs::remove_file(&path);
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let mut problem = Problem::new(
                    ProblemKind::Leftover,
                    format!("locks/leases/{name}"),
                    "the lease of a build that was killed",
                );
                problem.repair = Some("removed".to_owned());
                self.report.problems.push(problem);
            }
        }
        Ok(())
    }

    fn check_fetched(&mut self) -> Result<()> {
        let inventory_dir = self.store.root().join("git");
        for entry in fs::read_dir(&inventory_dir).at("list", &inventory_dir)? {
            let path = entry.at("list", &inventory_dir)?.path();
            let Some(key) = snapshot_id(&path) else { continue };
            if (path.join("HEAD").exists() && path.join("objects").is_dir())
                || self.store.is_key_locked(&key)?
            {
                continue;
            }
            if self.options.repair {
                self.store.remove_git_dir(&path)?;
            }
            let name = format!("git/{}", key.hex());
            self.add_repaired(
                ProblemKind::Fetched,
                name,
                "it is no repository",
                "removed, it is fetched again",
            );
        }
        Ok(())
    }

    /// Files that nothing leads to, and lock files that nobody holds.
    fn check_leftovers(&mut self) -> Result<()> {
        let inventory: Inventory = match self.store.inventory(self.in_use.clone(), false) {
            Ok(inventory) => inventory,
            // Reported already.
            Err(StoreError::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for unit in &inventory.units {
            if unit.kind() == crate::inventory::UnitKind::Orphan && !unit.in_use && !unit.objects.is_empty() {
                let kinds = unit.objects.iter().map(|object| inventory.objects[*object].kind.name());
                let kinds = kinds.collect::<Vec<_>>().join(" and ");
                let bytes: u64 = unit.objects.iter().map(|object| inventory.objects[*object].bytes).sum();
                let detail = format!("a {kinds} of {bytes} bytes that nothing leads to; prune removes it");
                self.add(ProblemKind::Leftover, &unit.id, detail);
            }
        }
        for entry in fs::read_dir(self.store.root().join("locks")).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Some(key) = snapshot_id(&path)
                && let Ok(Some(_lock)) = lock_path(&path, FlockOperation::NonBlockingLockExclusive)
            {
                if self.options.repair {
                    let _ = fs::remove_file(&path);
                }
                let name = format!("locks/{}", key.hex());
                self.add_repaired(ProblemKind::Leftover, name, "a lock that nobody holds", "removed");
            }
        }
        let quarantine = self.store.root().join("quarantine");
        let held = fs::read_dir(&quarantine).into_iter().flatten().count();
        if held > 0 {
            let detail = format!("{held} damaged objects were put there; prune removes them");
            self.add(ProblemKind::Leftover, "quarantine", detail);
        }
        Ok(())
    }
}
