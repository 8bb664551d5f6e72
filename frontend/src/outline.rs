//! What a build takes: its targets, and the arguments, secrets, SSH agents and cache mounts of one of them (D-019).

use crate::ast::{Dockerfile, InstructionKind, LineRange};
use crate::env::Lookup;
use crate::stage::Plan;
use std::collections::{BTreeMap, BTreeSet};

/// The parameters of one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target stage's name; `None` when it has none.
    pub name: Option<String>,
    /// The comment `# name text` above its FROM.
    pub description: String,
    /// Build arguments by line.
    pub args: Vec<OutlineArg>,
    /// Secrets by line.
    pub secrets: Vec<OutlineMount>,
    /// SSH agents by line.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts by line.
    pub cache: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its value in this build; empty when it has none.
    pub value: String,
    /// The comment `# name text` above its ARG.
    pub description: String,
    /// Where it is declared.
    pub lines: LineRange,
}

/// A secret, an SSH agent or a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// The build fails without it.
    pub required: bool,
    /// Where it is first used.
    pub lines: LineRange,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name; `None` when it has none.
    pub name: Option<String>,
    /// It is built when no target is named.
    pub default: bool,
    /// The comment `# name text` above its FROM.
    pub description: String,
    /// FROM's image as written.
    pub base: String,
    /// `--platform` as written; may be empty.
    pub platform: String,
    /// FROM's lines.
    pub lines: LineRange,
}

/// The stages of a file in order.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let stages = dockerfile.stages.iter().enumerate();
    stages
        .map(|(index, stage)| Target {
            name: stage.name.clone(),
            default: index + 1 == dockerfile.stages.len(),
            description: description(&stage.instruction.prev_comments, stage.name.as_deref()),
            base: stage.from.image.value.clone(),
            platform: stage.from.platform.as_ref().map(|word| word.value.clone()).unwrap_or_default(),
            lines: stage.instruction.lines,
        })
        .collect()
}

/// The text behind the name in a comment.
pub(crate) fn description(comments: &[String], name: Option<&str>) -> String {
    let text = name
        .and_then(|name| comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' ')));
    text.unwrap_or_default().trim().to_owned()
}

/// What lowering learns about one stage's parameters.
#[derive(Debug, Default)]
pub(crate) struct StageParameters {
    /// ARGs with a value or default of their own.
    pub(crate) args: BTreeMap<String, OutlineArg>,
    /// Names that FROM or ARG refer to.
    pub(crate) used: BTreeSet<String>,
    pub(crate) secrets: Vec<OutlineMount>,
    pub(crate) ssh: Vec<OutlineMount>,
    pub(crate) cache: Vec<OutlineMount>,
}

/// Global ARGs that count in an outline, and what their defaults refer to.
fn global_args(plan: &Plan<'_>, dockerfile: &Dockerfile) -> BTreeMap<String, (OutlineArg, BTreeSet<String>)> {
    let mut args = BTreeMap::new();
    for instruction in &dockerfile.meta_args {
        let InstructionKind::Arg(arg) = &instruction.kind else { continue };
        for pair in &arg.pairs {
            let name = pair.name.as_str();
            let default = pair.default.as_ref().filter(|_| plan.options.build_arg(name).is_none());
            let needs = default.and_then(|default| plan.lex.process(default.as_str(), &plan.globals).ok());
            let shown = OutlineArg {
                name: name.to_owned(),
                value: plan.globals.get(name).unwrap_or_default().to_owned(),
                description: description(&instruction.prev_comments, Some(name)),
                lines: instruction.lines,
            };
            args.insert(name.to_owned(), (shown, needs.map(|needs| needs.matched).unwrap_or_default()));
        }
    }
    args
}

/// Puts together what the target and the stages it needs have. `stages` are by node.
pub(crate) fn outline(plan: &Plan<'_>, dockerfile: &Dockerfile, stages: &[StageParameters]) -> Outline {
    let globals = global_args(plan, dockerfile);
    let mut found = Outline::default();
    if let Some(stage) = dockerfile.stages.get(plan.target) {
        found.name.clone_from(&stage.name);
        found.description = description(&stage.instruction.prev_comments, stage.name.as_deref());
    }
    let mut seen = BTreeSet::new();
    for node in plan.reachable() {
        let none = StageParameters::default();
        let stage = stages.get(node).unwrap_or(&none);
        let mut open: Vec<&str> =
            stage.used.iter().chain(plan.nodes[node].used.iter()).map(String::as_str).collect();
        while let Some(name) = open.pop() {
            let global = globals.get(name);
            let arg = stage.args.get(name).or(global.map(|(arg, _)| arg));
            if let Some(arg) = arg.filter(|_| seen.insert(name.to_owned())) {
                found.args.push(arg.clone());
                if !stage.args.contains_key(name) {
                    open.extend(global.into_iter().flat_map(|(_, needs)| needs).map(String::as_str));
                }
            }
        }
        for (all, own) in [
            (&mut found.secrets, &stage.secrets),
            (&mut found.ssh, &stage.ssh),
            (&mut found.cache, &stage.cache),
        ] {
            all.extend(own.iter().cloned());
        }
    }
    found.args.sort_by_key(|arg| arg.lines.start);
    for mounts in [&mut found.secrets, &mut found.ssh, &mut found.cache] {
        mounts.sort_by_key(|mount| mount.lines.start);
        let mut seen = BTreeSet::new();
        mounts.retain(|mount| seen.insert(mount.id.clone()));
    }
    found
}
