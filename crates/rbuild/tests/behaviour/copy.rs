//! COPY: names, destinations, owners, modes.

use super::site;

/// A-100 (testCopyWildcards)
#[test]
fn wildcards_and_directories() {
    let site = site!("wildcards_and_directories");
    let context = site.context();
    context.file("one.c", "1").file("two.c", "2").file("tree/a/b/leaf", "leaf").file("tree/.hidden", "h");
    let image = context.image_of(
        "FROM scratch
COPY *.c /all/
COPY o*.c renamed
COPY tree/* /flat/
COPY tree/*/b/leaf /named/
COPY tree/*/b/leaf /named2/other
COPY tree/a/ slash
COPY tree/a/. slashdot
COPY tree/a bare
COPY t?o.c [o]ne.c two/
",
    );
    let files: Vec<&str> = image.paths().into_iter().filter(|path| image.entry(path).kind == '-').collect();
    let expected = [
        "all/one.c",
        "all/two.c",
        "bare/b/leaf",
        "flat/.hidden",
        "flat/b/leaf",
        "named/leaf",
        "named2/other",
        "renamed",
        "slash/b/leaf",
        "slashdot/b/leaf",
        "two/one.c",
        "two/two.c",
    ];
    assert_eq!(files, expected);
    assert_eq!(image.text("renamed"), "1");
}

/// A-097 (testEmptyWildcard)
#[test]
fn a_wildcard_without_matches_is_no_error() {
    let site = site!("a_wildcard_without_matches_is_no_error");
    let context = site.context();
    context.file("here", "x");
    let image = context.image_of("FROM scratch\nCOPY here none* /\nCOPY none* /made/\n");
    assert_eq!(image.paths(), ["here"]);
    assert_eq!(image.history().len(), 2);
    assert_eq!(image.layers[1], Vec::<String>::new(), "an empty layer (B-018)");
    context.build_of("FROM scratch\nCOPY here none /\n").refused(2, "\"/none\": not found");
}

/// A-101 (testEmptyDestDir, testPreserveDestDirSlash, testCopyRelative, testWorkdirCopyIgnoreRelative)
#[test]
fn destinations_are_relative_to_workdir() {
    let site = site!("destinations_are_relative_to_workdir");
    let context = site.context();
    context.file("f", "f");
    let image = context.image_of(
        "FROM scratch AS other
WORKDIR /w
COPY f /top
COPY f inner
FROM scratch
WORKDIR /a
WORKDIR b
ENV nothing=\"\"
COPY f $nothing
COPY f ./x
COPY f deep/y
COPY f /abs/
WORKDIR ..
COPY f .
COPY f ../up
COPY --from=other top .
",
    );
    for path in ["a/b/f", "a/b/x", "a/b/deep/y", "abs/f", "a/f", "up", "a/top"] {
        assert_eq!(image.text(path), "f", "{path}");
    }
    assert_eq!(image.config()["WorkingDir"], "/a");
}

/// A-108 (testCopyLinkDotDestDir, testCopyLinkEmptyDestDir)
#[test]
fn link_resolves_destinations_alike() {
    let site = site!("link_resolves_destinations_alike");
    let context = site.context();
    context.file("f", "f").file("d/g", "g");
    let image = context.image_of(
        "FROM busybox
WORKDIR /srv/www
ENV nothing=\"\"
COPY --link f .
COPY --link f $nothing
COPY --link d .
COPY --link --chown=7:8 d /made/for/
RUN [ \"$(cat f g)\" = fg ]
",
    );
    assert_eq!(image.entry("made").owner(), "7:8");
    assert_eq!((image.entry("made/for").mode, image.entry("made/for/g").owner()), (0o755, "7:8".into()));
}

/// a link layer never follows what is below it.
#[test]
fn link_replaces_symlinked_parents() {
    let site = site!("link_replaces_symlinked_parents");
    let context = site.context();
    context.file("f", "f");
    let image = context.image_of(
        "FROM busybox
RUN mkdir /real && ln -s real /name && ln -s real /other
COPY f /name/
COPY --link f /other/
",
    );
    assert_eq!((image.entry("name").kind, image.has("real/f")), ('l', true));
    assert_eq!((image.entry("other").kind, image.text("other/f")), ('d', "f"));
}

/// A-099, A-106 (testCopyChownExistingDir)
#[test]
fn directories_that_are_there_keep_their_owner() {
    let site = site!("directories_that_are_there_keep_their_owner");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox AS source
RUN mkdir -p /d/sub && touch /d/sub/f && chown 100:200 /d && chown 101:201 /d/sub && chown 102:202 /d/sub/f
FROM busybox AS base
RUN mkdir -p /there/sub && touch /there/old && chown 500:600 /there && chown 501:601 /there/sub /there/old
FROM base AS kept
COPY --from=source /d /new
COPY --from=source /d/. /there
FROM base AS set
COPY --from=source --chown=300:400 /d /new
COPY --from=source --chown=300:400 /d/. /there
",
    );
    let owners = |target: &str| {
        let image = context.image(&["--target", target]);
        ["new", "new/sub", "new/sub/f", "there", "there/sub", "there/sub/f", "there/old"]
            .map(|path| image.entry(path).owner())
    };
    assert_eq!(owners("kept"), ["0:0", "101:201", "102:202", "500:600", "101:201", "102:202", "501:601"]);
    assert_eq!(owners("set"), ["300:400", "300:400", "300:400", "500:600", "300:400", "300:400", "501:601"]);
}

/// A-106 (testCopyChown, testCopyChownCreateDest)
#[test]
fn chown_takes_names_and_numbers() {
    let site = site!("chown_takes_names_and_numbers");
    let context = site.context();
    context.file("f", "f").file("d/g", "g").symlink("d/l", "g");
    let image = context.image_of(
        "FROM busybox
RUN echo app:x:1000:1001::/:/bin/sh >> /etc/passwd && echo team:x:1002: >> /etc/group
ARG group
ENV owner=app
COPY --chown=daemon f /daemon
COPY --chown=1000:nobody d /numbers
COPY --chown=${owner}:${group} f /empty
COPY --chown=app d /made/by/app
COPY --chown=app:team f /team
COPY --chown=55 f /same
COPY --chown=unknown:unknown f /unknown
COPY --chown=root:daemon f /mixed
",
    );
    for (path, owner) in [
        ("daemon", "1:1"),
        ("numbers", "1000:65534"),
        ("numbers/g", "1000:65534"),
        ("numbers/l", "1000:65534"),
        ("empty", "1000:0"),
        ("made", "1000:1001"),
        ("made/by", "1000:1001"),
        ("made/by/app/g", "1000:1001"),
        ("team", "1000:1002"),
        ("same", "55:55"),
        ("unknown", "0:0"),
        ("mixed", "0:1"),
    ] {
        assert_eq!(image.entry(path).owner(), owner, "{path}");
    }
}

/// A-107 (testCopyChmod, testCopyInvalidChmod, testChmodNonOctal)
#[test]
fn chmod_is_octal_or_symbolic() {
    let site = site!("chmod_is_octal_or_symbolic");
    let context = site.context();
    context
        .file("f", "f")
        .mode("f", 0o666)
        .directory("d/sub")
        .file("d/x", "x")
        .mode("d/x", 0o711)
        .mode("d/sub", 0o700);
    let image = context.image_of(
        "FROM scratch
ARG mode=0751
COPY --chmod=0644 f /octal
COPY --chmod=777 d /dir
COPY --chmod=0 f /none
COPY --chmod=750 f /up/f
COPY --chmod=${mode} f /var
COPY --chmod=4755 f /suid/f
COPY --chmod=u=rwX,go=rX d /symbolic
COPY --chmod=g=u,o-rwx f /sym/f
COPY --chmod=+t,a+x f /sticky
",
    );
    for (path, mode) in [
        ("octal", 0o644),
        ("dir", 0o777),
        ("dir/sub", 0o777),
        ("dir/x", 0o777),
        ("none", 0),
        ("up", 0o750),
        ("up/f", 0o750),
        ("var", 0o751),
        ("suid", 0o755),
        ("suid/f", 0o4755),
        ("symbolic", 0o755),
        ("symbolic/sub", 0o755),
        ("symbolic/x", 0o755),
        ("sym", 0o755),
        ("sym/f", 0o660),
        ("sticky", 0o1777),
    ] {
        assert_eq!(format!("{:o}", image.entry(path).mode), format!("{mode:o}"), "{path}");
    }
    for bad in ["64a", "10000", "0999"] {
        let outcome = context.build_of(&format!("FROM scratch\nCOPY --chmod={bad} f /\n"));
        outcome.refused(2, &format!("invalid chmod parameter: '{bad}'"));
    }
}

/// A-102 (testCopyOverrideFiles)
#[test]
fn later_copies_win_and_conflicts_are_refused() {
    let site = site!("later_copies_win_and_conflicts_are_refused");
    let context = site.context();
    context
        .file("sub/a/f", "first")
        .file("more/a/f", "second")
        .file("more/new", "n")
        .directory("empty")
        .file("name", "");
    let image = context.image_of(
        "FROM scratch
COPY sub dest
COPY sub dest
COPY more/a/f dest/a/f
COPY more dest
",
    );
    assert_eq!((image.text("dest/a/f"), image.text("dest/new")), ("second", "n"));
    assert_eq!(image.layers[1], Vec::<String>::new(), "the same again is no change");
    let outcome = context.build_of("FROM scratch\nCOPY sub /name\nCOPY name /\n");
    outcome.refused(2, "cannot replace to directory /name with file");
    let outcome = context.build_of("FROM scratch\nCOPY name /\nCOPY sub /name\n");
    outcome.refused(2, "cannot copy to non-directory: /name");
}

/// A-109 (testCopyParents, testCopyRelativeParents, testCopyParentsMissingDirectory)
#[test]
fn parents_keep_the_path_from_the_pivot() {
    let site = site!("parents_keep_the_path_from_the_pivot");
    let context = site.context();
    context.file("t/a/b/c/d/foo", "").file("t/a/b/c/d/e/bay", "").file("t/a/b2/c/d/e/bar", "");
    context.file("t/a/b/c2/d/e/baz", "").mode("t/a/b/c", 0o711);
    let files = |sources: &str| {
        let image = context.image_of(&format!("FROM scratch\nCOPY --parents {sources} /out/\n"));
        let files = image.paths().into_iter().filter(|path| image.entry(path).kind == '-');
        files.map(|path| path.strip_prefix("out/").unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (sources, expected) in [
        ("t/a/b/./c/d", &["c/d/e/bay", "c/d/foo"][..]),
        ("t/a/b/c/d/.", &["t/a/b/c/d/e/bay", "t/a/b/c/d/foo"]),
        ("./t/a/b/c/d", &["t/a/b/c/d/e/bay", "t/a/b/c/d/foo"]),
        ("t/a/./b/./c", &["b/c/d/e/bay", "b/c/d/foo"]),
        ("t/a/./*/c", &["b/c/d/e/bay", "b/c/d/foo", "b2/c/d/e/bar"]),
        ("t/a/b*/./c/**/e", &["c/d/e/bar", "c/d/e/bay"]),
        ("t/a/b/c*/./d/**/baz t/a/b*/./c/**/bar", &["c/d/e/bar", "d/e/baz"]),
        ("t/a/none*/c", &[]),
        ("t/a/b/./none*", &[]),
    ] {
        assert_eq!(files(sources), expected, "{sources}");
    }
    let image = context.image_of("FROM scratch\nCOPY --parents t/a/b/c/d/foo t/none* /out/\n");
    assert_eq!(image.entry("out/t/a/b/c").mode, 0o711, "directories have the source's mode");
    context.build_of("FROM scratch\nCOPY --parents t/none /out/\n").refused(2, "\"/t/none\": not found");
}

/// A-110 (testExcludedFilesOnCopy)
#[test]
fn exclude_leaves_out_what_is_below_sources() {
    let site = site!("exclude_leaves_out_what_is_below_sources");
    let context = site.context();
    for name in ["d1/a.txt", "d1/a.png", "d2/b.txt", "d2/b.png", "d2/sub/c.png", "top.png"] {
        context.file(name, name);
    }
    let files = |copy: &str| {
        let image = context.image_of(&format!("FROM scratch\n{copy} /out/\n"));
        let files = image.paths().into_iter().filter(|path| image.entry(path).kind == '-');
        files.map(|path| path.strip_prefix("out/").unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    context.file(".dockerignore", "Dockerfile\n.dockerignore\n");
    for (copy, expected) in [
        ("COPY --exclude=*/*.png .", "d1/a.txt d2/b.txt d2/sub/c.png top.png"),
        ("COPY --exclude=**/*.png .", "d1/a.txt d2/b.txt"),
        ("ADD --exclude=*.png d2/", "b.txt sub/c.png"),
        ("COPY --exclude=*.png --exclude=sub d*", "a.txt b.txt"),
        ("COPY --exclude=* d*", ""),
        ("COPY --exclude=* --exclude=!*.txt d1", "a.txt"),
        ("COPY --exclude=top.png top.png", "top.png"),
    ] {
        assert_eq!(files(copy), expected, "{copy}");
    }
}

/// A-021, A-028 (testCopyVarSubstitution, testCopyUnicodePath)
#[test]
fn names_are_expanded_and_unquoted() {
    let site = site!("names_are_expanded_and_unquoted");
    let context = site.context();
    context.file("bär.txt", "umlaut").file("a b", "blank").file("100%", "percent").file("$x", "dollar");
    let image = context.image_of(
        "FROM scratch
ENV NAME=bär
COPY $NAME.txt /u
COPY [\"a b\", \"/with blank\"]
COPY 100% /p
COPY \\$x /d
",
    );
    assert_eq!((image.text("u"), image.text("with blank")), ("umlaut", "blank"));
    assert_eq!((image.text("p"), image.text("d")), ("percent", "dollar"));
}
