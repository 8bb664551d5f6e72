//! RUN --security.

use crate::bed::bed;
use std::fs;

///
#[test]
fn a_093_insecure_steps_have_to_be_allowed() {
    let Some(bed) = bed("a_093_insecure_steps_have_to_be_allowed") else { return };
    let step =
        "RUN --security=insecure mkdir /m && mount -t tmpfs none /m && grep CapEff /proc/self/status >/caps";
    let allow = ["--allow", "security.insecure"];
    let refusal = "security.insecure is not allowed: RUN --security=insecure needs it";
    bed.build(step, &[]).failed_with(refusal);
    let files = bed.files(step, &allow);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapEff")).unwrap();
    assert_eq!(fs::read_to_string(files.join("caps")).unwrap().trim_end(), own);
    // Nothing of it is granted to the next step, nor by the cache to whoever may not.
    bed.build(&format!("{step}\nRUN mkdir /n; mount -t tmpfs none /n"), &allow).failed_with("exit code: 1");
    bed.build(step, &[]).failed_with(refusal);
    assert_eq!(bed.build(step, &allow).succeeded().executed(), 0);
    bed.builds("RUN --security=sandbox mkdir /m; ! mount -t tmpfs none /m");
}

/// the filter of system calls is for the others.
#[test]
fn a_093_insecure_steps_have_no_filter() {
    let Some(bed) = bed("a_093_insecure_steps_have_no_filter") else { return };
    let allow = ["--allow", "security.insecure"];
    let step = "busybox unshare -U true && grep ^Seccomp: /proc/self/status >/state";
    let files = bed.files(&format!("RUN --security=insecure {step}"), &allow);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("Seccomp:")).unwrap();
    assert_eq!(fs::read_to_string(files.join("state")).unwrap().trim_end(), own);
    bed.build(&format!("RUN {step}"), &allow).failed_with("Operation not permitted");
}

///
#[test]
fn a_093_devices_work_in_insecure_steps_only() {
    let Some(bed) = bed("a_093_devices_work_in_insecure_steps_only") else { return };
    let allow = ["--allow", "security.insecure"];
    bed.build(
        "RUN --security=insecure mknod /null c 1 3 && echo x >/null && rm /null && test -b /dev/loop0",
        &allow,
    )
    .succeeded();
    bed.build("RUN mknod /null c 1 3 && echo x >/null", &allow).failed_with("Permission denied");
    bed.builds("RUN test ! -e /dev/loop0 # none");
}
