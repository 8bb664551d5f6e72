//! What instructions read from: `--from` of COPY and of mounts, and triggers, which may bring in more.

use super::{Command, Node, Plan};
use crate::ast::{Instruction, InstructionKind, LineRange, Span, Word};
use crate::diagnostic::{Diagnostic, Phase};
use crate::env::Env;
use crate::lower::mount_from;
use crate::scope::{COPY_REFUSAL, Scope};
use std::borrow::Cow;
use std::collections::BTreeSet;

impl<'a> Plan<'a> {
    /// Resolves the flags of an instruction of `node` that name stages or images. For a trigger, `before` are the
    /// triggers before it; else the instructions before it are those that the node has already.
    pub(super) fn command(
        &mut self,
        node: usize,
        instruction: Cow<'a, Instruction>,
        before: Option<&[Command<'a>]>,
    ) -> Result<Command<'a>, Diagnostic> {
        let on_build = before.is_some();
        let lines = instruction.lines;
        let mut sources = Vec::new();
        match &instruction.kind {
            InstructionKind::Copy(copy) => {
                if let Some(from) = copy.from.as_ref().filter(|from| !from.as_str().is_empty()) {
                    sources.push(Some(self.copy_from(node, from, lines, before)?));
                }
            }
            InstructionKind::Run(run) => {
                for mount in &run.mounts {
                    let from = mount_from(mount.as_str()).filter(|from| !from.is_empty());
                    if from.is_none() {
                        // BuildKit counts these as stages: it shows in step names and in `--from=<index>`.
                        self.image("scratch", lines, Span::default());
                    }
                    let from =
                        from.map(|from| self.mount_from(node, from, mount, lines, before)).transpose()?;
                    let span = if on_build { Span::default() } else { mount.span };
                    sources.push(from.map(|from| self.named_source(&from, lines, span)));
                }
            }
            _ => {}
        }
        self.nodes[node].deps.extend(sources.iter().flatten().map(|source| (*source, lines)));
        Ok(Command { instruction, sources, on_build })
    }

    /// COPY's `--from`: an index, a stage or an image.
    fn copy_from(
        &mut self,
        node: usize,
        word: &Word,
        lines: LineRange,
        before: Option<&[Command<'a>]>,
    ) -> Result<usize, Diagnostic> {
        let mut from = Cow::Borrowed(word.as_str());
        let span = if before.is_some() { Span::default() } else { word.span };
        let error = |message: String| Diagnostic::error(message, lines).with_span(span);
        if self.lex.word(&from, &Env::new()).map_err(|reason| error(reason.to_string()))? != from {
            let expanded = self.expand_from(node, &from, before);
            let refused = |help: String| error(COPY_REFUSAL.into()).with_help(help);
            from = Cow::Owned(expanded.map_err(refused)?);
        }
        let from = &*from;
        match from.parse::<i64>() {
            Ok(index) => usize::try_from(index)
                .ok()
                .filter(|index| *index < self.nodes.len())
                .ok_or_else(|| error(format!("invalid stage index {index}"))),
            Err(_) => Ok(self.named_source(from, lines, span)),
        }
    }

    /// `from=` of a mount with its variables put in.
    fn mount_from(
        &mut self,
        node: usize,
        from: String,
        word: &Word,
        lines: LineRange,
        before: Option<&[Command<'a>]>,
    ) -> Result<String, Diagnostic> {
        let Err(refusal) = crate::mount::MountSpec::check_from(&from) else { return Ok(from) };
        let span = if before.is_some() { Span::default() } else { word.span };
        self.expand_from(node, &from, before).map_err(|help| {
            let error = Diagnostic::error(refusal.to_string(), lines).with_span(span).with_help(help);
            error.in_phase(Phase::Instruction)
        })
    }

    /// Puts the ARGs in scope into the name of a stage or image (see [`crate::scope`]). The error is a remedy.
    fn expand_from(
        &mut self,
        node: usize,
        from: &str,
        before: Option<&[Command<'a>]>,
    ) -> Result<String, String> {
        let mut chain = vec![];
        let mut base = self.nodes[node].base;
        while let Some(stage) = base {
            chain.push(stage);
            base = self.nodes[stage].base;
        }
        let own = before.unwrap_or(&self.nodes[node].commands);
        let commands = chain.iter().rev().flat_map(|stage| &self.nodes[*stage].commands).chain(own);
        let kinds = commands.map(|command| &command.instruction.kind);
        let scope = Scope::after(kinds, self.options, &self.globals, &self.lex, &mut self.budget);
        let scope =
            scope.ok_or("there are too many ARGs to look through: write the name without variables")?;
        scope.expand(from, &self.lex).filter(|name| !name.is_empty()).ok_or_else(|| {
            let unset =
                self.lex.process(from, &scope).map(|expansion| expansion.unmatched).unwrap_or_default();
            match unset.first() {
                Some(name) => {
                    format!(
                    "rbuild puts in values of ARGs that the stage declares above, not of ENV: add ARG {name}=value"
                )
                }
                None => "the name is empty: give the ARG a value".to_owned(),
            }
        })
    }

    /// The stage called `from`, else a new node for the image.
    fn named_source(&mut self, from: &str, lines: LineRange, span: Span) -> usize {
        if let Some(&stage) = self.by_name.get(&from.to_lowercase()) {
            return stage;
        }
        self.image(from, lines, span)
    }

    /// A new node for an image that is read from.
    fn image(&mut self, name: &str, lines: LineRange, span: Span) -> usize {
        self.nodes.push(Node {
            name: None,
            shown: String::new(),
            base_name: name.to_owned(),
            base: None,
            platform: None,
            context: None,
            lines,
            span,
            comments: &[],
            used: BTreeSet::new(),
            commands: Vec::new(),
            total: 0,
            image_only: true,
            deps: Vec::new(),
        });
        self.nodes.len() - 1
    }

    /// Puts ONBUILD triggers in front of a stage's instructions. True when they refer to further nodes.
    pub(crate) fn add_triggers(&mut self, node: usize, triggers: &[String]) -> Result<bool, Diagnostic> {
        let (lines, from) = (self.nodes[node].lines, self.nodes[node].span);
        let mut commands = Vec::with_capacity(triggers.len());
        let mut new_deps = false;
        for trigger in triggers {
            let mut instruction = crate::parse_onbuild(trigger).map_err(|error| {
                // Places of the error refer to the trigger's own text.
                let help =
                    format!("this is a trigger (ONBUILD) of the image or stage that FROM names: {trigger}");
                Diagnostic { lines, spans: Vec::new(), help: Some(help), ..error }.with_span(from)
            })?;
            instruction.lines = lines;
            let command = self.command(node, Cow::Owned(instruction), Some(&commands))?;
            new_deps |= !command.sources.is_empty();
            commands.push(command);
        }
        let node = &mut self.nodes[node];
        node.total += commands.len();
        commands.append(&mut node.commands);
        node.commands = commands;
        Ok(new_deps)
    }

    /// The triggers that a stage leaves for those which stand on it.
    pub(crate) fn triggers_of(&self, node: usize) -> Vec<String> {
        let commands = self.nodes[node].commands.iter();
        commands
            .filter_map(|command| match &command.instruction.kind {
                InstructionKind::OnBuild(on_build) => Some(on_build.expression.clone()),
                _ => None,
            })
            .collect()
    }
}
