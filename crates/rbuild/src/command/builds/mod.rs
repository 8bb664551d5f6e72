//! `rbuild builds`: what was built (D-043).

mod logs;
mod show;

use crate::args::{BuildsArgs, BuildsCommand, BuildsListArgs, BuildsRmArgs, TextOrJson};
use crate::command::now;
use crate::exit::Usage;
use crate::output::{ago, print, table};
use anyhow::Result;
use rbuild_history::{History, Outcome, Record};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub(crate) use show::step_value;

pub(crate) fn run(root: &Path, args: BuildsArgs) -> Result<ExitCode> {
    let history = history(root);
    match args.command {
        None => list(&history, &args.list),
        Some(BuildsCommand::Ls(args)) => list(&history, &args),
        Some(BuildsCommand::Show(args)) => show::run(&history, &args),
        Some(BuildsCommand::Logs(args)) => logs::run(&history, &args),
        Some(BuildsCommand::Rm(args)) => remove(&history, &args),
    }
}

/// The history of a store, which may not exist.
pub(crate) fn history(root: &Path) -> History {
    History::new(root.join("history"))
}

/// The build that is meant.
pub(crate) fn find(history: &History, text: &str) -> Result<Record> {
    let id = history.find(text).map_err(usage)?;
    Ok(history.read(&id)?)
}

/// What does not exist was asked for by the user.
fn usage(error: rbuild_history::HistoryError) -> anyhow::Error {
    use rbuild_history::HistoryError::{Ambiguous, NoSuchBuild, Running};
    match error {
        NoSuchBuild(_) | Ambiguous { .. } | Running(_) => Usage::new(error.to_string()).into(),
        other => other.into(),
    }
}

/// `1.2s`, `3m 04s`.
pub(crate) fn took(millis: u64) -> String {
    match millis {
        0..60_000 => format!("{:.1}s", millis as f64 / 1000.0),
        _ => format!("{}m {:02}s", millis / 60_000, millis / 1000 % 60),
    }
}

/// Seconds since 1970 of a time in milliseconds.
pub(crate) fn seconds(millis: u64) -> i64 {
    i64::try_from(millis / 1000).unwrap_or(i64::MAX)
}

/// The build as its subject is called: the target, the Dockerfile's and the context's path.
fn subject(record: &Record) -> String {
    let subject = &record.begin.subject;
    let target = subject.target.as_ref().map(|target| format!("{target} of ")).unwrap_or_default();
    format!("{target}{}", if subject.context.is_empty() { &subject.dockerfile } else { &subject.context })
}

/// Steps that are not sources: how many, how many of them were executed, how many not.
pub(crate) fn counts(record: &Record) -> (usize, usize) {
    let outcomes = record.steps().iter().enumerate().filter(|(_, step)| step.cacheable);
    let (mut executed, mut cached) = (0, 0);
    for (place, _) in outcomes {
        match record.step_end(place).map(|end| end.outcome) {
            Some(Outcome::Cached | Outcome::Skipped) => cached += 1,
            Some(Outcome::Executed | Outcome::Failed | Outcome::Canceled) => executed += 1,
            Some(Outcome::Unfinished) | None => {}
        }
    }
    (executed, cached)
}

fn list(history: &History, args: &BuildsListArgs) -> Result<ExitCode> {
    let ids = history.ids()?;
    let shown = ids.iter().take(args.limit.unwrap_or(usize::MAX));
    if args.quiet {
        print(&shown.map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows =
        vec![["BUILD", "STARTED", "STATUS", "TOOK", "STEPS", "CACHED", "WHAT"].map(str::to_owned).to_vec()];
    let mut lines = String::new();
    for id in shown {
        match history.read(id) {
            Ok(record) => {
                rows.push(row(&record));
                lines.push_str(&format!("{}\n", summary(&record)));
            }
            // One record that cannot be read does not hide the others.
            Err(error) => {
                rows.push(vec![id.clone(), String::new(), "unreadable".into()]);
                crate::report::line(&format!("WARN: {error}"));
            }
        }
    }
    match args.format {
        Some(TextOrJson::Json) => print(&lines)?,
        _ => print(&table(&rows))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn row(record: &Record) -> Vec<String> {
    let (executed, cached) = counts(record);
    let end = record.end.as_ref();
    vec![
        record.begin.id.clone(),
        ago(seconds(record.begin.started), now()),
        record.state().to_owned(),
        end.map(|end| took(end.ended.saturating_sub(record.begin.started))).unwrap_or_default(),
        (executed + cached).to_string(),
        cached.to_string(),
        subject(record),
    ]
}

/// What a list says of a build.
pub(crate) fn summary(record: &Record) -> Value {
    let (executed, cached) = counts(record);
    let (begin, end) = (&record.begin, record.end.as_ref());
    json!({
        "id": begin.id,
        "status": record.state(),
        "exit": end.map(|end| end.exit),
        "started": begin.started,
        "ended": end.map(|end| end.ended),
        "context": begin.subject.context,
        "dockerfile": begin.subject.dockerfile,
        "target": begin.subject.target,
        "platform": record.keys.as_ref().map(|keys| &keys.platform),
        "build_args": begin.build_args,
        "tags": begin.tags,
        "executed": executed,
        "cached": cached,
        "manifest": end.and_then(|end| end.image.manifest),
        "config": end.and_then(|end| end.image.config),
        "names": end.map(|end| &end.image.names),
        "warnings": end.map(|end| end.warnings.len()),
    })
}

fn remove(history: &History, args: &BuildsRmArgs) -> Result<ExitCode> {
    if args.all {
        let nothing = rbuild_build::Limits { entries: 0, ..rbuild_build::Limits::default() };
        let removed = history.trim(&nothing, rbuild_history::millis(std::time::SystemTime::now()))?;
        history.remove_orphans()?;
        print(&removed.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    // All are looked up before any is removed: `~1` means the same throughout.
    let ids: Vec<String> =
        args.build.iter().map(|text| history.find(text).map_err(usage)).collect::<Result<_>>()?;
    for id in ids {
        history.remove(&id).map_err(usage)?;
        print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
