//! What is in the merged root filesystem when instructions meet what earlier ones left.

use super::site;
use crate::support::Image;

/// `kind mode owner path` of everything at and below each of `roots`, in order.
fn listing(image: &Image, roots: &[&str]) -> Vec<String> {
    let below = |path: &str| {
        roots
            .iter()
            .any(|root| path == *root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
    };
    let show = |path: &&str| {
        let entry = image.entry(path);
        let link = if entry.kind == 'l' { format!(" -> {}", entry.link) } else { String::new() };
        format!("{}{:o} {} {path}{link}", entry.kind, entry.mode, entry.owner())
    };
    image.paths().iter().filter(|path| below(path)).map(show).collect()
}

/// a directory, and a link to it, in every spelling.
#[test]
fn spellings_of_sources_and_destinations() {
    let site = site!("spellings_of_sources_and_destinations");
    let context = site.context();
    context.file("real/f", "f").file("real/sub/g", "g").mode("real/sub", 0o700).mode("real", 0o711);
    context.symlink("link", "real").symlink("flink", "real/f").symlink("real/l", "sub");
    for source in
        ["real", "real/", "real/.", "link", "link/", "link/.", "./link", "/link", "../../link", "real/sub/.."]
    {
        for dest in ["/d", "/d/", "/d/.", "d", "./d/"] {
            let image = context.image_of(&format!("FROM scratch\nCOPY {source} {dest}\n"));
            let expected =
                ["d755 0:0 d", "-644 0:0 d/f", "l777 0:0 d/l -> sub", "d700 0:0 d/sub", "-644 0:0 d/sub/g"];
            assert_eq!(listing(&image, &["d"]), expected, "{source} {dest}");
        }
    }
    for (source, dest, expected) in [
        ("flink", "/d", &["-644 0:0 d"][..]),
        ("flink", "/d/", &["d755 0:0 d", "-644 0:0 d/flink"]),
        ("flink", "/d/.", &["d755 0:0 d", "-644 0:0 d/flink"]),
        ("real/f", "/d/e/", &["d755 0:0 d", "d755 0:0 d/e", "-644 0:0 d/e/f"]),
        ("real/f/", "/d", &["-644 0:0 d"]),
        ("real/l", "/d", &["d755 0:0 d", "-644 0:0 d/g"]),
        (
            "l*k",
            "/d",
            &["d755 0:0 d", "-644 0:0 d/f", "l777 0:0 d/l -> sub", "d700 0:0 d/sub", "-644 0:0 d/sub/g"],
        ),
        ("real/* flink", "/d/", &["d755 0:0 d", "-644 0:0 d/f", "-644 0:0 d/flink", "-644 0:0 d/g"]),
    ] {
        let image = context.image_of(&format!("FROM scratch\nCOPY {source} {dest}\n"));
        assert_eq!(listing(&image, &["d"]), expected, "{source} {dest}");
    }
}

/// several sources and a destination that is no directory yet.
#[test]
fn several_sources_without_a_slash() {
    let site = site!("several_sources_without_a_slash");
    let context = site.context();
    context.file("a", "a").file("b", "b").file("d/x", "x");
    let image = context.image_of("FROM scratch\nCOPY a b /dest\nCOPY d a /mixed\n");
    assert_eq!(image.text("dest"), "b", "the later file takes the place of the earlier");
    assert_eq!(listing(&image, &["mixed"]), ["d755 0:0 mixed", "-644 0:0 mixed/a", "-644 0:0 mixed/x"]);
    context.build_of("FROM scratch\nCOPY a d /mixed\n").refused(2, "cannot copy to non-directory: /mixed");
}

/// links where something is copied to.
#[test]
fn links_at_the_destination() {
    let site = site!("links_at_the_destination");
    let context = site.context();
    context.file("f", "new").file("d/f", "from d").file("d/sub/g", "g");
    let base = "FROM busybox AS base
RUN mkdir -p /t /o && echo -n old > /o/f && ln -s /t /dirlink && ln -s /nowhere/deep/x /dangling && ln -s o/f /filelink \\
 && mkdir /in && ln -s /o/f /in/f && ln -s loop2 /loop1 && ln -s loop1 /loop2
FROM base
";
    let image = context.image_of(&format!(
        "{base}COPY f /dirlink\nCOPY d /dirlink\nCOPY f /dangling\nCOPY f /filelink\nCOPY --chown=3:4 d/sub /dirlink/new/er\n"
    ));
    let expected = ["ldirlink -> /t", "ldangling -> /nowhere/deep/x", "lfilelink -> o/f"];
    for line in expected {
        let (name, target) = line[1..].split_once(" -> ").unwrap();
        assert_eq!((image.entry(name).kind, image.entry(name).link.as_str()), ('l', target));
    }
    assert_eq!(
        (image.text("t/f"), image.text("nowhere/deep/x"), image.text("o/f")),
        ("from d", "new", "new")
    );
    assert_eq!(listing(&image, &["t/new"]), ["d755 3:4 t/new", "d755 3:4 t/new/er", "-644 3:4 t/new/er/g"]);
    // A name that is found in the directory is replaced, not followed.
    for copy in ["COPY f /in/", "COPY f /in", "COPY d /in"] {
        let image = context.image_of(&format!("{base}{copy}\n"));
        assert_eq!((image.entry("in/f").kind, image.text("o/f")), ('-', "old"), "{copy}");
    }
    let image = context.image_of(&format!("{base}COPY f /in/f\n"));
    assert_eq!((image.entry("in/f").kind, image.text("o/f")), ('l', "new"));
    for copy in ["COPY f /loop1", "COPY f /loop1/", "COPY d /loop1/x"] {
        assert_ne!(context.build_of(&format!("{base}{copy}\n")).code, 0, "{copy}");
    }
    context.build_of(&format!("{base}COPY f /o/f/x\n")).refused(2, "/o/f");
    context
        .build_of(&format!("{base}RUN ln -s /t /dst-sub && mkdir /dst && ln -s /t /dst/sub\nCOPY d /dst\n"))
        .refused(2, "cannot copy to non-directory: /dst/sub");
}

/// what is there keeps its metadata or takes the source's.
#[test]
fn a_context_over_existing_directories() {
    let site = site!("a_context_over_existing_directories");
    let context = site.context();
    context.file("sub/f", "f").file("g", "g").mode("sub", 0o711).mode("g", 0o4750).directory("empty");
    context.file(".dockerignore", "Dockerfile\n.dockerignore\n");
    context.mode(".", 0o701);
    let image = context.image_of(
        "FROM busybox
RUN mkdir -m 1777 /app && mkdir -m 700 /app/sub /app/kept && chown 5:6 /app /app/sub /app/kept \\
 && echo x > /app/g && chown 7:8 /app/g && chmod 600 /app/g
USER daemon
WORKDIR /app
COPY . .
",
    );
    assert_eq!(
        listing(&image, &["app"]),
        [
            "d1777 5:6 app",
            "d755 0:0 app/empty",
            "-4750 0:0 app/g",
            "d700 5:6 app/kept",
            "d711 0:0 app/sub",
            "-644 0:0 app/sub/f"
        ]
    );
    let image = context.image_of("FROM scratch\nCOPY . /\n");
    assert_eq!(listing(&image, &["empty", "g", "sub"]).len(), 4);
    assert!(!image.layers[0].contains(&"".to_owned()), "{:?}", image.layers);
}

/// what a link layer lays over lower ones.
#[test]
fn link_layers_replace() {
    let site = site!("link_layers_replace");
    let context = site.context();
    context.file("f", "f").file("d/x", "x");
    let image = context.image_of(
        "FROM busybox
RUN mkdir -m 1777 /dir && touch /dir/inner /plain && mkdir -p -m 700 /own/sub && chown 5:6 /own /own/sub && touch /own/sub/y
COPY --link f /dir
COPY --link d /plain
COPY --link f /tmp/f
COPY --link d /own/sub/
RUN ls / > /seen && [ ! -e /dir/inner ] && [ -f /dir ] && [ -f /plain/x ]
COPY f /dir
",
    );
    assert_eq!(
        listing(&image, &["dir", "own", "plain", "tmp"]),
        [
            "-644 0:0 dir",
            "d755 0:0 own",
            "d755 0:0 own/sub",
            "-644 0:0 own/sub/x",
            "-644 0:0 own/sub/y",
            "d755 0:0 plain",
            "-644 0:0 plain/x",
            "d755 0:0 tmp",
            "-644 0:0 tmp/f",
        ]
    );
}

/// B-016: what was removed stays removed under later instructions.
#[test]
fn removed_files_do_not_come_back() {
    let site = site!("removed_files_do_not_come_back");
    let context = site.context();
    context.file("f", "new").file("d/x", "x");
    let image = context.image_of(
        "FROM busybox
RUN mkdir -p /a/sub /b /c /e /target && touch /a/1 /a/sub/2 /b/1 /c/1 /e/1 && echo old > /file
RUN rm -r /a /c /e /file && rm -r /b && mkdir -m 700 /b && ln -s target /e
COPY f /a/
COPY d /b
COPY f /file
COPY f /e/
RUN mkdir /c && ls /a /b /c /e/ > /seen
FROM busybox AS other
COPY --from=0 /a /from/a
COPY --from=0 /b /from/b
COPY --from=0 / /from/all
RUN true
COPY --from=0 /seen /
",
    );
    assert_eq!(image.text("seen"), "/a:\nf\n\n/b:\nx\n\n/c:\n\n/e/:\nf\n");
    let expected = ["d755 0:0 from/a", "-644 0:0 from/a/f", "d755 0:0 from/b", "-644 0:0 from/b/x"];
    assert_eq!(listing(&image, &["from/a", "from/b"]), expected);
    assert_eq!(
        listing(
            &image,
            &["from/all/a", "from/all/b", "from/all/c", "from/all/e", "from/all/file", "from/all/target"]
        ),
        [
            "d755 0:0 from/all/a",
            "-644 0:0 from/all/a/f",
            "d700 0:0 from/all/b",
            "-644 0:0 from/all/b/x",
            "d755 0:0 from/all/c",
            "l777 0:0 from/all/e -> target",
            "-644 0:0 from/all/file",
            "d755 0:0 from/all/target",
            "-644 0:0 from/all/target/f",
        ]
    );
}

/// what a step finds mounted is not in its layer, what it writes elsewhere is.
#[test]
fn mounts_of_steps_do_not_leak() {
    let site = site!("mounts_of_steps_do_not_leak");
    let context = site.context();
    context.file("etc/hosts", "own hosts\n").file("etc/resolv.conf", "own resolv\n").mode("etc/hosts", 0o600);
    let image = context.image_of(
        "FROM busybox
RUN touch /dev/made /dev/shm/made /run-marker && mkdir -p /run/inner && touch /run/inner/f /tmp/f && mkdir /var/tmp
RUN --mount=type=tmpfs,target=/scratch/deep --mount=type=cache,target=/var/cache/x touch /scratch/deep/f /var/cache/x/f
RUN --mount=type=tmpfs,target=/left/deep touch /left/beside
COPY etc /etc
RUN echo more >> /tmp/f; cat /etc/hosts > /hosts; cat /etc/resolv.conf > /resolv
",
    );
    assert_eq!((image.text("etc/hosts"), image.text("etc/resolv.conf")), ("own hosts\n", "own resolv\n"));
    assert_eq!(image.entry("etc/hosts").mode, 0o600);
    assert!(!image.text("hosts").contains("own"));
    assert_eq!(
        listing(&image, &["dev", "proc", "sys", "run", "scratch", "left", "var/cache", "var/tmp", "tmp"]),
        [
            "d755 0:0 dev",
            "d755 0:0 left",
            "-644 0:0 left/beside",
            "d755 0:0 proc",
            "d755 0:0 run",
            "d755 0:0 run/inner",
            "-644 0:0 run/inner/f",
            "d755 0:0 sys",
            "d1777 0:0 tmp",
            "-644 0:0 tmp/f",
            "d755 0:0 var/tmp",
        ]
    );
}

/// a volume is only configuration for the build.
#[test]
fn volumes_are_written_to() {
    let site = site!("volumes_are_written_to");
    let context = site.context();
    context.file("f", "f");
    let image = context.image_of("FROM busybox\nVOLUME /v\nRUN mkdir /v && touch /v/run && chown 5:5 /v\nCOPY f /v/\nRUN rm /v/run && ls /v > /seen\n");
    assert_eq!(listing(&image, &["v"]), ["d755 5:5 v", "-644 0:0 v/f"]);
    assert_eq!(image.text("seen"), "f\n");
}

/// directories that are links, and files in the way.
#[test]
fn workdir_meets_links_and_files() {
    let site = site!("workdir_meets_links_and_files");
    let context = site.context();
    let image = context.image_of(
        "FROM busybox
RUN ln -s /real /link && ln -s ../../up /usr/out && mkdir -m 711 /mine && chown 9:9 /mine
WORKDIR /link/sub
RUN pwd > /pwd
USER daemon
WORKDIR /usr/out/x
WORKDIR /mine
WORKDIR below
RUN echo \"$(pwd) $PWD\" > made
",
    );
    assert_eq!(
        listing(&image, &["link", "real", "up", "mine"]),
        [
            "l777 0:0 link -> /real",
            "d711 9:9 mine",
            "d755 1:1 mine/below",
            "-644 1:1 mine/below/made",
            "d755 0:0 real",
            "d755 0:0 real/sub",
            "d755 1:1 up",
            "d755 1:1 up/x",
        ]
    );
    assert_eq!(image.text("pwd"), "/real/sub\n");
    let outcome = context.build_of("FROM busybox\nWORKDIR /etc/passwd/x\n");
    assert!(outcome.code != 0 && outcome.output.contains("/etc/passwd"), "{}", outcome.output);
}

/// a heredoc over what is there.
#[test]
fn heredocs_replace_files() {
    let site = site!("heredocs_replace_files");
    let context = site.context();
    let image = context.image_of(
        "FROM busybox
RUN mkdir /d && echo x > /d/f && chmod 600 /d/f && chown 5:5 /d/f && ln -s d/g /lnk && ln -s /d /dl && ln -s /etc/passwd /d/n
USER daemon
COPY <<EOF /d/f
new
EOF
COPY <<g /lnk
through
g
COPY <<n <<m /dl/
in n
n
in m
m
",
    );
    assert_eq!(
        listing(&image, &["d", "lnk", "dl"]),
        [
            "d755 0:0 d",
            "-644 0:0 d/f",
            "-644 0:0 d/g",
            "-644 0:0 d/m",
            "-644 0:0 d/n",
            "l777 0:0 dl -> /d",
            "l777 0:0 lnk -> d/g",
        ]
    );
    assert_eq!((image.text("d/f"), image.text("d/g"), image.text("d/n")), ("new\n", "through\n", "in n\n"));
}

/// archives behind links, in link layers, and over links.
#[test]
fn archives_in_odd_places() {
    let site = site!("archives_in_odd_places");
    let context = site.context();
    let add = |tar: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        tar.append_data(&mut header, name, &b"x"[..]).unwrap();
    };
    context.archive("dir/a.tar", |tar| add(tar, "in/f", 0o4711));
    context.symlink("link.tar", "dir/a.tar").symlink("dirlink", "dir");
    let image = context.image_of(
        "FROM busybox
RUN mkdir -m 700 /real /own && ln -s real /to && chown 5:6 /real && ln -s /real/deep /dangling
ADD link.tar /one
ADD dirlink/*.tar /two/
ADD dirlink /three
ADD link.tar /to
ADD link.tar /dangling
ADD --link link.tar /own/
ADD --link --chown=3:4 link.tar /fresh/sub
",
    );
    for (root, expected) in [
        ("one", &["d755 0:0 one", "d755 0:0 one/in", "-4711 7:8 one/in/f"][..]),
        ("two", &["d755 0:0 two", "d755 0:0 two/in", "-4711 7:8 two/in/f"]),
        ("three", &["d755 0:0 three", "-644 0:0 three/a.tar"]),
        (
            "real",
            &[
                "d700 5:6 real",
                "d755 0:0 real/deep",
                "d755 0:0 real/deep/in",
                "-4711 7:8 real/deep/in/f",
                "d755 0:0 real/in",
                "-4711 7:8 real/in/f",
            ],
        ),
        ("own", &["d755 0:0 own", "d755 0:0 own/in", "-4711 7:8 own/in/f"]),
        (
            "fresh",
            &["d755 3:4 fresh", "d755 3:4 fresh/sub", "d755 0:0 fresh/sub/in", "-4711 3:4 fresh/sub/in/f"],
        ),
    ] {
        assert_eq!(listing(&image, &[root]), expected, "{root}");
    }
}

/// flags together.
#[test]
fn parents_and_excludes_with_owners_and_modes() {
    let site = site!("parents_and_excludes_with_owners_and_modes");
    let context = site.context();
    context.file("a/b/f", "f").file("a/b/g.log", "g").file("a/h", "h").mode("a", 0o711).mode("a/b", 0o700);
    context.symlink("a/b/l", "f");
    let image = context.image_of(
        "FROM busybox
RUN mkdir -p /out/a && chown 5:6 /out/a && chmod 1777 /out
COPY --parents --chown=3:4 a/b/f /out/
COPY --parents --chmod=640 a/b/f /octal/
COPY --parents --exclude=**/*.log a /kept/
COPY --link --exclude=*.log --chown=daemon a/b /linked
COPY --chmod=o-r,u+x --exclude=f a/b /symbolic/
",
    );
    for (root, expected) in [
        ("out", &["d1777 0:0 out", "d711 5:6 out/a", "d700 3:4 out/a/b", "-644 3:4 out/a/b/f"][..]),
        (
            "kept",
            &[
                "d755 0:0 kept",
                "d711 0:0 kept/a",
                "d700 0:0 kept/a/b",
                "-644 0:0 kept/a/b/f",
                "l777 0:0 kept/a/b/l -> f",
                "-644 0:0 kept/a/h",
            ],
        ),
        ("linked", &["d755 1:1 linked", "-644 1:1 linked/f", "l777 1:1 linked/l -> f"]),
        ("symbolic", &["d755 0:0 symbolic", "-740 0:0 symbolic/g.log", "l777 0:0 symbolic/l -> f"]),
    ] {
        assert_eq!(listing(&image, &[root]), expected, "{root}");
    }
    let octal = ["d640 0:0 octal", "d640 0:0 octal/a", "d640 0:0 octal/a/b", "-640 0:0 octal/a/b/f"];
    assert_eq!(listing(&image, &["octal"]), octal);
}

/// what is made in a directory with the set-group-ID bit is its group's, as mkdir(2) has it; and a directory that was
/// there gets the time of the source.
#[test]
fn directories_that_are_made_inherit_the_group() {
    let site = site!("directories_that_are_made_inherit_the_group");
    let context = site.context();
    context.file("d/f", "f");
    crate::support::set_times(&context.dir.join("d"), 1_500_000_000);
    let image = context.image_of(
        "FROM busybox
RUN mkdir -p /var/local /there && chgrp 100 /var/local && chmod 2775 /var/local && chmod 700 /there
WORKDIR /var/local/work
COPY d/f /var/local/made/by/f
COPY --chown=7:8 d /var/local/owned/
RUN mkdir /var/local/run
COPY d /there
USER daemon
WORKDIR /var/local/mine
",
    );
    assert_eq!(
        listing(&image, &["var/local"]),
        [
            "d2775 0:100 var/local",
            "d2755 0:100 var/local/made",
            "d2755 0:100 var/local/made/by",
            "-644 0:0 var/local/made/by/f",
            "d2755 1:1 var/local/mine",
            "d2755 7:8 var/local/owned",
            "-644 7:8 var/local/owned/f",
            "d2755 0:100 var/local/run",
            "d2755 0:100 var/local/work",
        ]
    );
    assert_eq!((image.entry("there").mode, image.entry("there").mtime), (0o700, 1_500_000_000));
}

/// a socket that a step left is copied as an empty file; B-017: it is in no layer itself.
#[test]
fn sockets_of_stages() {
    let site = site!("sockets_of_stages");
    let context = site.context();
    let image = context.image_of(
        "FROM busybox AS made
RUN mkdir /d && ln -s /d/socket /dev/log && syslogd -O /null && sleep 1; chmod 640 /d/socket && [ -S /d/socket ]
FROM made
COPY --from=made /d /copied
",
    );
    assert_eq!(
        listing(&image, &["d", "copied"]),
        ["d755 0:0 copied", "-640 0:0 copied/socket", "d755 0:0 d"]
    );
}
