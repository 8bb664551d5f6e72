//! `rbuild ast`: the syntax tree of a Dockerfile.

use crate::args::{AstArgs, AstFormat, BuildArgs};
use crate::output::print;
use crate::report;
use crate::request::prepare;
use anyhow::Result;
use rbuild_build::read_dockerfile;
use rbuild_frontend::ast::{Dockerfile, Span};
use rbuild_frontend::dump::{dump, nodes_json};
use rbuild_frontend::{Diagnostic, parse, render};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Whatever could be read is printed, also of a file with errors; these go to standard error (exit code 2).
pub(crate) fn run(args: &AstArgs) -> Result<ExitCode> {
    let build = BuildArgs {
        context: Some(args.context.clone()),
        file: args.file.clone(),
        network: "default".into(),
        ..BuildArgs::default()
    };
    let (name, bytes) = read_dockerfile(&prepare(&build)?.request)?;
    let (dockerfile, diagnostics) = parse(&bytes);
    let directives = &dockerfile.directives;
    print(&match args.format {
        AstFormat::Sexp => dump(&dockerfile) + "\n",
        AstFormat::Json => {
            let document = json!({
                "file": name,
                "escape": directives.escape,
                "syntax": directives.syntax.as_ref().map(|word| word.as_str()),
                "check": directives.check.as_ref().map(|word| word.as_str()),
                "nodes": nodes(&dockerfile),
                "diagnostics": diagnostics.iter().map(described).collect::<Vec<Value>>(),
            });
            serde_json::to_string_pretty(&document)? + "\n"
        }
    })?;
    let text = rbuild_frontend::decode(&bytes);
    let mut failed = false;
    for error in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        failed = true;
        report::line(&render(error, &name, &text));
    }
    Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Byte offsets: the first, and the one past the last.
fn range(span: Span) -> Value {
    json!([span.start, span.end])
}

/// The nodes with their places in the text.
fn nodes(dockerfile: &Dockerfile) -> Value {
    let mut nodes = nodes_json(dockerfile);
    for (shown, node) in nodes.as_array_mut().into_iter().flatten().zip(&dockerfile.nodes) {
        shown["span"] = range(node.span);
        shown["keyword_span"] = range(node.keyword.span);
        shown["flag_spans"] = node.flags.iter().map(|word| range(word.span)).collect();
        shown["arg_spans"] = node.args.iter().map(|word| range(word.span)).collect();
    }
    nodes
}

fn described(diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": if diagnostic.is_error() { "error" } else { "warning" },
        "rule": diagnostic.rule,
        "message": diagnostic.full_message(),
        "help": diagnostic.help,
        "lines": [diagnostic.lines.start, diagnostic.lines.end],
        "spans": diagnostic.spans.iter().map(|span| range(*span)).collect::<Vec<Value>>(),
    })
}
