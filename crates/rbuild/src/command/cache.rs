//! `rbuild cache` (C-036): cache mounts by id.

use crate::args::ListFormat;
use crate::command::build::surroundings;
use crate::command::{now, open};
use crate::exit::Usage;
use crate::output::{ago, print, size, table};
use crate::report;
use crate::request::mounts::{exports, imports};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use rbuild_build::Became;
use rbuild_oci::Digest;
use rbuild_store::{CacheMountInfo, Store};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Cache mounts: directories of RUN --mount=type=cache. An ID is a mount's id, or the beginning (6 digits or more) of the
/// digest that its directory is named by.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List cache mounts
    Ls(LsArgs),
    /// Remove cache mounts that nothing uses
    Rm(RmArgs),
    /// Write cache mounts to a registry or a directory; only what changed is sent
    Export(ExportArgs),
    /// Bring cache mounts from a registry or a directory
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// `table` or `json` (one object on each line)
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Which mounts
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) id: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "id")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to: as for --cache-mounts-to of `rbuild build`
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: String,
    /// Which mounts [default: all]
    #[arg(value_name = "ID")]
    pub(crate) id: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Where from: as for --cache-mounts-from of `rbuild build`
    #[arg(long, value_name = "PLACE")]
    pub(crate) from: String,
    /// Which mounts [default: all]
    #[arg(value_name = "ID")]
    pub(crate) id: Vec<String>,
    /// Replace mounts that the store has
    #[arg(long)]
    pub(crate) force: bool,
}

/// How many digits of a directory's digest are shown, and how many are enough to name it.
const SHOWN_DIGITS: usize = 12;
const LEAST_DIGITS: usize = 6;

pub(crate) fn run(root: &Path, args: CacheArgs) -> Result<ExitCode> {
    match args.command {
        CacheCommand::Ls(args) => ls(root, &args),
        CacheCommand::Rm(args) => rm(root, &args),
        CacheCommand::Export(args) => export(root, &args),
        CacheCommand::Import(args) => import(root, &args),
    }
}

fn ls(root: &Path, args: &LsArgs) -> Result<ExitCode> {
    let mounts = open(root)?.list_cache_mounts()?;
    let text = match args.format {
        ListFormat::Json => mounts.iter().map(|mount| json(mount).to_string() + "\n").collect(),
        ListFormat::Table => {
            let columns = ["ID", "DIRECTORY", "SIZE", "LAST USED", "IN USE"];
            let mut lines = vec![columns.map(str::to_owned).to_vec()];
            lines.extend(mounts.iter().map(row));
            table(&lines)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn json(mount: &CacheMountInfo) -> serde_json::Value {
    json!({
        "ID": mount.id,
        "Directory": mount.directory,
        "Number": mount.number,
        "Size": mount.bytes,
        "LastUsedAt": mount.last_used,
        "InUse": mount.in_use,
        "Path": mount.path.to_string_lossy(),
    })
}

fn row(mount: &CacheMountInfo) -> Vec<String> {
    let digits: String = mount.directory.hex().chars().take(SHOWN_DIGITS).collect();
    vec![
        shown(mount.id.as_deref().unwrap_or("<unknown>")),
        format!("{digits}-{}", mount.number),
        size(mount.bytes),
        if mount.last_used > 0 { ago(mount.last_used, now()) } else { String::new() },
        mount.in_use.to_string(),
    ]
}

/// An id as a terminal may show it.
fn shown(id: &str) -> String {
    if id.chars().any(char::is_control) { id.escape_debug().to_string() } else { id.to_owned() }
}

fn is_named(name: &str, directory: &Digest, id: &str) -> bool {
    name == id || (name.len() >= LEAST_DIGITS && directory.hex().starts_with(name))
}

/// The mounts that these names mean, or all if there are none.
fn named(store: &Store, names: &[String]) -> Result<Vec<CacheMountInfo>> {
    let mounts = store.list_cache_mounts()?;
    let matches = |name: &str, mount: &CacheMountInfo| {
        is_named(name, &mount.directory, mount.id.as_deref().unwrap_or_default())
    };
    if let Some(name) = names.iter().find(|name| !mounts.iter().any(|mount| matches(name, mount))) {
        return Err(no_such(name).into());
    }
    let wanted = |mount: &CacheMountInfo| names.is_empty() || names.iter().any(|name| matches(name, mount));
    Ok(mounts.into_iter().filter(wanted).collect())
}

fn no_such(name: &str) -> Usage {
    Usage::new(format!("No such cache mount: {name} (see `rbuild cache ls`)"))
}

fn rm(root: &Path, args: &RmArgs) -> Result<ExitCode> {
    let store = open(root)?;
    let (mut count, mut bytes, mut busy) = (0, 0, 0);
    for mount in named(&store, &args.id)? {
        let name = shown(mount.id.as_deref().unwrap_or(&mount.directory.hex()));
        if store.remove_listed_cache_mount(&mount)? {
            (count, bytes) = (count + 1, bytes + mount.bytes);
            print(&format!("{name}\n"))?;
        } else {
            busy += 1;
            report::line(&format!("WARN: {name} is in use and stays"));
        }
    }
    report::line(&format!("removed {count} cache mounts, {}", size(bytes)));
    // What was asked for by name was not done.
    Ok(if busy > 0 && !args.all { ExitCode::from(4) } else { ExitCode::SUCCESS })
}

fn export(root: &Path, args: &ExportArgs) -> Result<ExitCode> {
    let mut places = exports("--to", std::slice::from_ref(&args.to))?;
    let (Some(place), true) = (places.pop(), places.is_empty()) else {
        return Err(Usage::new("--to takes one place").into());
    };
    // Number 0 is what is exported of a mount that several have of their own.
    let mounts: BTreeMap<Digest, String> = named(&open(root)?, &args.id)?
        .into_iter()
        .map(|mount| (mount.directory, mount.id.unwrap_or_else(|| mount.directory.hex())))
        .collect();
    let mounts: Vec<(Digest, String)> = mounts.into_iter().collect();
    let outcome =
        runtime()?.block_on(rbuild_build::export_cache_mounts(&surroundings(root), &place, &mounts))?;
    for skipped in &outcome.skipped {
        report::line(&format!("WARN: left out: {}", shown(skipped)));
    }
    let sent = match outcome.written {
        true => format!("{} chunks sent, {}", outcome.sent, size(outcome.sent_bytes)),
        false => "nothing to send".to_owned(),
    };
    report::line(&format!("{} cache mounts exported: {sent}", outcome.exported));
    Ok(ExitCode::SUCCESS)
}

fn import(root: &Path, args: &ImportArgs) -> Result<ExitCode> {
    let mut places = imports("--from", std::slice::from_ref(&args.from))?;
    let (Some(place), true) = (places.pop(), places.is_empty()) else {
        return Err(Usage::new("--from takes one place").into());
    };
    let wanted = |directory: &Digest, id: &str| {
        args.id.is_empty() || args.id.iter().any(|name| is_named(name, directory, id))
    };
    let surroundings = surroundings(root);
    let importing = rbuild_build::import_cache_mounts(&surroundings, &place, wanted, args.force);
    let imported = runtime()?.block_on(importing)?;
    let is_missing =
        |name: &&String| !imported.iter().any(|mount| is_named(name, &mount.directory, &mount.id));
    if let Some(name) = args.id.iter().find(is_missing) {
        return Err(no_such(name).into());
    }
    let mut code = ExitCode::SUCCESS;
    for mount in &imported {
        let id = shown(&mount.id);
        match &mount.became {
            Became::Fetched { bytes } => print(&format!("{id} ({} fetched)\n", size(*bytes)))?,
            Became::Kept(reason) => report::line(&format!("WARN: {id} left out: {reason}")),
            Became::Failed(reason) => {
                report::line(&format!("ERROR: {id}: {reason}"));
                code = ExitCode::from(3);
            }
        }
    }
    Ok(code)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("starting the runtime")
}
