//! `--call=outline` and `--call=targets`: the parameters of a build, as BuildKit prints them (D-019).

use crate::args::{BuildArgs, TextOrJson};
use crate::command::call::{errors, examine};
use crate::command::check::location;
use crate::output::{print, tabbed};
use crate::report;
use crate::request::prepare;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_build::{other_frontend, read_dockerfile};
use rbuild_frontend::ast::Dockerfile;
use rbuild_frontend::{Diagnostic, Outline, OutlineMount, Target, parse, render};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Name of a target that has none.
const NAMELESS: &str = "(default)";

/// The parameters of the target.
pub(crate) fn outline(root: &Path, args: &BuildArgs, format: TextOrJson) -> Result<ExitCode> {
    let examined = examine(root, args, false)?;
    let Some(outline) = &examined.outline else {
        return Ok(errors(&examined).unwrap_or(ExitCode::FAILURE));
    };
    print(&match format {
        TextOrJson::Text => outline_text(outline),
        TextOrJson::Json => serde_json::to_string_pretty(&outline_json(outline, &examined.text))? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Tables with an empty line behind each.
fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    let mut section = |rows: &[Vec<String>], padding| text.push_str(&(tabbed(rows, padding) + "\n"));
    if outline.name.is_some() || !outline.description.is_empty() {
        let mut rows = vec![row(&["TARGET:", outline.name.as_deref().unwrap_or(NAMELESS)])];
        if !outline.description.is_empty() {
            rows.push(row(&["DESCRIPTION:", &outline.description]));
        }
        section(&rows, 1);
    }
    if !outline.args.is_empty() {
        let args = outline.args.iter().map(|arg| row(&[&arg.name, &arg.value, &arg.description]));
        let rows: Vec<_> = [row(&["BUILD ARG", "VALUE", "DESCRIPTION"])].into_iter().chain(args).collect();
        section(&rows, 3);
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let mounts =
                mounts.iter().map(|mount| row(&[&mount.id, if mount.required { "true" } else { "" }]));
            let rows: Vec<_> = [row(&[title, "REQUIRED"])].into_iter().chain(mounts).collect();
            section(&rows, 3);
        }
    }
    // BuildKit has a place for these in its document, but neither fills nor prints it.
    if !outline.cache.is_empty() {
        let mounts = outline.cache.iter().map(|mount| row(&[&mount.id]));
        let rows: Vec<_> = [row(&["CACHE MOUNT"])].into_iter().chain(mounts).collect();
        section(&rows, 3);
    }
    text
}

/// A document without its empty fields.
fn filled<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| {
        let list = value.as_array().is_some_and(Vec::is_empty);
        list || value.as_str() == Some("") || value == &Value::Bool(false)
    };
    let fields = fields.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn outline_json(outline: &Outline, text: &str) -> Value {
    let args = outline.args.iter().map(|arg| {
        filled([
            ("name", arg.name.as_str().into()),
            ("description", arg.description.as_str().into()),
            ("value", arg.value.as_str().into()),
            ("location", location(arg.lines)),
        ])
    });
    let mount = |mount: &OutlineMount| {
        filled([
            ("name", mount.id.as_str().into()),
            ("required", mount.required.into()),
            ("location", location(mount.lines)),
        ])
    };
    let cache = outline.cache.iter().map(|mount| json!({"ID": mount.id, "location": location(mount.lines)}));
    filled([
        ("name", outline.name.as_deref().unwrap_or_default().into()),
        ("description", outline.description.as_str().into()),
        ("args", args.collect()),
        ("secrets", outline.secrets.iter().map(mount).collect()),
        ("ssh", outline.ssh.iter().map(mount).collect()),
        ("cache", cache.collect()),
        ("sources", json!([STANDARD.encode(text)])),
    ])
}

/// The stages that can be built. Needs the text only.
pub(crate) fn targets(args: &BuildArgs, format: TextOrJson) -> Result<ExitCode> {
    let request = prepare(args)?.request;
    let (name, bytes) = read_dockerfile(&request)?;
    let text = rbuild_frontend::decode(&bytes);
    let (dockerfile, diagnostics) = match other_frontend(&request, &bytes) {
        Some(refusal) => (Dockerfile::default(), vec![refusal]),
        None => parse(&bytes),
    };
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    if !errors.is_empty() {
        errors.iter().for_each(|error| report::line(&render(error, &name, &text)));
        return Ok(ExitCode::from(2));
    }
    let targets = rbuild_frontend::targets(&dockerfile);
    print(&match format {
        TextOrJson::Text => targets_text(&targets),
        TextOrJson::Json => serde_json::to_string_pretty(&targets_json(&targets, &text))? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

fn targets_text(targets: &[Target]) -> String {
    let mut rows = vec![row(&["TARGET", "DESCRIPTION"])];
    for target in targets {
        let name = match (&target.name, target.default) {
            (Some(name), true) => format!("{name} {NAMELESS}"),
            (Some(name), false) => name.clone(),
            (None, true) => NAMELESS.to_owned(),
            // It can only be reached from other stages, but its line is there.
            (None, false) => String::new(),
        };
        rows.push(vec![name, target.description.clone()]);
    }
    tabbed(&rows, 1)
}

fn targets_json(targets: &[Target], text: &str) -> Value {
    let targets = targets.iter().map(|target| {
        filled([
            ("name", target.name.as_deref().unwrap_or_default().into()),
            ("default", target.default.into()),
            ("description", target.description.as_str().into()),
            ("base", target.base.as_str().into()),
            ("platform", target.platform.as_str().into()),
            ("location", location(target.lines)),
        ])
    });
    json!({"targets": targets.collect::<Vec<Value>>(), "sources": [STANDARD.encode(text)]})
}
