//! `--call` and `--check`: looking at a Dockerfile instead of building it (D-019).

use crate::args::{BuildArgs, ReportFormat, TextOrJson};
use crate::command::build::surroundings;
use crate::command::{check, outline, plan};
use crate::exit::Usage;
use crate::output::{print, tabbed};
use crate::report;
use crate::request::prepare;
use anyhow::{Context as _, Result};
use rbuild_build::Examined;
use rbuild_frontend::{Diagnostic, render, render_colored};
use rbuild_progress::{Mode, Progress};
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

/// What to do instead of building.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Plan,
    Describe,
}

/// `METHOD[,format=…][,ignorestatus=…]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    method: Method,
    format: ReportFormat,
    /// Exit with 0 also when something was found.
    ignore_status: bool,
}

const METHODS: [(&str, Method); 6] = [
    ("build", Method::Build),
    ("check", Method::Check),
    ("outline", Method::Outline),
    ("targets", Method::Targets),
    ("plan", Method::Plan),
    ("subrequests.describe", Method::Describe),
];

/// What `subrequests.describe` lists, as the Dockerfile frontend does; the last one is ours.
const DESCRIBED: [(&str, &str); 5] = [
    ("outline", "List all parameters current build target supports"),
    ("targets", "List all targets current build supports"),
    ("subrequests.describe", "List available subrequest types"),
    ("lint", "Lint a Dockerfile"),
    ("plan", "Show what a build would do"),
];

fn parse(text: &str) -> Result<Call> {
    let mut fields = text.split(',');
    let name = fields.next().unwrap_or_default();
    let name = if name == "lint" { "check" } else { name };
    let found = METHODS.iter().find(|(known, _)| *known == name);
    let (_, method) = found.ok_or_else(|| {
        let known = METHODS.map(|(name, _)| name);
        let message = format!("--call: there is no method `{name}`: it is one of {}", known.join(", "));
        Usage::new(rbuild_frontend::suggest::with_suggestion(message, name, known, true))
    })?;
    let mut call = Call { method: *method, format: ReportFormat::Text, ignore_status: false };
    for field in fields {
        match field.split_once('=').unwrap_or((field, "true")) {
            ("format", "json") => call.format = ReportFormat::Json,
            ("format", "text") => call.format = ReportFormat::Text,
            ("format", "sarif") if *method == Method::Check => call.format = ReportFormat::Sarif,
            ("ignorestatus", value @ ("true" | "1" | "false" | "0")) => {
                call.ignore_status = matches!(value, "true" | "1");
            }
            _ => {
                let problem =
                    format!("--call: `{field}` is not understood: write format=json or ignorestatus=true");
                return Err(Usage::new(problem).into());
            }
        }
    }
    Ok(call)
}

/// Does what `--call` or `--check` ask for; `None` when a build is wanted.
pub(crate) fn run(root: &Path, args: &BuildArgs) -> Result<Option<ExitCode>> {
    let call = match (&args.call, args.check) {
        (Some(text), _) => parse(text)?,
        (None, true) => parse("check")?,
        (None, false) => return Ok(None),
    };
    let format = match call.format {
        ReportFormat::Json => TextOrJson::Json,
        ReportFormat::Text | ReportFormat::Sarif => TextOrJson::Text,
    };
    let code = match call.method {
        Method::Build => return Ok(None),
        Method::Check => check::check(root, args, call.format)?,
        Method::Outline => outline::outline(root, args, format)?,
        Method::Targets => outline::targets(args, format)?,
        Method::Plan => plan::plan(root, args, format)?,
        Method::Describe => describe(format)?,
    };
    Ok(Some(if call.ignore_status { ExitCode::SUCCESS } else { code }))
}

fn describe(format: TextOrJson) -> Result<ExitCode> {
    const VERSION: &str = "1.0.0";
    print(&match format {
        TextOrJson::Text => {
            let rows = [("NAME", "VERSION", "DESCRIPTION")].into_iter();
            let rows = rows.chain(DESCRIBED.map(|(name, text)| (name, VERSION, text)));
            let rows: Vec<_> =
                rows.map(|(name, version, text)| [name, version, text].map(str::to_owned).into()).collect();
            tabbed(&rows, 1)
        }
        TextOrJson::Json => {
            let requests = DESCRIBED.map(|(name, text)| {
                json!({"name": format!("frontend.{name}"), "version": VERSION, "type": "rpc", "description": text})
            });
            serde_json::to_string_pretty(&requests)? + "\n"
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Looks at the Dockerfile that the arguments name; base images are resolved as for a build.
pub(crate) fn examine(root: &Path, args: &BuildArgs, all_stages: bool) -> Result<Examined> {
    let prepared = prepare(args)?;
    for text in &prepared.warnings {
        report::line(&format!("WARN: {text}"));
    }
    let (progress, reporter) = Progress::start(Mode::Quiet, std::io::stderr());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let surroundings = surroundings(root);
    let examining = rbuild_build::examine(&surroundings, &prepared.request, all_stages, &reporter);
    let examined = runtime.block_on(examining);
    drop(reporter);
    progress.finish();
    runtime.shutdown_background();
    Ok(examined?)
}

/// Draws a diagnostic for standard output.
pub(crate) fn drawn(diagnostic: &Diagnostic, examined: &Examined) -> String {
    let colored = std::io::stdout().is_terminal() && crate::request::environment("NO_COLOR").is_none();
    let render = if colored { render_colored } else { render };
    render(diagnostic, &examined.name, &examined.text)
}

/// Draws the errors of a file on standard error. The exit code if there are any: 3 when a registry is to blame.
pub(crate) fn errors(examined: &Examined) -> Option<ExitCode> {
    let mut errors = examined.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).peekable();
    errors.peek()?;
    for error in errors {
        report::line(&render(error, &examined.name, &examined.text));
    }
    Some(ExitCode::from(if examined.registry_failed { 3 } else { 2 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_their_options() {
        let call = |method, format, ignore_status| Call { method, format, ignore_status };
        for (text, expected) in [
            ("check", call(Method::Check, ReportFormat::Text, false)),
            ("lint,format=sarif", call(Method::Check, ReportFormat::Sarif, false)),
            ("outline,format=json,ignorestatus=true", call(Method::Outline, ReportFormat::Json, true)),
            ("targets,ignorestatus=0", call(Method::Targets, ReportFormat::Text, false)),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in ["", "chek", "outline,format=sarif", "check,format=xml", "check,status"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("chek").unwrap_err().to_string().ends_with("(did you mean check?)"));
    }
}
