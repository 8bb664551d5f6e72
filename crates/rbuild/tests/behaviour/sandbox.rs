//! What surrounds the process of a RUN, and what is left of it.

use super::site;

/// A-075: what a failure shows: the process, its last lines, the place in the Dockerfile.
#[test]
fn failures_show_the_log_and_the_place() {
    let site = site!("failures_show_the_log_and_the_place");
    let outcome = site.context().build_of(
        "FROM busybox\nENV before=1\nRUN echo first; \\\n  echo last words >&2; \\\n  exit 7\nENV after=1\n",
    );
    let text = "process \"/bin/sh -c echo first;   echo last words >&2;   exit 7\" did not complete successfully: exit code: 7";
    outcome.refused(1, text);
    let shown = outcome.output.split("\n------\n").nth(1).expect(&outcome.output);
    assert!(shown.contains("first") && shown.contains("last words"), "{}", outcome.output);
    for line in [
        "   2 |     ENV before=1",
        "   3 | >>> RUN echo first; \\",
        "   4 | >>>   echo last words >&2; \\",
        "   5 | >>>   exit 7",
        "   6 |     ENV after=1",
    ] {
        assert!(outcome.output.lines().any(|shown| shown == line), "{line}\n{}", outcome.output);
    }
    let outcome = site.context().build_of("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n");
    outcome.refused(1, "exit code: 137");
    // In one line, as Go quotes it.
    let outcome = site.context().build_of("FROM busybox\nRUN <<E\necho \"a\\\\b\"\nexit 3\nE\n");
    outcome.refused(
        1,
        r#"process "/bin/sh -c echo \"a\\\\b\"\nexit 3\n" did not complete successfully: exit code: 3"#,
    );
}

/// A-076: a heredoc, a mount and a network in one RUN.
#[test]
fn flags_and_heredocs_go_together() {
    let site = site!("flags_and_heredocs_go_together");
    let context = site.context();
    context.file("in/f", "from the context\n");
    let image = context.image_of(
        "FROM busybox
RUN --mount=target=/in,source=in --network=none --security=sandbox <<EOF
cat /in/f > /out
ls /sys/class/net >> /out
EOF
",
    );
    assert_eq!(image.text("out"), "from the context\nlo\n");
    assert!(!image.has("in"));
}

/// A-077: the environment and the directory, also where the image lacks them.
#[test]
fn environment_of_steps() {
    let site = site!("environment_of_steps");
    let context = site.context();
    context.file("value", "hidden");
    context.file(
        "Dockerfile",
        "FROM busybox
ENV HOSTNAME_SEEN=no
RUN mkdir -m 777 /out && echo app:x:1000:1000::/home/app:/bin/sh >> /etc/passwd && env | grep ^HOSTNAME= > /out/host || true
USER app
RUN echo $HOME > /out/home
ENV HOME=/set
RUN echo $HOME > /out/home-set
RUN --mount=type=secret,id=s,env=SECRET [ \"$SECRET\" = hidden ] && [ ! -e /run/secrets/s ]
RUN [ -z \"$SECRET\" ]
USER root
WORKDIR /gone
RUN rmdir /gone 2>/dev/null || mv /gone /elsewhere || true
RUN pwd > /out/pwd && touch here
FROM scratch AS bare
COPY --from=busybox /bin /bin
ENV PATH=
RUN [\"/bin/sh\", \"-c\", \"/bin/env > /env\"]
FROM scratch
COPY --from=0 /out /out
COPY --from=0 /gone/here /here
COPY --from=bare /env /env
",
    );
    let secret = format!("id=s,src={}", context.dir.join("value").display());
    let image = context.image(&["--secret", &secret]);
    let texts = ["host", "home", "home-set", "pwd"].map(|name| image.text(&format!("out/{name}")));
    assert_eq!(texts, ["", "/home/app\n", "/set\n", "/gone\n"]);
    assert!(image.text("env").lines().any(|line| line == "PATH="), "{}", image.text("env"));
}

/// A-053: proxies are put behind the variables of the image, which they replace.
#[test]
fn proxies_win_over_variables() {
    let site = site!("proxies_win_over_variables");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox\nENV http_proxy=http://env\nRUN env | grep -i _proxy | sort > /seen\n",
    );
    let image = context.image(&["--build-arg", "http_proxy=http://given"]);
    assert_eq!(image.text("seen"), "HTTP_PROXY=http://given\nhttp_proxy=http://given\n");
    assert_eq!(image.config()["Env"][1], "http_proxy=http://env");
}

/// A-068: a working directory that an image only names is made for the user of the step.
#[test]
fn a_missing_working_directory_belongs_to_the_user() {
    let site = site!("a_missing_working_directory_belongs_to_the_user");
    let image = site.context().image_of(
        "FROM busybox\nRUN mkdir /there\nWORKDIR /there/deep/er\nRUN cd / && rm -r /there/deep\nUSER daemon\nRUN touch file\n",
    );
    let owners =
        ["there", "there/deep", "there/deep/er", "there/deep/er/file"].map(|path| image.entry(path).owner());
    assert_eq!(owners, ["0:0", "1:1", "1:1", "1:1"]);
    assert_eq!(image.entry("there/deep").mode, 0o755);
}

/// A-078: the files and filesystems that a step finds, word for word.
#[test]
fn the_sandbox_is_buildkits() {
    let site = site!("the_sandbox_is_buildkits");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox
RUN cat /etc/hosts > /hosts && hostname > /name && cat /etc/resolv.conf > /resolv
RUN ls /dev | tr '\\n' ' ' > /dev-list && awk '{print $3, $2, $4}' /proc/mounts > /mounts
RUN grep -E '^(NoNewPrivs|CapEff|CapPrm|CapBnd|CapInh|CapAmb):' /proc/self/status > /status
RUN (touch /sys/x; echo 1 > /proc/sys/kernel/panic) 2>&1 | sort > /refused
",
    );
    let image = context.image(&[
        "--add-host",
        "box:10.1.2.3",
        "--add-host",
        "six=0:0::00A",
        "--add-host",
        "m=::ffff:1.2.3.4",
    ]);
    assert_eq!(
        image.text("hosts"),
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tbox\n::a\tsix\n1.2.3.4\tm\n"
    );
    assert_eq!(image.text("name"), "buildkitsandbox\n");
    assert_eq!(
        image.text("dev-list").trim(),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let mounts = image.text("mounts");
    for (kind, target, option) in [
        ("proc", "/proc", "rw"),
        ("tmpfs", "/dev", "rw"),
        ("devpts", "/dev/pts", "rw"),
        ("tmpfs", "/dev/shm", "rw"),
        ("mqueue", "/dev/mqueue", "rw"),
        ("sysfs", "/sys", "ro"),
    ] {
        let begins = format!("{kind} {target} {option}");
        assert!(mounts.lines().any(|line| line.starts_with(&begins)), "{begins}\n{mounts}");
    }
    let status = image.text("status");
    for line in [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t0",
    ] {
        assert!(status.lines().any(|found| found == line), "{line}\n{status}");
    }
    assert_eq!(
        image.text("refused").matches("Read-only file system").count(),
        2,
        "{}",
        image.text("refused")
    );
    let name = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=elsewhere"];
    let image = context.image(&name);
    assert_eq!(image.text("name"), "elsewhere\n");
    assert!(image.text("hosts").starts_with("127.0.0.1\tlocalhost elsewhere\n"));
    assert!(
        !image.text("resolv").is_empty() || std::fs::read("/etc/resolv.conf").is_ok_and(|own| own.is_empty())
    );
}

/// A-078: what Docker's profile refuses fails as it does there, whatever the capabilities; the rest works.
#[test]
fn system_calls_are_filtered() {
    let site = site!("system_calls_are_filtered");
    let image = site.context().image_of(
        "FROM busybox
RUN grep -E '^Seccomp:' /proc/self/status > /status; mkdir /m
RUN (unshare -U true; mount -t tmpfs none /m; umount /proc; hostname other; dmesg) 2>&1 | sed 's/.*: //' > /refused
RUN linux32 true && chroot / true && mknod /node p && chown 1:1 /node && su nobody -s /bin/sh -c true && echo works > /works
",
    );
    assert_eq!(image.text("status"), "Seccomp:\t2\n");
    let no = "Operation not permitted\n";
    assert_eq!(image.text("refused"), format!("{no}permission denied (are you root?)\n{no}{no}{no}"));
    assert_eq!(image.text("works"), "works\n");
}

/// A-079: nothing of a mount is left, not even a newer time on the directory that held it.
#[test]
fn mount_points_vanish_without_a_trace() {
    let site = site!("mount_points_vanish_without_a_trace");
    let context = site.context();
    context.file("f", "f");
    let image = context.image_of(
        "FROM busybox
RUN mkdir /proc /sys /dev 2>/dev/null; true
RUN --mount=type=tmpfs,target=/root/deep/er --mount=target=/home/f,source=f --mount=type=cache,target=/var/cache/x true
RUN --mount=type=tmpfs,target=/root/full/er touch /root/full/kept
",
    );
    assert_eq!(image.layers[2], Vec::<String>::new(), "directories are as they were");
    assert_eq!(image.layers[3], ["root", "root/full", "root/full/kept"]);
    let image = context.image_of("FROM scratch\nCOPY --from=busybox /bin /bin\nRUN [\"/bin/true\"]\n");
    assert_eq!(image.layers[1], ["dev", "proc", "sys"]);
    for name in ["dev", "proc", "sys"] {
        let entry = image.entry(name);
        assert_eq!((entry.kind, entry.mode, entry.owner().as_str()), ('d', 0o755, "0:0"), "{name}");
    }
}

/// A-080: limits are for every step, and none of them makes a step run again.
#[test]
fn limits_hold_for_every_step() {
    let site = site!("limits_hold_for_every_step");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox
RUN df -k /dev/shm | tail -n 1 | awk '{print $2}' > /one && ulimit -n > /files-one
RUN df -k /dev/shm | tail -n 1 | awk '{print $2}' > /two && ulimit -n > /files-two
",
    );
    let limits = ["--ulimit", "nofile=1061:1062", "--shm-size", "8388608"];
    let image = context.image(&limits);
    assert_eq!((image.text("one"), image.text("two")), ("8192\n", "8192\n"));
    assert_eq!((image.text("files-one"), image.text("files-two")), ("1061\n", "1061\n"));
    let again = context.build(&["--ulimit", "nofile=1061:1062", "--shm-size", "16m"]);
    assert!(again.output.contains(" 0 executed"), "{}", again.output);
}
