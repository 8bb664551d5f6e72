//! What a step sees of cgroups: those it is in, read-only below `/sys/fs/cgroup`, so that programs that size
//! themselves by their limits (Java's machine, Go's, Node's) find them, as under BuildKit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::hierarchy::{self, Hierarchy, Version};
use crate::sys;
use crate::system::{attach, new_filesystem, target};

/// Mounts that are attached nowhere yet.
pub(crate) enum View {
    /// A machine with version 2 only: one filesystem.
    Unified(OwnedFd),
    /// One for each hierarchy of version 1, with the name of its directory.
    Separate(Vec<(String, OwnedFd)>),
}

const POINT: &str = "/sys/fs/cgroup";

impl View {
    /// To be taken by pid 1 of the step when it is in its cgroups, and still among the machine's mounts. `None` if there
    /// is nothing to show, or no way to: a step runs without it as well.
    pub(crate) fn take() -> Option<Self> {
        let hierarchies = hierarchy::own();
        let unified = |h: &&Hierarchy| h.version == Version::V2 && h.mount == Path::new(POINT);
        if let Some(hierarchy) = hierarchies.iter().find(unified) {
            return if is_top(hierarchy) { None } else { own_namespace().ok().map(View::Unified) };
        }
        let shown = hierarchies.iter().filter(|h| h.version == Version::V1 && !is_top(h));
        let mounts: Vec<_> = shown.filter_map(|h| Some((name(h)?, own_part(h).ok()?))).collect();
        (!mounts.is_empty()).then_some(View::Separate(mounts))
    }

    /// Attaches it at `point`, the step's `/sys/fs/cgroup`.
    pub(crate) fn attach(&self, point: BorrowedFd<'_>) -> Result<(), Errno> {
        let mounts = match self {
            View::Unified(mount) => return attach(mount.as_fd(), point),
            View::Separate(mounts) => mounts,
        };
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let dir = new_filesystem("tmpfs", &[("mode", "755")], attributes)?;
        attach(dir.as_fd(), point)?;
        for (name, mount) in mounts {
            mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
            attach(mount.as_fd(), target(dir.as_fd(), name)?.as_fd())?;
            // Controllers that share a hierarchy are found by their own names.
            for single in name.split(',').filter(|single| single != name) {
                match symlinkat(name, &dir, single) {
                    Err(Errno::EXIST) => {}
                    linked => linked?,
                }
            }
        }
        readonly(&dir)
    }
}

/// Whether a hierarchy's own cgroup is the machine's topmost: it limits nothing, and has everybody's names below it.
fn is_top(hierarchy: &Hierarchy) -> bool {
    match hierarchy.version {
        // Only the topmost has the one file, and lacks the other.
        Version::V1 => hierarchy.own.join("release_agent").exists(),
        Version::V2 => !hierarchy.own.join("cgroup.type").exists(),
    }
}

/// Its directory's name, such as `memory` or `cpu,cpuacct`.
fn name(hierarchy: &Hierarchy) -> Option<String> {
    Some(hierarchy.mount.file_name()?.to_str()?.to_owned())
}

/// Version 2 as seen from a cgroup namespace that begins at the step's own cgroup.
fn own_namespace() -> Result<OwnedFd, Errno> {
    sys::unshare_cgroups().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::PERM))?;
    let mount = new_filesystem("cgroup2", &[], MountAttrFlags::empty())?;
    readonly(&mount)?;
    Ok(mount)
}

/// The step's own cgroup in a hierarchy of version 1.
fn own_part(hierarchy: &Hierarchy) -> Result<OwnedFd, Errno> {
    let mount =
        open_tree(CWD, &hierarchy.own, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    readonly(&mount)?;
    Ok(mount)
}

fn readonly(mount: &OwnedFd) -> Result<(), Errno> {
    let all = sys::attr::RDONLY | sys::attr::NOSUID | sys::attr::NODEV | sys::attr::NOEXEC;
    sys::set_mount_attributes(mount.as_fd(), all, false)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::PERM))
}
