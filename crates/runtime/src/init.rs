//! The supervisor: the re-exec'd builder, outside of the step's namespaces.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{Signal, pidfd_send_signal, setsid, umask};

use crate::cgroup::StepCgroup;
use crate::child::{Plan, become_step, make_directory};
use crate::error::Context;
use crate::seccomp::Filter;
use crate::stubs;
use crate::wire::{self, ExitStatus, Outcome, Report, Usage};
use crate::{Network, RuntimeError, Scratch, Spec, exec, mounts, overlay, sys, system, user};

/// The name (first argument) under which the builder's executable is started as supervisor.
pub const INIT_ARG0: &str = "rbuild-init";

/// Exit code of a supervisor that was started by hand.
const MISUSE: i32 = 4;

/// Whether this process was started as a step's supervisor, so that `main` must call [`init_main`].
pub fn is_init_invocation() -> bool {
    std::env::args_os().next().is_some_and(|name| name == INIT_ARG0)
}

/// Runs the step that arrives on standard input, and ends the process. To be called first thing in `main`, with no
/// other thread running.
pub fn init_main() -> ! {
    // SAFETY: first thing in `main`: no descriptor but the standard ones has an owner yet.
    let closed = unsafe { sys::close_from(3) };
    // SAFETY: this function ends the process, so it runs once, and nothing else here reads standard input.
    let mut control = unsafe { sys::control_socket() };
    if closed.is_err() || control.local_addr().is_err() {
        sys::exit_now(MISUSE);
    }
    // Signals from the terminal are for the builder, which decides what becomes of the steps.
    let _ = setsid();
    umask(Mode::empty());
    let report = match Order::receive(&mut control) {
        Ok(order) => run(&order, &control),
        // The builder is gone before it said anything.
        Err(_) => sys::exit_now(MISUSE),
    };
    // If nobody is there to read it, nobody needs it.
    let _ = wire::send(&mut control, &report);
    sys::exit_now(0)
}

/// What the builder sends.
struct Order {
    spec: Spec,
    secrets: Vec<Vec<u8>>,
    filter: Option<Filter>,
}

impl Order {
    fn receive(control: &mut UnixStream) -> std::io::Result<Self> {
        let spec = wire::receive(control)?;
        let secrets = wire::receive_secrets(control)?;
        let filter = Filter::from_bytes(&wire::receive_bytes(control)?);
        Ok(Order { spec, secrets, filter })
    }
}

fn run(order: &Order, control: &UnixStream) -> Report {
    let Order { spec, secrets, filter } = order;
    spec.validate()?;
    let scratch = Scratch { upper: spec.upper.clone(), work: spec.work.clone() };
    let root = overlay::mount_chain(&spec.lower, Some(&scratch))?;
    if spec.privileged {
        sys::clear_mount_attributes(root.as_fd(), sys::attr::NODEV).context("allow devices in", "/")?;
    }
    let cgroups = if spec.privileged { system::host_cgroups() } else { None };
    let identity = user::resolve_in_root(root.as_fd(), &spec.user)?;
    let mut stubs = Vec::new();
    make_directory(root.as_fd(), spec, &identity, &mut stubs)?;
    let mounts = mounts::prepare(spec, secrets)?;
    let env = exec::environment(spec, secrets, &identity.home)?;

    // Removed when this function ends, however it does.
    let limits = spec.cgroup.as_ref().map(StepCgroup::make).transpose()?;
    let doors = limits.as_ref().map_or(Ok(Vec::new()), StepCgroup::doors)?;

    let ready = Cell::new(false);
    let unfiltered = Cell::new(None);
    let plan = Plan {
        spec,
        root: &root,
        mounts: &mounts,
        cgroups: cgroups.as_ref(),
        doors: &doors,
        identity: &identity,
        env: &env,
        filter: filter.as_ref(),
        unfiltered: &unfiltered,
        ready: &ready,
    };
    let mut failure = None;
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | if spec.network == Network::None { libc::CLONE_NEWNET } else { 0 };
    // SAFETY: the supervisor has one thread; `init_main` runs before any other is started.
    let step = unsafe { sys::clone_into(namespaces, || failure = Some(become_step(&plan, &mut stubs))) }
        .context("create", "namespaces")?;
    // The pipes must not stay open here, or their reader would never see the end.
    close_outputs();
    let watched = watch(step.pidfd.as_fd(), control, spec.deadline_ms);
    let (status, usage) = sys::wait4(step.pid).context("wait for", "the step")?;
    stubs::clean(stubs);
    let mut outcome = outcome(status, &usage, watched);
    outcome.oom_kills = limits.as_ref().and_then(StepCgroup::oom_kills).unwrap_or(0);
    outcome.unfiltered = unfiltered.get();
    match failure {
        Some(error) => Err(error),
        // Killed between birth and `execve`, where only an outsider, or the builder's end, can do it.
        None if !ready.get() => Err(RuntimeError::SetupKilled { status: format!("{:?}", outcome.status) }),
        None => Ok(outcome),
    }
}

fn close_outputs() {
    for fd in [1, 2] {
        // SAFETY: nothing in the supervisor writes to its standard streams.
        drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    }
}

/// Why and when the wait for the step ended.
#[derive(Clone, Copy, Default)]
struct Watched {
    killed: bool,
    deadline: bool,
    /// The machine's count of out-of-memory kills early in the step's life; `None` for a step too short to matter.
    ooms: Option<u64>,
}

/// How long a step runs before the count of out-of-memory kills is read: reading it costs more than a short step.
const OOM_GRACE: Duration = Duration::from_millis(5);

/// Waits until the step ends; kills it when the builder asks for it, when the builder is gone (both are end of file
/// on the control socket), or at the deadline.
fn watch(step: BorrowedFd<'_>, control: &UnixStream, deadline_ms: Option<u64>) -> Watched {
    let mut watched = Watched::default();
    let start = Instant::now();
    let deadline = deadline_ms.and_then(|ms| start.checked_add(Duration::from_millis(ms)));
    loop {
        let stop = watched.killed || watched.deadline;
        let early = if watched.ooms.is_none() { start.checked_add(OOM_GRACE) } else { None };
        let next = [early, deadline.filter(|_| !stop)].into_iter().flatten().min();
        let left = next.map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() });
        let mut fds = [
            PollFd::from_borrowed_fd(step, PollFlags::IN),
            PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
        ];
        let watch = if stop { &mut fds[..1] } else { &mut fds[..] };
        match poll(watch, timeout.as_ref()) {
            Ok(0) => {
                if watched.ooms.is_none() {
                    watched.ooms = Some(oom_kills());
                }
                if stop || deadline.is_none_or(|d| Instant::now() < d) {
                    continue;
                }
                watched.deadline = true;
            }
            Ok(_) if !fds[0].revents().is_empty() => return watched,
            Err(rustix::io::Errno::INTR) => continue,
            // Nothing is ever sent after the spec: whatever is there to read is the end.
            Ok(_) | Err(_) => watched.killed = true,
        }
        // It may have ended in this moment, which is as good.
        let _ = pidfd_send_signal(step, Signal::KILL);
    }
}

/// How many processes this machine has killed for want of memory.
fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

fn outcome(status: libc::c_int, usage: &libc::rusage, watched: Watched) -> Outcome {
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signaled { signal: libc::WTERMSIG(status) }
    } else {
        ExitStatus::Exited(libc::WEXITSTATUS(status))
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    let unexplained = !watched.killed && !watched.deadline && status.code() == 128 + libc::SIGKILL;
    Outcome {
        status,
        killed: watched.killed,
        deadline: watched.deadline,
        unfiltered: None,
        oom_hint: unexplained && watched.ooms.is_some_and(|before| oom_kills() > before),
        oom_kills: 0,
        usage: Usage {
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            max_rss_kib: usage.ru_maxrss as u64,
        },
    }
}
