//! Global arguments: platform arguments, `ARG`s before the first FROM, SOURCE_DATE_EPOCH (A5).

use crate::ast::{Dockerfile, InstructionKind, Stage, Word};
use crate::diagnostic::Diagnostic;
use crate::env::{Env, Lookup};
use crate::lower::unsupported::Unsupported;
use crate::lower::{LowerOptions, is_remote};
use crate::shell::Lex;
use rbuild_oci::Platform;

/// The magic argument.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Proxies that need no declaration, lower case.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Arguments that never reach a RUN's environment.
pub(crate) const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// BUILDPLATFORM, TARGETPLATFORM, their parts and TARGETSTAGE; build arguments override them.
fn platform_args(options: &LowerOptions, target: &str) -> Env {
    let mut args = Env::new();
    let mut set = |name: String, value: &str| {
        let value = options.build_arg(&name).unwrap_or(value);
        args.set(&name, value);
    };
    let mut set_platform = |prefix: &str, platform: &Platform| {
        set(format!("{prefix}PLATFORM"), &platform.format_all());
        set(format!("{prefix}OS"), &platform.os);
        set(format!("{prefix}OSVERSION"), platform.os_version.as_deref().unwrap_or_default());
        set(format!("{prefix}ARCH"), &platform.architecture);
        set(format!("{prefix}VARIANT"), platform.variant.as_deref().unwrap_or_default());
    };
    set_platform("BUILD", &options.build_platform);
    set_platform("TARGET", options.platform());
    set("TARGETSTAGE".into(), target);
    args
}

/// The global arguments with their values; with `defaults_only` as if no ARG were given a value.
pub(crate) fn global_args(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    lex: &Lex,
    defaults_only: bool,
) -> Result<Env, Diagnostic> {
    let last = dockerfile.stages.last().and_then(|stage| stage.name.as_deref());
    let target = options.target.as_deref().or(last).unwrap_or("default");
    let mut args = platform_args(options, target);
    for instruction in &dockerfile.meta_args {
        let InstructionKind::Arg(arg) = &instruction.kind else { continue };
        for pair in &arg.pairs {
            let name = pair.name.as_str();
            let given = options.build_arg(name).filter(|_| !defaults_only);
            let value = match (given, &pair.default) {
                (Some(value), _) => value.to_owned(),
                (None, Some(default)) => lex
                    .word(default.as_str(), &args)
                    .map_err(|error| Diagnostic::error(error.to_string(), instruction.lines))?,
                (None, None) => continue,
            };
            args.set(name, &value);
        }
    }
    Ok(args)
}

/// SOURCE_DATE_EPOCH in seconds: the build argument, else the global default.
pub(crate) fn epoch(
    args: &Env,
    options: &LowerOptions,
    dockerfile: &Dockerfile,
    lex: &Lex,
    is_context: impl Fn(&str) -> bool,
) -> Result<Option<i64>, Diagnostic> {
    let value = options.build_arg(EPOCH).or_else(|| args.get(EPOCH)).unwrap_or_default();
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Some(seconds));
    }
    let stage = dockerfile
        .stages
        .iter()
        .find(|stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(value)));
    let lines = stage.map(|stage| stage.instruction.lines).unwrap_or_default();
    if value != "context"
        && !is_context(value)
        && let Some(stage) = stage
    {
        check_source_stage(stage, args, options, lex).map_err(|message| {
            let help =
                "a stage that gives the time is FROM scratch with one ADD of a URL or a git repository";
            Diagnostic::error(message, lines).with_help(help)
        })?;
    }
    if stage.is_some() || value == "context" || is_context(value) {
        return Err(Unsupported::EpochOfSource.diagnostic(lines));
    }
    Err(Diagnostic::error(format!("invalid {EPOCH}: {value}"), lines))
}

/// Whether a stage is one remote source and nothing else.
fn check_source_stage(stage: &Stage, args: &Env, options: &LowerOptions, lex: &Lex) -> Result<(), String> {
    let mut env: Env = args.iter().filter(|(name, _)| *name != EPOCH).collect();
    let expand = |word: &Word, env: &Env| lex.word(word.as_str(), env).map_err(|error| error.to_string());
    if expand(&stage.from.image, &env)? != "scratch" {
        return Err(format!("{EPOCH} stage must use FROM scratch"));
    }
    let mut found = false;
    for instruction in &stage.commands {
        match &instruction.kind {
            InstructionKind::Arg(arg) => {
                for pair in &arg.pairs {
                    let name = pair.name.as_str();
                    match (options.build_arg(name), &pair.default) {
                        (Some(value), _) => env.set(name, value),
                        (None, Some(default)) => env.set(name, &expand(default, &env)?),
                        (None, None) => {}
                    }
                }
            }
            InstructionKind::Add(_) if found => {
                return Err(format!("{EPOCH} stage must contain exactly one remote ADD"));
            }
            InstructionKind::Add(add) => {
                let [source] = &add.paths.sources[..] else {
                    return Err(format!("{EPOCH} stage must contain exactly one remote ADD source"));
                };
                if !add.paths.contents.is_empty() {
                    return Err(format!("{EPOCH} stage must contain exactly one remote ADD source"));
                }
                if add.keep_git_dir.is_none() && !is_remote(&expand(source, &env)?) {
                    return Err(format!("{EPOCH} stage source must be a single HTTP(S) or Git ADD"));
                }
                found = true;
            }
            _ => {
                let keyword = instruction.keyword.as_str().to_uppercase();
                let why = format!("unsupported {keyword} instruction");
                return Err(format!("{EPOCH} stage does not meet source-only requirements: {why}"));
            }
        }
    }
    match found {
        true => Ok(()),
        false => Err(format!("{EPOCH} stage must contain exactly one remote ADD")),
    }
}

/// Undeclared proxies among the build arguments, in both cases of spelling.
pub(crate) fn proxies(options: &LowerOptions) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in PROXIES {
        let mut given: Vec<_> =
            options.build_args.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).collect();
        given.sort();
        if let Some((_, value)) = given.last().filter(|(_, value)| !value.is_empty()) {
            out.push((name.to_ascii_uppercase(), value.clone()));
            out.push((name.to_owned(), value.clone()));
        }
    }
    out
}
