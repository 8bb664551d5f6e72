//! Symbolic and hard links, and other files.

use super::site;

/// A-104 (testCopySymlinks, testCopyFollowAllSymlinks, testCopyThroughSymlinkContext)
#[test]
fn named_links_are_followed_and_others_copied() {
    let site = site!("named_links_are_followed_and_others_copied");
    let context = site.context();
    context
        .file("real/sub/f", "f")
        .symlink("link", "real")
        .symlink("real/inner", "sub/f")
        .symlink("abs", "/real/sub/f");
    context.symlink("out", "../../../real/sub/f").symlink("real/dangling", "nowhere").symlink("chain", "abs");
    let image = context.image_of(
        "FROM scratch
COPY link /dir
COPY link/sub/f /through
COPY abs chain out /files/
COPY real/i* /matched/
",
    );
    assert_eq!((image.entry("dir").kind, image.entry("dir/inner").link.as_str()), ('d', "sub/f"));
    assert_eq!(image.entry("dir/dangling").link, "nowhere");
    for path in ["through", "files/abs", "files/chain", "files/out", "matched/inner"] {
        assert_eq!((image.entry(path).kind, image.text(path)), ('-', "f"), "{path}");
    }
    let outcome = context.build_of("FROM scratch\nCOPY real/dangling /\n");
    outcome.refused(2, "not found");
}

/// A-104 (testCopyThroughSymlinkMultiStage)
#[test]
fn links_of_a_stage_lead_inside_it() {
    let site = site!("links_of_a_stage_lead_inside_it");
    let image = site.context().image_of(
        "FROM busybox AS build
RUN mkdir -p /o/sub && ln -s /o/sub /abs && ln -s o/sub /rel && echo -n data > /abs/f && ln -s ../../../../o/sub/f /up
FROM scratch
COPY --from=build /abs/f a
COPY --from=build /rel/f b
COPY --from=build /up c
COPY --from=build /rel d
",
    );
    for path in ["a", "b", "c", "d/f"] {
        assert_eq!(image.text(path), "data", "{path}");
    }
}

/// A-103 (testSymlinkDestination)
#[test]
fn links_in_the_destination_are_followed_inside_the_root() {
    let site = site!("links_in_the_destination_are_followed_inside_the_root");
    let context = site.context();
    context.file("f", "new").file("d/g", "g");
    context.archive("links.tar", |tar| {
        let mut link = |name: &str, target: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, name, target).unwrap();
        };
        link("dirlink", "/target/dir");
        link("escape", "../../../../elsewhere");
        link("filelink", "target/file");
    });
    let image = context.image_of(
        "FROM scratch
ADD links.tar /
COPY f /dirlink/
COPY d /escape
COPY f /filelink
",
    );
    assert_eq!(
        (image.text("target/dir/f"), image.text("elsewhere/g"), image.text("target/file")),
        ("new", "g", "new")
    );
    assert_eq!(["dirlink", "escape", "filelink"].map(|path| image.entry(path).kind), ['l', 'l', 'l']);
}

/// A-105, B-017 (testCopySocket)
#[test]
fn special_files_of_the_context() {
    let site = site!("special_files_of_the_context");
    let context = site.context();
    let _socket = std::os::unix::net::UnixListener::bind(context.dir.join("socket")).unwrap();
    context.file("first", "linked").mode("first", 0o4755);
    std::fs::hard_link(context.dir.join("first"), context.dir.join("second")).unwrap();
    let fifo = context.dir.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let image = context.image_of("FROM scratch\nCOPY . /\n");
    assert_eq!(image.paths(), ["Dockerfile", "fifo", "first", "second"], "a socket is left out");
    assert_eq!((image.entry("fifo").kind, image.entry("fifo").mode & 0o777), ('p', 0o640));
    assert_eq!((image.entry("first").mode, image.text("second")), (0o4755, "linked"));
    assert_eq!(image.entry("second").hard_link.as_deref(), Some("first"));
}

/// hard links and extended attributes of a stage.
#[test]
fn links_and_attributes_of_a_stage_are_kept() {
    let site = site!("links_and_attributes_of_a_stage_are_kept");
    let context = site.context();
    let image = context.image_of(
        "FROM busybox AS build
RUN mkdir -p /t/sub && echo -n x > /t/a && ln /t/a /t/sub/b && ln /t/a /outside && chown 5:6 /t/a && mknod /t/dev c 1 3
FROM scratch
COPY --from=build /t /t
",
    );
    assert_eq!(image.entry("t/sub/b").hard_link.as_deref(), Some("t/a"));
    assert_eq!((image.entry("t/a").owner(), image.entry("t/dev").kind), ("5:6".into(), 'c'));
}
