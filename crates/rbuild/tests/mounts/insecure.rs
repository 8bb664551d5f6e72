//! RUN --security (A-093).

use crate::bed::{Built, bed};
use std::fs;
use std::process::Command;

/// A-093
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

/// A-093, A-078: the filter of system calls is for the others.
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

/// A-093
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

/// Runs a program that can install no filter, as in a container that forbids it.
const WITHOUT_FILTERS: &str = r"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 111;
    execv(argv[1], argv + 1);
    return 112;
}
";

/// A-078: where no filter can be had, steps run without one, and the build says so, once.
#[test]
fn a_078_steps_run_where_filters_are_refused() {
    let test = "a_078_steps_run_where_filters_are_refused";
    let Some(bed) = bed(test) else { return };
    let (source, wrapper) = (bed.path("without.c"), bed.path("without"));
    fs::write(&source, WITHOUT_FILTERS).unwrap();
    let compiled = Command::new("cc").arg("-o").arg(&wrapper).arg(&source).output();
    if let Some(reason) = match &compiled {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("cc: {error}")),
    } {
        println!("skipped: {test}: {reason}");
        return;
    }
    let build = bed.command("RUN echo one\nRUN echo two", &[]);
    let mut wrapped = Command::new(&wrapper);
    wrapped.arg(build.get_program()).args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    let built = Built::from(wrapped.output().unwrap()).succeeded();
    let warning = "RUN steps run without a system call filter, which the kernel refused: Permission denied";
    assert_eq!(built.said.matches(warning).count(), 1, "{}", built.said);
    assert_eq!(built.executed(), 2);
}
