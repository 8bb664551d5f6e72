//! `rbuild du` (D-041): what takes how much space.

use crate::args::ListFormat;
use crate::command::{now, open};
use crate::output::{ago, print, size, table};
use anyhow::Result;
use clap::Args;
use rbuild_store::{Usage, UsageKind, UsageRow};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Only what matches: until=24h, id=, type=, description~=, inuse, shared, private, mutable, immutable, parents= (with
    /// =, != or ~=)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// `table` or `json` (one object on each line)
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
    /// All that is known of each object, one below the other
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// How much of an id and of a description the table shows.
const SHOWN_ID: usize = 12;
const SHOWN_DESCRIPTION: usize = 60;

pub(crate) fn run(root: &Path, args: &DuArgs) -> Result<ExitCode> {
    let filters = crate::command::prune::filters(&args.filter)?;
    let store = open(root)?;
    let mut usage = store.usage()?;
    for filter in &filters {
        usage.retain(filter);
    }
    let text = match (args.format, args.verbose) {
        (ListFormat::Json, _) => usage.rows.iter().map(|row| json(row).to_string() + "\n").collect(),
        (ListFormat::Table, true) => usage.rows.iter().map(verbose).collect::<String>() + &totals(&usage),
        (ListFormat::Table, false) => table_of(&usage) + "\n" + &totals(&usage),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `*` marks what changes or is shared, as in BuildKit.
fn table_of(usage: &Usage) -> String {
    let columns = ["ID", "TYPE", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "DESCRIPTION"];
    let mut lines = vec![columns.map(str::to_owned).to_vec()];
    for row in usage.rows.iter().filter(|row| row.bytes > 0 || row.kind == UsageKind::Record) {
        let id = row.id.strip_prefix("sha256:").unwrap_or(&row.id);
        let id: String = if id.len() == 64 { id.chars().take(SHOWN_ID).collect() } else { id.to_owned() };
        lines.push(vec![
            id + if row.mutable { "*" } else { "" },
            row.kind.name().to_owned(),
            row.reclaimable.to_string(),
            size(row.bytes) + if row.shared { "*" } else { "" },
            if row.last_used > 0 { ago(row.last_used, now()) } else { String::new() },
            shortened(&row.description),
        ]);
    }
    table(&lines)
}

fn shortened(text: &str) -> String {
    let text = text.replace(['\n', '\t'], " ");
    match text.chars().count() {
        0..=SHOWN_DESCRIPTION => text,
        _ => text.chars().take(SHOWN_DESCRIPTION - 1).chain(['…']).collect(),
    }
}

fn totals(usage: &Usage) -> String {
    let lines = [
        ("Shared:", usage.sum(|row| row.shared)),
        ("Private:", usage.sum(|row| !row.shared)),
        ("Reclaimable:", usage.sum(|row| row.reclaimable)),
        ("Total:", usage.total()),
    ];
    table(&lines.map(|(name, bytes)| vec![name.to_owned(), size(bytes)]))
}

fn json(row: &UsageRow) -> serde_json::Value {
    json!({
        "ID": row.id,
        "Kind": row.kind.name(),
        "Type": row.record_type,
        "Reclaimable": row.reclaimable,
        "Size": row.bytes,
        "CreatedAt": row.created,
        "LastUsedAt": row.last_used,
        "UsageCount": row.uses,
        "CostMs": row.cost_ms,
        "Shared": row.shared,
        "Mutable": row.mutable,
        "InUse": row.in_use,
        "Description": row.description,
        "Parents": row.parents,
        "Images": row.images,
    })
}

fn verbose(row: &UsageRow) -> String {
    let time = |at: i64| if at > 0 { format!("{} ({at})", ago(at, now())) } else { "unknown".to_owned() };
    let mut lines = vec![
        ("ID:", row.id.clone()),
        ("Kind:", row.kind.name().to_owned()),
        ("Type:", row.record_type.to_owned()),
        ("Created at:", time(row.created)),
        ("Last used:", time(row.last_used)),
        ("Usage count:", row.uses.to_string()),
        ("Cost:", format!("{:.1}s", row.cost_ms as f64 / 1000.0)),
        ("Mutable:", row.mutable.to_string()),
        ("Reclaimable:", row.reclaimable.to_string()),
        ("Shared:", row.shared.to_string()),
        ("In use:", row.in_use.to_string()),
        ("Size:", size(row.bytes)),
    ];
    if !row.description.is_empty() {
        lines.push(("Description:", row.description.replace('\n', " ")));
    }
    if !row.parents.is_empty() {
        lines.push(("Parents:", row.parents.join(", ")));
    }
    if !row.images.is_empty() {
        lines.push(("Images:", row.images.join(", ")));
    }
    let lines: Vec<Vec<String>> =
        lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table(&lines) + "\n"
}
