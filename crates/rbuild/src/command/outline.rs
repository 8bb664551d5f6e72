//! `--call=outline` and `--call=targets`: the parameters of a build, as BuildKit prints them (D-019).

use crate::args::{BuildArgs, TextOrJson};
use crate::command::call::{errors, examine};
use crate::command::check::location;
use crate::output::{print, table};
use crate::report;
use crate::request::prepare;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_build::{other_frontend, read_dockerfile};
use rbuild_frontend::ast::Dockerfile;
use rbuild_frontend::{Diagnostic, Outline, OutlineMount, Target, parse, render};
use serde_json::{Map, Value, json};
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

fn outline_text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    if outline.name.is_some() || !outline.description.is_empty() {
        let mut rows = vec![row(&["TARGET:", outline.name.as_deref().unwrap_or(NAMELESS)])];
        if !outline.description.is_empty() {
            rows.push(row(&["DESCRIPTION:", &outline.description]));
        }
        parts.push(rows);
    }
    if !outline.args.is_empty() {
        let args = outline.args.iter().map(|arg| row(&[&arg.name, &arg.value, &arg.description]));
        parts.push([row(&["BUILD ARG", "VALUE", "DESCRIPTION"])].into_iter().chain(args).collect());
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let mounts =
                mounts.iter().map(|mount| row(&[&mount.id, if mount.required { "true" } else { "" }]));
            parts.push([row(&[title, "REQUIRED"])].into_iter().chain(mounts).collect());
        }
    }
    if !outline.cache.is_empty() {
        let mounts = outline.cache.iter().map(|mount| row(&[&mount.id]));
        parts.push([row(&["CACHE MOUNT"])].into_iter().chain(mounts).collect());
    }
    parts.iter().map(|rows| table(rows)).collect::<Vec<_>>().join("\n")
}

fn outline_json(outline: &Outline, text: &str) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            map.insert(key.to_owned(), value);
        }
    };
    put("name", outline.name.as_deref().unwrap_or_default().into());
    put("description", outline.description.as_str().into());
    let args = outline.args.iter().map(|arg| {
        json!({
            "name": arg.name, "description": arg.description, "value": arg.value, "location": location(arg.lines),
        })
    });
    put("args", args.collect());
    let mount = |mount: &OutlineMount| json!({"name": mount.id, "required": mount.required, "location": location(mount.lines)});
    put("secrets", outline.secrets.iter().map(mount).collect());
    put("ssh", outline.ssh.iter().map(mount).collect());
    let cache = outline.cache.iter().map(|mount| json!({"ID": mount.id, "location": location(mount.lines)}));
    put("cache", cache.collect());
    put("sources", json!([STANDARD.encode(text)]));
    Value::Object(map)
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
            // It can only be reached from other stages.
            (None, false) => continue,
        };
        rows.push(vec![name, target.description.clone()]);
    }
    table(&rows)
}

fn targets_json(targets: &[Target], text: &str) -> Value {
    let targets = targets.iter().map(|target| {
        let mut map = Map::new();
        let fields = [
            ("name", target.name.as_deref().unwrap_or_default()),
            ("description", &target.description),
            ("base", &target.base),
            ("platform", &target.platform),
        ];
        for (key, value) in fields {
            if !value.is_empty() {
                map.insert(key.to_owned(), value.into());
            }
        }
        if target.default {
            map.insert("default".into(), true.into());
        }
        map.insert("location".into(), location(target.lines));
        Value::Object(map)
    });
    json!({"targets": targets.collect::<Vec<Value>>(), "sources": [STANDARD.encode(text)]})
}
