//! From stages to operations.
//!
//! Order of work: [`crate::stage::Plan`] knows the stages and their references; base images of the reachable ones
//! are resolved (their ONBUILD triggers may bring in more); then the instructions of each reachable stage are
//! dispatched in file order. The first error ends the work, as in BuildKit; what the engine cannot do yet is collected.

mod base;
mod checks;
mod config;
#[cfg(test)]
mod conformance;
mod copy;
mod mounts;
mod names;
pub(crate) mod options;
mod remote;
mod resolve;
mod run;
mod state;
mod vertices;

pub(crate) use mounts::mount_from;
pub(crate) use options::Contexts;
pub use options::{ExcludedBy, IgnoreRule, IgnoreRules, LowerOptions, NamedContext};
pub(crate) use remote::fetched_source;
pub use remote::filename as filename_of_url;
pub use resolve::{ImageRequest, ResolveError, ResolvedImage, Resolver};

use crate::ast::{Dockerfile, Instruction, InstructionKind, Span};
use crate::diagnostic::{Diagnostic, Severity};
use crate::env::split_pair;
use crate::lint::Linter;
use crate::outline::{Outline, StageParameters, outline};
use crate::source::MAX_DIAGNOSTICS;
use crate::stage::{Command, Origin, Plan};
use crate::suggest::suggest;
use rbuild_ir::{Definition, ImageOp, ImageResult, Op};
use rbuild_oci::{Platform, Reference};
use state::{Root, State};
use std::collections::{BTreeSet, HashSet};
use vertices::Vertices;

/// Most bytes that the environment of a stage may have. The kernel refuses to start a process with more than a few
/// mebibytes; without a limit, a short file could make values double endlessly.
const MAX_ENV: usize = 4 << 20;

/// Most bytes of environments and histories that the steps and stages of one file may have together.
const MAX_TOTAL: usize = 512 << 20;

/// Images that suggestions of "not found" errors know.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// Lowers a Dockerfile to the operations that make the target stage's image. Errors come before warnings; the warnings
/// are sorted by line.
///
/// The definition is missing when any diagnostic is an error.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &dyn Resolver,
) -> (Option<Definition>, Vec<Diagnostic>) {
    let lowered = examine(dockerfile, options, resolver);
    (lowered.definition, lowered.diagnostics)
}

/// Everything that lowering finds out.
#[derive(Debug, Clone, Default)]
pub struct Lowered {
    /// The operations; missing when any diagnostic is an error.
    pub definition: Option<Definition>,
    /// Errors, then warnings by line.
    pub diagnostics: Vec<Diagnostic>,
    /// The parameters of the target; missing when lowering stopped at an error.
    pub outline: Option<Outline>,
    /// Files behind URLs and git trees that any lowered stage adds.
    pub remote_ops: Vec<Op>,
}

/// As [`lower`], and tells what the target takes.
pub fn examine(dockerfile: &Dockerfile, options: &LowerOptions, resolver: &dyn Resolver) -> Lowered {
    let failed = |error, warnings| Lowered {
        diagnostics: std::iter::once(error).chain(warnings).collect(),
        ..Lowered::default()
    };
    let mut linter = match Linter::new(dockerfile, options) {
        Ok(linter) => linter,
        Err(error) => return failed(error, Vec::new()),
    };
    linter.syntax(dockerfile);
    let plan = match Plan::new(dockerfile, options, &mut linter) {
        Ok(plan) => plan,
        Err(error) => return failed(error, linter.finish()),
    };
    let mut lowering = Lowering {
        plan,
        resolver,
        linter,
        vertices: Vertices::default(),
        states: Vec::new(),
        done: BTreeSet::new(),
        spent: 0,
        unset_left: MAX_DIAGNOSTICS,
        parameters: Vec::new(),
        diagnostics: Vec::new(),
        remote_ops: Vec::new(),
    };
    let definition = match lowering.run() {
        Ok(definition) => Some(definition),
        Err(error) => {
            lowering.diagnostics.push(error);
            None
        }
    };
    let outline = definition.as_ref().map(|_| outline(&lowering.plan, dockerfile, &lowering.parameters));
    let failed = lowering.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let mut diagnostics = lowering.diagnostics;
    diagnostics.extend(lowering.linter.finish());
    Lowered {
        definition: definition.filter(|_| !failed),
        diagnostics,
        outline,
        remote_ops: lowering.remote_ops,
    }
}

/// The images that the target needs (with `all_stages`: that any stage needs), without repetitions, so that they can be
/// resolved concurrently beforehand.
/// ONBUILD triggers of base images may ask for more during lowering. Empty when the file has errors.
pub fn image_requests(dockerfile: &Dockerfile, options: &LowerOptions) -> Vec<ImageRequest> {
    let Ok(plan) = Plan::new(dockerfile, options, &mut Linter::default()) else { return Vec::new() };
    let mut seen = HashSet::new();
    let origins = plan.wanted().into_iter().filter_map(|node| plan.origin(node).ok());
    let images = origins.filter_map(|origin| match origin {
        Origin::Image(request, _) => Some(request),
        _ => None,
    });
    images.filter(|request| seen.insert(request.clone())).collect()
}

struct Lowering<'a, 'r> {
    plan: Plan<'a>,
    resolver: &'r dyn Resolver,
    linter: Linter,
    vertices: Vertices,
    /// By node; `None` until its base is known.
    states: Vec<Option<State>>,
    /// Stages that are lowered to their end.
    done: BTreeSet<usize>,
    /// Bytes counted against [`MAX_TOTAL`].
    spent: usize,
    /// How many more unset variables are looked into.
    unset_left: usize,
    /// What the outline is made of, by node.
    parameters: Vec<StageParameters>,
    diagnostics: Vec<Diagnostic>,
    remote_ops: Vec<Op>,
}

/// An instruction's error without its place.
type Outcome<T = ()> = Result<T, String>;

impl Lowering<'_, '_> {
    fn run(&mut self) -> Result<Definition, Diagnostic> {
        let reachable = self.resolve_stages()?;
        for node in reachable {
            if self.plan.nodes[node].is_stage() {
                self.dispatch_stage(node)?;
            }
        }
        let definition = self.finish()?;
        match self.linter.violation() {
            Some(violation) => Err(violation),
            None => Ok(definition),
        }
    }

    /// Resolves base images and triggers until nothing new is needed.
    fn resolve_stages(&mut self) -> Result<BTreeSet<usize>, Diagnostic> {
        let mut with_triggers = BTreeSet::new();
        loop {
            let reachable = self.plan.wanted();
            for node in 0..self.plan.nodes.len() {
                self.states.resize_with(self.plan.nodes.len(), || None);
                if self.states[node].is_none() {
                    // Unreachable stages are not resolved, but their image names are checked.
                    let origin = self.plan.origin(node)?;
                    if reachable.contains(&node) {
                        self.states[node] = self.resolve(node, origin)?;
                    }
                }
            }
            let mut more = false;
            for &node in &reachable {
                let triggers = match (&mut self.states[node], self.plan.nodes[node].base) {
                    (Some(state), _) => state.config.config.on_build.take().unwrap_or_default(),
                    (None, Some(base)) if with_triggers.insert(node) => self.plan.triggers_of(base),
                    _ => Vec::new(),
                };
                if !triggers.is_empty() && self.plan.nodes[node].is_stage() {
                    more |= self.plan.add_triggers(node, &triggers)?;
                }
            }
            if !more {
                return Ok(reachable);
            }
        }
    }

    /// The first state of a node that does not stand on another stage.
    fn resolve(&mut self, node: usize, origin: Origin) -> Result<Option<State>, Diagnostic> {
        let platform = self.plan.options.platform().clone();
        match origin {
            Origin::Stage(_) => Ok(None),
            // `docker-image://scratch` has no config, as a directory has none.
            Origin::Scratch if self.plan.nodes[node].context.is_some() => {
                Ok(Some(State::replaced(platform, Root::Empty)))
            }
            Origin::Scratch => Ok(Some(State::scratch(platform, Root::Empty))),
            Origin::Local(name) => {
                let node = &self.plan.nodes[node];
                let platform = node.platform.clone().unwrap_or(platform);
                let root = Root::Context(name);
                Ok(Some(match node.context {
                    Some(_) => State::replaced(platform, root),
                    None => State::scratch(platform, root),
                }))
            }
            Origin::Image(request, context) => self.resolve_image(node, request, context).map(Some),
        }
    }

    fn resolve_image(
        &mut self,
        index: usize,
        request: ImageRequest,
        context: Option<String>,
    ) -> Result<State, Diagnostic> {
        let node = &self.plan.nodes[index];
        let image = self.resolver.resolve(&request).map_err(|error| {
            let name = &node.base_name;
            let names = self.plan.names().chain(COMMON_IMAGES);
            let message = crate::suggest::with_suggestion(format!("{name}: {error}"), name, names, true);
            let near = suggest(name, self.plan.names(), true);
            let help = match (near, node.image_only) {
                (Some(stage), true) => {
                    format!("no stage is called `{name}`, so it is taken for an image: did you mean the stage `{stage}`?")
                }
                (Some(stage), false) => format!("did you mean the stage `{stage}`? It has to stand above this line"),
                (None, _) => format!("check that `{name}` exists, is spelled right and may be pulled by you"),
            };
            Diagnostic::error(message, node.lines).with_span(node.span).with_help(help)
        })?;
        let mut platform = request.platform;
        let config = base::inherited(image.config);
        let implicit = node.platform.is_none() && self.plan.options.target_platform.is_none();
        let own = &self.plan.options.build_platform;
        if implicit && own.os == config.os && own.architecture == config.architecture {
            platform = own.clone();
        }
        let (lines, shown_platform) = (node.lines, platform.clone());
        // An image without layers is the empty root; old images don't list their layers, but have history.
        let empty = config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer);
        if !empty && context.is_none() {
            self.check_image_platform(index, &platform, &config);
        }
        let mut state = State::of_image(config, platform);
        if !empty {
            let pinned = match request.reference.parse::<Reference>() {
                Ok(reference) => reference.with_digest(image.manifest).to_string(),
                Err(_) => request.reference.clone(),
            };
            let name = match context {
                Some(context) => format!("[context {context}] {pinned}"),
                None => names::prefixed(&self.plan, index, &mut state, &format!("FROM {pinned}")),
            };
            let op = Op::Image(ImageOp {
                manifest: image.manifest,
                platform: shown_platform,
                reference: request.reference,
            });
            let made = self.vertices.add(op, None, &[], name, self.plan.stage_key(index), lines);
            state.root = Root::Vertex(made);
        }
        Ok(state)
    }

    fn dispatch_stage(&mut self, node: usize) -> Result<(), Diagnostic> {
        let mut state = match (self.states[node].take(), self.plan.nodes[node].base) {
            (Some(state), _) => state,
            (None, Some(base)) => match &self.states[base] {
                Some(base) => base.child(),
                None => return Err(self.undefined(node)),
            },
            (None, None) => return Err(self.undefined(node)),
        };
        state.begin(self.plan.options.network);
        let commands = std::mem::take(&mut self.plan.nodes[node].commands);
        self.spent += state.bytes();
        state.unset_left = self.unset_left;
        for command in &commands {
            state.fault = Span::default();
            let outcome = self.dispatch(node, &mut state, command).and_then(|()| self.check_size(&state));
            self.report_findings(&mut state, command);
            outcome.map_err(|message| {
                let fault = if command.on_build { Span::default() } else { state.fault };
                let error = Diagnostic::error(message, command.instruction.lines).with_span(fault);
                Diagnostic { help: state.remedy.take().or(error.help), ..error }
            })?;
        }
        self.unset_left = state.unset_left;
        self.plan.nodes[node].commands = commands;
        self.states[node] = Some(state);
        self.done.insert(node);
        Ok(())
    }

    /// Values that refer to each other must not fill the memory.
    fn check_size(&mut self, state: &State) -> Outcome {
        if state.env.bytes() > MAX_ENV {
            return Err(format!("the environment of the stage is larger than {MAX_ENV} bytes"));
        }
        self.spent += state.last_bytes();
        if self.spent > MAX_TOTAL {
            return Err(format!("environments and history of all steps are larger than {MAX_TOTAL} bytes"));
        }
        Ok(())
    }

    /// A stage whose base has no state; only triggers that refer to later stages can lead here.
    fn undefined(&self, node: usize) -> Diagnostic {
        let node = &self.plan.nodes[node];
        Diagnostic::error(
            format!("stage {:?} needs its base to be defined before it", node.shown),
            node.lines,
        )
    }

    fn dispatch(&mut self, node: usize, state: &mut State, command: &Command<'_>) -> Outcome {
        state.on_build = command.on_build;
        let instruction: &Instruction = &command.instruction;
        match &instruction.kind {
            InstructionKind::Run(run) => self.run_instruction(node, state, command, run),
            InstructionKind::Copy(copy) => self.copy_instruction(node, state, command, copy),
            InstructionKind::Add(add) => self.add_instruction(node, state, command, add),
            InstructionKind::Workdir(path) => self.workdir(node, state, instruction, path),
            InstructionKind::Arg(arg) => self.arg(node, state, instruction, arg),
            InstructionKind::From(_) => Ok(()),
            _ => {
                self.check_single(state, command);
                config::apply(state, &self.plan.lex, instruction)
            }
        }
    }

    /// What is known for the outline about a stage.
    fn parameters(&mut self, node: usize) -> &mut StageParameters {
        if self.parameters.len() <= node {
            self.parameters.resize_with(node + 1, StageParameters::default);
        }
        &mut self.parameters[node]
    }

    fn finish(&mut self) -> Result<Definition, Diagnostic> {
        let target = self.plan.target;
        let Some(mut state) = self.states[target].take() else { return Err(self.undefined(target)) };
        let root = self.vertices.root(&state.root, &self.plan.stage_key(target));
        let options = self.plan.options;
        if !options.labels.is_empty() {
            let labels = state.config.config.labels.get_or_insert_default();
            labels.extend(options.labels.iter().cloned());
        }
        if let Some(platform) = &options.target_platform {
            state.set_platform(platform);
        }
        let config = &state.config;
        let platform = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            os_version: config.other.get("os.version").and_then(|v| v.as_str()).map(str::to_owned),
            variant: config.variant.clone(),
        }
        .normalized();
        state.config.os.clone_from(&platform.os);
        state.config.architecture.clone_from(&platform.architecture);
        state.config.variant.clone_from(&platform.variant);
        state.config.created = None;
        base::drop_empty_maps(&mut state.config);
        let root_digest = root.map(|root| self.vertices.digest(root));
        self.remote_ops = self.vertices.remote().cloned().collect();
        let origins = self.vertices.origins(root);
        Ok(Definition {
            vertices: std::mem::take(&mut self.vertices).into_order(root),
            image: ImageResult {
                root: root_digest,
                config: state.config,
                history: state.history,
                origins,
                platform,
                source_date_epoch: self.plan.epoch,
            },
        })
    }
}

impl Plan<'_> {
    /// How --no-cache-filter names a node: its name, else its number.
    fn stage_key(&self, node: usize) -> String {
        self.nodes[node].name.clone().unwrap_or_else(|| node.to_string())
    }
}

/// The variables of a config's `Env`.
fn config_env(config: &rbuild_oci::ImageConfig) -> impl Iterator<Item = (&str, &str)> {
    config.config.env.iter().flatten().map(|pair| split_pair(pair))
}
