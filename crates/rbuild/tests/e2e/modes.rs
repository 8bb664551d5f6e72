//! `--context-modes`: what the umask of a checkout does and does not reach.

use crate::context::{TestContext, run};
use crate::image::Image;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const EPOCH: &str = "1700000000";

/// COPY of a directory, of files and through a wildcard, ADD, a symbolic --chmod, and a bind mount, each with a directory.
const DOCKERFILE: &str = "FROM base\nCOPY . /all/\nCOPY run.sh sub/data /flat/\nCOPY sub/d* /wild/\nADD sub /added/\n\
    COPY --chmod=o-r run.sh /chmod\n\
    RUN --mount=target=/ctx echo ran-$((1+1)) && cd /ctx && find . -exec stat -c '%a %n' {} + | sort > /seen\n";

/// Writes the files of the project below `dir` under a umask.
fn project(dir: &Path, umask: u32) {
    let script = format!(
        "umask {umask:03o} && mkdir -p $1/sub/deep && cd $1 && echo data > sub/data && echo x > sub/deep/x && \
         echo '#!/bin/sh' > run.sh && chmod +x run.sh && ln -s run.sh link && printf '%s' \"$2\" > Dockerfile"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "-"]).arg(dir).arg(DOCKERFILE);
    run(command, b"").ok();
}

/// Puts the project, made under this umask, in place of the context.
fn checkout(context: &TestContext, umask: u32) {
    std::fs::remove_dir_all(context.path("context")).unwrap();
    project(&context.path("context"), umask);
    let mode = std::fs::metadata(context.in_context("sub/data")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o666 & !umask, "the umask holds");
}

fn context() -> TestContext {
    let mut context = TestContext::new();
    context.env("SOURCE_DATE_EPOCH", EPOCH);
    context
}

fn digest(context: &TestContext) -> String {
    Image::of(context, "app:latest").digest
}

/// The digest of a build of the same files on an empty store.
fn elsewhere(context: &TestContext, store: &str, args: &[&str]) -> String {
    let mut command = context.build_command(&[&["-t", "app"], args].concat());
    command.env("RBUILD_ROOT", context.path(store));
    run(command, b"").ok();
    Image::only(&context.path(store)).digest
}

#[test]
fn git_modes_make_one_key_and_one_image_of_every_umask() {
    let context = context();
    checkout(&context, 0o022);
    context.build(&["-t", "app", "--context-modes=git"]).ok();
    let first = digest(&context);
    for umask in [0o002, 0o077, 0o022] {
        checkout(&context, umask);
        let again = context.build(&["-t", "app", "--context-modes=git"]).ok();
        assert_eq!(again.steps().0, 0, "umask {umask:o}: {}", again.stderr);
        assert_eq!(digest(&context), first, "umask {umask:o}");
        let cold = elsewhere(&context, &format!("cold{umask:o}"), &["--context-modes=git"]);
        assert_eq!(cold, first, "umask {umask:o}, on an empty store");
    }
    let image = Image::of(&context, "app:latest");
    let modes = |layer: usize| -> Vec<String> {
        let entries = image.layers[layer].entries.iter().filter(|entry| entry.kind != 'l');
        entries.map(|entry| format!("{:o} {}", entry.mode, entry.path.trim_end_matches('/'))).collect()
    };
    let all = [
        "755 all",
        "644 all/Dockerfile",
        "755 all/run.sh",
        "755 all/sub",
        "644 all/sub/data",
        "755 all/sub/deep",
        "644 all/sub/deep/x",
    ];
    assert_eq!(modes(1), all);
    assert_eq!(modes(2), ["755 flat", "644 flat/data", "755 flat/run.sh"]);
    assert_eq!(modes(3), ["755 wild", "644 wild/data", "644 wild/x"]);
    assert_eq!(modes(4), ["755 added", "644 added/data", "755 added/deep", "644 added/deep/x"]);
    assert_eq!(modes(5), ["751 chmod"], "--chmod comes after");
    let seen = String::from_utf8_lossy(&image.layers[6].get("seen").unwrap().data).into_owned();
    let mounted = "644 ./Dockerfile\n644 ./sub/data\n644 ./sub/deep/x\n755 .\n755 ./run.sh\n755 ./sub\n755 ./sub/deep\n777 ./link\n";
    assert_eq!(seen, mounted);
}

#[test]
fn without_them_modes_count() {
    let context = context();
    checkout(&context, 0o022);
    context.build(&["-t", "app"]).ok();
    let first = digest(&context);
    checkout(&context, 0o077);
    let again = context.build(&["-t", "app"]).ok();
    assert_eq!(again.executed().len(), 6, "every step reads a mode: {}", again.stderr);
    assert_ne!(digest(&context), first);
    assert_eq!(Image::of(&context, "app:latest").layers[2].get("flat/data").unwrap().mode, 0o600);
    // The files that git would have made have git's modes as they are.
    checkout(&context, 0o022);
    let git = context.build(&["-t", "app", "--context-modes=git"]).ok();
    assert_eq!(git.steps().0, 0, "{}", git.stderr);
    assert_eq!(digest(&context), first);
}

#[test]
fn an_executable_bit_counts_always() {
    let context = context();
    checkout(&context, 0o022);
    context.build(&["-t", "app", "--context-modes=git"]).ok();
    context.mode("sub/data", 0o755);
    context.build(&["-t", "app", "--context-modes=git"]).ok();
    assert_eq!(Image::of(&context, "app:latest").layers[2].get("flat/data").unwrap().mode, 0o755);
}

#[test]
fn the_environment_the_other_contexts_and_their_archives() {
    let mut context = context();
    context.env("RBUILD_CONTEXT_MODES", "git");
    checkout(&context, 0o022);
    context.build(&["-t", "app"]).ok();
    let first = digest(&context);
    // `git archive` packs 664 and 775; so does tar here.
    checkout(&context, 0o002);
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(context.path("context")).args(["-c", "."]);
    let archive = run(tar, b"").ok().bytes;
    let piped = context.build_with_stdin(&["-t", "app", "-"], &archive).ok();
    assert_eq!(piped.steps().0, 0, "{}", piped.stderr);
    assert_eq!(digest(&context), first);
    context.build_with_stdin(&["-t", "app", "--context-modes=keep", "-"], &archive).ok();
    assert_ne!(digest(&context), first, "the flag wins over the environment");

    let named =
        "FROM base\nCOPY --from=more / /\nRUN --mount=from=more,target=/m stat -c %a /m/sub > /seen\n";
    let mut steps = Vec::new();
    for umask in [0o022, 0o077] {
        drop(std::fs::remove_dir_all(context.path("more")));
        project(&context.path("more"), umask);
        context.dockerfile(named);
        steps.push(context.build(&["-t", "app", "--build-context", "more=more"]).ok().executed().len());
    }
    assert_eq!(steps, [2, 0]);
    context.build(&["--context-modes=fat"]).fails(2, &["fat", "keep", "git"]);
}

#[test]
fn a_fresh_clone_hits() {
    if !crate::context::installed("git") {
        return crate::context::skip("a_fresh_clone_hits", "git is not installed");
    }
    let context = context();
    checkout(&context, 0o022);
    let git = |umask: u32, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask:03o}; {script}")]).current_dir(context.path("."));
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        run(command, b"").ok();
    };
    let identity = "-c user.name=x -c user.email=x@x";
    git(0o022, &format!("cd context && git init -q . && git add -A && git {identity} commit -qm x"));
    git(0o022, "git clone -q context one && rm -rf one/.git");
    git(0o077, "git clone -q context other && rm -rf other/.git");
    std::fs::remove_dir_all(context.path("context")).unwrap();
    std::fs::rename(context.path("one"), context.path("context")).unwrap();
    context.build(&["-t", "app", "--context-modes=git"]).ok();
    let first = digest(&context);
    let clone = context.build(&["-t", "app", "--context-modes=git", "other"]).ok();
    assert_eq!(clone.steps().0, 0, "{}", clone.stderr);
    assert_eq!(digest(&context), first);
}
