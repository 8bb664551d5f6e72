//! Mistakes: what is said about them, the exit code, and that nothing half-made stays.

use crate::context::{TestContext, installed, run, skip};
use std::process::Command;

/// Builds a Dockerfile that must fail with this code and these words.
#[track_caller]
fn refused(dockerfile: &str, code: i32, words: &[&str]) {
    let context = TestContext::of(dockerfile);
    context.file("present.txt", "x");
    context.build(&["-t", "bad"]).fails(code, words);
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "", "no image");
    context.assert_nothing_left();
}

#[test]
fn dockerfiles_that_cannot_be_built() {
    for (dockerfile, words) in [
        ("", &["Dockerfile", "empty"][..]),
        ("# nothing\n", &["Dockerfile", "no instructions"]),
        ("ARG A\n", &["no stages to build"]),
        ("RUN true\n", &["no build stage", "Dockerfile:1"]),
        ("FROM base\nRUM true\n", &["unknown instruction: RUM", "Dockerfile:2", "RUN"]),
        ("FROM base\n\n\nCOPY one\n", &["Dockerfile:4", "COPY"]),
        ("FROM base\nCOPY --form=x a b\n", &["Dockerfile:2", "--form", "from"]),
        ("FROM base\nCOPY --from=3 /x /\n", &["Dockerfile:2", "3"]),
        ("FROM base AS a\nCOPY --from=a /x /\n", &["Dockerfile:2", "circular"]),
        (
            "FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nCOPY --from=a /x /\n",
            &["circular", "Dockerfile:"],
        ),
        ("FROM base\nEXPOSE http\n", &["Dockerfile:2", "http"]),
        ("FROM base\nHEALTHCHECK --interval=2 CMD x\n", &["Dockerfile:2", "interval"]),
        ("FROM $NOTHING\n", &["Dockerfile:1"]),
        ("FROM base\nENV A\n", &["Dockerfile:2", "ENV"]),
        ("FROM base\nRUN --network=moon true\n", &["Dockerfile:2", "moon"]),
        ("FROM base\nRUN <<END\necho\n", &["Dockerfile:2", "END"]),
        ("FROM base\nFROM\n", &["Dockerfile:2"]),
        ("FROM base\nUSER\n", &["Dockerfile:2", "USER"]),
    ] {
        println!("{dockerfile:?}");
        refused(dockerfile, 2, words);
    }
}

#[test]
fn an_image_that_cannot_be_reached() {
    refused("FROM base\nCOPY --from=127.0.0.1:1/nothing /x /\n", 3, &["Dockerfile:2", "127.0.0.1:1/nothing"]);
    refused("FROM 127.0.0.1:1/nothing\n", 3, &["Dockerfile:1", "127.0.0.1:1/nothing"]);
}

#[test]
fn copies_that_cannot_be() {
    for (dockerfile, words) in [
        (
            "FROM base\nRUN true\nCOPY missing.txt /\n",
            &["Dockerfile:3", "missing.txt", "not found", ">>> COPY"][..],
        ),
        ("FROM base\nCOPY presnt.txt /\n", &["Dockerfile:2", "presnt.txt", "present.txt"]),
        ("FROM base\nCOPY --from=base /missing /\n", &["Dockerfile:2", "/missing"]),
        ("FROM base\nCOPY --chmod=99 present.txt /\n", &["Dockerfile:2", "99"]),
        ("FROM base\nCOPY present.txt /bin/busybox/x\n", &["Dockerfile:2", "/bin/busybox"]),
        ("FROM base\nCOPY ../outside /\n", &["Dockerfile:2", "outside"]),
    ] {
        println!("{dockerfile:?}");
        refused(dockerfile, 2, words);
    }
}

#[test]
fn a_failing_step_shows_its_output_its_lines_and_its_exit_code() {
    let context = TestContext::of(
        "FROM base\nRUN echo before\nRUN echo to-out; \\\n  echo to-err >&2; exit 7\nRUN echo after\n",
    );
    let failed =
        context.build(&["-t", "bad"]).fails(1, &["to-out", "to-err", "exit code: 7", "Dockerfile:3", ">>>"]);
    assert_eq!(failed.count("after\n") - failed.count("RUN echo after\n"), 0, "{}", failed.stderr);
    let end = failed.stderr.rsplit("------\n > ").next().unwrap();
    assert!(
        end.contains("to-out") && end.contains("to-err"),
        "the output comes again at the end:\n{}",
        failed.stderr
    );
    context.assert_nothing_left();
    for (command, words) in [
        ("RUN /no/such/program", &["127", "/no/such/program"][..]),
        ("RUN [\"/no/such/program\"]", &["/no/such/program", "no such file"]),
        ("RUN [\"/etc/passwd\"]", &["/etc/passwd", "permission denied"]),
        ("RUN sh -c 'kill -9 $$'; exit $?", &["137"]),
        ("USER nosuchuser\nRUN true", &["nosuchuser"]),
    ] {
        println!("{command}");
        refused(&format!("FROM base\n{command}\n"), 1, words);
    }
}

#[test]
fn a_failing_stage_stops_the_others() {
    let context = TestContext::of(
        "FROM base AS slow\nRUN sleep 4721; echo never-$((1+1))\nFROM base AS bad\nRUN sleep 0.5; exit 9\n\
         FROM base\nCOPY --from=slow /etc/passwd /1\nCOPY --from=bad /etc/passwd /2\n",
    );
    let failed = context.build(&[""; 0]).fails(1, &["exit code: 9"]);
    assert_eq!(failed.count("never-2"), 0);
    crate::context::assert_no_process("sleep 4721");
    context.assert_nothing_left();
}

#[test]
fn command_lines_that_make_no_sense() {
    let context = TestContext::of("FROM scratch\nLABEL a=b\n");
    for (args, words) in [
        (&["--target", "nowhere"][..], &["nowhere"][..]),
        (&["-t", "UPPER"], &["UPPER", "lowercase"]),
        (&["-t", "a@sha256:0000000000000000000000000000000000000000000000000000000000000000"], &["digest"]),
        (&["-f", "context/Missing"], &["context/Missing"]),
        (&["--platform", "linux/amd64,linux/arm64", "-o", "type=docker"], &["manifest lists"]),
        (&["--platform", "weird"], &["weird"]),
        (&["-o", "type=weird"], &["weird"]),
        (&["-o", "type=oci,dest=x,colour=red"], &["colour"]),
        (&["--network", "weird"], &["weird"]),
        (&["--add-host", "nohost"], &["nohost"]),
        (&["--build-context", "x=missing-dir"], &["missing-dir"]),
        (&["--build-context", "x=oci-layout://missing-dir"], &["missing-dir"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--push"], &["-t"]),
        (&["--allow", "everything"], &["everything"]),
        (&["--build-arg", "=x"], &["=x"]),
    ] {
        println!("{args:?}");
        context.dockerfile("FROM base\nRUN true\n");
        context.build(args).fails(2, words);
    }
    context.rbuild(&["build"]).fails(2, &["context"]);
    context.rbuild(&["build", "nodir"]).fails(2, &["nodir"]);
    context.rbuild(&["build", "context/Dockerfile"]).fails(2, &["not a directory"]);
    context.rbuild(&["build", "https://127.0.0.1:1/x.git"]).fails(3, &["https://127.0.0.1:1/x.git"]);
    context.rbuild(&["build", "https://example.org/x.git?x=y"]).fails(2, &["unexpected query"]);
    context.rbuild(&["frobnicate"]).fails(2, &["frobnicate"]);
}

#[test]
fn contexts_that_cannot_be_read() {
    let context = TestContext::new();
    context.build(&[""; 0]).fails(2, &["Dockerfile"]);
    context.build_with_stdin(&["-"], b"\x1f\x8b\x08 this is no gzip").fails(2, &[]);
    std::fs::create_dir(context.in_context("Dockerfile")).unwrap();
    context.build(&[""; 0]).fails(2, &["Dockerfile"]);
    std::fs::remove_dir(context.in_context("Dockerfile")).unwrap();
    context.file("Dockerfile", b"FROM base\nENV x=\xff\xfe\n");
    assert!(context.build(&[""; 0]).ok().stderr.contains("UTF-8"), "replaced with a warning");
    context.file("Dockerfile", b"FROM base\nRUN echo \xff\xfe\n");
    context.build(&[""; 0]).fails(2, &["UTF-8", "Dockerfile:2"]);
    context.symlink("loop/Dockerfile", "Dockerfile");
    context.build(&["-f", "context/loop/Dockerfile"]).fails(4, &["loop/Dockerfile"]);
    context.file("Dockerfile", "FROM base\nCOPY pipe /\n");
    let mut mkfifo = Command::new("mkfifo");
    mkfifo.arg(context.in_context("pipe"));
    run(mkfifo, b"").ok();
    context.build(&[""; 0]).ok();
}

#[test]
fn a_dockerfile_that_one_may_not_read() {
    let context = TestContext::of("FROM base\n");
    if !installed("setpriv") {
        return skip("a_dockerfile_that_one_may_not_read", "setpriv is not installed");
    }
    // Root reads everything; without the capability it does not.
    context.mode("Dockerfile", 0);
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]);
    let build = context.build_command(&[""; 0]);
    setpriv.arg(build.get_program()).args(build.get_args()).current_dir(context.path("."));
    for (name, value) in build.get_envs() {
        if let Some(value) = value {
            setpriv.env(name, value);
        }
    }
    std::os::unix::fs::chown(context.in_context("Dockerfile"), Some(1), Some(1)).unwrap();
    run(setpriv, b"").fails(4, &["Dockerfile", "ermission denied"]);
}

#[test]
fn a_full_disk() {
    let context = TestContext::of("FROM base\nCOPY big /big\n");
    context.file("big", crate::context::noise(24_000_000));
    // The mount lives and dies with the shell's namespace.
    let script = r#"mkdir -p "$RBUILD_ROOT" && mount -t tmpfs -o size=16m none "$RBUILD_ROOT" || exit 99
        "$@"; code=$?
        find "$RBUILD_ROOT"/ingest "$RBUILD_ROOT"/blobs -type f -size +8M | sed 's/^/LEFT /' >&2
        exit $code"#;
    let build = context.build_command(&["-t", "big"]);
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "bash", "-c", script, "-"]).arg(build.get_program()).args(build.get_args());
    shell
        .current_dir(context.path("."))
        .env("RBUILD_ROOT", context.store())
        .env("HOME", context.path("home"));
    let out = run(shell, b"");
    if out.code == 99 {
        return skip("a_full_disk", "a tmpfs cannot be mounted here");
    }
    let out = out.fails(4, &["space"]);
    assert!(!out.stderr.contains("LEFT"), "{}", out.stderr);
}
