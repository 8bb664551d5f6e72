//! `rbuild ast`: the syntax tree of a Dockerfile.

use crate::args::{AstArgs, AstFormat, BuildArgs};
use crate::output::print;
use crate::report;
use crate::request::prepare;
use anyhow::Result;
use rbuild_build::read_dockerfile;
use rbuild_frontend::dump::{dump, nodes_json};
use rbuild_frontend::{parse, render};
use serde_json::json;
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
                "nodes": nodes_json(&dockerfile),
            });
            serde_json::to_string_pretty(&document)? + "\n"
        }
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut failed = false;
    for error in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        failed = true;
        report::line(&render(error, &name, &text));
    }
    Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
}
