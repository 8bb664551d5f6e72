//! The cgroup of one step, from its making to its removal.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::hierarchy::{self, Version};
use super::limits::{Controller, Setting, parse_id_list};
use super::place::{PREFIX, Place, inherit_cpuset, places, refused, remove_all};
use super::tree::{Cgroupfs, Tree};
use super::{Cgroup, v1, v2};
use crate::RuntimeError;
use crate::error::Context;

/// How often a directory that vanishes, or a name that is taken, is tried again: another step of this build removes
/// parents that nobody is in.
const ATTEMPTS: u128 = 100;
/// How long the kernel may take to let go of processes that have ended.
const REMOVAL: Duration = Duration::from_secs(5);

/// Directories that are removed when this is dropped.
pub(crate) struct StepCgroup<T: Tree = Cgroupfs> {
    tree: T,
    members: Vec<Member>,
    passing: Vec<PathBuf>,
}

struct Member {
    version: Version,
    dir: PathBuf,
}

impl StepCgroup {
    /// Makes what a spec asks for.
    pub(crate) fn make(cgroup: &Cgroup) -> Result<Self, RuntimeError> {
        let places = places(&Cgroupfs, &hierarchy::own(), cgroup)?;
        Self::make_in(Cgroupfs, &places, cgroup)
    }

    /// What a process writes `0` to in order to join.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>, RuntimeError> {
        let door = |member: &Member| {
            let file = member.dir.join("cgroup.procs");
            let opened = OpenOptions::new().write(true).open(&file);
            opened.map(OwnedFd::from).context("open", file.to_string_lossy())
        };
        self.members.iter().map(door).collect()
    }
}

impl<T: Tree> StepCgroup<T> {
    /// Makes a cgroup in each of `places`, with the limits set.
    pub(crate) fn make_in(tree: T, places: &[Place], cgroup: &Cgroup) -> Result<Self, RuntimeError> {
        let mut made = StepCgroup { tree, members: Vec::new(), passing: cgroup.passing.clone() };
        for place in places {
            made.add(place, cgroup)?;
        }
        Ok(made)
    }

    fn add(&mut self, place: &Place, cgroup: &Cgroup) -> Result<(), RuntimeError> {
        let dir = self.new_directory(place)?;
        self.members.push(Member { version: place.version, dir: dir.clone() });
        if place.cpuset {
            inherit_cpuset(&self.tree, &dir).map_err(|e| place.refused("set up", &dir, &e))?;
        }
        for controller in &place.controllers {
            let settings = match place.version {
                Version::V1 => v1::settings(&cgroup.limits, *controller),
                Version::V2 => v2::settings(&cgroup.limits, *controller),
            };
            for setting in settings {
                if *controller == Controller::Cpuset {
                    self.check_list(place.version, &dir, &setting)?;
                }
                self.set(&dir, &setting)?;
            }
        }
        Ok(())
    }

    fn new_directory(&self, place: &Place) -> Result<PathBuf, RuntimeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let mut attempt = 0;
        loop {
            match place.open(&self.tree) {
                // Removed under our hands, or never to be had: trying costs nothing.
                Err(_) if attempt < ATTEMPTS && self.tree.below(&place.base).is_err() => {
                    attempt += 1;
                    continue;
                }
                opened => opened?,
            }
            let dir = place.base.join(format!("{PREFIX}{}-{:x}", std::process::id(), now + attempt));
            match self.tree.make(&dir) {
                Ok(()) => return Ok(dir),
                Err(e)
                    if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOENT))
                        && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(e) => return Err(place.refused("make the cgroup", &dir, &e)),
            }
        }
    }

    fn set(&self, dir: &Path, setting: &Setting) -> Result<(), RuntimeError> {
        let file = dir.join(setting.file);
        match self.tree.write(&file, &setting.value) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) && setting.optional => Ok(()),
            // cgroupfs forbids to make a file rather than to say that there is none.
            Err(_) if setting.optional && self.tree.read(&file).is_err() => Ok(()),
            Err(e) if setting.flag.ends_with("memory-swap") && e.raw_os_error() == Some(libc::ENOENT) => {
                let remedy = "boot with swapaccount=1, or leave the flag out";
                Err(RuntimeError::cgroup(setting.flag, "the kernel does not count swap", remedy))
            }
            Err(e) => Err(refused(setting.flag, &format!("write {} to", setting.value), &file, &e)),
            Ok(()) => Ok(()),
        }
    }

    /// Version 2 takes any list and makes the best of it: what is not there has to be found here.
    fn check_list(&self, version: Version, dir: &Path, setting: &Setting) -> Result<(), RuntimeError> {
        let name = match version {
            Version::V1 => setting.file.to_owned(),
            Version::V2 => format!("{}.effective", setting.file),
        };
        let text = self.tree.read(&dir.join(&name));
        let text = text.map_err(|e| refused(setting.flag, "read", &dir.join(&name), &e))?;
        let (Ok(wanted), Ok(there)) = (parse_id_list(&setting.value), parse_id_list(text.trim())) else {
            return Ok(());
        };
        if wanted.is_subset(&there) {
            return Ok(());
        }
        let (what, those) = match setting.file {
            "cpuset.cpus" => ("CPUs", "processors"),
            _ => ("memory nodes", "memory nodes"),
        };
        let reason = format!(
            "Requested {what} are not available - requested {}, available: {}",
            setting.value,
            text.trim()
        );
        Err(RuntimeError::cgroup(setting.flag, reason, format!("name only {those} that are available")))
    }

    /// How many processes of the step the kernel has killed for want of memory; `None` if nobody counts.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        self.members.iter().find_map(|member| {
            let file = match member.version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            let text = self.tree.read(&member.dir.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
        })
    }

    /// Waits for the kernel to let go of processes that have ended.
    fn remove(&self, member: &Member) {
        let dir = &member.dir;
        let (mut waited, mut pause) = (Duration::ZERO, Duration::from_millis(1));
        let busy = |e: &io::Error| e.raw_os_error() == Some(libc::EBUSY);
        while remove_all(&self.tree, dir).is_err_and(|e| busy(&e)) && waited < REMOVAL {
            if waited.is_zero() && member.version == Version::V2 {
                // Whatever is still in it; Linux before 5.14 cannot, and the pid namespace has ended anyway.
                let _ = self.tree.write(&dir.join("cgroup.kill"), "1");
            }
            std::thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl<T: Tree> Drop for StepCgroup<T> {
    fn drop(&mut self) {
        for member in self.members.drain(..).collect::<Vec<_>>().iter().rev() {
            self.remove(member);
        }
        // The last of several steps succeeds.
        for dir in self.passing.iter().rev() {
            let _ = self.tree.remove(dir);
        }
    }
}
