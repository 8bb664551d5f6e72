//! `rbuild lock`: writes what tags, URLs and branches are now.

use crate::args::{LockArgs, TextOrJson};
use crate::command::build::surroundings;
use crate::output::{print, table};
use crate::report;
use crate::request::prepare;
use anyhow::{Context as _, Result};
use rbuild_build::{Change, LockEntry, LockOptions, Locked, Update};
use rbuild_progress::{Mode, Progress};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

pub(crate) fn run(root: &Path, args: &LockArgs) -> Result<ExitCode> {
    let mut build = args.source.build();
    build.lock_file.clone_from(&args.lock_file);
    build.secret.clone_from(&args.secret);
    // Nothing that the lock lacks is asked for.
    build.offline = args.check;
    let prepared = prepare(&build)?;
    for text in &prepared.warnings {
        report::line(&format!("WARN: {text}"));
    }
    let options = LockOptions { update: update(&args.update), prune: args.prune, check: args.check };
    let (progress, reporter) = Progress::start(Mode::Quiet, std::io::stderr());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let (surroundings, cancel) = (surroundings(root), CancellationToken::new());
    let locking = rbuild_build::lock(&surroundings, &prepared.request, &options, &reporter, &cancel);
    let locked = runtime.block_on(locking);
    drop(reporter);
    progress.finish();
    runtime.shutdown_background();
    let locked = locked?;
    print(&match args.format {
        TextOrJson::Text => text(&locked, args.check),
        TextOrJson::Json => {
            let document =
                json!({"file": locked.path, "changed": locked.changed(), "entries": locked.entries});
            serde_json::to_string_pretty(&document)? + "\n"
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn update(given: &[String]) -> Update {
    match given {
        [] => Update::Missing,
        given if given.iter().any(String::is_empty) => Update::All,
        given => Update::Matching(given.to_vec()),
    }
}

fn text(locked: &Locked, check: bool) -> String {
    let rows: Vec<Vec<String>> = locked.entries.iter().filter_map(row).collect();
    let file = locked.path.display();
    let unchanged = locked.entries.iter().filter(|entry| entry.change == Change::Unchanged).count();
    let state = if check || !locked.changed() { "is up to date" } else { "written" };
    format!("{}{file} {state}: {unchanged} unchanged, {} other entries\n", table(&rows), rows.len())
}

/// A line for whatever is not as it was.
fn row(entry: &LockEntry) -> Option<Vec<String>> {
    let what = match &entry.change {
        Change::Unchanged => return None,
        Change::Added => vec!["added".to_owned(), entry.name.clone(), entry.value.clone()],
        Change::Updated(was) => {
            vec!["updated".to_owned(), entry.name.clone(), format!("{was} -> {}", entry.value)]
        }
        Change::Unused { removed: true } => {
            vec!["removed".to_owned(), entry.name.clone(), entry.value.clone()]
        }
        Change::Unused { removed: false } => {
            let remark = "not in this Dockerfile; kept (--prune removes it)".to_owned();
            vec!["unused".to_owned(), entry.name.clone(), remark]
        }
    };
    Some(what)
}
