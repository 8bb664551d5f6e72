//! Cgroups of real steps, with whichever version this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rbuild_runtime::{Cgroup, ExitStatus, Limits, Spec};

use crate::common::{Bed, Test, eventually, finish, start};
use crate::lifetime::{VICTIM, mark, processes_with, sleeper};

pub(crate) const TESTS: &[Test] = &[
    ("limits_hold_and_leave_nothing", limits_hold_and_leave_nothing),
    ("processes_killed_for_memory_are_counted", processes_killed_for_memory_are_counted),
    ("cgroups_of_killed_builders_are_removed", cgroups_of_killed_builders_are_removed),
    ("cgroups_of_killed_supervisors_are_removed_by_the_next", orphans_are_removed_by_the_next),
    ("a_sandbox_that_fails_leaves_no_cgroup", a_sandbox_that_fails_leaves_no_cgroup),
    ("without_limits_there_is_no_cgroup", without_limits_there_is_no_cgroup),
];

/// A parent of this test's own, so that what is left is found.
fn parent(test: &str) -> String {
    format!("rbuild-test-{}/{test}", std::process::id())
}

/// The cgroup, if this machine has what it asks for.
fn cgroup(test: &str, limits: Limits) -> Option<Cgroup> {
    let mut cgroup = Cgroup::new(Some(&parent(test)), limits).unwrap().unwrap();
    match cgroup.check() {
        Ok(()) => Some(cgroup),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

fn memory(bytes: u64) -> Limits {
    Limits { memory: Some(bytes), ..Limits::default() }
}

/// Directories with `name` in their path below /sys/fs/cgroup.
fn directories(name: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), name, found);
                if entry.path().to_string_lossy().contains(name) {
                    found.push(entry.path());
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

fn assert_nothing_left(test: &str) {
    assert_eq!(directories(&parent(test)), Vec::<PathBuf>::new());
}

/// The content of the first of these files in the step's cgroups.
fn value(test: &str, files: [&str; 2]) -> String {
    let steps = directories(&format!("{}/rbuild-", parent(test)));
    let read = |dir: &PathBuf| files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok());
    steps.iter().find_map(read).unwrap_or_else(|| panic!("{files:?} in {steps:?}")).trim().to_owned()
}

fn limits_hold_and_leave_nothing() {
    let test = "limits_hold_and_leave_nothing";
    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_cpus: Some("0".into()),
        cpuset_mems: Some("0".into()),
        ..memory(64 << 20)
    };
    let Some(cgroup) = cgroup(test, limits) else { return };
    assert_nothing_left(test);
    let bed = Bed::new();
    let mut spec = sleeper(&bed);
    spec.cgroup = Some(cgroup.clone());
    let step = start(&spec).unwrap();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    assert_eq!(value(test, ["memory.limit_in_bytes", "memory.max"]), (64 << 20).to_string());
    assert_eq!(value(test, ["cpuset.cpus", "cpuset.cpus"]), "0");
    let quota = value(test, ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(["25000", "25000 50000"].contains(&quota.as_str()), "{quota}");
    let shares = value(test, ["cpu.shares", "cpu.weight"]);
    assert!(["1024", "100"].contains(&shares.as_str()), "{shares}");
    let members = value(test, ["cgroup.procs", "cgroup.procs"]);
    let members: Vec<&str> = members.lines().collect();
    let supervisor = step.pid().to_string();
    // Two shells and what they wait for.
    assert!(members.len() >= 2 && !members.contains(&supervisor.as_str()), "{members:?}");
    step.kill();
    assert!(finish(step).unwrap().outcome.killed);
    assert_nothing_left(test);

    bed.fresh_upper();
    // The step sees where it is and has no way to change it.
    let mut spec = bed.sh(
        "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max; for d in . memory; do echo 1 > $d/cgroup.procs && echo in $d; mkdir $d/x && echo made in $d; done; exit 1",
    );
    spec.cgroup = Some(cgroup.clone());
    let ran = bed.run(spec).unwrap();
    assert_eq!(ran.outcome.status, ExitStatus::Exited(1), "{}", ran.out);
    assert!(ran.err.contains("can't create directory './x': Read-only"), "{}", ran.err);
    // Version 1, or version 2 with a namespace that begins there.
    let place = format!("/{}/rbuild-", parent(test));
    assert!(ran.out.contains(&place) || ran.out.starts_with("0::/\n"), "{}", ran.out);
    // its own limits, and no way to change them.
    assert!(ran.out.ends_with(&format!("\n{}\n", 64 << 20)), "{}", ran.out);
    assert_eq!(ran.outcome.oom_kills, 0);
    assert_nothing_left(test);

    // Several at once share a parent that comes and goes.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let bed = Bed::new();
                let mut spec = bed.sh("echo here");
                spec.cgroup = Some(cgroup.clone());
                assert_eq!(bed.output_of(spec), "here\n");
            });
        }
    });
    assert_nothing_left(test);
}

///
fn processes_killed_for_memory_are_counted() {
    let test = "processes_killed_for_memory_are_counted";
    let Some(cgroup) = cgroup(test, memory(16 << 20)) else { return };
    let bed = Bed::new();
    let run = |script: &str| {
        let mut spec = bed.sh(script);
        spec.cgroup = Some(cgroup.clone());
        let outcome = bed.run(spec).unwrap().outcome;
        bed.fresh_upper();
        assert_nothing_left(test);
        outcome
    };
    let much = "dd if=/dev/zero of=/dev/null bs=300M count=1";
    let outcome = run(&format!("exec {much}"));
    assert_eq!((outcome.status, outcome.oom_kills), (ExitStatus::Signaled { signal: 9 }, 1));
    let outcome = run(&format!("{much}; exit 3"));
    assert_eq!((outcome.status, outcome.oom_kills), (ExitStatus::Exited(3), 1));
    let outcome = run("dd if=/dev/zero of=/dev/null bs=1M count=300; sh -c 'kill -9 $$'; exit $?");
    assert_eq!((outcome.status, outcome.oom_kills), (ExitStatus::Exited(137), 0));
}

fn builder(bed: &Bed, spec: &Spec) -> std::process::Child {
    fs::write(bed.path("spec.json"), serde_json::to_vec(spec).unwrap()).unwrap();
    let mut command = Command::new("/proc/self/exe");
    command.args([VICTIM, bed.dir.path().to_str().unwrap()]).stdin(Stdio::null()).spawn().unwrap()
}

fn cgroups_of_killed_builders_are_removed() {
    let test = "cgroups_of_killed_builders_are_removed";
    let Some(cgroup) = cgroup(test, memory(64 << 20)) else { return };
    let bed = Bed::new();
    let mut spec = sleeper(&bed);
    spec.cgroup = Some(cgroup);
    let mut builder = builder(&bed, &spec);
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    builder.kill().unwrap();
    builder.wait().unwrap();
    eventually("cgroups are gone", || directories(&parent(test)).is_empty());
    assert_eq!(processes_with(&mark(&bed)), 0);
}

fn orphans_are_removed_by_the_next() {
    let test = "orphans_are_removed_by_the_next";
    let Some(cgroup) = cgroup(test, memory(64 << 20)) else { return };
    let bed = Bed::new();
    let mut spec = sleeper(&bed);
    spec.cgroup = Some(cgroup);
    let step = start(&spec).unwrap();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    let pid = rustix::process::Pid::from_raw(step.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    step.wait().unwrap_err();
    eventually("step is gone", || processes_with(&mark(&bed)) == 0);
    let steps = || directories(&format!("{}/rbuild-", parent(test)));
    assert!(!steps().is_empty(), "nobody was there to remove them");
    eventually("orphans are gone", || {
        let mut next = Cgroup::new(Some(&parent(test)), memory(64 << 20)).unwrap().unwrap();
        next.check().unwrap();
        steps().is_empty()
    });
    // The parents were there when the next one came.
    let mut left = directories(&parent(test));
    left.extend(left.clone().iter().filter_map(|dir| dir.parent().map(Path::to_owned)));
    left.iter().for_each(|dir| fs::remove_dir(dir).unwrap());
}

fn a_sandbox_that_fails_leaves_no_cgroup() {
    let test = "a_sandbox_that_fails_leaves_no_cgroup";
    let Some(cgroup) = cgroup(test, memory(64 << 20)) else { return };
    let bed = Bed::new();
    let mut spec = bed.spec(&["no-such-program"]);
    spec.cgroup = Some(cgroup);
    assert_eq!(bed.run(spec).map(|_| ()).unwrap_err().exit_code(), Some(127));
    assert_nothing_left(test);
}

fn without_limits_there_is_no_cgroup() {
    let bed = Bed::new();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(bed.output("cat /proc/self/cgroup"), own);
}
