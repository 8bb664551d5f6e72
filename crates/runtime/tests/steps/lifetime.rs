//! Ends of steps: background processes, kills, deadlines, a builder that is gone.

use std::fs;
use std::process::{Command, Stdio};

use rbuild_runtime::{ExitStatus, Launcher, RuntimeError, Spec, StepIo, StepOutput};

use crate::common::{Bed, Test, eventually, finish, start};
use crate::sandbox::bind_of;

pub(crate) const TESTS: &[Test] = &[
    ("background_processes_die_with_the_step", background_processes_die),
    ("kill_from_elsewhere", kill_from_elsewhere),
    ("dropped_steps_are_killed", dropped_steps_are_killed),
    ("deadline", deadline),
    ("killed_builder_kills_the_step", killed_builder_kills_the_step),
    ("killed_supervisor_kills_the_step", killed_supervisor_kills_the_step),
    ("no_mount_is_left", no_mount_is_left),
    ("steps_in_parallel", steps_in_parallel),
    ("output_into_a_descriptor", output_into_a_descriptor),
];

/// First argument of this executable when it plays the builder that gets killed; the second is its bed.
pub(crate) const VICTIM: &str = "victim";

/// A mark that finds the processes of one step in /proc, whatever they do.
pub(crate) fn processes_with(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let marked = |e: &fs::DirEntry| {
        let command = fs::read(e.path().join("cmdline")).unwrap_or_default();
        e.file_name().to_string_lossy().parse::<u32>().is_ok()
            && String::from_utf8_lossy(&command).contains(mark)
    };
    entries.filter(marked).count()
}

pub(crate) fn mark(bed: &Bed) -> String {
    format!("mark-{}", bed.dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'))
}

pub(crate) fn sleeper(bed: &Bed) -> Spec {
    let mark = mark(bed);
    bed.sh(&format!("sh -c 'sleep 1000; echo {mark}' & echo started; sleep 1000; echo {mark}"))
}

fn background_processes_die() {
    let bed = Bed::new();
    let mark = mark(&bed);
    let script = format!("sh -c 'sleep 1000; echo {mark}' >/dev/null & echo x > /dev/null");
    // Their end also ends the output, or this would not return.
    bed.output(&script);
    assert_eq!(processes_with(&mark), 0);
}

fn kill_from_elsewhere() {
    let bed = Bed::new();
    let step = start(&sleeper(&bed)).unwrap();
    let killer = step.killer();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    killer.kill();
    let ran = finish(step).unwrap();
    assert_eq!(ran.outcome.status, ExitStatus::Signaled { signal: 9 });
    assert!(ran.outcome.killed && !ran.outcome.oom_hint);
    assert_eq!(processes_with(&mark(&bed)), 0);
    assert_eq!(bed.upper(), ["dev/", "etc/", "proc/", "sys/"]);
    killer.kill();
}

fn dropped_steps_are_killed() {
    let bed = Bed::new();
    let step = start(&sleeper(&bed)).unwrap();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    drop(step);
    assert_eq!(processes_with(&mark(&bed)), 0);
}

fn deadline() {
    let bed = Bed::new();
    let mut spec = sleeper(&bed);
    spec.deadline_ms = Some(100);
    let outcome = bed.run(spec).unwrap().outcome;
    assert!(outcome.deadline && !outcome.killed, "{outcome:?}");
    assert_eq!(outcome.status.code(), 137);
    assert_eq!(processes_with(&mark(&bed)), 0);
}

/// Plays a builder: starts the step of `spec.json` and waits.
pub(crate) fn victim(dir: &str) -> ! {
    let spec = fs::read(format!("{dir}/spec.json")).unwrap();
    let spec: Spec = serde_json::from_slice(&spec).unwrap();
    let io = StepIo { stdout: StepOutput::Null, stderr: StepOutput::Null };
    let outcome = Launcher::new().unwrap().spawn(&spec, io).unwrap().wait();
    panic!("the step ended: {outcome:?}");
}

fn killed_builder_kills_the_step() {
    let bed = Bed::new();
    let mut spec = sleeper(&bed);
    bed.write("source/f", "");
    spec.mounts = vec![bind_of("/n/e/w", bed.path("source"), "", true)];
    fs::write(bed.path("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let mut builder = Command::new("/proc/self/exe")
        .args([VICTIM, bed.dir.path().to_str().unwrap()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    builder.kill().unwrap();
    builder.wait().unwrap();
    eventually("step is gone", || processes_with(&mark(&bed)) == 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bed.dir.path().to_str().unwrap()));
    eventually("stubs are gone", || bed.upper() == ["dev/", "etc/", "proc/", "sys/"]);
}

fn killed_supervisor_kills_the_step() {
    let bed = Bed::new();
    let step = start(&sleeper(&bed)).unwrap();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    let pid = rustix::process::Pid::from_raw(step.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let error = step.wait().unwrap_err();
    assert!(
        matches!(&error, RuntimeError::SupervisorLost { status } if status.contains("signal: 9")),
        "{error}"
    );
    eventually("step is gone", || processes_with(&mark(&bed)) == 0);
}

fn no_mount_is_left() {
    let bed = Bed::new();
    // Other programs mount things too: only what lies in our own directory counts.
    let ours = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.matches(bed.dir.path().to_str().unwrap()).count()
    };
    let step = start(&sleeper(&bed)).unwrap();
    eventually("step runs", || processes_with(&mark(&bed)) >= 2);
    // Not even while it runs: nothing is ever mounted where others can see it.
    assert_eq!(ours(), 0);
    drop(step);
    assert_eq!(ours(), 0);
}

fn steps_in_parallel() {
    let run = |i: usize| {
        let bed = Bed::new();
        assert_eq!(bed.output(&format!("sleep 0.05; echo {i}")), format!("{i}\n"));
    };
    std::thread::scope(|scope| {
        for i in 0..16 {
            scope.spawn(move || run(i));
        }
    });
}

fn output_into_a_descriptor() {
    let bed = Bed::new();
    let file = fs::File::create(bed.path("log")).unwrap();
    let io = StepIo { stdout: StepOutput::Fd(file.into()), stderr: StepOutput::Null };
    let mut step = Launcher::new().unwrap().spawn(&bed.sh("echo out; echo err >&2"), io).unwrap();
    assert!(step.take_stdout().is_none() && step.take_stderr().is_none());
    assert!(step.wait().unwrap().status.success());
    assert_eq!(fs::read_to_string(bed.path("log")).unwrap(), "out\n");
}
