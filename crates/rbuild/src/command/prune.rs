//! `rbuild prune` (D-042).

use crate::command::{now, open};
use crate::exit::Usage;
use crate::output::{print, size};
use crate::space::BudgetArgs;
use anyhow::Result;
use clap::Args;
use rbuild_frontend::number::parse_duration;
use rbuild_store::{Filter, PruneOptions, UsageKind};
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Also remove what came from elsewhere: base images without a tag of their own, downloads, repositories
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only what matches: until=24h, id=, type=, description~=, inuse, shared, private, mutable, immutable, parents= (with
    /// =, != or ~=)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Say of each object which step made it
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Remove the least worth first, and stop when these are kept to (with none of them everything goes)
    #[command(flatten)]
    pub(crate) budget: BudgetArgs,
    /// Of the history of builds only this much stays: entries=N,age=30d,bytes=512mb
    #[arg(long, value_name = "LIMITS", env = "RBUILD_HISTORY_LIMITS", hide_env_values = true)]
    pub(crate) history_limits: Option<String>,
}

pub(crate) fn run(root: &Path, args: &PruneArgs) -> Result<ExitCode> {
    let limits = crate::request::history::limits(args.history_limits.as_deref())?;
    let options = PruneOptions {
        all: args.all,
        filters: filters(&args.filter)?,
        budget: Some(args.budget.budget()).filter(|budget| !budget.is_unlimited()),
        dry_run: args.dry_run,
        ..PruneOptions::default()
    };
    let store = open(root)?;
    if !args.force && !args.dry_run && !confirmed(&options)? {
        return Ok(ExitCode::SUCCESS);
    }
    let report = store.prune(&options)?;
    let mut text = String::new();
    for gone in &report.removed {
        let bytes = if gone.kind == UsageKind::Record { String::new() } else { size(gone.bytes) };
        let line = format!("{:<12} {:<71} {bytes:>7}", gone.kind.name(), gone.id);
        let description = gone.description.replace('\n', " ");
        let line = if args.verbose { format!("{line}   {description}") } else { line };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    // Filters are about objects of the cache.
    if !args.dry_run && args.filter.is_empty() {
        let history = crate::command::builds::history(root);
        for id in history.trim(&limits, rbuild_history::millis(SystemTime::now()))? {
            text.push_str(&format!("{:<12} {id}\n", "history"));
        }
        history.remove_orphans()?;
    }
    let total = if args.dry_run { "Total reclaimable space" } else { "Total reclaimed space" };
    print(&format!("{text}{total}: {}\n", size(report.bytes)))?;
    Ok(ExitCode::SUCCESS)
}

/// `--filter`, of du too.
pub(crate) fn filters(texts: &[String]) -> Result<Vec<Filter>> {
    let now = now();
    let filter = |text: &String| {
        Filter::parse(text, |time| until(time, now)).map_err(|error| Usage::new(error.to_string()).into())
    };
    texts.iter().map(filter).collect()
}

/// `24h` ago, `7d` ago, or a point in time: RFC 3339, or seconds since 1970.
fn until(text: &str, now: i64) -> Result<i64, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        return Ok(now.saturating_sub(days.saturating_mul(86_400)));
    }
    if let Ok(nanoseconds) = parse_duration(text) {
        return Ok(now.saturating_sub(nanoseconds / 1_000_000_000));
    }
    let time = text.parse().ok().or_else(|| rbuild_build::time::parse_rfc3339(text));
    time.ok_or_else(|| format!("`{text}` is no duration (24h, 7d) and no time"))
}

fn confirmed(options: &PruneOptions) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Usage::new(
            "rbuild prune asks before it removes anything: use -f where nobody can answer",
        )
        .into());
    }
    let what = match (options.filters.is_empty() && options.budget.is_none(), options.all) {
        (false, _) => "the build cache that the filters and limits name",
        (true, true) => "all build cache, downloads and base images",
        (true, false) => "all build cache that no image needs",
    };
    let mut out = std::io::stderr().lock();
    write!(out, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_an_age_or_a_time() {
        let cases = [
            ("24h", Some(1_000_000 - 86_400)),
            ("1h30m", Some(1_000_000 - 5_400)),
            ("2d", Some(1_000_000 - 172_800)),
            ("0", Some(1_000_000)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("12345", Some(12_345)),
            ("soon", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(until(text, 1_000_000).ok(), expected, "{text}");
        }
    }
}
