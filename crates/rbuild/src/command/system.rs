//! `rbuild system df` (D-051).

use crate::args::ListFormat;
use crate::command::open;
use crate::output::{print, size, table};
use anyhow::Result;
use clap::{Args, Subcommand};
use rbuild_store::UsageRow;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct SystemArgs {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show what images, build cache and the rest take (`rbuild du` names each object)
    Df {
        /// `table` or `json` (one object on each line)
        #[arg(long, value_enum, default_value = "table")]
        format: ListFormat,
    },
}

struct Line {
    kind: &'static str,
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
}

pub(crate) fn run(root: &Path, args: &SystemArgs) -> Result<ExitCode> {
    let SystemCommand::Df { format } = args.command;
    let store = open(root)?;
    let usage = store.usage()?;
    let images: BTreeSet<_> = store.images()?.into_iter().map(|image| image.descriptor.digest).collect();
    let line = |kind, which: &dyn Fn(&UsageRow) -> bool| Line {
        kind,
        total: usage.rows.iter().filter(|row| which(row)).count(),
        active: usage.rows.iter().filter(|row| which(row) && row.in_use).count(),
        bytes: usage.sum(which),
        reclaimable: usage.sum(|row| which(row) && row.reclaimable),
    };
    let is_image = |row: &UsageRow| !row.images.is_empty();
    let is_internal = |row: &UsageRow| matches!(row.record_type, "internal" | "source.local");
    let lines = [
        Line { total: images.len(), active: images.len(), ..line("Images", &is_image) },
        line("Build Cache", &|row| !is_image(row) && !is_internal(row)),
        line("Store", &|row| !is_image(row) && is_internal(row)),
    ];
    let text = match format {
        ListFormat::Json => lines.iter().map(|line| json(line).to_string() + "\n").collect(),
        ListFormat::Table => {
            let mut rows =
                vec![["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"].map(str::to_owned).to_vec()];
            rows.extend(lines.iter().map(|line| {
                let counts = [line.total.to_string(), line.active.to_string()];
                let [total, active] = counts;
                vec![line.kind.to_owned(), total, active, size(line.bytes), size(line.reclaimable)]
            }));
            table(&rows)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn json(line: &Line) -> serde_json::Value {
    json!({
        "Type": line.kind,
        "TotalCount": line.total,
        "Active": line.active,
        "Size": line.bytes,
        "Reclaimable": line.reclaimable,
    })
}
