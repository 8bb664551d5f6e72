//! `/proc`, `/sys` and `/dev` of a step, with what Docker hides of them.
//!
//! Devices: there may be no device cgroup, and Docker's default capabilities include `mknod`. What keeps a step
//! from making a node of the machine's disk and opening it is `nodev` on every mount it can write to, `/dev`
//! included; only the six usual nodes and those of [`Spec::devices`] are mounted without it, one by one. A privileged step may use all devices: there
//! neither `/dev` nor the root has `nodev`.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::cgroup::View;
use crate::error::Context;
use crate::resolve::{own_directory, own_or_linked_directory};
use crate::{DeviceNode, RuntimeError, Spec, sys};

/// Files and directories that Docker covers up.
const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
/// Parts of `/proc` that Docker makes read-only.
const READONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Devices of [`Spec::privileged`]: kernel messages, devices and filesystems in user space, virtual machines, network
/// tunnels, and what makes loop devices.
const PRIVILEGED_NODES: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];
/// Nodes of loop devices; more can be made, for nothing keeps a privileged step from it.
const LOOP_DEVICES: u32 = 16;
const LOOP_MAJOR: u32 = 7;
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// A new filesystem, attached nowhere.
pub(crate) fn new_filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What /proc/mounts names as device.
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A new tmpfs, attached nowhere; with `noswap` its pages are never written to a swap device (Linux 6.4).
pub(crate) fn new_memory_filesystem(
    options: &[(&str, &str)],
    noswap: bool,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    if !noswap {
        return new_filesystem("tmpfs", options, attributes);
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "tmpfs")?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_set_flag(&context, "noswap")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a mount at an opened target: no path is walked, so nothing can be swapped in between (CVE-2021-30465).
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Another mount of what lies at `path` below `dir`; the last component is not followed when it is a link.
pub(crate) fn clone_at(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(dir, path, flags)
}

/// Opens something of our own filesystems for use as a target.
pub(crate) fn target(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    openat(dir, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The step's `/proc` directory, on which mounts can be parked: what is attached here before [`mount_all`] ends up
/// below the step's proc and out of sight. Before Linux 6.15 a mount must be attached somewhere to be cloned from.
pub(crate) fn parking_place(root: BorrowedFd<'_>) -> Result<OwnedFd, RuntimeError> {
    own_directory(root, "proc").context("open (it must be a directory, not a link)", "/proc")
}

/// Mounts all of it below `root`. `blank` is an empty directory on an attached tmpfs of ours.
pub(crate) fn mount_all(
    root: BorrowedFd<'_>,
    spec: &Spec,
    cgroups: Option<BorrowedFd<'_>>,
    view: Option<&View>,
    blank: BorrowedFd<'_>,
) -> Result<(), RuntimeError> {
    let proc = new_filesystem("proc", &[], NOSUID | NODEV | NOEXEC).context("mount", "/proc")?;
    attach_own(root, "proc", &proc)?;
    let sys = sysfs(spec.privileged).context("mount", "/sys")?;
    attach_own(root, "sys", &sys)?;
    if let Some(cgroups) = cgroups {
        attach_cgroups(&sys, cgroups).context("mount", "/sys/fs/cgroup")?;
    }
    if let (Some(view), Ok(at)) = (view, target(sys.as_fd(), "fs/cgroup")) {
        // Nothing is wrong with a step that cannot see its limits.
        let _ = view.attach(at.as_fd());
    }
    let null = devices(root, spec)?;
    if spec.privileged {
        return Ok(());
    }

    let masked =
        MASKED_PROC.iter().map(|p| (&proc, "/proc", *p)).chain(MASKED_SYS.iter().map(|p| (&sys, "/sys", *p)));
    for (dir, shown, path) in masked {
        mask(dir.as_fd(), path, null.as_fd(), blank).context("mask", format!("{shown}/{path}"))?;
    }
    for path in READONLY_PROC {
        make_readonly(proc.as_fd(), path).context("make read-only", format!("/proc/{path}"))?;
    }
    Ok(())
}

/// Attaches at a directory directly below the root that must not be a link (CVE-2019-19921).
fn attach_own(root: BorrowedFd<'_>, name: &str, mount: &OwnedFd) -> Result<(), RuntimeError> {
    let shown = format!("/{name}");
    let target = own_directory(root, name).context("open (it must be a directory, not a link)", &shown)?;
    attach(mount.as_fd(), target.as_fd()).context("mount", &shown)
}

/// A new sysfs, or the host's where mounting one is refused (a user namespace without its own network).
fn sysfs(writable: bool) -> Result<OwnedFd, Errno> {
    let readonly = if writable { MountAttrFlags::empty() } else { RDONLY };
    match new_filesystem("sysfs", &[], NOSUID | NODEV | NOEXEC | readonly) {
        Err(Errno::PERM | Errno::BUSY) => {}
        other => return other,
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let host = open_tree(CWD, "/sys", flags)?;
    let readonly = if writable { 0 } else { sys::attr::RDONLY };
    let all = readonly | sys::attr::NOSUID | sys::attr::NODEV | sys::attr::NOEXEC;
    sys::set_mount_attributes(host.as_fd(), all, true)
        .map_err(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(host)
}

/// The machine's cgroups as they are mounted, whatever their version; `None` where there are none.
pub(crate) fn host_cgroups() -> Option<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, "/sys/fs/cgroup", flags).ok()
}

fn attach_cgroups(sys: &OwnedFd, cgroups: BorrowedFd<'_>) -> Result<(), Errno> {
    match target(sys.as_fd(), "fs/cgroup") {
        Err(Errno::NOENT) => Ok(()),
        at => attach(cgroups, at?.as_fd()),
    }
}

/// The further nodes of a privileged step's `/dev`: those that BuildKit adds.
fn privileged_devices(dev: &OwnedFd) -> Result<(), RuntimeError> {
    mkdirat(dev, "net", Mode::from_raw_mode(0o755)).context("create", "/dev/net")?;
    let node = |name: &str, kind, major, minor| {
        mknodat(dev, name, kind, Mode::from_raw_mode(0o666), makedev(major, minor))
            .context("create device", format!("/dev/{name}"))
    };
    for (name, major, minor) in PRIVILEGED_NODES {
        node(name, FileType::CharacterDevice, major, minor)?;
    }
    (0..LOOP_DEVICES).try_for_each(|n| node(&format!("loop{n}"), FileType::BlockDevice, LOOP_MAJOR, n))
}

/// Makes a node that the spec asks for, in a `/dev` that nobody else sees yet.
fn make_device(dev: &OwnedFd, device: &DeviceNode) -> Result<(), RuntimeError> {
    let name = device.name();
    for (at, _) in name.match_indices('/') {
        match mkdirat(dev, &name[..at], Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            made => made.context("create", format!("/dev/{}", &name[..at]))?,
        }
    }
    match unlinkat(dev, name, AtFlags::empty()) {
        Err(Errno::NOENT) => {}
        gone => gone.context("replace device", &device.path)?,
    }
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(device.mode & 0o777);
    mknodat(dev, name, kind, mode, makedev(device.major, device.minor))
        .context("create device", &device.path)?;
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    chownat(dev, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context("give away", &device.path)
}

/// `/dev` with everything below it; gives back a mount of its `null`, verified.
fn devices(root: BorrowedFd<'_>, spec: &Spec) -> Result<OwnedFd, RuntimeError> {
    let shown = |name: &str| format!("/dev/{name}");
    let strict = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = new_filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], NOSUID | strict)
        .context("mount", "/dev")?;
    for (name, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .context("create device", shown(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).context("create", shown(name))?;
    }
    for (name, to) in LINKS {
        symlinkat(to, &dev, name).context("create link", shown(name))?;
    }
    if spec.privileged {
        privileged_devices(&dev)?;
    }
    spec.devices.iter().try_for_each(|device| make_device(&dev, device))?;
    let at = own_or_linked_directory(root, "dev").context("open (it must be a directory)", "/dev")?;
    attach(dev.as_fd(), at.as_fd()).context("mount", "/dev")?;
    // Nodes are mounts cloned while `/dev` still allows devices.
    let names: BTreeSet<&str> =
        NODES.iter().map(|(name, ..)| *name).chain(spec.devices.iter().map(DeviceNode::name)).collect();
    let nodes: Vec<_> = names.into_iter().map(|name| (name, clone_at(dev.as_fd(), name))).collect();
    if !spec.privileged {
        sys::set_mount_attributes(dev.as_fd(), sys::attr::NODEV, false)
            .context("set mount attributes of", "/dev")?;
    }
    let mut null = None;
    for (name, node) in nodes {
        let node = node.context("open device", shown(name))?;
        let at = target(dev.as_fd(), name).context("open device", shown(name))?;
        attach(node.as_fd(), at.as_fd()).context("mount", shown(name))?;
        if name == "null" {
            null = Some(node);
        }
    }
    let size = spec.shm_size.to_string();
    // A new instance is what every mount of devpts is (`newinstance` is history).
    let pts = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let below = [
        ("pts", new_filesystem("devpts", &pts, NOSUID | NOEXEC)),
        ("shm", new_filesystem("tmpfs", &[("mode", "1777"), ("size", &size)], NOSUID | NODEV | NOEXEC)),
        ("mqueue", new_filesystem("mqueue", &[], NOSUID | NODEV | NOEXEC)),
    ];
    for (name, mount) in below {
        let mount = match mount {
            // A kernel without POSIX message queues.
            Err(Errno::NODEV) if name == "mqueue" => continue,
            other => other.context("mount", shown(name))?,
        };
        let at = target(dev.as_fd(), name).context("open", shown(name))?;
        attach(mount.as_fd(), at.as_fd()).context("mount", shown(name))?;
    }
    let null = null.ok_or_else(|| RuntimeError::refused("no device nodes"))?;
    verify_null(&null)?;
    Ok(null)
}

/// A mask made of anything but the null device would show the step a file of its own choosing (CVE-2025-31133).
fn verify_null(null: &OwnedFd) -> Result<(), RuntimeError> {
    let stat = rustix::fs::fstat(null).context("check", "/dev/null")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != makedev(1, 3) {
        return Err(RuntimeError::refused(
            "/dev/null is not the null device: refusing to mask /proc with it",
        ));
    }
    Ok(())
}

fn mask(dir: BorrowedFd<'_>, path: &str, null: BorrowedFd<'_>, blank: BorrowedFd<'_>) -> Result<(), Errno> {
    let at = match target(dir, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let stat = statat(&at, "", AtFlags::EMPTY_PATH)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // Both are read-only or harmless already: a clone keeps the attributes of what it is cloned from.
    let cover = clone_at(if is_dir { blank } else { null }, "")?;
    attach(cover.as_fd(), at.as_fd())
}

fn make_readonly(proc: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    let mount = match clone_at(proc, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let attributes = sys::attr::RDONLY | sys::attr::NOSUID | sys::attr::NODEV | sys::attr::NOEXEC;
    sys::set_mount_attributes(mount.as_fd(), attributes, false)
        .map_err(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO)))?;
    attach(mount.as_fd(), target(proc, path)?.as_fd())
}
