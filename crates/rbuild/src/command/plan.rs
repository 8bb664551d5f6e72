//! `rbuild plan`: what a build would do. Base images are resolved; nothing is executed.

use crate::args::{BuildArgs, PlanArgs, TextOrJson};
use crate::command::call::{drawn, errors, examine};
use crate::command::check::location;
use crate::output::{print, table};
use anyhow::Result;
use rbuild_build::Examined;
use rbuild_frontend::Diagnostic;
use rbuild_ir::{Definition, Op, Vertex};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &PlanArgs) -> Result<ExitCode> {
    plan(root, &args.source.build(), args.format)
}

/// 0, or the exit code of the errors.
pub(crate) fn plan(root: &Path, args: &BuildArgs, format: TextOrJson) -> Result<ExitCode> {
    let examined = examine(root, args, false)?;
    if examined.definitions.is_empty() {
        return Ok(errors(&examined).unwrap_or(ExitCode::FAILURE));
    }
    print(&match format {
        TextOrJson::Text => text(&examined),
        TextOrJson::Json => serde_json::to_string_pretty(&document(&examined)?)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Image(_) => "image",
        Op::Exec(_) => "exec",
        Op::Copy(_) => "copy",
        Op::Mkdir(_) => "mkdir",
        Op::Http(_) => "http",
        Op::Git(_) => "git",
    }
}

fn warnings(examined: &Examined) -> impl Iterator<Item = &Diagnostic> {
    examined.diagnostics.iter().filter(|diagnostic| !diagnostic.is_error())
}

/// One object for one platform; for several, one for each in `platforms`.
fn document(examined: &Examined) -> Result<Value> {
    let warnings = warnings(examined).map(|warning| {
        json!({"rule": warning.rule, "message": warning.message, "help": warning.help, "location": location(warning.lines)})
    });
    let mut document = match &examined.definitions[..] {
        [only] => for_platform(only)?,
        several => json!({"platforms": several.iter().map(for_platform).collect::<Result<Vec<Value>>>()?}),
    };
    document["dockerfile"] = examined.name.as_str().into();
    document["warnings"] = warnings.collect();
    Ok(document)
}

fn for_platform(definition: &Definition) -> Result<Value> {
    let steps = definition.vertices.iter().map(|vertex| {
        json!({
            "digest": vertex.digest.to_string(),
            "name": vertex.name,
            "stage": vertex.stage,
            "lines": [vertex.lines.start, vertex.lines.end.saturating_sub(1).max(vertex.lines.start)],
            "kind": kind(&vertex.op),
            "parent": vertex.parent.map(|parent| parent.to_string()),
            "inputs": vertex.inputs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    let image = &definition.image;
    let history = image
        .history
        .iter()
        .map(|entry| json!({"created_by": entry.created_by, "empty_layer": entry.vertex.is_none()}));
    Ok(json!({
        "platform": image.platform.to_string(),
        "root": image.root.map(|root| root.to_string()),
        "steps": steps.collect::<Vec<Value>>(),
        "config": serde_json::to_value(&image.config.config)?,
        "history": history.collect::<Vec<Value>>(),
        "source_date_epoch": image.source_date_epoch,
    }))
}

/// As many digits of a digest as tell steps apart.
const SHORT: usize = 12;

fn step(vertex: &Vertex) -> Vec<String> {
    let digest = vertex.digest.to_string();
    let short = digest.split_once(':').map_or(&*digest, |(_, hex)| hex).chars().take(SHORT).collect();
    let line = if vertex.lines.start > 0 { vertex.lines.start.to_string() } else { String::new() };
    let name = vertex.name.replace(['\n', '\r'], " ");
    vec![short, line, vertex.stage.clone(), name]
}

fn text(examined: &Examined) -> String {
    let parts = examined.definitions.iter().map(|definition| text_for(&examined.name, definition));
    let mut out = parts.collect::<Vec<_>>().join("\n");
    for warning in warnings(examined) {
        out.push_str(&format!("\n{}\n", drawn(warning, examined)));
    }
    out
}

fn text_for(dockerfile: &str, definition: &Definition) -> String {
    let image = &definition.image;
    let mut out = format!("{dockerfile} for {}\n\n", image.platform);
    let head = ["DIGEST", "LINE", "STAGE", "STEP"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = [head].into_iter().chain(definition.vertices.iter().map(step)).collect();
    out.push_str(&table(&rows));
    if let Ok(Value::Object(config)) = serde_json::to_value(&image.config.config) {
        out.push_str("\nCONFIG\n");
        let rows = config
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .flat_map(|(key, value)| entries(key, value));
        out.push_str(&table(&rows.collect::<Vec<_>>()));
    }
    out
}

/// One row for each variable, label, …; other values in one row.
fn entries(key: String, value: Value) -> Vec<Vec<String>> {
    match value {
        Value::Array(items) if key == "Env" => items
            .into_iter()
            .map(|item| {
                vec![key.clone(), item.as_str().map(str::to_owned).unwrap_or_else(|| item.to_string())]
            })
            .collect(),
        Value::Object(map) if key == "Labels" => map
            .into_iter()
            .map(|(name, value)| vec![key.clone(), format!("{name}={}", value.as_str().unwrap_or_default())])
            .collect(),
        Value::Object(map)
            if map.values().all(|value| value.as_object().is_some_and(|inner| inner.is_empty())) =>
        {
            vec![vec![key, map.keys().cloned().collect::<Vec<_>>().join(" ")]]
        }
        Value::String(text) => vec![vec![key, text]],
        other => vec![vec![key, other.to_string()]],
    }
}
