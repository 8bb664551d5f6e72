//! What a RUN mounts, as the runtime wants it.

use super::bind::{Bound, NAME};
use super::cache_mount::{CacheMounts, Wishes};
use crate::bridge::blocking;
use crate::engine::Engine;
use crate::error::OpFailure;
use crate::layer::Root;
use crate::secret::Secret;
use crate::ssh::AgentSocket;
use rbuild_copy::SelectOptions;
use rbuild_ir::{ExecOp, Mount, MountKind, Source};
use rbuild_oci::Digest;
use rbuild_runtime::{FileContent, MountKind as Kind, MountSpec, Rlimit, Scratch, Spec};
use rbuild_solver::{Inputs, OpError, StepContext};
use rbuild_store::LayerIngest;
use rbuild_tree::TreePath;
use std::path::Path;
use std::sync::Arc;

/// Where heredoc scripts are.
const PIPES: &str = "/dev/pipes";
/// Permissions of heredoc scripts and of tmpfs mounts.
const SCRIPT_MODE: u32 = 0o755;
const TMPFS_MODE: u32 = 0o1777;
/// Permissions of an empty root as a mount source.
const EMPTY_MODE: u32 = 0o755;

/// The mounts of one step, and what has to be kept until it has ended.
#[derive(Default)]
pub(super) struct StepMounts {
    specs: Vec<MountSpec>,
    secret_env: Vec<(String, usize)>,
    /// Variables of secrets that are not there.
    unset: Vec<String>,
    /// Values that `specs` and `secret_env` refer to.
    pub(super) secrets: Vec<Secret>,
    caches: CacheMounts,
    scratches: Vec<LayerIngest>,
    agents: Vec<AgentSocket>,
}

/// Who asks.
pub(super) struct Asking<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) op: &'a ExecOp,
    pub(super) inputs: &'a Inputs<Root>,
    pub(super) step: &'a StepContext,
    /// Whether cache mounts are emptied first (--no-cache).
    pub(super) fresh: bool,
}

impl StepMounts {
    /// Makes everything ready. What costs nothing to refuse is refused before others are waited for.
    pub(super) async fn prepare(asking: &Asking<'_>) -> Result<Self, OpError> {
        let mut all = Self::default();
        let mut wishes = Wishes::default();
        let (mut directories, mut files) = (Vec::new(), Vec::new());
        for mount in &asking.op.mounts {
            match &mount.kind {
                MountKind::Secret { .. } => files.extend(all.secret(asking.engine, mount)?),
                MountKind::Ssh { .. } => files.extend(all.agent(asking.engine, mount)?),
                MountKind::Bind { from, source } => {
                    let kind = all.bind(asking, from, source, mount.readonly).await;
                    let kind = kind.map_err(|error| at_target(error, mount))?;
                    directories.push((mount, Some(kind), None));
                }
                MountKind::Tmpfs { size } => {
                    directories.push((mount, Some(Kind::Tmpfs { size: *size, mode: TMPFS_MODE }), None));
                }
                MountKind::Cache { .. } => {
                    let id = asking
                        .engine
                        .wish_cache(&mut wishes, &mount.kind, asking.inputs, asking.step)
                        .await?;
                    directories.push((mount, None, id));
                }
            }
        }
        all.caches = asking.engine.take_caches(wishes, asking.fresh, asking.step).await?;
        // As in BuildKit: by target, so that an outer mount never hides an inner one; of equal targets the last counts.
        directories.sort_by(|(a, ..), (b, ..)| a.target.cmp(&b.target));
        for (mount, kind, cache) in directories {
            if let Some(cache) = cache.and_then(|id| all.caches.get(&id)) {
                check_part(cache.path(), &below(mount)).map_err(|error| at_target(error, mount))?;
            }
            let kind = match (kind, cache.and_then(|id| all.caches.get(&id))) {
                (Some(kind), _) => kind,
                (None, Some(cache)) => Kind::Bind { source: cache.path().to_owned(), subpath: below(mount) },
                (None, None) => return Err("internal error: a cache mount was not taken".into()),
            };
            all.specs.push(MountSpec { target: mount.target.clone(), kind, readonly: mount.readonly });
        }
        all.specs.extend(files);
        all.specs.extend(asking.op.pipes.iter().map(script));
        Ok(all)
    }

    /// Puts the mounts and the variables of secrets into the spec.
    pub(super) fn apply(&mut self, spec: &mut Spec) {
        spec.mounts = std::mem::take(&mut self.specs);
        spec.secret_env = std::mem::take(&mut self.secret_env);
        spec.env.extend(self.unset.drain(..).map(|name| (name, String::new())));
        if !self.secrets.is_empty() && !spec.rlimits.iter().any(|limit| limit.resource == "core") {
            // A core dump in the working directory would put the secret into the layer.
            spec.rlimits.push(Rlimit { resource: "core".into(), soft: Some(0), hard: Some(0) });
        }
    }

    async fn bind(
        &mut self,
        asking: &Asking<'_>,
        from: &Source,
        source: &str,
        ro: bool,
    ) -> Result<Kind, OpError> {
        let engine = asking.engine;
        let (lower, subpath) = match from {
            Source::Context(name) => {
                let bound = engine.bound_context(name, source).await?;
                let dir = engine.bound_dir(&bound, asking.step).await?;
                if ro {
                    return Ok(Kind::Bind { source: dir.join(NAME), subpath: String::new() });
                }
                (vec![dir], format!("/{NAME}"))
            }
            Source::Input(input) => {
                let root = asking.inputs.inputs.get(*input).cloned().unwrap_or_default();
                engine.check_source(&root, source, asking.step).await?;
                (engine.dirs_of(&root, asking.step).await?, part(source))
            }
            Source::Empty => (Vec::new(), part(source)),
        };
        if lower.is_empty() {
            let missing = || OpFailure::MountSource(format!("\"{source}\": not found"));
            return if subpath.is_empty() {
                Ok(Kind::Tmpfs { size: None, mode: EMPTY_MODE })
            } else {
                Err(missing().into())
            };
        }
        let scratch = if ro { None } else { Some(self.scratch(engine)?) };
        Ok(Kind::Overlay { lower, scratch, subpath })
    }

    /// Takes the writes to a mount; discarded with it.
    fn scratch(&mut self, engine: &Engine) -> Result<Scratch, OpError> {
        let ingest = engine.store.new_layer_dir()?;
        let scratch = Scratch { upper: ingest.upper.clone(), work: ingest.work.clone() };
        self.scratches.push(ingest);
        Ok(scratch)
    }

    fn secret(&mut self, engine: &Engine, mount: &Mount) -> Result<Option<MountSpec>, OpError> {
        let MountKind::Secret { id, env, file, required, mode, uid, gid } = &mount.kind else {
            return Ok(None);
        };
        let Some(secret) = engine.settings.confidential.secrets.get(id) else {
            if *required {
                return Err(OpFailure::NoSecret(id.clone()).into());
            }
            self.unset.extend(env.clone());
            return Ok(None);
        };
        let place = self.secrets.len();
        self.secrets.push(secret.clone());
        self.secret_env.extend(env.clone().map(|name| (name, place)));
        let content = FileContent::Secret(place);
        let kind = Kind::File { content, mode: *mode, uid: *uid, gid: *gid, executable: false };
        Ok(file.then(|| MountSpec { target: mount.target.clone(), kind, readonly: true }))
    }

    fn agent(&mut self, engine: &Engine, mount: &Mount) -> Result<Option<MountSpec>, OpError> {
        let MountKind::Ssh { id, required, mode, uid, gid } = &mount.kind else { return Ok(None) };
        let Some(agent) = engine.settings.confidential.agents.get(id) else {
            return if *required { Err(OpFailure::NoAgent(id.clone()).into()) } else { Ok(None) };
        };
        let socket = AgentSocket::open(&engine.store, agent, *mode, (*uid, *gid))?;
        let kind = Kind::Bind { source: socket.path().to_owned(), subpath: String::new() };
        self.agents.push(socket);
        Ok(Some(MountSpec { target: mount.target.clone(), kind, readonly: mount.readonly }))
    }
}

/// The part of a cache mount that is to be shown must be there: nobody else makes it.
fn check_part(directory: &Path, part: &str) -> Result<(), OpError> {
    if part.is_empty() {
        return Ok(());
    }
    let path = TreePath::clamped(part).map_err(|error| OpFailure::MountSource(error.to_string()))?;
    let tree = rbuild_tree::DirTree::open(directory)?;
    match rbuild_tree::resolve(&tree, &path, true)?.meta {
        Some(_) => Ok(()),
        None => Err(OpFailure::MountSource(format!("\"{path}\": not found")).into()),
    }
}

/// Says which of a step's mounts it is whose source is not there.
fn at_target(error: OpError, mount: &Mount) -> OpError {
    let kind = match &mount.kind {
        MountKind::Cache { id, .. } => format!("cache mount {id:?}"),
        _ => "bind mount".to_owned(),
    };
    match error.downcast::<OpFailure>() {
        Ok(failure) => match *failure {
            OpFailure::MountSource(what) => {
                let target = &mount.target;
                OpFailure::MountSource(format!("the source of the {kind} at {target}: {what}")).into()
            }
            other => other.into(),
        },
        Err(error) => error,
    }
}

fn script((name, text): &(String, String)) -> MountSpec {
    let content = FileContent::Text(text.clone());
    let kind = Kind::File { content, mode: SCRIPT_MODE, uid: 0, gid: 0, executable: true };
    MountSpec { target: format!("{PIPES}/{name}"), kind, readonly: true }
}

/// The part of a root or cache mount that is shown; empty for all of it.
fn part(source: &str) -> String {
    if source == "/" { String::new() } else { source.to_owned() }
}

fn below(mount: &Mount) -> String {
    match &mount.kind {
        MountKind::Cache { source, .. } => part(source),
        _ => String::new(),
    }
}

impl Engine {
    /// A missing part of a root is told apart from a sandbox that cannot be set up.
    async fn check_source(
        self: &Arc<Self>,
        root: &Root,
        source: &str,
        step: &StepContext,
    ) -> Result<(), OpError> {
        if source == "/" {
            return Ok(());
        }
        let view = self.view(Some(root), step).await?;
        let source = source.to_owned();
        blocking(move || -> Result<(), OpError> {
            let path = rbuild_tree::TreePath::clamped(&source)
                .map_err(|error| OpFailure::MountSource(error.to_string()))?;
            match rbuild_tree::resolve(&*view, &path, true)?.meta {
                Some(_) => Ok(()),
                None => Err(OpFailure::MountSource(format!("\"{path}\": not found")).into()),
            }
        })
        .await
    }

    /// What the step would see of local contexts, by place of the mount.
    pub(super) async fn bound_contexts(
        self: &Arc<Self>,
        op: &ExecOp,
    ) -> Result<Vec<Option<Arc<Bound>>>, OpError> {
        let digests = op.mounts.iter().map(|mount| async {
            let (name, path) = match &mount.kind {
                MountKind::Bind { from: Source::Context(name), source } => (name, source.as_str()),
                MountKind::Cache { from: Some(Source::Context(name)), .. } => (name, "/"),
                _ => return Ok::<_, OpError>(None),
            };
            let bound = self.bound_context(name, path).await;
            Ok(Some(bound.map_err(|error| at_target(error, mount))?))
        });
        futures_util::future::try_join_all(digests).await
    }

    /// Digest of what the mounts show of other roots: by content, never by time.
    pub(super) async fn input_digests(
        self: &Arc<Self>,
        op: &ExecOp,
        inputs: &Inputs<Root>,
        step: &StepContext,
    ) -> Result<Digest, OpError> {
        let mut text = String::new();
        for mount in &op.mounts {
            let (input, path) = match &mount.kind {
                MountKind::Bind { from: Source::Input(input), source } => (input, source.as_str()),
                MountKind::Cache { from: Some(Source::Input(input)), .. } => (input, "/"),
                _ => continue,
            };
            let root = inputs.inputs.get(*input).cloned().unwrap_or_default();
            let digest = match path {
                "/" => self.chain_content(&root, step).await?,
                path => {
                    let (view, path) = (self.view(Some(&root), step).await?, path.to_owned());
                    let digest = move || {
                        Ok::<_, OpError>(Bound::select(&*view, &path, &SelectOptions::default())?.digest())
                    };
                    blocking(digest).await?
                }
            };
            text.push_str(&format!("{digest}\n"));
        }
        Ok(Digest::of(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_of_a_root_has_no_part() {
        assert_eq!([part("/"), part("/a")], [String::new(), "/a".to_owned()]);
        let spec = script(&("EOF".into(), "#!/bin/sh\n".into()));
        assert_eq!(spec.target, "/dev/pipes/EOF");
    }
}
