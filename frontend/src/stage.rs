//! Stages and what they need: names, dependencies, cycles, the target and what it reaches (A4).

mod sources;

use crate::args;
use crate::ast::{Dockerfile, Instruction, InstructionKind, LineRange, Span, Stage, Word};
use crate::diagnostic::Diagnostic;
use crate::env::{Env, Lookup};
use crate::lint::{
    Linter, from_platform_flag_const_disallowed, invalid_default_arg_in_from, redundant_target_platform,
    undefined_arg_in_from,
};
use crate::lower::options::Contexts;
use crate::lower::{ImageRequest, LowerOptions, NamedContext};
use crate::quote::go_quote;
use crate::scope::Budget;
use crate::shell::{Expansion, Lex, ShellError};
use crate::source::MAX_DIAGNOSTICS;
use crate::suggest::{suggest, with_suggestion};
use rbuild_oci::{Platform, Reference};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// `docker-image://scratch` in full: the empty root, as `FROM scratch` is; a registry has no image of that name.
const NO_IMAGE: &str = "docker.io/library/scratch:latest";

/// An instruction with the stages or images that its flags refer to.
#[derive(Debug, Clone)]
pub(crate) struct Command<'a> {
    pub(crate) instruction: Cow<'a, Instruction>,
    /// One per `--from` (COPY) or `--mount` (RUN), by position.
    pub(crate) sources: Vec<Option<usize>>,
    /// It is a trigger of the base.
    pub(crate) on_build: bool,
}

/// A stage, or an image that is only read from.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// The name after AS.
    pub(crate) name: Option<String>,
    /// The name in progress lines; empty when there is one stage only.
    pub(crate) shown: String,
    /// FROM's image after expansion.
    pub(crate) base_name: String,
    /// The earlier stage that FROM names.
    pub(crate) base: Option<usize>,
    /// `--platform`.
    pub(crate) platform: Option<Platform>,
    /// The named context that replaces the stage.
    pub(crate) context: Option<(String, NamedContext)>,
    /// FROM's lines, or those of the instruction that reads the image.
    pub(crate) lines: LineRange,
    /// FROM's place, or that of the flag that names the image; empty for triggers.
    pub(crate) span: Span,
    /// The comments above FROM.
    pub(crate) comments: &'a [String],
    /// Global arguments that FROM refers to.
    pub(crate) used: BTreeSet<String>,
    pub(crate) commands: Vec<Command<'a>>,
    /// Steps that are counted in progress lines.
    pub(crate) total: usize,
    /// Not a stage: an image named by `--from`.
    pub(crate) image_only: bool,
    deps: Vec<(usize, LineRange)>,
}

impl Node<'_> {
    /// Whether its instructions are carried out: it is no image, and no context replaces it.
    pub(crate) fn is_stage(&self) -> bool {
        !self.image_only && self.context.is_none()
    }
}

/// What a node starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Scratch,
    Stage(usize),
    /// A local named context.
    Local(String),
    /// An image; with the name of the named context it came from.
    Image(ImageRequest, Option<String>),
}

/// All stages with their dependencies.
pub(crate) struct Plan<'a> {
    pub(crate) options: &'a LowerOptions,
    pub(crate) lex: Lex,
    pub(crate) globals: Env,
    pub(crate) epoch: Option<i64>,
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) target: usize,
    /// Names of global ARGs, with or without a value, and of platform arguments.
    pub(crate) known: BTreeSet<String>,
    pub(crate) dockerfile: &'a Dockerfile,
    contexts: Contexts,
    by_name: HashMap<String, usize>,
    budget: Budget,
    /// How many more unset names of FROM lines are looked into: each costs a walk over all known names.
    unset_left: usize,
}

impl<'a> Plan<'a> {
    /// The value of a build argument: that of SOURCE_DATE_EPOCH is the time which it means.
    pub(crate) fn build_arg(&self, name: &str) -> Option<Cow<'a, str>> {
        let given = self.options.build_arg(name)?;
        match name {
            args::EPOCH => self.epoch.map(|epoch| Cow::Owned(epoch.to_string())),
            _ => Some(Cow::Borrowed(given)),
        }
    }

    /// `linter` hears about FROM lines, also when there is an error.
    pub(crate) fn new(
        dockerfile: &'a Dockerfile,
        options: &'a LowerOptions,
        linter: &mut Linter,
    ) -> Result<Self, Diagnostic> {
        if dockerfile.stages.is_empty() {
            return Err(Diagnostic::error("dockerfile contains no stages to build", LineRange::default()));
        }
        let lex = Lex::new(dockerfile.directives.escape);
        check_defaults(dockerfile, options, &lex, linter);
        let mut globals = args::global_args(dockerfile, options, &lex, false)?;
        let contexts = Contexts::new(&options.contexts);
        let epoch = crate::epoch::epoch(&globals, options, dockerfile, &contexts, &lex)?;
        // What names something that has a time is that time from here on; without one it is as if it were not given.
        let named = globals.get(args::EPOCH).is_some_and(|value| !value.is_empty());
        if named || options.build_arg(args::EPOCH).is_some() {
            match epoch.filter(|_| globals.get(args::EPOCH).is_some()) {
                Some(epoch) => globals.set(args::EPOCH, &epoch.to_string()),
                None => globals.remove(args::EPOCH),
            }
        }
        let declared = dockerfile.meta_args.iter().flat_map(declared_names).map(str::to_owned);
        let known = declared.chain(globals.names().map(str::to_owned)).collect();
        let mut plan = Self {
            known,
            dockerfile,
            budget: Budget::default(),
            unset_left: MAX_DIAGNOSTICS,
            options,
            lex,
            globals,
            epoch,
            nodes: Vec::new(),
            target: 0,
            contexts,
            by_name: HashMap::new(),
        };
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            plan.add_stage(index, stage, linter)?;
        }
        plan.target = plan.find_target()?;
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            for instruction in &stage.commands {
                let command = plan.command(index, Cow::Borrowed(instruction), None)?;
                plan.nodes[index].commands.push(command);
            }
        }
        plan.check_cycles()?;
        if let [only] = &mut plan.nodes[..] {
            only.shown.clear();
        }
        Ok(plan)
    }

    fn add_stage(&mut self, index: usize, stage: &'a Stage, linter: &mut Linter) -> Result<(), Diagnostic> {
        let lines = stage.instruction.lines;
        let written = stage.from.image.as_str();
        let image = self.expand_global(&stage.from.image, stage, linter);
        let error =
            |error: ShellError| Diagnostic::error(error.to_string(), lines).with_span(stage.from.image.span);
        let Expansion { result: base_name, matched: mut used, .. } = image.map_err(error)?;
        if base_name.is_empty() {
            let message = format!("base name ({written}) should not be blank");
            let error = Diagnostic::error(message, lines).with_span(stage.from.image.span);
            return Err(
                error.with_help("give the ARG a default before the first FROM, or a value with --build-arg")
            );
        }
        let platform = self.stage_platform(stage, &mut used, linter)?;
        let context = stage.name.as_deref().and_then(|name| {
            let platform = platform.as_ref().unwrap_or(self.options.platform());
            self.contexts.find(name, platform).cloned()
        });
        let base = self.by_name.get(&base_name).copied().filter(|_| context.is_none());
        let from = usize::from(base_name != "scratch" && base.is_none());
        let steps = stage.commands.iter().filter(|command| is_step(&command.kind)).count();
        let total = if context.is_some() { 0 } else { from + steps };
        self.nodes.push(Node {
            name: stage.name.clone(),
            shown: stage.name.clone().unwrap_or_else(|| format!("stage-{index}")),
            base_name,
            base,
            platform,
            context,
            lines,
            span: stage.from.image.span,
            comments: &stage.instruction.prev_comments,
            used,
            commands: Vec::new(),
            total,
            image_only: false,
            deps: Vec::new(),
        });
        if let Some(name) = &stage.name {
            self.by_name.insert(name.to_lowercase(), index);
        }
        Ok(())
    }

    /// Expands a word of FROM, which sees global arguments only.
    fn expand_global(
        &mut self,
        word: &Word,
        stage: &Stage,
        linter: &mut Linter,
    ) -> Result<Expansion, ShellError> {
        let expansion = self.lex.process(word.as_str(), &self.globals);
        let unmatched = match &expansion {
            Ok(expansion) => &expansion.unmatched,
            Err(error) => &error.unmatched,
        };
        if !unmatched.is_empty() && self.unset_left > 0 {
            self.unset_left -= 1;
            for finding in undefined_arg_in_from::check(word, unmatched, &self.known) {
                linter.report(finding, &stage.instruction);
            }
        }
        expansion
    }

    /// Whether an ARG before the first FROM has this name.
    pub(crate) fn is_global_arg(&self, name: &str) -> bool {
        self.known.contains(name)
            && self.dockerfile.meta_args.iter().flat_map(declared_names).any(|known| known == name)
    }

    /// FROM's `--platform`.
    fn stage_platform(
        &mut self,
        stage: &Stage,
        used: &mut BTreeSet<String>,
        linter: &mut Linter,
    ) -> Result<Option<Platform>, Diagnostic> {
        let lines = stage.instruction.lines;
        let Some(word) = &stage.from.platform else { return Ok(None) };
        let written = word.as_str();
        if written.is_empty() {
            return Ok(None);
        }
        let expansion = self.expand_global(word, stage, linter);
        let expansion =
            expansion.map_err(|error| Diagnostic::error(error.to_string(), lines).with_span(word.span))?;
        let target = self.globals.get("TARGETPLATFORM");
        let redundant = redundant_target_platform::check(word, &expansion, target);
        let constant = from_platform_flag_const_disallowed::check(word, &expansion, stage.name.as_deref());
        for finding in redundant.into_iter().chain(constant) {
            linter.report(finding, &stage.instruction);
        }
        used.extend(expansion.matched.iter().cloned());
        let suggestion =
            expansion.unmatched.iter().find_map(|name| suggest(name, self.globals.names(), true));
        let suggestion = suggestion.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
        let error = |message| Diagnostic::error(message, lines).with_span(word.span);
        if expansion.result.is_empty() {
            return Err(error(format!("empty platform value from expression {written}{suggestion}")));
        }
        expansion
            .result
            .parse()
            .map(Some)
            .map_err(|reason| error(format!("failed to parse platform {written}: {reason}{suggestion}")))
    }

    fn find_target(&self) -> Result<usize, Diagnostic> {
        let Some(target) = &self.options.target else { return Ok(self.nodes.len() - 1) };
        self.by_name.get(&target.to_lowercase()).copied().ok_or_else(|| {
            let message = format!("target stage {} could not be found", go_quote(target));
            Diagnostic::error(with_suggestion(message, target, self.names(), true), LineRange::default())
        })
    }

    /// Stage names as shown.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.shown.as_str()).filter(|name| !name.is_empty())
    }

    /// Refuses stages that copy from each other in a circle.
    fn check_cycles(&self) -> Result<(), Diagnostic> {
        let mut visited = vec![false; self.nodes.len()];
        let mut on_path = vec![false; self.nodes.len()];
        for start in 0..self.nodes.len() {
            // Each entry: a node and how many of its dependencies were looked at.
            let mut path = vec![(start, 0)];
            while let Some((node, next)) = path.last_mut() {
                let node = *node;
                if *next == 0 {
                    if visited[node] {
                        path.pop();
                        continue;
                    }
                    visited[node] = true;
                    on_path[node] = true;
                }
                let Some(&(dep, _)) = self.nodes[node].deps.get(*next) else {
                    on_path[node] = false;
                    path.pop();
                    continue;
                };
                *next += 1;
                if on_path[dep] {
                    let (node, next) = path[path.len() - 1];
                    let lines = self.nodes[node].deps[next - 1].1;
                    let name = &self.nodes[start].shown;
                    let message = format!("circular dependency detected on stage: {name}");
                    return Err(Diagnostic::error(message, lines));
                }
                if !visited[dep] {
                    path.push((dep, 0));
                }
            }
        }
        Ok(())
    }

    /// The nodes that the target needs, in file order.
    pub(crate) fn reachable(&self) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.target];
        while let Some(node) = open.pop() {
            if seen.insert(node) {
                let node = &self.nodes[node];
                open.extend(node.base);
                open.extend(node.deps.iter().map(|(dep, _)| *dep));
            }
        }
        seen
    }

    /// The nodes that are lowered: those the target needs, or all of them.
    pub(crate) fn wanted(&self) -> BTreeSet<usize> {
        if self.options.all_stages { (0..self.nodes.len()).collect() } else { self.reachable() }
    }

    /// What a node starts from; an error when its image's name is none.
    pub(crate) fn origin(&self, index: usize) -> Result<Origin, Diagnostic> {
        let node = &self.nodes[index];
        let platform = node.platform.as_ref().unwrap_or(self.options.platform());
        if let Some(context) = &node.context {
            return self.context_origin(context, platform, node.lines);
        }
        if let Some(base) = node.base {
            return Ok(Origin::Stage(base));
        }
        if node.base_name == "scratch" {
            return Ok(Origin::Scratch);
        }
        let reference: Reference = node.base_name.parse().map_err(|error| {
            let name = go_quote(&node.base_name);
            Diagnostic::error(format!("failed to parse stage name {name}: {error}"), node.lines)
        })?;
        let reference = reference.with_default_tag().to_string();
        match self.contexts.find(&reference, platform) {
            Some(context) => self.context_origin(context, platform, node.lines),
            None => Ok(Origin::Image(ImageRequest { reference, platform: platform.clone() }, None)),
        }
    }

    fn context_origin(
        &self,
        (name, context): &(String, NamedContext),
        platform: &Platform,
        lines: LineRange,
    ) -> Result<Origin, Diagnostic> {
        let NamedContext::Image(text) = context else { return Ok(Origin::Local(name.clone())) };
        let reference = if text.starts_with("oci-layout://") {
            text.clone()
        } else {
            let reference: Reference = text.parse().map_err(|error| {
                Diagnostic::error(format!("invalid image of build context {name}: {error}"), lines)
            })?;
            reference.with_default_tag().to_string()
        };
        if reference == NO_IMAGE {
            return Ok(Origin::Scratch);
        }
        Ok(Origin::Image(ImageRequest { reference, platform: platform.clone() }, Some(name.clone())))
    }
}

/// InvalidDefaultArgInFrom looks at all FROM lines; it gives up at the first that cannot be expanded.
fn check_defaults(dockerfile: &Dockerfile, options: &LowerOptions, lex: &Lex, linter: &mut Linter) {
    let Ok(defaults) = args::global_args(dockerfile, options, lex, true) else { return };
    for stage in &dockerfile.stages {
        let Ok(image) = lex.word(stage.from.image.as_str(), &defaults) else { return };
        if let Some(finding) = invalid_default_arg_in_from::check(&stage.from.image, &image) {
            linter.report(finding, &stage.instruction);
        }
    }
}

/// The names of an ARG.
fn declared_names(instruction: &Instruction) -> impl Iterator<Item = &str> {
    let pairs = match &instruction.kind {
        InstructionKind::Arg(arg) => &arg.pairs[..],
        _ => &[],
    };
    pairs.iter().map(|pair| pair.name.as_str())
}

/// Whether an instruction is counted in progress lines.
fn is_step(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}
