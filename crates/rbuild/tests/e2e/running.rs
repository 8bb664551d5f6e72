//! What a RUN step sees and what it may do.

use crate::context::TestContext;
use crate::image::Image;

/// What `script` prints in a RUN of busybox.
#[track_caller]
fn seen(before: &str, script: &str, args: &[&str]) -> String {
    TestContext::new().output_of(
        &format!("FROM base\nRUN touch /out; chmod 666 /out\n{before}\nRUN {{ {script}; }} > /out 2>&1\n"),
        args,
    )
}

#[test]
fn environment_user_and_directory() {
    assert_eq!(
        seen("ENV A=1\nARG B=2", "echo $A $B $HOME $PATH; pwd", &[]).lines().collect::<Vec<_>>(),
        ["1 2 /root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/",]
    );
    assert_eq!(seen("WORKDIR /a/b", "pwd", &[]), "/a/b\n");
    let user =
        "RUN echo 'app:x:77:88::/home/app:/bin/sh' >> /etc/passwd; echo 'more:x:99:app' >> /etc/group; true";
    assert_eq!(seen(&format!("{user}\nUSER app"), "id -u; id -G; echo $HOME", &[]), "77\n88 99\n/home/app\n");
    assert_eq!(seen(&format!("{user}\nUSER app:nogroup"), "id -u; id -G", &[]), "77\n65534\n");
    assert_eq!(seen(&format!("{user}\nUSER 1234:5678"), "id -u; id -G; echo $HOME", &[]), "1234\n5678\n/\n");
}

#[test]
fn namespaces_and_file_systems() {
    let pids = seen("", "echo $$; ps | wc -l", &[]);
    let pids: Vec<u32> = pids.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(pids[0] < 5 && pids[1] < 8, "a pid namespace of its own: {pids:?}");
    assert_eq!(seen("", "hostname", &[]), "buildkitsandbox\n");
    assert_eq!(seen("", "touch /sys/x || echo read-only", &[]).lines().last(), Some("read-only"));
    assert_eq!(
        seen("", "echo 1 > /proc/sys/kernel/panic || echo read-only", &[]).lines().last(),
        Some("read-only")
    );
    assert_eq!(seen("", "cat /proc/kcore | head -c1 | wc -c", &[]).lines().last(), Some("0"));
    let devices =
        seen("", "echo x > /dev/null && head -c2 /dev/zero | wc -c && ls /dev/pts /dev/shm -d", &[]);
    assert_eq!(devices, "2\n/dev/pts\n/dev/shm\n");
    assert_eq!(seen("", "mount -t tmpfs x /mnt 2>/dev/null || echo refused", &[]), "refused\n");
    assert_eq!(seen("", "grep CapEff /proc/self/status", &[]), "CapEff:\t00000000a80425fb\n");
}

#[test]
fn networks_and_names() {
    assert_eq!(seen("", "ip -o link | wc -l", &["--network=none"]).lines().last(), Some("1"));
    let hosts = seen("", "cat /etc/hosts", &["--add-host", "db:10.1.2.3", "--add-host", "six:[2001:db8::1]"]);
    assert!(hosts.contains("10.1.2.3\tdb") && hosts.contains("2001:db8::1\tsix"), "{hosts}");
    assert!(hosts.contains("localhost"), "{hosts}");
    let host = TestContext::of("FROM base\nRUN --network=host true\n");
    host.build(&[""; 0]).fails(2, &["network.host"]);
    host.build(&["--allow", "network.host"]).ok();
    let context = TestContext::of("FROM base\nRUN test -s /etc/resolv.conf -a -s /etc/hosts\n");
    context.build(&["-t", "x"]).ok();
    assert_eq!(Image::of(&context, "x:latest").last().lines(), Vec::<String>::new(), "not left in the layer");
}

#[test]
fn shells_forms_and_heredocs() {
    let out = |dockerfile: &str| TestContext::new().output_of(dockerfile, &[]);
    assert_eq!(out("FROM base\nRUN [\"/bin/sh\", \"-c\", \"echo $0 > /out\", \"zero\"]\n"), "zero\n");
    assert_eq!(out("FROM base\nSHELL [\"/bin/sh\", \"-xc\"]\nRUN echo a 2>/out\n"), "");
    assert_eq!(out("FROM base\nRUN <<EOF\necho one > /out\necho two >> /out\nEOF\n"), "one\ntwo\n");
    assert_eq!(out("FROM base\nRUN <<EOF\n#!/bin/sh -e\necho $0 > /out\nEOF\n"), "/dev/pipes/EOF\n");
    assert_eq!(out("FROM base\nRUN cat <<A - <<B > /out\nfirst\nA\nsecond\nB\n"), "second\n");
    assert_eq!(out("FROM base\nRUN echo a \\\n  # comment\n  b > /out\n"), "a b\n");
    assert_eq!(out("# escape=`\nFROM base\nRUN echo a `\n  b > /out\n"), "a b\n");
}

#[test]
fn changes_become_layers() {
    let context = TestContext::of(
        "FROM base\n\
         RUN mkdir -p /d/sub /gone && echo 1 > /d/a && echo 2 > /d/b && ln /d/a /d/hard && touch /gone/x\n\
         RUN rm /d/b && rm -r /gone && echo more >> /d/a && chmod 700 /d/sub\n\
         RUN rm -r /d && mkdir /d && touch /d/new\n\
         RUN chmod 755 /bin/busybox && touch -c /d/new\n",
    );
    context.build(&["-t", "x"]).ok();
    let image = Image::of(&context, "x:latest");
    let layers: Vec<_> = image.layers[1..].iter().map(|layer| layer.lines()).collect();
    insta::assert_json_snapshot!(layers);
}

#[test]
fn output_lines_are_shown_as_they_are() {
    let context = TestContext::of(
        "FROM base\nRUN printf 'out %s\\n' $((1+1)); printf 'err %s\\n' $((1+1)) >&2; printf 'no newline'; printf '\\n\\033[31mred\\033[0m\\n'\n",
    );
    let run = context.build(&[""; 0]).ok();
    for text in ["out 2", "err 2", "no newline"] {
        assert!(run.stderr.lines().any(|line| line.ends_with(text)), "{text}:\n{}", run.stderr);
    }
}

#[test]
fn many_lines_of_output_are_not_lost() {
    let context = TestContext::of("FROM base\nRUN seq 1 20000 | sed 's/$/ line/'\n");
    let run = context.build(&[""; 0]).ok();
    assert_eq!(run.stderr.lines().filter(|line| line.ends_with(" line")).count(), 20000);
}

#[test]
fn independent_stages_run_at_the_same_time_unless_limited() {
    // Each stage waits for the other through a directory of the host that both see: the network's loopback.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dockerfile = format!(
        "FROM base AS one\nRUN echo x | timeout 60 nc -l -p {port} > /got\n\
         FROM base AS two\nRUN for i in $(seq 600); do echo y | nc 127.0.0.1 {port} && exit 0; sleep 0.1; done; exit 1\n\
         FROM base\nCOPY --from=one /got /1\nCOPY --from=two /etc/passwd /2\n"
    );
    let context = TestContext::of(&dockerfile);
    context.build(&[""; 0]).ok();
}
