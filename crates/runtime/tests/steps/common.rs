//! A busybox root in a temporary directory and a way to run steps in it.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rbuild_runtime::{ExitStatus, Launcher, Outcome, RunningStep, RuntimeError, Spec, StepIo};

pub(crate) type Test = (&'static str, fn());

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 31] = [
    "sh",
    "true",
    "echo",
    "cat",
    "ls",
    "id",
    "env",
    "grep",
    "touch",
    "rm",
    "mkdir",
    "rmdir",
    "ln",
    "stat",
    "sleep",
    "hostname",
    "ip",
    "mknod",
    "dd",
    "kill",
    "mv",
    "wc",
    "head",
    "sort",
    "readlink",
    "chmod",
    "mount",
    "umount",
    "df",
    "tr",
    "sha256sum",
];

/// Whether steps can be run here at all.
pub(crate) fn probe() -> Result<(), String> {
    if !Path::new(BUSYBOX).exists() {
        return Err(format!("{BUSYBOX} is missing (package busybox-static)"));
    }
    let bed = Bed::new();
    match bed.run(bed.spec(&["true"])) {
        Ok(_) => Ok(()),
        Err(e @ RuntimeError::Setup { errno: libc::EPERM, .. }) => Err(e.to_string()),
        Err(e) => panic!("{e}"),
    }
}

/// Directories of one test: a base layer, an upper and a work directory, and a canary beside them.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bed {
    pub(crate) fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let bed = Bed { dir };
        for name in ["base/bin", "base/etc", "base/tmp", "base/root", "upper", "work", "canary"] {
            fs::create_dir_all(bed.path(name)).unwrap();
        }
        // A hard link where the temporary directory allows it.
        if fs::hard_link(BUSYBOX, bed.path("base/bin/busybox")).is_err() {
            fs::copy(BUSYBOX, bed.path("base/bin/busybox")).unwrap();
        }
        for applet in APPLETS {
            symlink("busybox", bed.path("base/bin").join(applet)).unwrap();
        }
        bed.write("base/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n");
        bed.write("base/etc/group", "root:x:0:\napp:x:1001:\nextra:x:2000:app\n");
        bed.write("canary/file", "canary");
        bed
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn write(&self, below: &str, content: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn spec(&self, args: &[&str]) -> Spec {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let mut spec = Spec::new(vec![self.path("base")], self.path("upper"), self.path("work"), args);
        spec.hosts = "127.0.0.1 localhost step\n".to_owned();
        spec.resolv_conf = "nameserver 192.0.2.1\n".to_owned();
        spec
    }

    pub(crate) fn sh(&self, script: &str) -> Spec {
        self.spec(&["sh", "-c", script])
    }

    pub(crate) fn run(&self, spec: Spec) -> Result<Ran, RuntimeError> {
        let step = start(&spec)?;
        finish(step)
    }

    /// Runs a shell script that must succeed; gives its output.
    pub(crate) fn output(&self, script: &str) -> String {
        self.output_of(self.sh(script))
    }

    pub(crate) fn output_of(&self, spec: Spec) -> String {
        let ran = self.run(spec).unwrap();
        assert_eq!(ran.outcome.status, ExitStatus::Exited(0), "stdout: {} stderr: {}", ran.out, ran.err);
        ran.out
    }

    /// What the step left in the upper directory, sorted, directories with a slash.
    pub(crate) fn upper(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path("upper"), "", &mut found);
        found.sort();
        found
    }

    /// A later step over the same layers, with an upper directory of its own.
    pub(crate) fn fresh_upper(&self) {
        for name in ["upper", "work"] {
            fs::remove_dir_all(self.path(name)).unwrap();
            fs::create_dir(self.path(name)).unwrap();
        }
    }

    pub(crate) fn assert_canary(&self) {
        assert_eq!(fs::read_to_string(self.path("canary/file")).unwrap(), "canary");
        assert_eq!(fs::read_dir(self.path("canary")).unwrap().count(), 1);
    }
}

fn list(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &format!("{name}/"), found);
            found.push(format!("{name}/"));
        } else {
            found.push(name);
        }
    }
}

pub(crate) fn start(spec: &Spec) -> Result<RunningStep, RuntimeError> {
    Launcher::new()?.spawn(spec, StepIo::default())
}

pub(crate) fn finish(mut step: RunningStep) -> Result<Ran, RuntimeError> {
    let err = reader(step.take_stderr().unwrap());
    let out = reader(step.take_stdout().unwrap());
    let outcome = step.wait()?;
    Ok(Ran { outcome, out: out.join().unwrap(), err: err.join().unwrap() })
}

fn reader(fd: OwnedFd) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        fs::File::from(fd).read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Waits, for a few seconds at most, until something has come about.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if happened() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never: {what}");
}
