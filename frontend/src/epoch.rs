//! SOURCE_DATE_EPOCH: a number, or the name of something that has a time.

use crate::args::{EPOCH, global_args};
use crate::ast::{Dockerfile, InstructionKind, LineRange, Span, Stage};
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
    Fetched(Box<Op>),
}

/// What SOURCE_DATE_EPOCH names, so that the caller can put its time into [`LowerOptions::epoch`]. `None` for numbers, and for
/// what lowering will refuse.
pub fn epoch_source(dockerfile: &Dockerfile, options: &LowerOptions) -> Option<EpochSource> {
    let lex = Lex::new(dockerfile.directives.escape);
    let args = global_args(dockerfile, options, &lex, false).ok()?;
    let contexts = Contexts::new(&options.contexts);
    source(value(&args, options), &args, dockerfile, options, &contexts, &lex).ok()?
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
    let found = source(value, args, dockerfile, options, contexts, lex)?;
    if found.is_some() {
        // What has no time, a directory say, leaves it unset.
        return Ok(options.epoch);
    }
    let help = "give the seconds since 1970, `context`, or the name of a build context or of a stage that only adds a URL";
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
    args: &Env,
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
    let mut env: Env = args.iter().filter(|(name, _)| *name != EPOCH).collect();
    only_source(stage, &mut env, options, lex).map(Some).map_err(|reason| {
        let help =
            "such a stage stands on scratch and has one ADD of one URL or git repository, and ARGs at most";
        Diagnostic::error(reason, stage.instruction.lines)
            .with_span(stage.instruction.keyword.span)
            .with_help(help)
    })
}

/// The operation that fetches what the only ADD of a stage adds.
fn only_source(
    stage: &Stage,
    env: &mut Env,
    options: &LowerOptions,
    lex: &Lex,
) -> Result<EpochSource, String> {
    let expand = |text: &str, env: &Env| lex.word(text, env).map_err(|error| error.to_string());
    if expand(stage.from.image.as_str(), env)? != "scratch" {
        return Err(format!("{EPOCH} stage must use FROM scratch"));
    }
    let mut found = None;
    for command in &stage.commands {
        match &command.kind {
            InstructionKind::Arg(arg) => {
                for pair in &arg.pairs {
                    let name = pair.name.as_str();
                    match (options.build_arg(name), &pair.default) {
                        (Some(value), _) => env.set(name, value),
                        (None, Some(default)) => env.set(name, &expand(default.as_str(), env)?),
                        (None, None) => {}
                    }
                }
            }
            InstructionKind::Add(add) => {
                let one = || format!("{EPOCH} stage must contain exactly one remote ADD");
                if found.is_some() {
                    return Err(one());
                }
                let [source] = &add.paths.sources[..] else { return Err(one() + " source") };
                if !add.paths.contents.is_empty() {
                    return Err(one() + " source");
                }
                let source = expand(source.as_str(), env)?;
                let checksum = add.checksum.as_ref().map(|word| expand(word.as_str(), env)).transpose()?;
                let op = fetched_source(&source, checksum.as_deref(), add.keep_git_dir)?;
                let local = || format!("{EPOCH} stage source must be a single HTTP(S) or Git ADD");
                found = Some(op.ok_or_else(local)?);
            }
            _ => {
                let keyword = command.keyword.as_str().to_uppercase();
                return Err(format!(
                    "{EPOCH} stage does not meet source-only requirements: unsupported {keyword} instruction"
                ));
            }
        }
    }
    let missing = || format!("{EPOCH} stage must contain exactly one remote ADD");
    found.map(|op| EpochSource::Fetched(Box::new(op))).ok_or_else(missing)
}
