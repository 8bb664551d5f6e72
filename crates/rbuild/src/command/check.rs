//! `rbuild check`: build checks, as text, as BuildKit's JSON, and as SARIF.

use crate::args::{BuildArgs, CheckArgs, ReportFormat};
use crate::command::call::{drawn, examine};
use crate::output::print;
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_build::Examined;
use rbuild_frontend::Diagnostic;
use rbuild_frontend::ast::LineRange;
use rbuild_frontend::lint::{VIOLATION, rule};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &CheckArgs) -> Result<ExitCode> {
    check(root, &args.source.build(), args.format)
}

/// 0 when nothing was found, 1 for warnings, 2 for errors, 3 when a registry is to blame. Without a target all stages
/// are checked.
pub(crate) fn check(root: &Path, args: &BuildArgs, format: ReportFormat) -> Result<ExitCode> {
    let mut examined = examine(root, args, args.target.is_none())?;
    // The warnings themselves are reported, and are an error here anyway.
    examined
        .diagnostics
        .retain(|diagnostic| !(diagnostic.is_error() && diagnostic.message.starts_with(VIOLATION)));
    let mut seen = BTreeSet::new();
    let key = |diagnostic: &Diagnostic| {
        (diagnostic.message.clone(), diagnostic.lines.start, diagnostic.spans.first().copied())
    };
    // A word that is used twice in one instruction needs one report if both are at the same place.
    examined.diagnostics.retain(|diagnostic| seen.insert(key(diagnostic)));
    let failed = examined.diagnostics.iter().any(Diagnostic::is_error);
    let warned = examined.diagnostics.iter().any(|diagnostic| !diagnostic.is_error());
    print(&match format {
        ReportFormat::Text => text(&examined),
        ReportFormat::Json => serde_json::to_string_pretty(&lint_result(&examined))? + "\n",
        ReportFormat::Sarif => serde_json::to_string_pretty(&sarif(&examined))? + "\n",
    })?;
    Ok(match (failed, warned) {
        (true, _) => ExitCode::from(if examined.registry_failed { 3 } else { 2 }),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

fn text(examined: &Examined) -> String {
    let mut out = String::new();
    let (errors, warnings): (Vec<&Diagnostic>, Vec<_>) =
        examined.diagnostics.iter().partition(|diagnostic| diagnostic.is_error());
    for diagnostic in warnings.iter().chain(&errors) {
        out.push_str(&drawn(diagnostic, examined));
        out.push_str("\n\n");
    }
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    out + &match (warnings.len(), errors.len()) {
        (0, 0) => "Check complete, no warnings found.\n".to_owned(),
        (1, 0) => "Check complete, 1 warning has been found!\n".to_owned(),
        (more, 0) => format!("Check complete, {more} warnings have been found!\n"),
        (warnings, errors) => format!("{}, {}\n", count(errors, "error"), count(warnings, "warning")),
    }
}

/// BuildKit's place of some lines.
pub(crate) fn location(lines: LineRange) -> Value {
    match lines.start {
        0 => json!({}),
        _ => json!({"ranges": [{"start": {"line": lines.start}, "end": {"line": lines.end}}]}),
    }
}

/// BuildKit's `lint.LintResults`.
fn lint_result(examined: &Examined) -> Value {
    let warnings = examined.diagnostics.iter().filter(|diagnostic| !diagnostic.is_error());
    let warnings = warnings.map(|warning| {
        let name = warning.rule.unwrap_or_default();
        let mut value = json!({"ruleName": name});
        if let Some(rule) = rule(name) {
            value["description"] = rule.description.into();
            if let Some(url) = rule.url() {
                value["url"] = url.into();
            }
        }
        value["detail"] = warning.message.as_str().into();
        value["location"] = location(warning.lines);
        value
    });
    let mut result = json!({
        "warnings": warnings.collect::<Vec<Value>>(),
        "sources": [{
            "fileName": examined.name,
            "language": "Dockerfile",
            "data": STANDARD.encode(&examined.text),
        }],
    });
    if let Some(error) = examined.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        result["buildError"] = json!({"message": error.full_message(), "location": location(error.lines)});
    }
    result
}

/// Static Analysis Results Interchange Format 2.1.0.
fn sarif(examined: &Examined) -> Value {
    let used: BTreeSet<&str> = examined.diagnostics.iter().filter_map(|diagnostic| diagnostic.rule).collect();
    let rules = used.iter().filter_map(|name| rule(name)).map(|rule| {
        let mut value = json!({"id": rule.name, "shortDescription": {"text": rule.description}});
        if let Some(url) = rule.url() {
            value["helpUri"] = url.into();
        }
        value
    });
    let results = examined.diagnostics.iter().map(|diagnostic| {
        let help = diagnostic.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        json!({
            "ruleId": diagnostic.rule.unwrap_or("DockerfileError"),
            "level": if diagnostic.is_error() { "error" } else { "warning" },
            "message": {"text": format!("{}{help}", diagnostic.message)},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": examined.name},
                "region": region(diagnostic, &examined.text),
            }}],
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "rbuild",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<Value>>(),
            }},
            "columnKind": "utf16CodeUnits",
            "results": results.collect::<Vec<Value>>(),
        }],
    })
}

/// The words at fault, else the lines. SARIF counts from 1.
fn region(diagnostic: &Diagnostic, text: &str) -> Value {
    let position = |offset: usize| {
        let before = text.get(..offset)?;
        let line = before.rsplit('\n').next().unwrap_or_default();
        Some((before.matches('\n').count() + 1, line.encode_utf16().count() + 1))
    };
    let span = diagnostic.spans.first();
    let places = span.and_then(|span| Some((position(span.start)?, position(span.end)?)));
    match places {
        Some(((line, column), (end_line, end_column))) => json!({
            "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column,
        }),
        None => json!({"startLine": diagnostic.lines.start.max(1), "endLine": diagnostic.lines.end.max(1)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-019, E: the three forms of one report.
    #[test]
    fn reports() {
        let text = "FROM scratch AS ä\nFROM scratch as Base\nMAINTAINER me\n".replace('ä', "a");
        let (dockerfile, _) = rbuild_frontend::parse(text.as_bytes());
        let warnings = vec![
            Diagnostic::warning(
                "StageNameCasing",
                "Stage name 'Base' should be lowercase",
                LineRange::new(2, 2),
            )
            .with_span(dockerfile.stages[1].from.name.as_ref().unwrap().span)
            .with_help("write base"),
            Diagnostic::warning("InvalidBaseImagePlatform", "other", LineRange::new(3, 3)),
        ];
        let examined = Examined {
            name: "Dockerfile".into(),
            text,
            dockerfile,
            definitions: Vec::new(),
            diagnostics: warnings,
            outline: None,
            registry_failed: false,
        };
        insta::assert_snapshot!("text", super::text(&examined));
        insta::assert_json_snapshot!("json", lint_result(&examined));
        let mut sarif = sarif(&examined);
        sarif["runs"][0]["tool"]["driver"]["version"] = "[version]".into();
        insta::assert_json_snapshot!("sarif", sarif);
    }
}
