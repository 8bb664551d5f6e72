//! `rbuild build`.

use crate::args::{BuildArgs, ProgressArg};
use crate::command::call;
use crate::request::{environment, prepare};
use crate::{output, report};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_build::{BuildError, BuildResult, ClientConfig, Environment};

use rbuild_frontend::number::parse_bool;
use rbuild_progress::{Colors, Mode, Progress, Summary, TtyStyle};
use rbuild_store::Budget;
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What builds find around them.
pub(crate) fn surroundings(root: &Path) -> Environment {
    let [resolv_conf_host, resolv_conf] = resolv_conf();
    Environment {
        store_root: root.to_owned(),
        registry: ClientConfig::from_values(|name| environment(name).map(Into::into)),
        resolv_conf,
        resolv_conf_host,
        open_files: raise_open_files(),
        cdi_dirs: Vec::new(),
        emulators: environment("PATH").iter().flat_map(std::env::split_paths).collect(),
        history: rbuild_build::Limits::default(),
        budget: Budget::default(),
    }
}

pub(crate) fn run(root: &Path, args: &BuildArgs) -> Result<ExitCode> {
    if let Some(code) = call::run(root, args)? {
        return Ok(code);
    }
    let prepared = prepare(args)?;
    forget_image_id(args)?;
    let history = crate::request::history::limits(args.history_limits.as_deref())?;
    let budget = args.budget.or_environment()?;
    let cdi_dirs = args.cdi_spec_dir.clone();
    let environment = Environment { history, budget, cdi_dirs, ..surroundings(root) };
    let mut warnings = prepared.warnings;
    let (progress, reporter) = Progress::start(mode(args, &mut warnings), std::io::stderr());
    for text in warnings {
        reporter.report(rbuild_event::Event::Warning { text });
    }
    // The threads that wait for processes and files do not count as workers; hashing has rayon's pool.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let cancel = CancellationToken::new();
    let built = runtime.block_on(async {
        stop_on_signals(&cancel).context("watching for signals")?;
        Ok::<_, anyhow::Error>(rbuild_build::build(&environment, prepared.request, reporter, cancel).await)
    });
    let summary = progress.finish();
    // Whatever still blocks a thread (a resolver, a dead network) must not delay the exit.
    runtime.shutdown_background();
    match built? {
        Ok(result) => finish(args, &result, &summary),
        Err(error) => Err(explain(error, &summary)),
    }
}

/// D-014: an id of an earlier build must not outlive a build that fails.
fn forget_image_id(args: &BuildArgs) -> Result<()> {
    let Some(file) = &args.iidfile else { return Ok(()) };
    // Never what is no file, such as /dev/stdout.
    if !file.symlink_metadata().is_ok_and(|stat| stat.is_file()) {
        return Ok(());
    }
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove the earlier image id in `{}`", file.display()))
        }
        _ => Ok(()),
    }
}

/// Whether only the image's id is wanted (D-008).
fn is_quiet(args: &BuildArgs) -> bool {
    args.quiet || args.progress == ProgressArg::Quiet
}

fn mode(args: &BuildArgs, warnings: &mut Vec<String>) -> Mode {
    if is_quiet(args) {
        return Mode::Quiet;
    }
    match args.progress {
        ProgressArg::Tty => Mode::Tty(tty_style(warnings)),
        ProgressArg::Plain => Mode::Plain,
        ProgressArg::Quiet | ProgressArg::None => Mode::Quiet,
        ProgressArg::Rawjson => Mode::RawJson { time: rbuild_build::time::format_rfc3339 },
        ProgressArg::Auto => {
            let dumb = environment("TERM").is_none_or(|term| term == "dumb");
            if std::io::stderr().is_terminal() && !dumb {
                Mode::Tty(tty_style(warnings))
            } else {
                Mode::Plain
            }
        }
    }
}

/// D-008: NO_COLOR, BUILDKIT_COLORS, BUILDKIT_TTY_LOG_LINES.
fn tty_style(warnings: &mut Vec<String>) -> TtyStyle {
    let mut style = TtyStyle::default();
    if environment("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        style.colors = Colors::NONE;
    }
    if let Some(text) = environment("BUILDKIT_COLORS") {
        warnings.extend(style.colors.set(&text));
    }
    let lines = environment("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok());
    if let Some(lines) = lines.filter(|lines| *lines > 0) {
        style.log_lines = lines;
    }
    style
}

/// The first SIGINT or SIGTERM stops the build; the second ends the process at once.
fn stop_on_signals(cancel: &CancellationToken) -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)?;
        let cancel = cancel.clone();
        tokio::spawn(async move {
            signals.recv().await;
            cancel.cancel();
            signals.recv().await;
            #[allow(clippy::exit, reason = "the user insists; locks and mounts die with the process")]
            std::process::exit(130);
        });
    }
    Ok(())
}

/// Descriptors that a build may hold open: deep chains and trees are walked by descriptor.
const OPEN_FILES: u64 = 65_536;

/// Raises the soft limit of open files, as far as the hard one allows, and returns what it was: RUN steps keep that, for
/// there are programs that close every descriptor they could have.
fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current?;
    let wanted = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if before < wanted {
        // Without it most builds work all the same.
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).ok();
    }
    Some(before)
}

/// the machine's resolver, for steps on the machine's network by name and for others. The latter get systemd-resolved's
/// upstream servers where the machine has nothing but its stub on loopback. Other loopback servers stay, which BuildKit takes
/// out: its steps have a network of their own, where these would not answer, while the default here is the machine's.
fn resolv_conf() -> [String; 2] {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let own = read("/etc/resolv.conf");
    let upstream = if is_stub(&own) { read("/run/systemd/resolve/resolv.conf") } else { String::new() };
    let usual = if upstream.is_empty() { own.clone() } else { upstream };
    [own, usual]
}

/// Whether systemd-resolved's stub is the only name server.
fn is_stub(resolv_conf: &str) -> bool {
    let address = |line: &str| -> Option<std::net::IpAddr> {
        let mut fields = line.split_whitespace();
        // A comment has no such first field.
        (fields.next() == Some("nameserver")).then(|| fields.next()?.parse().ok())?
    };
    let servers: Vec<_> = resolv_conf.lines().filter_map(address).collect();
    servers == [std::net::Ipv4Addr::new(127, 0, 0, 53)]
}

fn finish(args: &BuildArgs, result: &BuildResult, summary: &Summary) -> Result<ExitCode> {
    // An index has no config: its own digest is the id (D-013).
    let id = result.config.or_else(|| Some(result.manifest.as_ref()?.digest)).map(|id| id.to_string());
    if let Some(file) = &args.iidfile {
        // Empty, as buildx's, if no output is an image.
        std::fs::write(file, id.as_deref().unwrap_or_default())
            .with_context(|| format!("cannot write the image id to `{}`", file.display()))?;
    }
    if let Some(file) = &args.metadata_file {
        let text = serde_json::to_string_pretty(&metadata(result, summary))? + "\n";
        std::fs::write(file, text)
            .with_context(|| format!("cannot write metadata to `{}`", file.display()))?;
    }
    if is_quiet(args) {
        output::print(&id.map(|id| id + "\n").unwrap_or_default())?;
        return Ok(ExitCode::SUCCESS);
    }
    // Whoever reads JSON, or wants to see nothing, has no use for a line of text.
    if matches!(args.progress, ProgressArg::Rawjson | ProgressArg::None) {
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<String> = result.names.iter().map(|name| name.familiar()).collect();
    let steps = format!(
        "{} steps: {} executed, {} cached",
        result.executed + result.cached,
        result.executed,
        result.cached
    );
    let image = id.map(|id| format!("; image {id} {}", names.join(" "))).unwrap_or_default();
    report::line(format!("{steps}{image}").trim_end());
    if result.collected > 0 {
        report::line(&format!(
            "removed {} of unused cache to keep to its limits",
            output::size(result.collected)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// D-014.
fn metadata(result: &BuildResult, summary: &Summary) -> serde_json::Value {
    let names: Vec<String> = result.names.iter().map(ToString::to_string).collect();
    let mut value = json!({});
    if let Some(config) = &result.config {
        value["containerimage.config.digest"] = json!(config);
    }
    if let Some(manifest) = &result.manifest {
        value["containerimage.descriptor"] = json!(manifest);
        value["containerimage.digest"] = json!(manifest.digest);
    }
    if environment("BUILDX_METADATA_WARNINGS").is_some_and(|value| parse_bool(&value) == Some(true)) {
        // As in rawjson: bytes are base64 there.
        let warning = |text: &String| json!({"level": 1, "short": STANDARD.encode(text)});
        value["buildx.build.warnings"] = summary.warnings.iter().map(warning).collect();
    }
    if let Some(build) = &result.build {
        // BUILDER/NODE/BUILD, of which rbuild has only the last: what `rbuild builds` knows it by.
        value["buildx.build.ref"] = json!(format!("rbuild/rbuild/{build}"));
    }
    if !names.is_empty() {
        value["image.name"] = json!(names.join(","));
    }
    value
}

/// A failing step's whole output and its lines in the Dockerfile come before the error.
fn explain(error: BuildError, summary: &Summary) -> anyhow::Error {
    if let BuildError::Step { excerpt, .. } = &error {
        if let Some(step) = summary.failed.as_ref().filter(|step| !step.output.is_empty()) {
            report::failed_step(step);
        }
        if !excerpt.is_empty() {
            report::line(excerpt.trim_end());
        }
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::is_stub;

    ///
    #[test]
    fn the_stub_is_known_by_its_address() {
        for text in [
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
            "# nameserver 10.0.0.1\n;nameserver 10.0.0.1\n  nameserver\t127.0.0.53 x\nnameserver\nnameserver none\n",
        ] {
            assert!(is_stub(text), "{text}");
        }
        for text in [
            "",
            "nameserver 127.0.0.53\nnameserver 10.0.0.1\n",
            "nameserver 127.0.0.1\n",
            "nameservers 127.0.0.53\n",
        ] {
            assert!(!is_stub(text), "{text}");
        }
    }
}
