//! A kernel with a hierarchy of version 2, as far as cgroups are concerned: what no machine at hand has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::tree::Tree;

pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// Files of a cgroup by controller, with their first values.
const FILES: [(&str, &[(&str, &str)]); 3] = [
    (
        "memory",
        &[("memory.max", "max"), ("memory.swap.max", "max"), ("memory.events", "oom 0\noom_kill 0\n")],
    ),
    ("cpu", &[("cpu.weight", "100"), ("cpu.max", "max 100000")]),
    (
        "cpuset",
        &[
            ("cpuset.cpus", ""),
            ("cpuset.mems", ""),
            ("cpuset.cpus.effective", "0-3\n"),
            ("cpuset.mems.effective", "0\n"),
        ],
    ),
];

#[derive(Default)]
struct State {
    /// Files of each cgroup.
    cgroups: BTreeMap<PathBuf, BTreeMap<String, String>>,
    /// What was written, in order.
    log: Vec<String>,
    read_only: bool,
    /// The top is that of a container: a cgroup like all others.
    container: bool,
}

#[derive(Default)]
pub(super) struct Kernel(RefCell<State>);

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Kernel {
    /// With these controllers at the root, which always may have processes.
    pub(super) fn new(controllers: &str) -> Self {
        let kernel = Kernel::default();
        kernel.add(Path::new(MOUNT), controllers);
        kernel
    }

    fn add(&self, dir: &Path, controllers: &str) {
        let mut files = BTreeMap::new();
        for (name, value) in
            [("cgroup.controllers", controllers), ("cgroup.subtree_control", ""), ("cgroup.procs", "")]
        {
            files.insert(name.to_owned(), value.to_owned());
        }
        self.0.borrow_mut().cgroups.insert(dir.to_owned(), files);
        controllers.split_whitespace().for_each(|controller| self.give(dir, controller));
    }

    fn give(&self, dir: &Path, controller: &str) {
        let mut state = self.0.borrow_mut();
        let files = state.cgroups.get_mut(dir).unwrap();
        for (name, own) in FILES {
            if name == controller && dir != Path::new(MOUNT) {
                files.extend(own.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())));
            }
        }
    }

    /// A cgroup with a process in it, and those above.
    pub(super) fn with_process(self, below: &str) -> Self {
        let mut dir = PathBuf::from(MOUNT);
        for part in below.split('/') {
            dir.push(part);
            let _ = self.make(&dir);
        }
        self.set(&dir.join("cgroup.procs"), "4711\n");
        self
    }

    /// Seen from inside of a container, whose processes are at the top.
    pub(super) fn container(self) -> Self {
        self.0.borrow_mut().container = true;
        self.set(&Path::new(MOUNT).join("cgroup.procs"), "1\n");
        self
    }

    pub(super) fn read_only(self) -> Self {
        self.0.borrow_mut().read_only = true;
        self
    }

    /// Does what the kernel itself does.
    pub(super) fn set(&self, file: &Path, value: &str) {
        let (dir, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
        self.0.borrow_mut().cgroups.get_mut(dir).unwrap().insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn without(&self, file: &Path) {
        let (dir, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
        self.0.borrow_mut().cgroups.get_mut(dir).unwrap().remove(name);
    }

    /// `cgroup/file=value` of everything that was written, below the mount point.
    pub(super) fn log(&self) -> Vec<String> {
        self.0.borrow().log.clone()
    }

    /// All cgroups below the mount point.
    pub(super) fn cgroups(&self) -> Vec<String> {
        let below = |dir: &PathBuf| dir.strip_prefix(MOUNT).unwrap().to_str().unwrap().to_owned();
        self.0.borrow().cgroups.keys().map(below).filter(|dir| !dir.is_empty()).collect()
    }
}

impl<T: Tree> Tree for &T {
    fn make(&self, dir: &Path) -> io::Result<()> {
        (**self).make(dir)
    }
    fn remove(&self, dir: &Path) -> io::Result<()> {
        (**self).remove(dir)
    }
    fn read(&self, file: &Path) -> io::Result<String> {
        (**self).read(file)
    }
    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        (**self).write(file, value)
    }
    fn below(&self, dir: &Path) -> io::Result<Vec<String>> {
        (**self).below(dir)
    }
}

impl Tree for Kernel {
    fn make(&self, dir: &Path) -> io::Result<()> {
        let state = self.0.borrow();
        let above = state.cgroups.get(dir.parent().unwrap()).ok_or(error(libc::ENOENT))?;
        if state.cgroups.contains_key(dir) {
            return Err(error(libc::EEXIST));
        }
        if state.read_only {
            return Err(error(libc::EROFS));
        }
        let controllers = above["cgroup.subtree_control"].clone();
        drop(state);
        self.add(dir, &controllers);
        Ok(())
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let files = state.cgroups.get(dir).ok_or(error(libc::ENOENT))?;
        let has_children = state.cgroups.keys().any(|other| other.parent() == Some(dir));
        if !files["cgroup.procs"].is_empty() || has_children {
            return Err(error(libc::EBUSY));
        }
        state.cgroups.remove(dir);
        Ok(())
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        let state = self.0.borrow();
        let files = state.cgroups.get(file.parent().unwrap()).ok_or(error(libc::ENOENT))?;
        files.get(file.file_name().unwrap().to_str().unwrap()).cloned().ok_or(error(libc::ENOENT))
    }

    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        let old = self.read(file)?;
        let (dir, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
        if self.0.borrow().read_only {
            return Err(error(libc::EROFS));
        }
        let shown = file.strip_prefix(MOUNT).unwrap().display();
        self.0.borrow_mut().log.push(format!("{shown}={value}"));
        if name == "cgroup.kill" {
            self.set(&dir.join("cgroup.procs"), "");
        }
        let Some(controller) = value.strip_prefix('+').filter(|_| name == "cgroup.subtree_control") else {
            self.set(file, value);
            return Ok(());
        };
        let there = self.read(&dir.join("cgroup.controllers"))?;
        if !there.split_whitespace().any(|other| other == controller) {
            return Err(error(libc::ENOENT));
        }
        if !self.read(&dir.join("cgroup.procs"))?.is_empty()
            && (dir != Path::new(MOUNT) || self.0.borrow().container)
        {
            return Err(error(libc::EBUSY));
        }
        self.set(file, format!("{old} {controller}").trim());
        for child in self.below(dir)? {
            let child = dir.join(child);
            let has = self.read(&child.join("cgroup.controllers"))?;
            self.set(&child.join("cgroup.controllers"), format!("{has} {controller}").trim());
            self.give(&child, controller);
        }
        Ok(())
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.borrow();
        state.cgroups.get(dir).ok_or(error(libc::ENOENT))?;
        let name = |other: &PathBuf| other.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(state.cgroups.keys().filter(|other| other.parent() == Some(dir)).map(name).collect())
    }
}
