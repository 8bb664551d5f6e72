use super::*;

fn source() -> MemTree {
    MemTree::new()
        .file("f", "f")
        .mode(0o640)
        .mtime(5)
        .file("g", "g")
        .mtime(6)
        .dir("d")
        .mode(0o700)
        .mtime(7)
        .file("d/x", "x")
        .mtime(8)
        .dir("d/sub")
        .mode(0o750)
        .mtime(9)
        .file("d/sub/y", "y")
        .symlink("d/l", "x")
}

fn base() -> MemTree {
    MemTree::new()
        .dir("app")
        .mode(0o711)
        .owner(3, 4)
        .mtime(50)
        .file("app/old", "old")
        .dir("app/sub")
        .owner(3, 4)
        .file("file", "")
        .symlink("to-app", "/app")
        .symlink("to-file", "file")
        .symlink("out", "../../../app/new")
        .symlink("app/x", "/file")
}

fn run(sources: &[&str], dest: &str) -> Vec<String> {
    shown(&copy(&source(), sources, dest, &base(), &options()).unwrap())
}

/// A-099, A-100, A-105: destinations that do not exist.
#[test]
fn new_destinations() {
    for (sources, dest, want) in [
        (&["f"][..], "/new", vec![r#"-640 0:0 5 /new "f""#]),
        (&["f"], "/new/", vec!["d755 0:0 1000 /new", r#"-640 0:0 5 /new/f "f""#]),
        (&["f"], "/new/.", vec!["d755 0:0 1000 /new", r#"-640 0:0 5 /new/f "f""#]),
        (&["f"], "/a/b/c", vec!["d755 0:0 1000 /a", "d755 0:0 1000 /a/b", r#"-640 0:0 5 /a/b/c "f""#]),
        (&["f"], "/", vec![r#"-640 0:0 5 /f "f""#]),
        // A later source without a directory to go to takes the place of the earlier one.
        (&["f", "g"], "/new", vec![r#"-644 0:0 6 /new "g""#]),
        (
            &["f", "g"],
            "/new/",
            vec!["d755 0:0 1000 /new", r#"-640 0:0 5 /new/f "f""#, r#"-644 0:0 6 /new/g "g""#],
        ),
        (
            &["d"],
            "/n/m",
            vec![
                "d755 0:0 1000 /n",
                "d755 0:0 7 /n/m",
                "l777 0:0 0 /n/m/l -> x",
                "d750 0:0 9 /n/m/sub",
                r#"-644 0:0 0 /n/m/sub/y "y""#,
                r#"-644 0:0 8 /n/m/x "x""#,
            ],
        ),
        // The second source sees the directory that the first one made.
        (&["d/sub", "f"], "/n", vec!["d755 0:0 9 /n", r#"-640 0:0 5 /n/f "f""#, r#"-644 0:0 0 /n/y "y""#]),
        (&["nothing*"], "/new/", vec![]),
    ] {
        assert_eq!(run(sources, dest), want, "{sources:?} {dest}");
    }
}

/// A-099, A-100, A-102, B-016: destinations that exist.
#[test]
fn existing_destinations() {
    let app = "d711 3:4 50 /app";
    for (sources, dest, want) in [
        (&["f"][..], "/app", vec![app, r#"-640 0:0 5 /app/f "f""#]),
        (&["f"], "/app/old", vec![app, r#"-640 0:0 5 /app/old "f""#]),
        (&["f"], "/app/x", vec![r#"-640 0:0 5 /file "f""#]), // the final symlink is followed
        (&["d/x"], "/app", vec![app, r#"-644 0:0 8 /app/x "x""#]), // one inside is replaced
        // Of the directory that was there only the time is the source's.
        (&["d/sub"], "/app", vec!["d711 3:4 9 /app", r#"-644 0:0 0 /app/y "y""#]),
        (
            &["d"],
            "/app",
            vec![
                "d711 3:4 7 /app",
                "l777 0:0 0 /app/l -> x",
                "d750 0:0 9 /app/sub",
                r#"-644 0:0 0 /app/sub/y "y""#,
                r#"-644 0:0 8 /app/x "x""#,
            ],
        ),
        (&["f"], "/file", vec![r#"-640 0:0 5 /file "f""#]),
    ] {
        assert_eq!(run(sources, dest), want, "{sources:?} {dest}");
    }
}

/// A-103
#[test]
fn destination_symlinks_are_followed_inside_the_root() {
    for (dest, want) in [
        ("/to-app/n", "/app/n"),
        ("/to-app/", "/app/f"),
        ("/to-app", "/app/f"),
        ("/to-file", "/file"),
        ("/out", "/app/new"),
        ("/out/", "/app/new/f"),
        ("/out/deep", "/app/new/deep"),
    ] {
        let layer = copy(&source(), &["f"], dest, &base(), &options()).unwrap();
        assert_eq!(layer.last().unwrap().path.to_string(), want, "{dest}");
    }
}

/// A-102
#[test]
fn conflicts_of_type() {
    let tree = base().dir("app/f").dir("clash/x").file("clash2/sub", "");
    for (source_path, dest, want) in [
        ("f", "/app", "cannot replace to directory /app/f with file"),
        ("d", "/file", "cannot copy to non-directory: /file"),
        ("d", "/clash", "cannot replace to directory /clash/x with file"),
        ("d", "/clash2", "cannot copy to non-directory: /clash2/sub"),
        ("f", "/file/", "mkdir /file: not a directory"),
        ("f", "/file/x", "mkdir /file: not a directory"),
        ("f", "/app/old/a/b", "mkdir /app/old: not a directory"),
    ] {
        let error = copy(&source(), &[source_path], dest, &tree, &options()).unwrap_err();
        assert_eq!(error.to_string(), want, "{source_path} {dest}");
    }
    // A symlink in the place of a nested directory is no directory either.
    let tree = MemTree::new().symlink("t/sub", "/etc");
    let error = copy(&source(), &["d"], "/t", &tree, &options()).unwrap_err();
    assert_eq!(error.to_string(), "cannot copy to non-directory: /t/sub");
}

/// B-016: what the lower tree has already is not in the layer; a time, a mode or a byte is enough to be.
#[test]
fn identical_entries_are_left_out() {
    let copied = |edit: fn(MemTree) -> MemTree| {
        let tree = edit(MemTree::new().dir("t").file("t/f", "f").mode(0o640).mtime(5));
        shown(&copy(&source(), &["f"], "/t/", &tree, &options()).unwrap()).len()
    };
    assert_eq!(copied(|t| t), 0);
    assert_eq!(copied(|t| t.mtime(4)), 2);
    assert_eq!(copied(|t| t.mode(0o600)), 2);
    assert_eq!(copied(|t| t.owner(1, 0)), 2);
    assert_eq!(copied(|t| t.file("t/f", "F").mode(0o640).mtime(5)), 2);
    // Copying a tree onto its own copy makes nothing; a directory's time alone does not count.
    let first = copy(&source(), &["d"], "/n", &base(), &options()).unwrap();
    let tree = after(&base(), &first).dir("n/sub").mtime(77);
    assert!(copy(&source(), &["d"], "/n", &tree, &options()).unwrap().is_empty());
    // A directory's mode alone does.
    let tree = tree.dir("n/sub").mode(0o700);
    assert_eq!(run_on(&tree), ["d755 0:0 7 /n", "d750 0:0 9 /n/sub"]);
}

fn run_on(tree: &MemTree) -> Vec<String> {
    shown(&copy(&source(), &["d"], "/n", tree, &options()).unwrap())
}

/// A-106, A-107: created parents have the owner of --chown and the permission bits of an octal --chmod.
#[test]
fn chown_and_chmod_reach_created_parents() {
    let place_with = |chmod: &str| {
        let chmod = Chmod::parse(chmod).unwrap();
        let select_options = SelectOptions { chmod: Some(&chmod), ..SelectOptions::default() };
        let selection = select(&source(), "d/sub", &select_options).unwrap();
        let options = PlaceOptions { chown: Some((7, 8)), chmod: Some(chmod), ..options() };
        shown(&place(&[selection], "/p/q", &base(), &options).unwrap())
    };
    assert_eq!(place_with("4750"), ["d750 7:8 1000 /p", "d750 7:8 9 /p/q", r#"-4750 7:8 0 /p/q/y "y""#]);
    assert_eq!(place_with("u+x"), ["d755 7:8 1000 /p", "d755 7:8 9 /p/q", r#"-744 7:8 0 /p/q/y "y""#]);
}

/// A-067, A-099, A-100: directories that are made in one with the set-group-ID bit have it too, and its group, unless --chown
/// says another: mkdir(2). Copied ones have the source's.
#[test]
fn set_group_id_is_handed_down() {
    let tree = MemTree::new().dir("var/local").mode(0o2775).owner(0, 50);
    let placed = |dest: &str, chown: Option<(u32, u32)>| {
        let selections = [context_of(&source(), "d")];
        let layer = place(&selections, dest, &tree, &PlaceOptions { chown, ..options() }).unwrap();
        shown(&layer).into_iter().filter(|line| line.starts_with('d')).skip(1).collect::<Vec<_>>()
    };
    let local = "d2775 0:50 0 /var/local";
    assert_eq!(
        placed("/var/local/a/b", None),
        [
            local,
            "d2755 0:50 1000 /var/local/a",
            "d2755 0:50 7 /var/local/a/b",
            "d750 0:0 9 /var/local/a/b/sub"
        ]
    );
    let owned =
        ["d2755 7:8 1000 /var/local/a", "d2755 7:8 7 /var/local/a/b", "d750 7:8 9 /var/local/a/b/sub"];
    assert_eq!(placed("/var/local/a/b", Some((7, 8)))[1..], owned);
    let made = mkdir_entries(&tree, "/var/local/w", None, NOW).unwrap();
    assert_eq!(shown(&made)[1..], [local, "d2755 0:50 1000 /var/local/w"]);
}

/// A-108
#[test]
fn link_never_looks_at_the_destination() {
    struct Untouchable;
    impl Tree for Untouchable {
        fn lstat(&self, _: &TreePath) -> std::io::Result<Option<rbuild_tree::Metadata>> {
            panic!("looked at")
        }
        fn read_dir(&self, _: &TreePath) -> std::io::Result<Vec<std::ffi::OsString>> {
            panic!("looked at")
        }
        fn open(&self, _: &TreePath) -> std::io::Result<std::fs::File> {
            panic!("looked at")
        }
        fn digest(&self, _: &TreePath) -> std::io::Result<rbuild_oci::Digest> {
            panic!("looked at")
        }
        fn data_source(&self, _: &TreePath) -> std::io::Result<DataSource> {
            panic!("looked at")
        }
    }
    let options = PlaceOptions { link: true, ..options() };
    let selections = [context_of(&source(), "f"), context_of(&source(), "d/sub")];
    let layer = place(&selections, "/to-app/n/", &Untouchable, &options).unwrap();
    check_layer(&layer, None);
    let want = [
        "d755 0:0 1000 /to-app",
        "d755 0:0 9 /to-app/n",
        r#"-640 0:0 5 /to-app/n/f "f""#,
        r#"-644 0:0 0 /to-app/n/y "y""#,
    ];
    assert_eq!(shown(&layer), want);
}

/// A-109: parents have the source's modes; an existing one keeps its owner.
#[test]
fn parents_in_the_destination() {
    let options = SelectOptions { parents: true, ..SelectOptions::default() };
    let selections =
        [select(&source(), "d/sub/y", &options).unwrap(), select(&source(), "nothing*", &options).unwrap()];
    let tree = base().dir("app/d").owner(3, 4).mtime(60);
    let layer = place(&selections, "/app", &tree, &super::options()).unwrap();
    let want =
        ["d711 3:4 0 /app", "d700 3:4 60 /app/d", "d750 0:0 9 /app/d/sub", r#"-644 0:0 0 /app/d/sub/y "y""#];
    assert_eq!(shown(&layer), want);
    let none = place(&selections[1..], "/made", &tree, &super::options()).unwrap();
    assert_eq!(shown(&none), ["d755 0:0 0 /made"]);
}

/// A-105, B-017: links stay links, also when their first name is overwritten later.
#[test]
fn hard_links_in_the_layer() {
    let source =
        MemTree::new().file("d/a", "1").hard_link("d/b", "d/a").hard_link("d/c", "d/a").file("e/a", "2");
    let first = copy(&source, &["d"], "/n", &base(), &options()).unwrap();
    let want =
        ["d755 0:0 0 /n", r#"-644 0:0 0 /n/a "1""#, "-644 0:0 0 /n/b == /n/a", "-644 0:0 0 /n/c == /n/a"];
    assert_eq!(shown(&first), want);
    let both = copy(&source, &["d", "e"], "/n", &base(), &options()).unwrap();
    let want =
        ["d755 0:0 0 /n", r#"-644 0:0 0 /n/a "2""#, r#"-644 0:0 0 /n/b "1""#, "-644 0:0 0 /n/c == /n/b"];
    assert_eq!(shown(&both), want);
    // Links of different sources are different files.
    let twice = copy(&source, &["d", "d"], "/n/", &base(), &options()).unwrap();
    assert_eq!(shown(&twice).len(), 4);
}

/// A-105: a block device comes out of BuildKit's copy as a character device of the same number (measured with docker 28.5.2).
#[test]
fn devices_are_copied_as_character_devices() {
    let source = MemTree::new()
        .special("d/block", FileKind::BlockDevice, (7, 1))
        .special("d/char", FileKind::CharDevice, (1, 3))
        .special("d/pipe", FileKind::Fifo, (0, 0));
    let layer = copy(&source, &["d"], "/n", &base(), &options()).unwrap();
    let want = ["d755 0:0 0 /n", "c644 0:0 0 /n/block", "c644 0:0 0 /n/char", "p644 0:0 0 /n/pipe"];
    assert_eq!(shown(&layer), want);
}

/// A-124: here-documents are files with mode 0644.
#[test]
fn inline_files() {
    let inline = |name: &str| {
        select_inline(name, std::sync::Arc::from(&b"text"[..]), NOW, &SelectOptions::default()).unwrap()
    };
    let layer =
        place(&[context_of(&source(), "f"), inline("one"), inline("two")], "/n/", &base(), &options())
            .unwrap();
    check_layer(&layer, None);
    assert_eq!(shown(&layer)[2..], [r#"-644 0:0 1000 /n/one "text""#, r#"-644 0:0 1000 /n/two "text""#]);
    let layer = place(&[inline("one")], "/etc/conf", &base(), &options()).unwrap();
    assert_eq!(shown(&layer)[1], r#"-644 0:0 1000 /etc/conf "text""#);
    assert!(select_inline("/", [].into(), NOW, &SelectOptions::default()).is_err());
}

/// A-098: each match of a wildcard is copied by itself, directories flattened.
#[test]
fn wildcard_matches() {
    assert_eq!(
        run(&["*"], "/n/")
            .into_iter()
            .map(|line| line.split(' ').nth(3).unwrap().to_owned())
            .collect::<Vec<_>>(),
        ["/n", "/n/f", "/n/g", "/n/l", "/n/sub", "/n/sub/y", "/n/x"]
    );
}
