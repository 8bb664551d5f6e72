//! What a process used.

use anyhow::{Result, bail};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(180);

/// Figures of one build.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of CPU, of the process and all it waited for.
    pub(crate) cpu: f64,
    /// Peak resident memory of the process itself, MiB.
    pub(crate) rss_mib: f64,
}

impl Figures {
    /// Of two commands, one after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            wall: self.wall + next.wall,
            cpu: self.cpu + next.cpu,
            rss_mib: self.rss_mib.max(next.rss_mib),
        }
    }
}

/// The middle of each figure.
pub(crate) fn median(all: &[Figures]) -> Figures {
    let middle = |pick: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = all.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Figures { wall: middle(|f| f.wall), cpu: middle(|f| f.cpu), rss_mib: middle(|f| f.rss_mib) }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Result<Figures> {
    let before = children_cpu();
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut peak = 0.0_f64;
    let status = loop {
        // The kernel forgets VmHWM with the process: it is read until the end. Every 2 ms costs nothing visible.
        peak = peak.max(peak_rss_mib(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} took longer than {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall = begin.elapsed().as_secs_f64();
    if !status.success() {
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut errors)?;
        }
        bail!("{command:?} failed: {status}\n{errors}");
    }
    Ok(Figures { wall, cpu: children_cpu() - before, rss_mib: peak })
}

/// CPU seconds of all children that were waited for.
fn children_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields after the parenthesised name; cutime and cstime are the 16th and 17th of the whole line (proc(5)).
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 =
        after_name.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

fn peak_rss_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()? / 1024.0)
}
