//! `rbuild fsck`: is the store whole?

use crate::args::TextOrJson;
use crate::output::{print, size};
use anyhow::Result;
use clap::Args;
use rbuild_build::ContentCheck;
use rbuild_store::{FsckOptions, FsckReport, LayerCheck, Problem, Store};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Put damaged files away, and forget the records and tags that need them
    #[arg(long)]
    pub(crate) repair: bool,
    /// Also compare the content of unpacked layers with their digests
    #[arg(long)]
    pub(crate) deep: bool,
    /// How to report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: TextOrJson,
}

/// There is damage that was not repaired.
const DAMAGED: u8 = 5;

pub(crate) fn run(root: &Path, args: &FsckArgs) -> Result<ExitCode> {
    let (store, mut before) = match args.repair {
        true => Store::open_for_repair(root)?,
        false => (Store::open(root)?, Vec::new()),
    };
    let layers: Option<&dyn LayerCheck> = if args.deep { Some(&ContentCheck) } else { None };
    let mut report = store.fsck(&FsckOptions { repair: args.repair, layers })?;
    before.append(&mut report.problems);
    report.problems = before;
    print(&match args.format {
        TextOrJson::Text => text(&report),
        TextOrJson::Json => json(&report).to_string() + "\n",
    })?;
    Ok(if report.damage().next().is_some() { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}

fn text(report: &FsckReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let repair = problem.repair.as_ref().map(|repair| format!(" → {repair}")).unwrap_or_default();
        let (kind, object, detail) = (problem.kind.name(), &problem.object, &problem.detail);
        text.push_str(&format!("{kind} {object}: {detail}{repair}\n"));
    }
    let (blobs, bytes, layers) = (report.blobs, size(report.bytes), report.layers);
    let (records, images) = (report.records, report.images);
    text.push_str(&format!("{blobs} blobs ({bytes}), {layers} layers, {records} records, {images} images: "));
    let damage = report.problems.iter().filter(|problem| problem.is_damage()).count();
    let left = report.damage().count();
    text.push_str(&match (damage, left) {
        (0, _) => "no damage\n".to_owned(),
        (damage, 0) => format!("{damage} damaged, all repaired\n"),
        (damage, left) if damage == left => format!("{damage} damaged; `rbuild fsck --repair` repairs\n"),
        (damage, left) => format!("{damage} damaged, {left} not repaired\n"),
    });
    text
}

fn json(report: &FsckReport) -> serde_json::Value {
    let problem = |problem: &Problem| {
        json!({
            "kind": problem.kind.name(),
            "object": problem.object,
            "detail": problem.detail,
            "damage": problem.is_damage(),
            "repair": problem.repair,
        })
    };
    json!({
        "blobs": report.blobs,
        "bytes": report.bytes,
        "layers": report.layers,
        "records": report.records,
        "images": report.images,
        "damaged": report.damage().count(),
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}
