//! ADD of archives.

use super::site;
use crate::support::Context;
use std::io::Write as _;

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &str, owner: (u64, u64), mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(1_000_000_000);
    if name.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
    }
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
}

fn one_file(context: &Context<'_>, archive: &str, name: &str, content: &str) {
    context.archive(archive, |tar| add(tar, name, content, (7, 8), 0o640));
}

/// A-113 (testDockerfileAddArchive)
#[test]
fn archives_are_unpacked_by_their_content() {
    let site = site!("archives_are_unpacked_by_their_content");
    let context = site.context();
    one_file(&context, "plain.tar", "in/f", "content");
    let plain = std::fs::read(context.dir.join("plain.tar")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    context
        .file("misnamed.txt", gzip.finish().unwrap())
        .file("empty.tar", "")
        .file("broken.tar.gz", "\x1f\x08 no");
    context.file("dir/a.tar", &plain);
    let image = context.image_of(
        "FROM scratch
ADD plain.tar /plain
ADD misnamed.txt /gz/
ADD --unpack=false misnamed.txt /kept/
COPY plain.tar /copied/
ADD empty.tar broken.tar.gz /odd/
ADD dir /dir
",
    );
    assert_eq!((image.text("plain/in/f"), image.text("gz/in/f")), ("content", "content"));
    let file = image.entry("plain/in/f");
    assert_eq!((file.owner(), file.mode, file.mtime), ("7:8".into(), 0o640, 1_000_000_000));
    let parent = image.entry("plain/in");
    assert_eq!((parent.mode, parent.owner()), (0o755, "0:0".into()), "an implied directory");
    for path in ["kept/misnamed.txt", "copied/plain.tar", "odd/empty.tar", "odd/broken.tar.gz", "dir/a.tar"] {
        assert_eq!(image.entry(path).kind, '-', "{path}");
    }
}

/// A-114 (testDockerfileAddChownArchive, testDockerfileAddArchiveWildcard, testDockerfileAddChownExpand)
#[test]
fn chown_applies_to_what_is_unpacked() {
    let site = site!("chown_applies_to_what_is_unpacked");
    let context = site.context();
    one_file(&context, "a.tar", "x/a", "a");
    one_file(&context, "b.tar", "b", "b");
    context.file("f", "f");
    let image = context.image_of(
        "FROM busybox
ARG group
ENV owner=1000
ADD --chown=100:200 a.tar /out/
ADD *.tar /dest
ADD --chmod=700 a.tar /modes
ADD --chown=${owner}:${group} f /f
ADD --chown=daemon a.tar /named
",
    );
    // A directory that the archive only implies is root's, whatever --chown says (applyRootArchive).
    assert_eq!(
        ["out", "out/x", "out/x/a"].map(|path| image.entry(path).owner()),
        ["100:200", "0:0", "100:200"]
    );
    assert_eq!((image.text("dest/x/a"), image.text("dest/b")), ("a", "b"));
    assert_eq!(image.entry("modes/x/a").mode, 0o640, "--chmod is not for archives");
    assert_eq!((image.entry("f").owner(), image.entry("named/x/a").owner()), ("1000:0".into(), "1:1".into()));
}

/// A-114 (testDockerfileAddArchiveWithImpliedParentDir, testDockerfileAddArchiveThroughAbsoluteSymlink)
#[test]
fn archives_meet_what_is_there() {
    let site = site!("archives_meet_what_is_there");
    let context = site.context();
    context.archive("base.tar", |tar| {
        add(tar, "usr/lib/", "", (3, 3), 0o711);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "lib", "/usr/lib").unwrap();
        add(tar, "file", "old", (0, 0), 0o600);
        add(tar, "dir/", "", (0, 0), 0o755);
        add(tar, "dir/inner", "i", (0, 0), 0o644);
    });
    context.archive("over.tar", |tar| {
        add(tar, "lib/module", "m", (0, 0), 0o644);
        add(tar, "file/", "", (0, 0), 0o755);
        add(tar, "dir", "now a file", (0, 0), 0o644);
    });
    let image = context.image_of("FROM scratch\nADD base.tar /\nADD over.tar /\n");
    assert_eq!((image.entry("lib").kind, image.text("usr/lib/module")), ('l', "m"));
    let lib = image.entry("usr/lib");
    assert_eq!(
        (lib.owner(), lib.mode),
        ("3:3".into(), 0o711),
        "an implied directory leaves what is there alone"
    );
    assert_eq!(
        (image.entry("file").kind, image.text("dir"), image.has("dir/inner")),
        ('d', "now a file", false)
    );
}

/// A broken archive is the user's, not a registry's: exit code 2 and its name.
#[test]
fn a_broken_archive_is_named() {
    let site = site!("a_broken_archive_is_named");
    let context = site.context();
    one_file(&context, "short.tar", "big", &"x".repeat(5000));
    let whole = std::fs::read(context.dir.join("short.tar")).unwrap();
    context.file("short.tar", &whole[..2000]);
    let outcome = context.build_of("FROM scratch\nADD short.tar /\n");
    outcome.refused(2, "failed to solve: short.tar: ");
}

/// an archive's own root, whatever it is said to be.
#[test]
fn an_archives_root_entry_means_nothing() {
    let site = site!("an_archives_root_entry_means_nothing");
    let context = site.context();
    context.archive("t.tar", |tar| {
        add(tar, "./", "", (9, 9), 0o700);
        add(tar, "f", "f", (0, 0), 0o644);
    });
    let image = context.image_of("FROM busybox\nRUN mkdir -m 1777 /d\nADD t.tar /d\n");
    assert_eq!((image.entry("d").mode, image.entry("d").owner()), (0o1777, "0:0".into()));
}
