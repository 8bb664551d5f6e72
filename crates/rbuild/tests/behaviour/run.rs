//! What a RUN step finds and leaves.

use super::site;

/// A-069 (testUser): every form of USER, with names of the image as it is at that step.
#[test]
fn users_and_groups() {
    let site = site!("users_and_groups");
    let id = "echo $(id -u):$(id -g)/$(id -G)/$HOME";
    let cases = [
        ("root", "0:0/0 10//root"),
        ("app", "1001:1001/1001 1002//srv"),
        ("1001", "1001:1001/1001 1002//srv"),
        ("app:app", "1001:1001/1001//srv"),
        ("1001:app", "1001:1001/1001//srv"),
        ("app:1001", "1001:1001/1001//srv"),
        ("1001:1001", "1001:1001/1001//srv"),
        ("app:extra", "1001:1002/1002//srv"),
        ("1001:1002", "1001:1002/1002//srv"),
        ("1042:1043", "1042:1043/1043//"),
        ("1234", "1234:0/0//"),
        ("daemon", "1:1/1//usr/sbin"),
    ];
    let mut dockerfile = String::from(
        "FROM busybox
RUN mkdir -m 777 /out && echo app:x:1001:1001::/srv:/bin/false >> /etc/passwd
RUN echo app:x:1001: >> /etc/group && echo extra:x:1002:app >> /etc/group
",
    );
    dockerfile += &format!("RUN {id} > /out/unset\n");
    for (number, (user, _)) in cases.iter().enumerate() {
        dockerfile += &format!("USER {user}\nRUN {id} > /out/{number}\n");
    }
    let image = site.context().image_of(&dockerfile);
    assert_eq!(image.text("out/unset"), "0:0/0 10//root\n");
    for (number, (user, expected)) in cases.iter().enumerate() {
        assert_eq!(image.text(&format!("out/{number}")).trim_end(), *expected, "USER {user}");
    }
    let outcome = site.context().build_of("FROM busybox\nUSER nosuchuser\nRUN true\n");
    assert!(outcome.code != 0 && outcome.output.contains("nosuchuser"), "{}", outcome.output);
}

/// A-077, A-078 (testDockerfileCheckHostname, testRunSecurityDefault, testEmptyStringArgInEnv, testEnvEmptyFormatting)
#[test]
fn environment_and_sandbox() {
    let site = site!("environment_and_sandbox");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox
WORKDIR /w
ENV myenv=foo%sbar
ARG UNSET
ARG EMPTY=
RUN env > /env; pwd > /pwd; umask > /umask; hostname > /hostname; cat /etc/hosts > /hosts; cat | wc -c > /stdin; \\
    grep CapBnd /proc/self/status > /caps; ls -1 /dev > /devices
",
    );
    let image = context.image(&["--add-host", "box:10.1.2.3", "--build-arg", "http_proxy=http://proxy"]);
    let mut env: Vec<&str> = image.text("env").lines().filter(|line| !line.starts_with("SHLVL=")).collect();
    env.sort_unstable();
    let expected = [
        "EMPTY=",
        "HOME=/root",
        "HTTP_PROXY=http://proxy",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/w",
        "http_proxy=http://proxy",
        "myenv=foo%sbar",
    ];
    assert_eq!(env, expected);
    let lines = ["pwd", "umask", "hostname", "stdin"].map(|path| image.text(path).trim());
    assert_eq!(lines, ["/w", "0022", "buildkitsandbox", "0"]);
    assert_eq!(image.text("caps"), "CapBnd:\t00000000a80425fb\n");
    let hosts = image.text("hosts");
    assert!(hosts.contains("127.0.0.1\tlocalhost") && hosts.contains("10.1.2.3\tbox"), "{hosts}");
    for device in ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stdin", "tty", "urandom", "zero"] {
        assert!(image.text("devices").lines().any(|line| line == device), "{device}");
    }
    assert!(!image.has("etc/hosts") && !image.has("etc/resolv.conf"), "mount points vanish (A-079)");
}

/// a directory that is gone is made for the user, HOME goes by the id, and variables are in the order
/// in which they were last set, with proxies over all of them.
#[test]
fn directory_home_and_variables_are_as_runc_has_them() {
    let site = site!("directory_home_and_variables_are_as_runc_has_them");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox
WORKDIR /gone/deep
RUN mkdir -m 777 /out && echo toor:x:0:0::/toor:/bin/sh >> /etc/passwd && cd / && rm -r /gone
USER 1000:1001
RUN true
USER toor
ENV A=1 B=2 http_proxy=inner
ARG C=3
ENV A=4
RUN [\"dd\", \"if=/proc/self/environ\", \"of=/out/env\"]
",
    );
    let image = context.image(&["--build-arg", "http_proxy=outer"]);
    for path in ["gone", "gone/deep"] {
        let entry = image.entry(path);
        assert_eq!((entry.owner().as_str(), entry.mode), ("1000:1001", 0o755), "{path}");
    }
    let env: Vec<&str> = image.text("out/env").split_terminator('\0').collect();
    let expected = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "B=2",
        "C=3",
        "A=4",
        "HTTP_PROXY=outer",
        "http_proxy=outer",
        "HOME=/root",
    ];
    assert_eq!(env, expected);
    let config = image.config()["Env"].as_array().unwrap();
    assert_eq!(config[1..], ["A=4", "B=2", "http_proxy=inner"]);
}

/// A-075 (testDockerfileInvalidCommand, testInvalidJSONCommands)
#[test]
fn failures_name_the_process() {
    let site = site!("failures_name_the_process");
    let failing = |line: &str, message: &str| {
        let outcome = site.context().build_of(&format!("FROM busybox\n{line}\n"));
        outcome.refused(1, message);
    };
    failing("RUN exit 7", "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7");
    failing(
        "RUN invalidcmd",
        "process \"/bin/sh -c invalidcmd\" did not complete successfully: exit code: 127",
    );
    failing("RUN [\"false\"]", "process \"false\" did not complete successfully: exit code: 1");
    // The shell of the step is process 1, which cannot kill itself.
    failing("RUN sh -c 'kill -9 $$'; exit $?", "exit code: 137");
    let image =
        site.context().image_of("FROM busybox\nRUN [\"echo\", \"x\"] || true\nRUN\nRUN [ -z \"\" ]\n");
    assert_eq!(image.layers.len(), 4);
}

/// A-079, B-016, B-018: what a step leaves.
#[test]
fn layers_hold_what_changed() {
    let site = site!("layers_hold_what_changed");
    let image = site.context().image_of(
        "FROM busybox
RUN mkdir -p /d/e && echo x > /d/e/f && touch /d/other
RUN true
RUN rm /d/e/f && chmod 711 /d/other
RUN rm -r /d/e && mkdir /d/e && touch /d/e/g
RUN mv /d /moved
",
    );
    let own = |layer: usize| -> Vec<&str> {
        let runtime = ["dev", "proc", "sys"];
        image.layers[layer].iter().map(String::as_str).filter(|path| !runtime.contains(path)).collect()
    };
    assert_eq!(own(1), ["d", "d/e", "d/e/f", "d/other"]);
    assert_eq!(own(2), Vec::<&str>::new());
    assert_eq!(own(3), ["d", "d/e", "d/e/.wh.f", "d/other"]);
    assert!(own(4).contains(&"d/e/g"), "{:?}", own(4));
    assert_eq!(own(5), [".wh.d", "moved", "moved/e", "moved/e/g", "moved/other"]);
    assert!(image.has("moved/e/g") && !image.has("moved/e/f") && !image.has("d"));
}

/// A-080 (testShmSize, testUlimit), A-092 (testRunNoNetwork)
#[test]
fn limits_and_networks() {
    let site = site!("limits_and_networks");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox
RUN ulimit -n > /files; df -k /dev/shm | tail -n 1 | awk '{print $2}' > /shm
RUN --network=none ls /sys/class/net > /none
",
    );
    let image = context.image(&["--ulimit", "nofile=1062:1062", "--shm-size", "134217728"]);
    assert_eq!((image.text("files"), image.text("shm")), ("1062\n", "131072\n"));
    assert_eq!(image.text("none"), "lo\n");
    context.file("Dockerfile", "FROM busybox\nRUN --network=host true\n");
    let outcome = context.build(&[]);
    assert!(outcome.code != 0 && outcome.output.contains("network.host"), "{}", outcome.output);
    context.file("Dockerfile", "FROM busybox\nRUN --network=foo true\n");
    context.build(&[]).refused(2, "invalid network mode \"foo\"");
}

/// output is a stream of the step's own user, which can be opened by name.
#[test]
fn a_user_can_open_the_output_by_name() {
    let site = site!("a_user_can_open_the_output_by_name");
    let outcome = site.context().build_of(
        "FROM busybox\nUSER daemon\nRUN echo out-by-name > /dev/stdout && echo error-by-name > /dev/stderr && \\\n  echo in-proc > /proc/self/fd/2\n",
    );
    assert_eq!(outcome.code, 0, "{}", outcome.output);
    for line in ["out-by-name", "error-by-name", "in-proc"] {
        let printed = |shown: &&str| {
            shown.split_once(' ').is_some_and(|(_, rest)| rest.ends_with(line) && !rest.contains("RUN"))
        };
        assert!(outcome.output.lines().any(|shown| printed(&shown)), "{}", outcome.output);
    }
}
