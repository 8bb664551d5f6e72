//! `rbuild prune`.

use crate::args::PruneArgs;
use crate::command::open;
use crate::exit::Usage;
use crate::output::{print, size};
use anyhow::Result;
use rbuild_store::PruneOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &PruneArgs) -> Result<ExitCode> {
    let store = open(root)?;
    if !args.force && !confirmed(args.all)? {
        return Ok(ExitCode::SUCCESS);
    }
    let report = store.prune(&PruneOptions { all: args.all, ..PruneOptions::default() })?;
    let mut text = String::new();
    for gone in &report.removed {
        text.push_str(&format!("{:?} {} {}\n", gone.kind, gone.id, size(gone.bytes)));
    }
    print(&format!("{text}Total reclaimed space: {}\n", size(report.bytes)))?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(all: bool) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Usage::new(
            "rbuild prune asks before it removes anything: use -f where nobody can answer",
        )
        .into());
    }
    let what = if all { "all build cache and base images" } else { "all build cache that no image needs" };
    let mut out = std::io::stderr().lock();
    write!(out, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
