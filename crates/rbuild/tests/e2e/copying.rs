//! COPY and ADD: what lands where, with which mode and owner.

use crate::context::{TestContext, installed, run, skip};
use crate::image::Image;
use std::process::Command;

fn sources() -> TestContext {
    let context = TestContext::new();
    context.file("a.txt", "a").file("b.txt", "bb").file("dir/one", "1").file("dir/sub/two", "2");
    context.file("exec", "x").mode("exec", 0o755).mode("dir/sub", 0o700);
    context.symlink("link", "a.txt").symlink("dir/inner", "one").symlink("outside", "/etc/hostname");
    context
}

/// The last layer of a Dockerfile that begins with `FROM scratch`, as lines.
#[track_caller]
fn layer(context: &TestContext, rest: &str) -> Vec<String> {
    context.dockerfile(&format!("FROM scratch\n{rest}\n")).build(&["-t", "x"]).ok();
    Image::of(context, "x:latest").last().lines()
}

#[test]
fn places_modes_and_owners() {
    let context = sources();
    let cases: &[(&str, &[&str])] = &[
        ("COPY a.txt /", &["f 0644 0:0 a.txt (1)"]),
        ("COPY a.txt /new", &["f 0644 0:0 new (1)"]),
        ("COPY a.txt /new/", &["d 0755 0:0 new/", "f 0644 0:0 new/a.txt (1)"]),
        ("COPY a.txt b.txt /n/", &["d 0755 0:0 n/", "f 0644 0:0 n/a.txt (1)", "f 0644 0:0 n/b.txt (2)"]),
        ("COPY *.txt /n/", &["d 0755 0:0 n/", "f 0644 0:0 n/a.txt (1)", "f 0644 0:0 n/b.txt (2)"]),
        ("COPY exec /", &["f 0755 0:0 exec (1)"]),
        ("COPY link /l", &["f 0644 0:0 l (1)"]),
        (
            "COPY dir /d",
            &[
                "d 0755 0:0 d/",
                "l 0777 0:0 d/inner -> one",
                "f 0644 0:0 d/one (1)",
                "d 0700 0:0 d/sub/",
                "f 0644 0:0 d/sub/two (1)",
            ],
        ),
        ("WORKDIR /w\nCOPY a.txt .", &["d 0755 0:0 w/", "f 0644 0:0 w/a.txt (1)"]),
        ("WORKDIR /w\nCOPY a.txt x/y", &["d 0755 0:0 w/", "d 0755 0:0 w/x/", "f 0644 0:0 w/x/y (1)"]),
        ("COPY --chown=7 a.txt /n/", &["d 0755 7:7 n/", "f 0644 7:7 n/a.txt (1)"]),
        ("COPY --chown=7:8 a.txt /", &["f 0644 7:8 a.txt (1)"]),
        ("COPY --chmod=640 a.txt /n/", &["d 0640 0:0 n/", "f 0640 0:0 n/a.txt (1)"]),
        ("COPY --chmod=u+x,o= a.txt /n/", &["d 0755 0:0 n/", "f 0740 0:0 n/a.txt (1)"]),
        (
            "COPY --parents dir/sub/two /p/",
            &["d 0755 0:0 p/", "d 0755 0:0 p/dir/", "d 0700 0:0 p/dir/sub/", "f 0644 0:0 p/dir/sub/two (1)"],
        ),
        ("COPY --exclude=sub --exclude=inner dir /d/", &["d 0755 0:0 d/", "f 0644 0:0 d/one (1)"]),
        ("COPY [\"a.txt\", \"/with blank\"]", &["f 0644 0:0 with blank (1)"]),
        ("ARG N=b\nCOPY ${N}.txt /", &["f 0644 0:0 b.txt (2)"]),
        ("COPY <<EOF /heredoc\nx\nEOF", &["f 0644 0:0 heredoc (2)"]),
        ("ADD dir/one /", &["f 0644 0:0 one (1)"]),
    ];
    for (instruction, expected) in cases {
        assert_eq!(layer(&context, instruction), *expected, "{instruction}");
    }
    context.dockerfile("FROM scratch\nCOPY outside /x\n").build(&[""; 0]).fails(2, &["outside"]);
    context.dockerfile("FROM scratch\nCOPY *.none /x/\n").build(&[""; 0]).ok();
}

#[test]
fn on_top_of_files_that_are_there() {
    let context = sources();
    let base = "COPY --chmod=700 --chown=5:5 dir /d/\n";
    let cases: &[(&str, &[&str])] = &[
        // The directory that is there keeps its owner and mode.
        ("COPY a.txt /d/", &["d 0700 5:5 d/", "f 0644 0:0 d/a.txt (1)"]),
        ("COPY a.txt /d/one", &["d 0700 5:5 d/", "f 0644 0:0 d/one (1)"]),
        // A symbolic link as destination is followed.
        ("COPY a.txt /d/inner", &["d 0700 5:5 d/", "f 0644 0:0 d/one (1)"]),
        ("COPY --link a.txt /d/", &["d 0755 0:0 d/", "f 0644 0:0 d/a.txt (1)"]),
        ("COPY --link --chown=9:9 a.txt /d/", &["d 0755 9:9 d/", "f 0644 9:9 d/a.txt (1)"]),
    ];
    for (instruction, expected) in cases {
        assert_eq!(layer(&context, &format!("{base}{instruction}")), *expected, "{instruction}");
    }
    context
        .dockerfile(&format!("FROM scratch\n{base}COPY dir /d/one\n"))
        .build(&[""; 0])
        .fails(2, &["Dockerfile:3"]);
    context
        .dockerfile(&format!("FROM scratch\n{base}COPY a.txt /d/one/\n"))
        .build(&[""; 0])
        .fails(2, &["Dockerfile:3"]);
}

#[test]
fn from_stages_with_owners_links_and_special_bits() {
    let context = TestContext::of(
        "FROM base AS make\n\
         RUN mkdir -p /s/d && cd /s && echo 1 > one && ln one two && chown 3:4 one && chmod 4750 one \
         && ln -s ../one d/up && mkfifo d/pipe && mknod null c 1 3 && chmod 2711 d\n\
         FROM scratch\nCOPY --from=make /s /t\n",
    );
    context.build(&["-t", "x"]).ok();
    assert_eq!(
        Image::of(&context, "x:latest").last().lines(),
        [
            "d 0755 0:0 t/",
            "d 2711 0:0 t/d/",
            "p 0644 0:0 t/d/pipe",
            "l 0777 0:0 t/d/up -> ../one",
            "c 0644 0:0 t/null",
            "f 4750 3:4 t/one (2)",
            "h 4750 3:4 t/two -> t/one",
        ]
    );
}

#[test]
fn names_of_owners_come_from_the_image() {
    let context = TestContext::of(
        "FROM base\nRUN echo 'app:x:77:88::/:/bin/sh' >> /etc/passwd; echo 'grp:x:99:' >> /etc/group\n\
         COPY --chown=app a.txt /1\nCOPY --chown=app:grp a.txt /2\nCOPY --chown=nobody:root a.txt /3\n",
    );
    context.file("a.txt", "a").build(&["-t", "x"]).ok();
    let image = Image::of(&context, "x:latest");
    let owners: Vec<_> = image.layers[2..].iter().map(|layer| layer.lines()).collect();
    assert_eq!(owners, [["f 0644 77:88 1 (1)"], ["f 0644 77:99 2 (1)"], ["f 0644 65534:0 3 (1)"]]);
}

#[test]
fn the_bytes_are_those_of_the_source_even_when_a_run_mounts_them() {
    let context =
        TestContext::of("FROM base\nCOPY big /big\nRUN sha256sum /big | cut -d' ' -f1 > /out && rm /big\n");
    let bytes: Vec<u8> = (0..3_000_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    context.file("big", &bytes);
    context.build(&["-t", "x", "-o", "out"]).ok();
    let expected = rbuild_oci::Digest::of(&bytes).hex();
    assert_eq!(std::fs::read_to_string(context.path("out/out")).unwrap().trim(), expected);
    assert!(!context.path("out/big").exists(), "removed by the RUN");
    let image = Image::of(&context, "x:latest");
    assert!(image.layers[1].get("big").unwrap().data == bytes, "the layer's bytes");
    assert!(image.last().get(".wh.big").is_some(), "{:?}", image.last().lines());
}

#[test]
fn dockerignore() {
    let context = TestContext::of("FROM scratch\nCOPY . /\n");
    for name in ["keep", "drop.log", "logs/a.log", "logs/keep.log", "node/deep/x", "Makefile"] {
        context.file(name, "x");
    }
    context.file(".dockerignore", "# comment\n**/*.log\n!logs/keep.log\nnode\n\nDockerfile\n.dockerignore\n");
    context.build(&["-t", "x"]).ok();
    let expected = [
        "f 0644 0:0 Makefile (1)",
        "f 0644 0:0 keep (1)",
        "d 0755 0:0 logs/",
        "f 0644 0:0 logs/keep.log (1)",
    ];
    assert_eq!(Image::of(&context, "x:latest").last().lines(), expected);
    context.file("Dockerfile.dockerignore", "*\n!Makefile\n").build(&["-t", "x"]).ok();
    assert_eq!(Image::of(&context, "x:latest").last().lines(), ["f 0644 0:0 Makefile (1)"]);
    context.dockerfile("FROM scratch\nCOPY keep /\n").build(&[""; 0]).fails(2, &["keep", "ignore"]);
    context.file("Dockerfile.dockerignore", "a[\n").build(&[""; 0]).fails(2, &["dockerignore"]);
}

#[test]
fn add_unpacks_archives() {
    let context = TestContext::new();
    context.file("tree/d/f", "data").file("plain", "no archive").symlink("tree/l", "d/f");
    for (flag, name, program) in [
        ("-cf", "a.tar", "tar"),
        ("-czf", "a.tgz", "gzip"),
        ("-I zstd -cf", "a.tar.zst", "zstd"),
        ("-cjf", "a.tar.bz2", "bzip2"),
        ("-cJf", "a.tar.xz", "xz"),
    ] {
        if !installed(program) {
            skip("add_unpacks_archives", &format!("{program} is not installed"));
            continue;
        }
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=6", "--group=7"])
            .args(flag.split(' '))
            .arg(context.in_context(name));
        tar.arg("-C").arg(context.in_context("tree")).args(["d", "l"]);
        run(tar, b"").ok();
        let lines = layer(&context, &format!("ADD {name} plain /to/"));
        let expected = [
            "d 0755 0:0 to/",
            "d 0755 6:7 to/d/",
            "f 0644 6:7 to/d/f (4)",
            "l 0777 6:7 to/l -> d/f",
            "f 0644 0:0 to/plain (10)",
        ];
        assert_eq!(lines, expected, "{name}");
        let copied = layer(&context, &format!("COPY {name} /"));
        assert!(copied.len() == 1 && copied[0].starts_with("f 0644 0:0 a."), "{copied:?}");
    }
    // What only looks like one is copied as it is.
    context.file("x.tar.bz2", b"BZh91AY&SY");
    assert_eq!(layer(&context, "ADD x.tar.bz2 /to/"), ["d 0755 0:0 to/", "f 0644 0:0 to/x.tar.bz2 (10)"]);
}

/// an archive is unpacked where it goes, not beside it: links go to files of the image and through its symlinks.
#[test]
fn an_archive_meets_what_the_image_has() {
    let context = TestContext::new();
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_link(&mut header(tar::EntryType::Link, 0o640, 0), "hard", "there").unwrap();
    builder.append_data(&mut header(tar::EntryType::Regular, 0o644, 2), "bin/tool", &b"hi"[..]).unwrap();
    builder.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), "was-file", &b""[..]).unwrap();
    builder.append_data(&mut header(tar::EntryType::Regular, 0o644, 3), "was-dir", &b"new"[..]).unwrap();
    context.file("a.tar", builder.into_inner().unwrap());
    context.dockerfile(
        "FROM base\n\
         RUN mkdir -p /d/usr/bin /d/was-dir/x && ln -s usr/bin /d/bin && echo old > /d/there && touch /d/was-file\n\
         ADD a.tar /d/\n\
         RUN { stat -c '%n %a %h %F' /d/hard /d/there /d/was-file /d/was-dir; cat /d/usr/bin/tool /d/hard; \
         readlink /d/bin; } > /out\n",
    );
    context.build(&["-o", "out"]).ok();
    let out = std::fs::read_to_string(context.path("out/out")).unwrap();
    let expected = "/d/hard 640 2 regular file\n/d/there 640 2 regular file\n/d/was-file 755 2 directory\n\
                    /d/was-dir 644 1 regular file\nhiold\nusr/bin\n";
    assert_eq!(out, expected);
}

#[test]
fn an_archive_cannot_write_outside_its_destination() {
    let context =
        TestContext::of("FROM base\nADD evil.tar /safe/\nRUN cat /target /safe/target > /out; true\n");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    builder.append_link(&mut header, "up", "..").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, "up/target", &b"evil"[..]).unwrap();
    context.file("evil.tar", builder.into_inner().unwrap());
    let built = context.build(&["-t", "x", "-o", "out"]);
    if built.code == 0 {
        assert!(!context.path("target").exists() && !context.path("out/../target").exists());
    } else {
        built.fails(3, &["evil.tar"]);
    }
    context.assert_nothing_left();
}

/// BuildKit says `invalid user index: -1`.
#[test]
fn names_of_users_that_cannot_be_looked_up() {
    let context = TestContext::new();
    context.file("f", "");
    let cases = [
        ("FROM base\nCOPY --link --chown=daemon f /f\n", ["--chown=daemon with --link", "give numbers"]),
        ("FROM base\nADD --link --chown=1:daemon f /f\n", ["--chown=1:daemon with --link", "give numbers"]),
        (
            "FROM scratch\nCOPY --chown=daemon f /f\n",
            ["--chown=daemon: there is no /etc/passwd", "give numbers"],
        ),
        ("FROM scratch\nUSER daemon\nWORKDIR /w\n", ["USER daemon: there is no /etc/passwd", "give numbers"]),
    ];
    for (dockerfile, words) in cases {
        context.dockerfile(dockerfile).build(&["-t", "x"]).fails(2, &words);
    }
    // `root` is 0 everywhere, nothing is 0, and with --chmod a copy is not linked.
    let linked = "COPY --link --chown=root: f /f\nCOPY --link --chown=:5 f /g\nCOPY --link --chmod=644 --chown=daemon f /h\n";
    context.dockerfile(&format!("FROM base\n{linked}")).build(&["-t", "x"]).ok();
    context.dockerfile("FROM scratch\nWORKDIR /w\nCOPY --chown=daemon f /f\n").build(&["-t", "x"]).ok();
}
