//! Limits of memory and processors (A-080, D-015, D-016), with whichever version of cgroups this machine has.

use super::site;
use crate::support::{Context, Outcome};
use std::fs;
use std::path::{Path, PathBuf};

/// A parent of this test's own, so that what is left is found.
fn parent(test: &str) -> String {
    format!("rbuild-behaviour-{}-{test}", std::process::id())
}

/// Cgroups with `name` in their path.
fn cgroups(name: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), name, found);
                found.extend(Some(entry.path()).filter(|path| path.to_string_lossy().contains(name)));
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

/// Builds below the test's parent; `None`, with a `skipped` line, if this machine lets us make no such cgroup. Nothing may
/// be left of it, whatever came out.
fn build(context: &Context<'_>, test: &str, args: &[&str]) -> Option<Outcome> {
    let parent = parent(test);
    let outcome = context.build(&[args, &["--cgroup-parent", &parent]].concat());
    assert_eq!(cgroups(&parent), Vec::<PathBuf>::new());
    if outcome.code == 4 && outcome.output.contains("cannot be applied: ") {
        println!("skipped: {test}: {}", outcome.output.trim());
        return None;
    }
    Some(outcome)
}

/// every step has them, and changing one makes no step run again.
#[test]
fn limits_hold_for_every_step_and_are_not_in_the_key() {
    let test = "limits_hold_for_every_step_and_are_not_in_the_key";
    let site = site!(test);
    let context = site.context();
    let look = "echo at-$(grep -c /rbuild- /proc/self/cgroup) $(grep Cpus_allowed_list: /proc/self/status)";
    context.file("Dockerfile", format!("FROM busybox\nRUN {look} one\nRUN {look} two\n"));
    let limits = ["--resource", "cpuset-cpus=0,memory=512m,cpu-quota=200000"];
    let Some(built) = build(&context, test, &limits) else { return };
    assert_eq!(built.code, 0, "{}", built.output);
    for step in ["one", "two"] {
        let seen =
            |line: &str| line.contains(" at-") && line.ends_with(&format!("Cpus_allowed_list: 0 {step}"));
        let found =
            built.output.lines().find(|line| seen(line)).unwrap_or_else(|| panic!("{}", built.output));
        assert!(!found.contains("at-0 "), "{found}");
    }
    for other in [&["-m", "64m", "-c", "2"][..], &[]] {
        let Some(again) = build(&context, test, other) else { return };
        assert!(again.output.contains(" 0 executed"), "{other:?}: {}", again.output);
    }
}

/// BuildKit's words, whoever was killed.
#[test]
fn a_step_that_runs_out_of_memory_says_so() {
    let test = "a_step_that_runs_out_of_memory_says_so";
    let site = site!(test);
    let context = site.context();
    for (command, code) in [
        ("head -c 300m /dev/zero | tail", 137),
        ("head -c 300m /dev/zero | tail; exit 3", 3),
        ("exec sh -c 'exec tail /dev/zero'", 137),
    ] {
        context.file("Dockerfile", format!("FROM busybox\nRUN {command}\n"));
        let Some(outcome) = build(&context, test, &["-m", "32m"]) else { return };
        outcome.refused(
            1,
            &format!(
                "process \"/bin/sh -c {command}\" did not complete successfully: cannot allocate memory (exit code: {code}; a \
                 process was killed when memory ran out; the limit is memory=32m: raise it with --resource"
            ),
        );
    }
    // Others end as ever.
    context.file("Dockerfile", "FROM busybox\nRUN exit 7\n");
    let Some(outcome) = build(&context, test, &["-m", "32m"]) else { return };
    outcome.refused(1, "did not complete successfully: exit code: 7\n");
}

/// D-016: never a limit less than asked for.
#[test]
fn limits_that_cannot_be_had_are_refused_before_anything_runs() {
    let test = "limits_that_cannot_be_had_are_refused_before_anything_runs";
    let site = site!(test);
    let context = site.context();
    context.file("Dockerfile", format!("FROM busybox\nRUN echo {test}-ran\n"));
    let Some(_) = build(&context, test, &["--resource", "cpuset-cpus=0"]) else { return };
    context.file("Dockerfile", format!("FROM busybox\nRUN echo again {test}-ran\n"));
    let outcome = context.build(&["--cpuset-cpus", "0,8000", "--cgroup-parent", &parent(test)]);
    assert_eq!(cgroups(&parent(test)), Vec::<PathBuf>::new());
    outcome.refused(
        4,
        "--resource cpuset-cpus cannot be applied: Requested CPUs are not available - requested 0,8000",
    );
    assert!(!outcome.output.contains("-ran"), "{}", outcome.output);
    // Without a RUN there is nothing to limit.
    context.file("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n");
    assert_eq!(context.build(&["--cpuset-cpus", "0,8000"]).code, 0);
    context.build(&["-m", "1m"]).refused(2, "Minimum memory limit allowed is 6MB");
    context.build(&["--resource", "memori=1g"]).refused(2, "did you mean memory?");
}
