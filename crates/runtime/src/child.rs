//! What pid 1 of the step does between its birth and `execve`: a straight line of system calls.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Gid, Pid, Resource, Rlimit as KernelRlimit, Signal, Uid, fchdir, getrlimit, pivot_root,
    set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::cgroup::View;
use crate::error::Context;
use crate::mounts::{PreparedMounts, READ_ONLY};
use crate::resolve::{Created, Leaf, create_in_root, open_in_root};
use crate::seccomp::Filter;
use crate::stubs::Stub;
use crate::user::Identity;
use crate::{Network, Rlimit, RuntimeError, Spec, exec, sys, system};

/// What the supervisor prepared.
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) root: &'a OwnedFd,
    pub(crate) mounts: &'a PreparedMounts,
    /// The machine's cgroups, for a privileged step.
    pub(crate) cgroups: Option<&'a OwnedFd>,
    /// Files `cgroup.procs` of the step's own cgroups.
    pub(crate) doors: &'a [OwnedFd],
    pub(crate) identity: &'a Identity,
    pub(crate) env: &'a [(String, String)],
    /// The system call filter, if the step has one.
    pub(crate) filter: Option<&'a Filter>,
    /// Takes the error number with which the kernel refused the filter.
    pub(crate) unfiltered: &'a Cell<Option<i32>>,
    /// Set just before `execve`: what ends the process until then is no result of the program's.
    pub(crate) ready: &'a Cell<bool>,
}

/// Becomes the step; returns only if that failed. Shares memory and descriptors with the supervisor, which stands
/// still; `stubs` takes what the supervisor must clean up later.
pub(crate) fn become_step(plan: &Plan<'_>, stubs: &mut Vec<Stub>) -> RuntimeError {
    match prepare(plan, stubs) {
        Err(e) => e,
        Ok(()) => exec::run(plan.spec, plan.env, plan.ready),
    }
}

fn prepare(plan: &Plan<'_>, stubs: &mut Vec<Stub>) -> Result<(), RuntimeError> {
    assemble(plan, stubs)?;
    isolate(plan)
}

/// The step's view of the machine: root, mounts, host name, network, working directory.
fn assemble(plan: &Plan<'_>, stubs: &mut Vec<Stub>) -> Result<(), RuntimeError> {
    let Plan { spec, root, .. } = plan;
    die_with_supervisor()?;
    for door in plan.doors {
        // Whoever writes is meant. Before anything else, so that nothing of the step is outside.
        rustix::io::write(door, b"0").context("enter", "the step's cgroup")?;
    }
    let view = if spec.privileged { None } else { View::take() };
    enter_root(root.as_fd(), spec)?;
    rustix::system::sethostname(spec.hostname.as_bytes()).context("set the host name", &spec.hostname)?;
    if spec.network == Network::None {
        sys::loopback_up().context("bring up", "the loopback interface")?;
    }
    let ready = plan.mounts.take_parts(root.as_fd())?;
    system::mount_all(root.as_fd(), spec, plan.cgroups.map(AsFd::as_fd), view.as_ref(), ready.blank.as_fd())?;
    ready.attach(root.as_fd(), stubs)?;
    enter_directory(root.as_fd(), &spec.cwd)
}

/// The step's own descriptors, session, limits and privileges.
fn isolate(plan: &Plan<'_>) -> Result<(), RuntimeError> {
    let spec = plan.spec;
    // From here on the descriptors are our own, and what the supervisor keeps open stays open there only.
    sys::unshare_files().context("copy the descriptor table", "")?;
    empty_input().context("redirect", "standard input")?;
    // SAFETY: the owners of higher descriptors are all the supervisor's: this process executes or ends without
    // using or dropping them.
    unsafe { sys::close_from(3) }.context("close", "descriptors")?;

    setsid().context("start", "a session")?;
    sys::new_session_keyring().context("join", "a new session keyring")?;
    spec.rlimits.iter().try_for_each(set_rlimit)?;
    umask(Mode::from_raw_mode(spec.umask & 0o777));
    sys::reset_signals();
    own_streams(plan.identity.uid)?;
    // As runc: without no_new_privs, which would take setuid programs their rights, it takes capabilities that go next.
    install_filter(plan);
    drop_privileges(if spec.privileged { u64::MAX } else { spec.capabilities }, plan.identity)?;
    if spec.privileged {
        pass_on_capabilities()?;
    }
    // Changing the user has cleared it.
    die_with_supervisor()
}

/// A kernel without filters, or a container around this builder that forbids them, is no reason not to build: the step
/// runs without one, and the builder is told.
fn install_filter(plan: &Plan<'_>) {
    if let Some(Err(refusal)) = plan.filter.map(Filter::install) {
        plan.unfiltered.set(Some(refusal.raw_os_error().unwrap_or(libc::EIO)));
    }
}

/// Standard input is a pipe at its end, as runc's: programs that look at what it is (ripgrep reads a pipe, and searches
/// the working directory instead of a device) do the same as under BuildKit.
fn empty_input() -> Result<(), Errno> {
    let (input, _closed) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::stdio::dup2_stdin(&input)
}

/// Gives the input's and the output's pipes to the step's user, as runc does: whoever is not root could not open `/dev/stdout` otherwise.
fn own_streams(uid: u32) -> Result<(), RuntimeError> {
    use rustix::stdio::{stderr, stdin, stdout};
    for (name, stream) in [("input", stdin()), ("output", stdout()), ("error", stderr())] {
        let stat = rustix::fs::fstat(stream).context("look at", format!("standard {name}"))?;
        // Anything else than a pipe is not only the step's.
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo || stat.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            // In a user namespace that doesn't have the pipe's owner it stays as it is.
            Err(Errno::PERM | Errno::INVAL) => {}
            other => other.context("give the user", format!("standard {name}"))?,
        }
    }
    Ok(())
}

fn die_with_supervisor() -> Result<(), RuntimeError> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("tie the step to", "its supervisor")
}

/// Makes `root` the root of this mount namespace and lets go of the host's.
fn enter_root(root: BorrowedFd<'_>, spec: &Spec) -> Result<(), RuntimeError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("make mounts private", "/")?;
    // pivot_root wants a mount point; any directory of this namespace will do, it is gone in a moment.
    let upper = spec.upper.to_string_lossy();
    move_mount(root, "", CWD, &*upper, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("attach the root at", &upper)?;
    fchdir(root).context("enter", &upper)?;
    pivot_root(".", ".").context("change the root to", &upper)?;
    // The old root now lies over the new one.
    unmount(".", UnmountFlags::DETACH).context("detach", "the host's root")?;
    rustix::process::chdir("/").context("enter", "/")
}

/// Makes and enters the working directory, which must lie below the root for good (CVE-2024-21626).
fn enter_directory(root: BorrowedFd<'_>, cwd: &str) -> Result<(), RuntimeError> {
    let opened = create_in_root(root, cwd, Leaf::Directory, &mut Vec::new()).map_err(|error| {
        let failed = RuntimeError::setup("create the working directory", cwd, error);
        if error == Errno::ROFS { failed.with_remedy(READ_ONLY.to_owned()) } else { failed }
    })?;
    fchdir(&opened).context("enter the working directory", cwd)?;
    let inside = rustix::process::getcwd(Vec::new()).is_ok_and(|path| path.to_bytes().starts_with(b"/"));
    if !inside {
        return Err(RuntimeError::refused(format!(
            "the working directory {cwd} leads out of the root filesystem"
        )));
    }
    Ok(())
}

/// Makes the working directory in the bare root, where it becomes part of the layer, as the step's user's own as
/// far as it was missing. Never through what later is `/proc`, `/sys` or `/dev`. What of it is on the way to a mount is
/// a stub as well, which goes again if it stays empty.
pub(crate) fn make_directory(
    root: BorrowedFd<'_>,
    spec: &Spec,
    identity: &Identity,
    stubs: &mut Vec<Stub>,
) -> Result<(), RuntimeError> {
    let cwd = &spec.cwd;
    let first = cwd.split('/').find(|c| !c.is_empty() && *c != ".");
    if first.is_none_or(|c| ["proc", "sys", "dev", ".."].contains(&c))
        || open_in_root(root, cwd, OFlags::PATH).is_ok()
    {
        return Ok(());
    }
    let mut made = Vec::new();
    create_in_root(root, cwd, Leaf::Directory, &mut made).context("create the working directory", cwd)?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let own = |made: &Created| chownat(&made.itself, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH);
    made.iter().try_for_each(own).context("give away the working directory", cwd)?;
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|c| !c.is_empty() && *c != ".").map(str::to_owned).collect()
    };
    let (cwd_parts, targets) = (parts(cwd), spec.mounts.iter().map(|m| parts(&m.target)).collect::<Vec<_>>());
    let existed = cwd_parts.len().saturating_sub(made.len());
    let on_the_way = |depth: usize| targets.iter().any(|t| t.starts_with(&cwd_parts[..depth]));
    let count = (existed + 1..=cwd_parts.len()).take_while(|depth| on_the_way(*depth)).count();
    made.truncate(count);
    Stub::record(made, stubs).context("record the working directory", cwd)
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Above the hard limit that this process has only where it may raise it (CAP_SYS_RESOURCE).
fn set_rlimit(limit: &Rlimit) -> Result<(), RuntimeError> {
    let name = &limit.resource;
    let resource = resource(name)
        .ok_or_else(|| RuntimeError::invalid("rlimits", format!("unknown resource limit {name}")))?;
    let lower = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let set = |maximum| setrlimit(resource, KernelRlimit { current: lower(limit.soft, maximum), maximum });
    let done = match set(limit.hard) {
        Err(Errno::PERM) => set(lower(limit.hard, getrlimit(resource).maximum)),
        done => done,
    };
    done.context("set resource limit", name)
}

/// Lets programs that are executed keep the capabilities, whoever the user is.
fn pass_on_capabilities() -> Result<(), RuntimeError> {
    let mut own = capabilities(None::<Pid>).context("read", "capabilities")?;
    own.inheritable = own.permitted;
    let permitted = own.permitted;
    set_capabilities(None::<Pid>, own).context("set", "capabilities")?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if permitted.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true)
                .context("pass on capability", bit.to_string())?;
        }
    }
    Ok(())
}

/// Bounding set, groups, user, then the other sets: inheritable and ambient stay empty (CVE-2022-27651).
fn drop_privileges(wanted: u64, identity: &Identity) -> Result<(), RuntimeError> {
    let own = capabilities(None::<Pid>).context("read", "capabilities")?;
    let keep = CapabilitySet::from_bits_retain(wanted & own.permitted.bits());
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // The first number the kernel does not know: there are no more.
            Err(Errno::INVAL) => break,
            other => other.context("drop capability", bit.to_string())?,
        }
    }
    rustix::thread::clear_ambient_capability_set().context("clear", "ambient capabilities")?;
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).context("set", "supplementary groups")?;
    let (gid, uid) = (Gid::from_raw(identity.gid), Uid::from_raw(identity.uid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("set group", identity.gid.to_string())?;
    rustix::thread::set_keep_capabilities(true).context("keep", "capabilities")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("set user", identity.uid.to_string())?;
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None::<Pid>, sets).context("set", "capabilities")
}
