//! SOURCE_DATE_EPOCH: a number, or the name of something that has a time.

use crate::args::{EPOCH, global_args};
use crate::ast::{Dockerfile, Instruction, InstructionKind, LineRange, Span, Stage};
use crate::diagnostic::Diagnostic;
use crate::env::{Env, Lookup};
use crate::lower::{Contexts, LowerOptions, fetched_source};
use crate::shell::Lex;
use rbuild_ir::Op;

/// The value that means the main context.
const CONTEXT: &str = "context";

/// What SOURCE_DATE_EPOCH is to be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// The main context.
    Context,
    /// A named context, as it is written.
    Named(String),
    /// The only thing that a stage adds: [`Op::Http`] or [`Op::Git`].
    Fetched(Op),
}

/// What SOURCE_DATE_EPOCH names, so that the caller can put its time into [`LowerOptions::epoch`]. `None` for numbers, and for
/// what lowering will refuse.
pub fn epoch_source(dockerfile: &Dockerfile, options: &LowerOptions) -> Option<EpochSource> {
    let lex = Lex::new(dockerfile.directives.escape);
    let args = global_args(dockerfile, options, &lex, false).ok()?;
    let contexts = Contexts::new(&options.contexts);
    source(value(&args, options), dockerfile, options, &contexts, &lex).ok()?
}

fn value<'a>(args: &'a Env, options: &'a LowerOptions) -> &'a str {
    options.build_arg(EPOCH).or_else(|| args.get(EPOCH)).unwrap_or_default()
}

/// SOURCE_DATE_EPOCH in seconds: the build argument, else the global default.
pub(crate) fn epoch(
    args: &Env,
    options: &LowerOptions,
    dockerfile: &Dockerfile,
    contexts: &Contexts,
    lex: &Lex,
) -> Result<Option<i64>, Diagnostic> {
    let value = value(args, options);
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Some(seconds));
    }
    let found = source(value, dockerfile, options, contexts, lex)?;
    if let (Some(_), Some(seconds)) = (&found, options.epoch) {
        return Ok(Some(seconds));
    }
    let help = match found {
        Some(_) => {
            "it has no time of its own: give the seconds since 1970, or take a git repository, a URL or an archive"
        }
        None => {
            "give the seconds since 1970, `context`, or the name of a build context or of a stage that only adds a URL"
        }
    };
    let (lines, span) = place(dockerfile, options);
    Err(Diagnostic::error(format!("invalid {EPOCH}: {value}"), lines).with_span(span).with_help(help))
}

/// Where the value stands, if it does in the file.
fn place(dockerfile: &Dockerfile, options: &LowerOptions) -> (LineRange, Span) {
    if options.build_arg(EPOCH).is_some() {
        return Default::default();
    }
    let args = dockerfile.meta_args.iter().filter_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => Some((instruction.lines, &arg.pairs)),
        _ => None,
    });
    let pairs = args.flat_map(|(lines, pairs)| pairs.iter().map(move |pair| (lines, pair)));
    let mut pairs = pairs.filter(|(_, pair)| pair.name.as_str() == EPOCH);
    let last = pairs.next_back();
    last.map(|(lines, pair)| (lines, pair.default.as_ref().unwrap_or(&pair.name).span)).unwrap_or_default()
}

fn source(
    value: &str,
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    contexts: &Contexts,
    lex: &Lex,
) -> Result<Option<EpochSource>, Diagnostic> {
    if value == CONTEXT {
        return Ok(Some(EpochSource::Context));
    }
    if value.is_empty() || value.parse::<i64>().is_ok() {
        return Ok(None);
    }
    let named = |stage: &&Stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(value));
    if let Some((written, _)) = contexts.find(value, options.platform()) {
        return Ok(Some(EpochSource::Named(written.clone())));
    }
    let Some(stage) = dockerfile.stages.iter().find(named) else { return Ok(None) };
    let refused = |reason: &str| {
        let message = format!("{EPOCH} stage does not meet source-only requirements: {reason}");
        let help =
            "the stage stands on scratch and has one ADD of one URL or git repository, and nothing else";
        Diagnostic::error(message, stage.instruction.lines)
            .with_span(stage.instruction.keyword.span)
            .with_help(help)
    };
    if stage.from.image.as_str() != "scratch" {
        return Err(refused("base image must be scratch"));
    }
    match stage.commands.as_slice() {
        [] => Err(refused("it has no ADD")),
        [command] => only_source(command, options, lex).map(Some).map_err(|reason| refused(&reason)),
        [_, more, ..] => Err(refused(&unsupported(more))),
    }
}

fn unsupported(command: &Instruction) -> String {
    match &command.kind {
        InstructionKind::Add(_) => "multiple ADD instructions".to_owned(),
        _ => format!("unsupported {} instruction", command.keyword.as_str().to_uppercase()),
    }
}

/// The operation that fetches the only source of an ADD. Arguments of the stage cannot be: there is only this instruction.
fn only_source(command: &Instruction, options: &LowerOptions, lex: &Lex) -> Result<EpochSource, String> {
    let InstructionKind::Add(add) = &command.kind else { return Err(unsupported(command)) };
    let [source] = add.paths.sources.as_slice() else { return Err("ADD must have one source".to_owned()) };
    let expand = |text: &str| lex.word(text, &Env::new()).map_err(|error| error.to_string());
    let source = expand(source.as_str())?;
    let checksum = add.checksum.as_ref().map(|word| expand(word.as_str())).transpose()?;
    let _ = options;
    match fetched_source(&source, checksum.as_deref(), add.keep_git_dir)? {
        Some(op) => Ok(EpochSource::Fetched(op)),
        None => Err("ADD source must be remote".to_owned()),
    }
}
