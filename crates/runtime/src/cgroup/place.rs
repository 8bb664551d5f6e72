//! Where a step's cgroups go, and what has to be done to the directories above them.

use std::io;
use std::path::{Path, PathBuf};

use super::Cgroup;
use super::hierarchy::{Hierarchy, Version, at};
use super::limits::Controller;
use super::tree::Tree;
use crate::RuntimeError;

/// Names of our cgroups begin so; the process id of who made it follows.
pub(crate) const PREFIX: &str = "rbuild-";

/// One hierarchy that the step joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    pub(crate) mount: PathBuf,
    /// The step's cgroup is made in it.
    pub(crate) base: PathBuf,
    /// Controllers with limits.
    pub(crate) controllers: Vec<Controller>,
    /// A hierarchy of version 1 whose cgroups take no process before they have processors and memory nodes.
    pub(crate) cpuset: bool,
    /// Who is to blame if nothing can be done here.
    pub(crate) flag: &'static str,
}

const PARENT: &str = "--cgroup-parent";

/// The hierarchies that `cgroup` is about: those with a limit, or all if it has a parent.
pub(crate) fn places(
    tree: &impl Tree,
    hierarchies: &[Hierarchy],
    cgroup: &Cgroup,
) -> Result<Vec<Place>, RuntimeError> {
    let mut places: Vec<Place> = Vec::new();
    let mut untaken: Vec<Controller> =
        Controller::ALL.into_iter().filter(|c| cgroup.limits.flag(*c).is_some()).collect();
    // Version 1 first: what is in use there is not in version 2.
    let by_version = |version| hierarchies.iter().filter(move |h: &&Hierarchy| h.version == version);
    for hierarchy in by_version(Version::V1).chain(by_version(Version::V2)) {
        let offered = offered(tree, hierarchy);
        let has = |controller: &Controller| offered.iter().any(|name| name == controller.name());
        let (here, elsewhere): (Vec<_>, Vec<_>) = untaken.into_iter().partition(has);
        untaken = elsewhere;
        // A hierarchy without controllers limits nothing, unless it is the only one.
        let joined = cgroup.parent.is_some() && (!offered.is_empty() || hierarchies.len() == 1);
        if here.is_empty() && !joined {
            continue;
        }
        let flag = here.iter().find_map(|c| cgroup.limits.flag(*c)).unwrap_or(PARENT);
        places.push(Place {
            version: hierarchy.version,
            mount: hierarchy.mount.clone(),
            base: base(hierarchy, cgroup),
            controllers: here,
            cpuset: hierarchy.version == Version::V1 && has(&Controller::Cpuset),
            flag,
        });
    }
    if let Some(missing) = untaken.first() {
        let reason =
            format!("the {} controller is in no cgroup hierarchy that is mounted here", missing.name());
        let remedy = "mount /sys/fs/cgroup (in a container: start it privileged), boot with the controller enabled, or leave the flag out";
        return Err(RuntimeError::cgroup(cgroup.limits.flag(*missing).unwrap_or(PARENT), reason, remedy));
    }
    if places.is_empty() {
        let remedy = "mount /sys/fs/cgroup (in a container: start it privileged), or leave the flag out";
        return Err(RuntimeError::cgroup(PARENT, "no cgroup filesystem is mounted here", remedy));
    }
    Ok(places)
}

/// The controllers of a hierarchy.
fn offered(tree: &impl Tree, hierarchy: &Hierarchy) -> Vec<String> {
    match hierarchy.version {
        Version::V1 => hierarchy.controllers.clone(),
        Version::V2 => words(tree, &hierarchy.mount.join("cgroup.controllers")),
    }
}

fn words(tree: &impl Tree, file: &Path) -> Vec<String> {
    tree.read(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn base(hierarchy: &Hierarchy, cgroup: &Cgroup) -> PathBuf {
    let Hierarchy { version, mount, root, own, .. } = hierarchy;
    if let Some(parent) = &cgroup.parent {
        // Paths count from the root of the hierarchy, of which maybe only a part is mounted.
        let absolute = Path::new("/").join(parent);
        return at(mount, absolute.strip_prefix(root).unwrap_or(parent));
    }
    match version {
        Version::V1 => own.clone(),
        // Our own cgroup has a process: us. Controllers can not be enabled below it.
        Version::V2 if own != mount => own.parent().unwrap_or(mount).to_owned(),
        Version::V2 => mount.clone(),
    }
}

impl Place {
    /// The directories from the mount point down to the base.
    fn path(&self) -> Vec<&Path> {
        let mut path: Vec<&Path> =
            self.base.ancestors().take_while(|dir| dir.starts_with(&self.mount)).collect();
        path.reverse();
        path
    }

    /// Makes the base, with everything that the step's cgroup needs of the directories above it.
    pub(crate) fn open(&self, tree: &impl Tree) -> Result<(), RuntimeError> {
        let path = self.path();
        for (level, dir) in path.iter().enumerate() {
            if level > 0 {
                make(tree, dir).map_err(|e| self.refused("make the cgroup", dir, &e))?;
                if self.cpuset {
                    inherit_cpuset(tree, dir).map_err(|e| self.refused("set up", dir, &e))?;
                }
            }
            if self.version == Version::V2 {
                self.enable(tree, dir)?;
            }
        }
        Ok(())
    }

    /// Lets the cgroups below `dir` have the controllers.
    fn enable(&self, tree: &impl Tree, dir: &Path) -> Result<(), RuntimeError> {
        let file = dir.join("cgroup.subtree_control");
        let enabled = words(tree, &file);
        for controller in &self.controllers {
            let name = controller.name();
            if enabled.iter().any(|other| other == name) {
                continue;
            }
            tree.write(&file, &format!("+{name}")).map_err(|e| match e.raw_os_error() {
                Some(libc::EBUSY) => self.occupied(name, dir),
                Some(libc::ENOENT) => {
                    let reason = format!(
                        "the {name} controller is not available in the cgroup {}",
                        dir.display()
                    );
                    let remedy = "have it delegated (systemd: Delegate=yes), or name another cgroup with --cgroup-parent";
                    RuntimeError::cgroup(self.flag, reason, remedy)
                }
                _ => self.refused(&format!("enable the {name} controller in"), dir, &e),
            })?;
        }
        Ok(())
    }

    /// No controller can be enabled below a cgroup with processes, except at the very top.
    fn occupied(&self, controller: &str, dir: &Path) -> RuntimeError {
        let shown = dir.display();
        let reason = format!(
            "the {controller} controller cannot be enabled below the cgroup {shown}, which has processes of its own"
        );
        let remedy = if dir == self.mount {
            // A container's top is not the machine's: there is nothing beside it.
            format!(
                "give them a cgroup of theirs: mkdir {shown}/init && xargs -rn1 < {shown}/cgroup.procs > {shown}/init/cgroup.procs"
            )
        } else {
            "name a cgroup without processes with --cgroup-parent".to_owned()
        };
        RuntimeError::cgroup(self.flag, reason, remedy)
    }

    /// Something could not be done to a directory.
    pub(crate) fn refused(&self, action: &str, dir: &Path, error: &io::Error) -> RuntimeError {
        refused(self.flag, action, dir, error)
    }
}

/// Why something could not be done to a file or directory of a cgroup filesystem, and what helps.
pub(crate) fn refused(flag: &str, action: &str, path: &Path, error: &io::Error) -> RuntimeError {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let remedy = match error.raw_os_error() {
        Some(libc::EROFS) => {
            "the cgroup filesystem is mounted read-only: mount it writable (in a container: start it privileged)"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "run as root, or have the cgroup delegated to this user and name it with --cgroup-parent"
        }
        Some(libc::EINVAL | libc::ERANGE | libc::EBUSY) => {
            "the kernel takes no value beyond what the cgroups above have: give another one"
        }
        Some(libc::EOPNOTSUPP) => "name another cgroup with --cgroup-parent: this one is for threads only",
        Some(libc::ENOENT) => "this kernel or this cgroup does not have it: leave the flag out",
        _ => "name another cgroup with --cgroup-parent, or leave the flag out",
    };
    RuntimeError::cgroup(flag, format!("cannot {action} {}: {text}", path.display()), remedy)
}

fn make(tree: &impl Tree, dir: &Path) -> io::Result<()> {
    match tree.make(dir) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        // Not to be written to, but maybe there: only then it matters.
        Err(_) if tree.below(dir).is_ok() => Ok(()),
        other => other,
    }
}

/// Gives a cgroup of version 1 the processors and memory nodes of the one above it, as far as it has none.
pub(crate) fn inherit_cpuset(tree: &impl Tree, dir: &Path) -> io::Result<()> {
    let above = dir.parent().unwrap_or(dir);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if tree.read(&dir.join(file))?.trim().is_empty() {
            tree.write(&dir.join(file), tree.read(&above.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// Directories of the bases that are not there, outermost first.
pub(crate) fn missing(tree: &impl Tree, places: &[Place]) -> Vec<PathBuf> {
    let path = |place: &Place| place.path().into_iter().map(Path::to_owned).collect::<Vec<_>>();
    places.iter().flat_map(path).filter(|dir| tree.below(dir).is_err()).collect()
}

/// Removes cgroups whose makers are gone. One that is not empty stays: it is somebody's.
pub(crate) fn remove_orphans(tree: &impl Tree, places: &[Place]) {
    for place in places {
        for name in tree.below(&place.base).unwrap_or_default() {
            let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            let Some(maker) = maker.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
            if !Path::new("/proc").join(maker.to_string()).exists() {
                // Somebody else may have removed it just now.
                let _ = remove_all(tree, &place.base.join(name));
            }
        }
    }
}

/// Removes a cgroup with those below it.
pub(crate) fn remove_all(tree: &impl Tree, dir: &Path) -> io::Result<()> {
    for name in tree.below(dir).unwrap_or_default() {
        remove_all(tree, &dir.join(name))?;
    }
    tree.remove(dir)
}
