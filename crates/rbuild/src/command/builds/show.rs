//! `rbuild builds show`.

use super::{counts, find, summary, took};
use crate::args::{BuildsShowArgs, TextOrJson};
use crate::output::{print, table};
use anyhow::Result;
use rbuild_history::{History, Outcome, Record, StepEnd, mask};
use rbuild_oci::time::format_seconds;
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) fn run(history: &History, args: &BuildsShowArgs) -> Result<ExitCode> {
    let record = find(history, &args.build)?;
    print(&match args.format {
        TextOrJson::Json => serde_json::to_string_pretty(&document(&record))? + "\n",
        TextOrJson::Text => text(&record),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unfinished => "unfinished",
        Outcome::Cached => "cached",
        Outcome::Skipped => "skipped",
        Outcome::Executed => "executed",
        Outcome::Failed => "failed",
        Outcome::Canceled => "canceled",
    }
}

/// A step of a build as JSON; numbers of steps begin with 1.
pub(crate) fn step_value(record: &Record, place: usize) -> Value {
    let step = &record.steps()[place];
    let none = StepEnd::default();
    let end = record.step_end(place).unwrap_or(&none);
    let miss = end.miss.as_ref().map(|miss| {
        let causes = serde_json::to_value(&miss.causes).unwrap_or_default();
        json!({
            "text": miss.text,
            "follows": miss.follows.map(|place| place + 1),
            "causes": mask::hidden(causes),
            "against": miss.against,
        })
    });
    json!({
        "step": place + 1,
        "name": step.name,
        "stage": step.stage,
        "lines": [step.lines.0, step.lines.1.saturating_sub(1).max(step.lines.0)],
        "outcome": word(end.outcome),
        "cached_from": end.cached_from,
        "key": step.key,
        "operation": step.operation,
        "depends_on": step.needs.iter().map(|need| need + 1).collect::<Vec<_>>(),
        "started": end.started,
        "duration_ms": end.took,
        "miss": miss,
        "error": end.error,
        "notes": end.notes,
        "log": end.log,
        "preimage": mask::hidden(step.preimage.clone()),
    })
}

fn document(record: &Record) -> Value {
    let mut document = summary(record);
    let steps = (0..record.steps().len()).map(|place| step_value(record, place)).collect::<Vec<_>>();
    document["steps"] = steps.into();
    if let Some(end) = &record.end {
        document["error"] = json!(end.error);
        document["warnings"] = json!(end.warnings);
        let other = end.other.iter().map(|other| {
            json!({
                "name": other.name, "outcome": word(other.end.outcome), "started": other.end.started,
                "duration_ms": other.end.took, "error": other.end.error, "notes": other.end.notes,
                "log": other.end.log,
            })
        });
        document["other"] = other.collect::<Vec<_>>().into();
    }
    document
}

fn text(record: &Record) -> String {
    let (begin, end) = (&record.begin, record.end.as_ref());
    let (executed, cached) = counts(record);
    let mut facts = vec![
        ("Build", begin.id.clone()),
        (
            "Status",
            end.map_or(record.state().into(), |end| format!("{}, exit code {}", record.state(), end.exit)),
        ),
        ("Started", format_seconds(super::seconds(begin.started), 0)),
    ];
    let took_all = end.map(|end| took(end.ended.saturating_sub(begin.started)));
    facts.extend(took_all.map(|took| ("Took", took)));
    facts.push(("Context", begin.subject.context.clone()));
    facts.push(("Dockerfile", begin.subject.dockerfile.clone()));
    facts.extend(begin.subject.target.clone().map(|target| ("Target", target)));
    facts.extend(record.keys.as_ref().map(|keys| ("Platform", keys.platform.clone())));
    if !begin.build_args.is_empty() {
        facts.push(("Arguments", begin.build_args.join(" ")));
    }
    if let Some(end) = end {
        facts.extend(end.image.config.map(|config| ("Image", config.to_string())));
        facts.extend(end.image.manifest.map(|manifest| ("Manifest", manifest.to_string())));
        if !end.image.names.is_empty() {
            facts.push(("Names", end.image.names.join(" ")));
        }
    }
    facts.push(("Steps", format!("{executed} executed, {cached} cached")));
    let rows: Vec<Vec<String>> =
        facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut out = table(&rows) + "\n" + &steps(record);
    if let Some(end) = end {
        for warning in &end.warnings {
            out.push_str(&format!("\nWARN: {warning}"));
        }
        if let Some(error) = &end.error {
            out.push_str(&format!("\nERROR: {error}"));
        }
        if !end.warnings.is_empty() || end.error.is_some() {
            out.push('\n');
        }
    }
    out
}

fn steps(record: &Record) -> String {
    let mut rows = vec![["STEP", "LINE", "OUTCOME", "TOOK", "NAME"].map(str::to_owned).to_vec()];
    for (place, step) in record.steps().iter().enumerate() {
        let none = StepEnd::default();
        let end = record.step_end(place).unwrap_or(&none);
        let line = if step.lines.0 > 0 { step.lines.0.to_string() } else { String::new() };
        let spent = end.took.map(took).unwrap_or_default();
        let name = step.name.replace(['\n', '\r'], " ");
        rows.push(vec![(place + 1).to_string(), line, word(end.outcome).into(), spent, name]);
        let from = end.cached_from.iter().map(|cache| format!("cached in {cache}"));
        let remarks =
            end.miss.iter().map(|miss| format!("cache miss: {}", miss.text)).chain(end.notes.iter().cloned());
        for remark in from.chain(remarks).chain(end.error.iter().map(|error| format!("error: {error}"))) {
            rows.push(vec![
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                format!("  {remark}"),
            ]);
        }
    }
    table(&rows)
}
