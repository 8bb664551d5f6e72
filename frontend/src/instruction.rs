//! From [`Node`]s to typed instructions. Order of checks and texts of errors are BuildKit's.

mod command;
mod config;
mod copy;
mod from;
mod pairs;

use crate::ast::{Instruction, InstructionKind, Node, Span, Word};
use crate::diagnostic::{Diagnostic, Phase};
use crate::flag::{Flags, Known};
use crate::suggest::suggest;

/// Every keyword, in the order of suggestions.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const NO_FLAGS: Known = &[];

/// Why an instruction is refused.
#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    span: Span,
    help: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, span: Span) -> Self {
        Fault { message: message.into(), span, help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Types one instruction. `index` is the node's place in its file.
pub(crate) fn type_instruction(node: &Node, index: usize) -> Result<Instruction, Diagnostic> {
    let kind = type_kind(node).map_err(|fault| {
        let span = if fault.span.is_empty() { node.span } else { fault.span };
        let error = Diagnostic::error(fault.message, node.lines).with_span(span).in_phase(Phase::Instruction);
        Diagnostic { help: fault.help.or(error.help), ..error }
    })?;
    Ok(Instruction {
        keyword: node.keyword.clone(),
        kind,
        original: node.original.clone(),
        lines: node.lines,
        span: node.span,
        prev_comments: node.prev_comments.clone(),
        node: index,
    })
}

fn type_kind(node: &Node) -> Result<InstructionKind, Fault> {
    Ok(match node.keyword.value.to_lowercase().as_str() {
        "add" => InstructionKind::Add(copy::add(node)?),
        "arg" => InstructionKind::Arg(pairs::arg(node)?),
        "cmd" => InstructionKind::Cmd(command::cmd(node)?),
        "copy" => InstructionKind::Copy(copy::copy(node)?),
        "entrypoint" => InstructionKind::Entrypoint(command::cmd(node)?),
        "env" => InstructionKind::Env(pairs::env_or_label(node)?),
        "expose" => InstructionKind::Expose(config::expose(node)?),
        "from" => InstructionKind::From(from::from(node)?),
        "healthcheck" => InstructionKind::Healthcheck(config::healthcheck(node)?),
        "label" => InstructionKind::Label(pairs::env_or_label(node)?),
        "maintainer" => InstructionKind::Maintainer(config::one_word(node)?),
        "onbuild" => InstructionKind::OnBuild(config::onbuild(node)?),
        "run" => InstructionKind::Run(command::run(node)?),
        "shell" => InstructionKind::Shell(command::shell(node)?),
        "stopsignal" => InstructionKind::StopSignal(config::stop_signal(node)?),
        "user" => InstructionKind::User(config::one_word(node)?),
        "volume" => InstructionKind::Volume(config::volume(node)?),
        "workdir" => InstructionKind::Workdir(config::one_word(node)?),
        _ => return Err(unknown(&node.keyword)),
    })
}

fn unknown(keyword: &Word) -> Fault {
    let message = format!("unknown instruction: {}", keyword.value);
    match suggest(&keyword.value, KEYWORDS, false) {
        Some(word) => {
            // Of several words that are equally near, the one with the same letters is meant.
            let help = anagram(&keyword.value).map_or(word.clone(), str::to_owned);
            Fault::new(format!("{message} (did you mean {word}?)"), keyword.span).help(format!("write {help}"))
        }
        None => Fault::new(message, keyword.span).help(match continues(&keyword.value) {
            true => "the line before it has to end in `\\` if this belongs to it: nothing may stand behind the `\\`",
            false => "begin the line with an instruction, or end the line before it with a continuation character",
        }),
    }
}

/// The keyword with the same letters in another order.
fn anagram(word: &str) -> Option<&'static str> {
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.to_uppercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    let wanted = sorted(word);
    KEYWORDS.into_iter().find(|keyword| sorted(keyword) == wanted)
}

/// A line that begins so was meant to continue the one before it.
fn continues(word: &str) -> bool {
    word.starts_with(['&', '|', ';', '-', '>', '<', '#', '"', '\'', '[', ']', '(', ')', '$', '/', '.'])
}

/// The keyword as errors spell it.
fn name(node: &Node) -> String {
    node.keyword.value.to_uppercase()
}

fn no_flags(node: &Node) -> Result<(), Fault> {
    Flags::parse(&node.flags, NO_FLAGS).map(|_| ())
}

fn at_least_one(node: &Node) -> Fault {
    Fault::new(format!("{} requires at least one argument", name(node)), node.span)
}
