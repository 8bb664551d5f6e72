//! Whole builds, rbuild and buildah side by side: wall time, CPU seconds and peak memory.
//!
//! `cargo run --release -p rbuild-benches --bin compare -- [--runs N] [--only NAME] [--rbuild PATH]`
//!
//! Every figure is a median. CPU seconds count the builder and everything it waited for. Memory is the builder's own
//! peak (VmHWM), without what a RUN starts. buildah is left out, with a line that says so, where it is not installed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program's output is its purpose")]

mod inputs;
mod measure;

use anyhow::{Context as _, Result};
use clap::Parser;
use inputs::Scenario;
use measure::{Figures, median};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compares whole builds.
#[derive(Parser)]
struct Args {
    /// Runs of each case; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only scenarios whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// The rbuild to measure
    #[arg(long, default_value = "target/release/rbuild")]
    rbuild: PathBuf,
    /// Leave buildah out
    #[arg(long)]
    no_buildah: bool,
    /// Where stores and inputs are made (should be a real disk)
    #[arg(long, default_value = "target/compare")]
    scratch: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let rbuild = args.rbuild.canonicalize().with_context(|| {
        format!("there is no `{}`: run `cargo build --release -p rbuild` first", args.rbuild.display())
    })?;
    std::fs::create_dir_all(&args.scratch)?;
    let scratch = tempfile::tempdir_in(&args.scratch)?;
    let mut tools = vec![Tool::Rbuild(rbuild)];
    match buildah_version() {
        Some(version) if !args.no_buildah => {
            println!("buildah: {version} (overlay, --isolation chroot)");
            tools.push(Tool::Buildah);
        }
        _ => println!("buildah: left out (not installed, or --no-buildah)"),
    }
    println!(
        "{:34} {:8} {:>9} {:>9} {:>9} {:>7} {:>7}",
        "scenario", "tool", "wall s", "cpu s", "rss MiB", "wall x", "cpu x"
    );
    for scenario in
        inputs::all(scratch.path())?.into_iter().filter(|scenario| scenario.name.contains(&args.only))
    {
        let mut ours = None;
        for tool in &tools {
            let figures = match run(tool, &scenario, scratch.path(), args.runs) {
                Ok(figures) => figures,
                Err(error) => {
                    println!("{:34} {:8} no result: {error:#}", scenario.name, tool.name());
                    continue;
                }
            };
            let ratio = |pick: fn(&Figures) -> f64| {
                ours.as_ref().map_or(1.0, |ours| pick(&figures) / pick(ours).max(1e-4))
            };
            println!(
                "{:34} {:8} {:9.3} {:9.3} {:9.1} {:7.1} {:7.1}",
                scenario.name,
                tool.name(),
                figures.wall,
                figures.cpu,
                figures.rss_mib,
                ratio(|figures| figures.wall),
                ratio(|figures| figures.cpu),
            );
            ours.get_or_insert(figures);
        }
    }
    Ok(())
}

/// A builder.
enum Tool {
    Rbuild(PathBuf),
    Buildah,
}

impl Tool {
    fn name(&self) -> &'static str {
        match self {
            Tool::Rbuild(_) => "rbuild",
            Tool::Buildah => "buildah",
        }
    }

    /// The commands of one build: building, and exporting where the scenario asks for it.
    fn commands(&self, scenario: &Scenario, store: &Path, out: &Path) -> Vec<Command> {
        match self {
            Tool::Rbuild(path) => {
                let mut build = Command::new(path);
                build.env("RBUILD_ROOT", store).args(["--progress", "quiet", "-t", "bench"]);
                if scenario.export {
                    build.arg("-o").arg(format!("type=oci,dest={},tar=false", out.display()));
                }
                build.arg(&scenario.context);
                vec![build]
            }
            Tool::Buildah => {
                let buildah = || {
                    let mut command = Command::new("buildah");
                    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
                    command.args(["--storage-driver", "overlay"]);
                    command
                };
                let mut build = buildah();
                build.args([
                    "bud",
                    "--quiet",
                    "--isolation",
                    "chroot",
                    "--layers",
                    "--jobs",
                    "0",
                    "-t",
                    "bench",
                ]);
                build.arg(&scenario.context);
                let mut commands = vec![build];
                if scenario.export {
                    let mut push = buildah();
                    push.args(["push", "--quiet", "bench"]).arg(format!("oci:{}:bench", out.display()));
                    commands.push(push);
                }
                commands
            }
        }
    }
}

fn buildah_version() -> Option<String> {
    let output = Command::new("buildah").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(tool: &Tool, scenario: &Scenario, scratch: &Path, runs: usize) -> Result<Figures> {
    let mut all = Vec::new();
    let mut store = fresh(scratch, "store")?;
    for number in 0..runs {
        if !scenario.warm || number == 0 {
            store = fresh(scratch, "store")?;
        }
        if scenario.warm && number == 0 {
            build(tool, scenario, &store, scratch)?;
        }
        (scenario.prepare)(&scenario.context, number)?;
        all.push(build(tool, scenario, &store, scratch)?);
    }
    Ok(median(&all))
}

/// A new empty directory; what was there before is moved away, so that no deletion runs beside a measurement.
fn fresh(scratch: &Path, name: &str) -> Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix(name).tempdir_in(scratch)?;
    Ok(dir.keep())
}

fn build(tool: &Tool, scenario: &Scenario, store: &Path, scratch: &Path) -> Result<Figures> {
    let out = fresh(scratch, "out")?.join("layout");
    let mut total = Figures::default();
    for command in tool.commands(scenario, store, &out) {
        total = total.then(measure::run(command)?);
    }
    Ok(total)
}
