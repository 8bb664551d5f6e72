//! Cache mounts: directories that outlive the build (A-085, C-035, C-036).

use super::bind::NAME;
use crate::bridge::blocking;
use crate::engine::{Engine, locked};
use crate::layer::Root;
use rbuild_ir::{MountKind, Sharing, Source};
use rbuild_oci::Digest;
use rbuild_snapshot::Recipe;
use rbuild_solver::{Inputs, OpError, StepContext};
use rbuild_store::{CacheMount, CacheMountSharing, LayerIngest};
use rbuild_tree::{LayerEntry, LayerEntryKind, Tree, TreePath};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// First and longest pause between two attempts at a directory that others are using.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// How long others may use a directory before the user is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the content of cache mounts is kept besides the store.
#[async_trait::async_trait]
pub trait CacheMountSource: Send + Sync {
    /// Brings the content of a mount into `dest`, an empty directory, with its mode and owner; whether it did. Failing is
    /// for it to report: the mount begins as it would have without it, whatever is in `dest` then.
    async fn restore(&self, directory: &Digest, id: &str, dest: &Path, step: &StepContext) -> bool;
}

/// What a cache mount begins with.
#[derive(Clone)]
enum Seed {
    /// An empty directory of root's.
    Empty,
    /// An empty directory of this mode, owner and group.
    Owned(u32, u32, u32),
    /// A stage's or image's files.
    Root(Root),
    /// A local context's files.
    Context(String),
}

/// A cache mount that a step asks for.
struct Wanted {
    /// The id as it is written, for messages.
    name: String,
    sharing: CacheMountSharing,
    seed: Seed,
}

/// The cache mounts of one step, by the hash of their ids. Dropping it lets go of them.
#[derive(Default)]
pub(super) struct CacheMounts(BTreeMap<Digest, CacheMount>);

impl CacheMounts {
    /// The directory of a mount that was asked for.
    pub(super) fn get(&self, id: &Digest) -> Option<&CacheMount> {
        self.0.get(id)
    }
}

/// The cache mounts that a step asks for, put together before any is waited for.
#[derive(Default)]
pub(super) struct Wishes(BTreeMap<Digest, Wanted>);

impl Engine {
    /// Adds a mount of kind `Cache`; returns the name of its directory. The id is hashed, never a part of a path
    /// (CVE-2024-9675). What a mount begins with is a part of the name, as in BuildKit: a directory made for one owner
    /// is not given to another.
    pub(super) async fn wish_cache(
        self: &Arc<Self>,
        wishes: &mut Wishes,
        kind: &MountKind,
        inputs: &Inputs<Root>,
        step: &StepContext,
    ) -> Result<Option<Digest>, OpError> {
        let MountKind::Cache { id, sharing, mode, uid, gid, owned, from, .. } = kind else { return Ok(None) };
        let (seed, origin) = match from {
            Some(Source::Input(input)) => {
                let root = inputs.inputs.get(*input).cloned().unwrap_or_default();
                let content = self.chain_content(&root, step).await?;
                (Seed::Root(root), format!("root {content}"))
            }
            Some(Source::Context(name)) => {
                let bound = self.bound_context(name, "/").await?;
                (Seed::Context(name.clone()), format!("context {}", bound.digest()))
            }
            Some(Source::Empty) | None => (Seed::Empty, "empty".to_owned()),
        };
        // As in BuildKit, which makes a new directory on top of `from`, and another one than where none was asked for.
        let (seed, origin) = match owned {
            true => (Seed::Owned(*mode, *uid, *gid), format!("{origin} {mode:o} {uid} {gid}")),
            false => (seed, origin),
        };
        let directory = Digest::of(format!("rbuild.cache-mount.v1\n{origin}\n{id}"));
        let sharing = match sharing {
            Sharing::Shared => CacheMountSharing::Shared,
            Sharing::Private => CacheMountSharing::Private,
            Sharing::Locked => CacheMountSharing::Locked,
        };
        // Asked for twice by one step, it is the same directory, under the stricter of both rules.
        let wanted = wishes.0.entry(directory).or_insert_with(|| Wanted { name: id.clone(), sharing, seed });
        wanted.sharing = wanted.sharing.max(sharing);
        Ok(Some(directory))
    }

    /// Takes hold of all of them, always in the same order, so that no two steps wait for each other. With `fresh`, the
    /// content that was there before this build is thrown away.
    pub(super) async fn take_caches(
        self: &Arc<Self>,
        wishes: Wishes,
        fresh: bool,
        step: &StepContext,
    ) -> Result<CacheMounts, OpError> {
        let mut taken = CacheMounts::default();
        for (id, wanted) in wishes.0 {
            locked(&self.used_caches).insert(id, wanted.name.clone());
            taken.0.insert(id, self.take_cache(&id, &wanted, fresh, step).await?);
        }
        Ok(taken)
    }

    async fn take_cache(
        self: &Arc<Self>,
        id: &Digest,
        wanted: &Wanted,
        fresh: bool,
        step: &StepContext,
    ) -> Result<CacheMount, OpError> {
        let begin = Instant::now();
        let mut told = false;
        let (mut pause, longest) = PAUSES;
        loop {
            if let Some(mount) = self.try_cache(id, wanted, fresh, step).await? {
                return Ok(mount);
            }
            if !told && begin.elapsed() > PATIENCE {
                told = true;
                step.note(format!("waiting for cache mount {:?} that another step is using", wanted.name));
            }
            tokio::select! {
                () = step.cancel.cancelled() => return Err(crate::OpFailure::Canceled.into()),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
            }
        }
    }

    async fn try_cache(
        self: &Arc<Self>,
        id: &Digest,
        wanted: &Wanted,
        fresh: bool,
        step: &StepContext,
    ) -> Result<Option<CacheMount>, OpError> {
        // Steps of one build share what the first of them has emptied.
        let is_fresh = |path: &Path| locked(&self.fresh_caches).contains(path);
        let known = self.store.cache_mounts_dir().join(format!("{}-0", id.hex()));
        let alone = fresh && !is_fresh(&known);
        let Some(mount) = self.store.try_cache_mount(id, wanted.sharing, alone)? else { return Ok(None) };
        mount.remember_id(&wanted.name);
        if !mount.is_exclusive() {
            return Ok(Some(mount));
        }
        if fresh && locked(&self.fresh_caches).insert(mount.path().to_owned()) {
            mount.clear()?;
        }
        if mount.is_new()? {
            let restored = match &self.settings.cache_mounts {
                Some(source) if !fresh => self.restored(&**source, id, &wanted.name, step).await?,
                _ => None,
            };
            let ingest = match restored {
                Some(ingest) => ingest,
                None => self.seed(&wanted.seed, step).await?,
            };
            mount.fill(&ingest)?;
        }
        match wanted.sharing {
            CacheMountSharing::Shared => Ok(mount.share()?),
            CacheMountSharing::Private | CacheMountSharing::Locked => Ok(Some(mount)),
        }
    }

    /// A directory with what another machine left of this mount; `None` if nobody has it, or it cannot be had.
    async fn restored(
        &self,
        source: &dyn CacheMountSource,
        directory: &Digest,
        id: &str,
        step: &StepContext,
    ) -> Result<Option<LayerIngest>, OpError> {
        let ingest = self.store.new_layer_dir()?;
        let restored = tokio::select! {
            restored = source.restore(directory, id, &ingest.upper, step) => restored,
            () = step.cancel.cancelled() => return Err(crate::OpFailure::Canceled.into()),
        };
        Ok(restored.then_some(ingest))
    }

    /// A directory with what a new cache mount begins with.
    async fn seed(self: &Arc<Self>, seed: &Seed, step: &StepContext) -> Result<LayerIngest, OpError> {
        let ingest = self.store.new_layer_dir()?;
        match seed {
            Seed::Empty => {}
            Seed::Owned(mode, uid, gid) => {
                std::os::unix::fs::chown(&ingest.upper, Some(*uid), Some(*gid))?;
                std::fs::set_permissions(&ingest.upper, std::fs::Permissions::from_mode(mode & 0o7777))?;
            }
            Seed::Root(root) => {
                let view = self.view(Some(root), step).await?;
                return blocking(move || -> Result<_, OpError> {
                    let mut entries = rbuild_snapshot::tree_entries(&*view)?;
                    if let Some(meta) = view.lstat(&TreePath::root())? {
                        let kind = LayerEntryKind::Node { meta, data: None, hard_link_to: None };
                        entries.push(LayerEntry { path: TreePath::root(), kind });
                    }
                    rbuild_snapshot::materialize(&Recipe::new(entries)?, &ingest.upper)?;
                    Ok(ingest)
                })
                .await;
            }
            Seed::Context(name) => {
                let bound = self.bound_context(name, "/").await?;
                let mut ingest = ingest;
                return blocking(move || -> Result<_, OpError> {
                    rbuild_snapshot::materialize(&bound.recipe()?, &ingest.upper)?;
                    ingest.upper.push(NAME);
                    Ok(ingest)
                })
                .await;
            }
        }
        Ok(ingest)
    }
}
