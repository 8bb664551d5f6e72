//! RUN --mount and stages as BuildKit's own tests use them.

use super::site;

/// A-082, A-085 (testMountEnvVar, testMountArg, testMountMetaArg, testMountEnvAcrossStages): variables of the stage, of the
/// stage below it, and of ARGs before FROM that the stage declares.
#[test]
fn mounts_take_variables() {
    let site = site!("mounts_take_variables");
    let id = format!("variables-{}", std::process::id());
    let image = site.context().image_of(&format!(
        "ARG META=/tmp/meta
FROM busybox AS one
ENV KIND=cache ID={id}
RUN --mount=type=cache,id={id},target=/first touch /first/mark
RUN --mount=type=$KIND,id=$ID,target=/second [ -f /second/mark ]
FROM one
ARG META
ARG SUB=third
RUN --mount=type=$KIND,id=$ID,target=$META [ -f /tmp/meta/mark ]
RUN --mount=type=${{KIND}},id=${{ID}},target=/$SUB [ -f /third/mark ]
RUN --mount=type=cache,target=$META [ ! -f /tmp/meta/mark ]
"
    ));
    assert!(!image.has("first") && !image.has("second") && !image.has("tmp/meta") && !image.has("third"));
}

/// A-085 (testCacheMountUser, testCacheMountDefaultID, testMountRWCache)
#[test]
fn cache_mounts_by_target_and_owner() {
    let site = site!("cache_mounts_by_target_and_owner");
    let tag = std::process::id();
    site.context().image_of(&format!(
        "FROM busybox
RUN --mount=type=cache,target=/cache-a-{tag},uid=1001,gid=1002,mode=0751 [ \"$(stat -c '%u %g %f' /cache-a-{tag})\" = '1001 1002 41e9' ]
RUN --mount=type=cache,target=/cache-b-{tag} touch /cache-b-{tag}/f
RUN --mount=type=cache,target=/cache-c-{tag} [ ! -f /cache-c-{tag}/f ]
RUN --mount=type=cache,target=/cache-b-{tag}/ [ -f /cache-b-{tag}/f ]
"
    ));
}

/// A-086 (testMountTmpfs, testMountTmpfsSize): also where the sandbox has a filesystem of its own.
#[test]
fn tmpfs_over_shared_memory() {
    let site = site!("tmpfs_over_shared_memory");
    let image = site.context().image_of(
        "FROM busybox
RUN --mount=type=tmpfs,target=/dev/shm,size=128m df -k /dev/shm | tail -n 1 > /mounted
RUN --mount=type=tmpfs,target=/tmp touch /tmp/gone
RUN [ ! -e /tmp/gone ]
",
    );
    let line = image.text("mounted");
    assert_eq!(line.split_whitespace().nth(1), Some("131072"), "{line}");
}

/// A-134 (testOnBuildWithCacheMount)
#[test]
fn triggers_have_mounts() {
    let site = site!("triggers_have_mounts");
    let target = format!("/cache-trigger-{}", std::process::id());
    let image = site.context().image_of(&format!(
        "FROM busybox AS base
ONBUILD RUN --mount=type=cache,target={target} echo -n 42 >> {target}/f && echo -n 11 >> /bar
FROM base
RUN --mount=type=cache,target={target} [ \"$(cat {target}/f)\" = 42 ] && [ \"$(cat /bar)\" = 11 ]
"
    ));
    assert_eq!(image.text("bar"), "11");
}

/// A-111 (testPlatformArgsImplicit, testEmptyStages, testNamedImageContextScratch): stages without files.
#[test]
fn stages_without_files() {
    let site = site!("stages_without_files");
    let context = site.context();
    context.file("foo", "foo").file("foo2", "foo2");
    let dockerfile = "FROM scratch AS build-linux\nCOPY foo bar\nFROM build-${TARGETOS}\nCOPY foo2 bar2\n";
    assert_eq!(context.image_of(dockerfile).paths(), ["bar", "bar2"]);
    let image = context.image_of("FROM scratch AS empty\nFROM scratch\nENV a=1\nCOPY --from=empty / /\n");
    assert_eq!((image.paths(), image.config()["Env"][1].as_str()), (vec![], Some("a=1")));
    context.file("Dockerfile", "FROM other.invalid/base AS build\nCOPY foo /out\n");
    let image = context.image(&["--build-context", "other.invalid/base=docker-image://scratch"]);
    assert_eq!(image.paths(), ["out"]);
    // Two names are never looked up.
    context.file("Dockerfile", "FROM scratch\nCOPY foo /\n").file("other/foo", "other");
    let other = context.dir.join("other").display().to_string();
    let named = [format!("context={other}"), format!("scratch={other}")];
    let image = context.image(&["--build-context", &named[0], "--build-context", &named[1]]);
    assert_eq!((image.paths(), image.text("foo")), (vec!["foo"], "foo"));
}

/// ignore files are about contexts, not about stages.
#[test]
fn what_a_stage_has_is_not_ignored() {
    let site = site!("what_a_stage_has_is_not_ignored");
    let context = site.context();
    context.file(".dockerignore", "f\n**/g\n").file("f", "context");
    let image = context.image_of(
        "FROM busybox AS stage\nRUN mkdir /d && echo f > /d/f && echo g > /d/g && cp /d/f /f\nFROM scratch\nCOPY --from=stage /d /d\nCOPY --from=stage /f /f\n",
    );
    assert_eq!(image.paths(), ["d", "d/f", "d/g", "f"]);
    let args = "FROM busybox\nRUN --mount=target=/m [ ! -e /m/f ]\n";
    assert_eq!(context.build_of(args).code, 0);
}

/// A-092 (testRunGlobalNetwork, testRunHostNetwork, testRunDefaultNetwork): what the command line gives every step.
#[test]
fn the_command_line_gives_a_network() {
    let site = site!("the_command_line_gives_a_network");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox\nRUN ls /sys/class/net > /default\nRUN --network=none ls /sys/class/net > /none\n",
    );
    let image = context.image(&["--network", "none"]);
    assert_eq!((image.text("default"), image.text("none")), ("lo\n", "lo\n"));
    context.file(
        "Dockerfile",
        "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /host\nRUN true\n",
    );
    let image = context.image(&["--allow", "network.host"]);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(image.text("host").trim_end(), own.to_string_lossy());
    // The option itself is the permission.
    let image = context.image(&["--network", "host", "--no-cache"]);
    assert_eq!(image.text("host").trim_end(), own.to_string_lossy());
    context.build(&[]).refused(2, "network.host");
}

/// programs for another machine are the kernel's business; where it knows no interpreter the message says so.
#[test]
fn programs_of_another_architecture() {
    let site = site!("programs_of_another_architecture");
    let interpreters = std::fs::read_dir("/proc/sys/fs/binfmt_misc");
    let emulated = interpreters.is_ok_and(|mut dir| {
        dir.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("riscv")))
    });
    if emulated {
        println!("skipped: programs_of_another_architecture: this machine can run riscv64");
        return;
    }
    // The header of an ELF program for riscv64.
    let mut program = vec![0; 120];
    program[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0");
    let context = site.context();
    context.file("program", program).mode("program", 0o755);
    let outcome =
        context.build_of("FROM --platform=linux/riscv64 scratch\nCOPY program /\nRUN [\"/program\"]\n");
    outcome.refused(1, "exec format error");
}
