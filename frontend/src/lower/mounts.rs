//! `RUN --mount` (A10).

use super::state::{Root, State};
use super::vertices::Inputs;
use super::{Lowering, Outcome};
use crate::csv;
use crate::mount::{MountSpec, MountType, Sharing};
use crate::paths;
use crate::quote::go_quote;
use rbuild_ir::{Mount, MountKind, Source};

/// Magic build argument: a namespace for the ids of cache mounts.
const CACHE_NAMESPACE_ARG: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// Default permissions.
const CACHE_MODE: u32 = 0o755;
const SECRET_MODE: u32 = 0o400;
const SSH_MODE: u32 = 0o600;
/// What counts of `mode`: BuildKit drops the rest.
const PERMISSIONS: u32 = 0o777;

/// The value of `from` in a `--mount`: it decides what a stage depends on before variables are known.
pub(crate) fn mount_from(value: &str) -> Option<String> {
    let fields = csv::fields(value).ok()?;
    let mut pairs = fields.iter().rev().filter_map(|field| field.split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case("from")).map(|(_, value)| value.to_owned())
}

impl Lowering<'_, '_> {
    /// The mounts of a RUN; `sources` are the nodes of their `from`, by position.
    pub(super) fn mounts(
        &self,
        state: &State,
        specs: &[MountSpec],
        sources: &[Option<usize>],
        inputs: &mut Inputs,
    ) -> Outcome<Vec<Mount>> {
        let mut mounts = Vec::new();
        let mut agents = 0;
        for (at, spec) in specs.iter().enumerate() {
            mounts.push(match spec.kind {
                MountType::Secret => secret(state, spec)?,
                MountType::Ssh => {
                    agents += 1;
                    ssh(state, spec, agents - 1)?
                }
                MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                    let target = target(state, spec)?;
                    let root = self.mount_root(spec, &target, sources.get(at).copied().flatten())?;
                    let kind = self.directory_kind(spec, root.as_ref(), inputs);
                    Mount { target, kind, readonly: spec.read_only }
                }
            });
        }
        Ok(mounts)
    }

    /// The root that `from` names; `None` when there is no `from`.
    fn mount_root(&self, spec: &MountSpec, target: &str, source: Option<usize>) -> Outcome<Option<Root>> {
        if spec.from.is_empty() || spec.kind == MountType::Tmpfs {
            return Ok(None);
        }
        // A stage that is being lowered or comes later has no state yet, or only that of its base.
        match source.and_then(|source| self.finished(source)) {
            Some(state) => Ok(Some(state.root.clone())),
            None => Err(format!(
                "cannot mount from stage {} to {}, stage needs to be defined before current command",
                go_quote(&spec.from),
                go_quote(target)
            )),
        }
    }

    fn directory_kind(&self, spec: &MountSpec, root: Option<&Root>, inputs: &mut Inputs) -> MountKind {
        let source = paths::join("/", &spec.source);
        match spec.kind {
            MountType::Tmpfs => {
                MountKind::Tmpfs { size: u64::try_from(spec.size_limit).ok().filter(|n| *n > 0) }
            }
            MountType::Cache => MountKind::Cache {
                id: self.cache_id(spec),
                sharing: match spec.sharing {
                    None | Some(Sharing::Shared) => rbuild_ir::Sharing::Shared,
                    Some(Sharing::Private) => rbuild_ir::Sharing::Private,
                    Some(Sharing::Locked) => rbuild_ir::Sharing::Locked,
                },
                mode: spec.mode.unwrap_or(CACHE_MODE) & PERMISSIONS,
                uid: spec.uid.unwrap_or(0),
                gid: spec.gid.unwrap_or(0),
                owned: source == "/" && (spec.mode, spec.uid, spec.gid) != (None, None, None),
                from: root.map(|root| inputs.source(root)).filter(|source| *source != Source::Empty),
                source,
            },
            _ => {
                let from = match root {
                    Some(root) => inputs.source(root),
                    None => Source::Context(MAIN_CONTEXT.into()),
                };
                MountKind::Bind { from, source }
            }
        }
    }

    fn cache_id(&self, spec: &MountSpec) -> String {
        let id = if spec.id.is_empty() { paths::clean(&spec.target) } else { spec.id.clone() };
        match self.plan.options.build_arg(CACHE_NAMESPACE_ARG) {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
            _ => id,
        }
    }

    /// The state of a node that can be read from: an image, or a stage that is lowered to its end.
    pub(super) fn finished(&self, node: usize) -> Option<&State> {
        let complete = !self.plan.nodes[node].is_stage() || self.done.contains(&node);
        self.states[node].as_ref().filter(|_| complete)
    }
}

/// The name of the main build context.
pub(super) const MAIN_CONTEXT: &str = "context";

fn target(state: &State, spec: &MountSpec) -> Outcome<String> {
    let target = match paths::clean(&spec.target) {
        absolute if absolute.starts_with('/') => absolute,
        _ => paths::join(&paths::join("/", &state.cwd), &spec.target),
    };
    if target == "/" {
        return Err(format!("invalid mount target {}", go_quote(&target)));
    }
    Ok(target)
}

fn absolute(state: &State, path: &str) -> String {
    if path.starts_with('/') { paths::clean(path) } else { paths::join(&paths::join("/", &state.cwd), path) }
}

fn secret(state: &State, spec: &MountSpec) -> Outcome<Mount> {
    let mut id = spec.id.clone();
    if !spec.source.is_empty() {
        id.clone_from(&spec.source);
    }
    if id.is_empty() {
        if spec.target.is_empty() {
            return Err("one of source, target required".into());
        }
        id = paths::base(&spec.target).to_owned();
    }
    let target = match spec.target.as_str() {
        "" if spec.env.is_some() => String::new(),
        "" => format!("/run/secrets/{}", paths::base(&id)),
        target => absolute(state, target),
    };
    let file = !target.is_empty();
    let kind = MountKind::Secret {
        id,
        env: spec.env.clone(),
        file,
        required: spec.required,
        mode: spec.mode.unwrap_or(SECRET_MODE) & PERMISSIONS,
        uid: spec.uid.unwrap_or(0),
        gid: spec.gid.unwrap_or(0),
    };
    Ok(Mount { target, kind, readonly: true })
}

fn ssh(state: &State, spec: &MountSpec, number: usize) -> Outcome<Mount> {
    if !spec.source.is_empty() {
        return Err("ssh does not support source".into());
    }
    let target = match spec.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{number}"),
        target => absolute(state, target),
    };
    let kind = MountKind::Ssh {
        id: if spec.id.is_empty() { "default".into() } else { spec.id.clone() },
        required: spec.required,
        mode: spec.mode.unwrap_or(SSH_MODE) & PERMISSIONS,
        uid: spec.uid.unwrap_or(0),
        gid: spec.gid.unwrap_or(0),
    };
    Ok(Mount { target, kind, readonly: true })
}
