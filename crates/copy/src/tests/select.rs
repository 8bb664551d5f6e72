use super::*;

fn tree() -> MemTree {
    MemTree::new()
        .file("a.txt", "a")
        .file("b.txt", "b")
        .file("b[1].txt", "class")
        .file("dir/x", "x")
        .file("dir/y.md", "y")
        .file("dir/sub/z", "z")
        .symlink("dir/link", "/a.txt")
        .special("dir/socket", FileKind::Socket, (0, 0))
        .special("dir/fifo", FileKind::Fifo, (0, 0))
        .symlink("to-dir", "/../dir")
        .symlink("to-file", "./../a.txt")
        .symlink("dangling", "nowhere")
        .file("deep/one/two/f.c", "f")
        .file("deep/one/g.c", "g")
        .file("deep/other/h.txt", "h")
}

fn kinds(source: &str) -> Vec<String> {
    let selection = context_of(&tree(), source);
    let kind = |root: &Root| match &root.kind {
        RootKind::File { name } => format!("file {}", name.display()),
        RootKind::Directory => "dir".to_owned(),
        RootKind::Archive => "archive".to_owned(),
    };
    selection.roots.iter().map(kind).collect()
}

/// A-096, A-098, A-104
#[test]
fn sources_name_files_and_directories() {
    for (source, want) in [
        ("a.txt", vec!["file a.txt"]),
        ("../a.txt/", vec!["file a.txt"]),
        ("/x/../dir/./", vec!["dir"]),
        (".", vec!["dir"]),
        ("", vec!["dir"]),
        ("*.txt", vec!["file a.txt", "file b.txt", "file b[1].txt"]),
        ("[!a].txt", vec!["file a.txt"]), // `!` negates nothing
        ("[^a].txt", vec!["file b.txt"]),
        ("b[[]1].txt", vec!["file b[1].txt"]),
        (r"b\[1].txt", vec!["file b[1].txt"]),
        ("to-*", vec!["dir", "file to-file"]),
        ("to-dir/x", vec!["file x"]),
        ("to-dir/?.md", vec!["file y.md"]),
        ("*/x", vec!["file x"]), // a wildcard does not go through the symlink to-dir
        ("d*p/*/", vec!["dir", "dir"]),
        ("*.nothing", vec![]),
        ("a.txt/*", vec![]), // no directory has no names
        ("dir/*/*/nothing", vec![]),
        ("dir/**", vec!["file fifo", "file link", "file socket", "dir", "file x", "file y.md"]),
    ] {
        assert_eq!(kinds(source), want, "{source}");
    }
}

/// A-099, A-104, A-105: contents with the links they have, sockets left out.
#[test]
fn a_directory_is_its_contents() {
    for source in ["dir", "to-dir", "di?"] {
        assert_eq!(
            listed(&context_of(&tree(), source)),
            ["/fifo", "/link", "/sub", "/sub/z", "/x", "/y.md"],
            "{source}"
        );
    }
    let link = &context_of(&tree(), "dir").roots[0].entries[1].meta;
    assert_eq!((link.kind, link.link_target.as_slice()), (FileKind::Symlink, &b"/a.txt"[..]));
}

/// A-105: a socket of a stage is copied as an empty file; capabilities of files stay with those of a stage only.
#[test]
fn what_a_local_context_does_not_have() {
    let capability = Xattrs::from([(b"security.capability".to_vec(), vec![1])]);
    let tree = MemTree::new()
        .special("d/socket", FileKind::Socket, (0, 0))
        .mode(0o640)
        .file("d/tool", "")
        .xattrs(capability.clone());
    let selected = |source: &str, local: bool| {
        let options = SelectOptions { local, ..SelectOptions::default() };
        select(&tree, source, &options).unwrap().roots.remove(0).entries
    };
    for (source, number) in [("d", 2), ("d/socket", 1)] {
        let entries = selected(source, false);
        assert_eq!(entries.len(), number);
        let (meta, data) = (&entries[0].meta, entries[0].data.as_ref().unwrap());
        assert_eq!((meta.kind, meta.mode, meta.size, data.size), (FileKind::Regular, 0o640, 0, 0));
        assert_eq!(selected(source, true).len(), number - 1);
    }
    assert_eq!(selected("d/tool", false)[0].meta.xattrs, capability);
    assert!(selected("d/tool", true)[0].meta.xattrs.is_empty());
}

/// A-104
#[test]
fn a_named_symlink_is_followed() {
    let entry = &context_of(&tree(), "to-file").roots[0].entries[0];
    assert_eq!((entry.meta.kind, entry.source.to_string()), (FileKind::Regular, "/a.txt".to_owned()));
}

/// A-097
#[test]
fn missing_sources_are_explained() {
    let hidden = |path: &TreePath| (path.as_bytes() == b"secret").then(|| ".dockerignore:3".to_owned());
    let options = SelectOptions { excluded_by: Some(&hidden), ..SelectOptions::default() };
    for (source, want) in [
        ("nope", r#""/nope": not found"#),
        ("../nope", r#""/nope": not found"#),
        ("A.TXT", r#""/A.TXT": not found (did you mean /a.txt?)"#),
        ("dri/x", r#""/dri/x": not found (did you mean /dir/x?)"#),
        ("secret", r#""/secret": not found: excluded by .dockerignore:3"#),
        ("dangling", r#""/dangling": not found (a symlink on the way leads to /nowhere)"#),
        ("a.txt/x", r#""/a.txt/x": not found"#),
        // A wildcard may match nothing, but where it is looked for must be there.
        ("nope/*", r#""/nope": not found"#),
        ("nope/deep/*/x", r#""/nope/deep": not found"#),
        ("secret/*.jar", r#""/secret": not found: excluded by .dockerignore:3"#),
        ("dangling/*", r#""/dangling": not found (a symlink on the way leads to /nowhere)"#),
    ] {
        assert_eq!(select(&tree(), source, &options).unwrap_err().to_string(), want);
    }
    let bad = select(&tree(), "[x", &options).unwrap_err().to_string();
    assert_eq!(bad, "source `[x`: syntax error in pattern");
    assert!(matches!(select(&tree(), "a\0", &options), Err(CopyError::BadPath { .. })));
}

fn with_parents(source: &str) -> Result<Vec<String>, CopyError> {
    let options = SelectOptions { parents: true, ..SelectOptions::default() };
    Ok(listed(&select(&tree(), source, &options)?))
}

/// A-109
#[test]
fn parents_keep_the_path() {
    for (source, want) in [
        ("deep/one/g.c", vec!["/deep implied", "/deep/one implied", "/deep/one/g.c"]),
        ("deep/./one/g.c", vec!["/one implied", "/one/g.c"]),
        ("./deep/one/./g.c", vec!["/g.c"]),
        (
            "deep/**/*.c",
            vec![
                "/deep implied",
                "/deep/one implied",
                "/deep/one/g.c",
                "/deep/one/two implied",
                "/deep/one/two/f.c",
            ],
        ),
        ("./di*/./sub", vec!["/sub", "/sub/z"]),
        ("deep/other", vec!["/deep implied", "/deep/other", "/deep/other/h.txt"]),
        ("**/nothing", vec![]),
        ("deep/./", vec!["/one", "/one/g.c", "/one/two", "/one/two/f.c", "/other", "/other/h.txt"]),
        ("to-dir/./x", vec!["/x"]),
    ] {
        assert_eq!(with_parents(source).unwrap(), want, "{source}");
    }
    assert_eq!(with_parents("deep/nope").unwrap_err().to_string(), r#""/deep/nope": not found"#);
    assert_eq!(with_parents("deep/./nope").unwrap_err().to_string(), r#""/deep/nope": not found"#);
}

/// A-110
#[test]
fn excludes_are_relative_to_the_source() {
    let check = |source: &str, parents: bool, patterns: &[&str]| {
        let exclude = exclude_matcher(patterns).unwrap();
        let options =
            SelectOptions { exclude: Some(&exclude), parents, local: true, ..SelectOptions::default() };
        listed(&select(&tree(), source, &options).unwrap())
    };
    assert_eq!(check("dir", false, &["*.md", "sub", "fifo"]), ["/link", "/x"]);
    assert_eq!(check("dir", false, &["*", "!sub/z"]), ["/sub implied", "/sub/z"]);
    assert_eq!(check("dir", false, &["dir/x"]).len(), 6);
    assert_eq!(check("a.txt", false, &["a.txt"]), ["/"]); // a named file is not excluded
    assert_eq!(check("*.txt", false, &["*.txt"]).len(), 3);
    assert_eq!(
        check("deep/", true, &["**/two", "**/*.txt"]),
        ["/deep", "/deep/one", "/deep/one/g.c", "/deep/other"]
    );
    assert!(matches!(exclude_matcher(&["ok", "[x"]), Err(CopyError::BadPattern { what: "--exclude", .. })));
}

/// A-105, A-106, A-107
#[test]
fn owners_and_modes_are_the_resulting_ones() {
    let tree = MemTree::new()
        .file("d/f", "f")
        .mode(0o4640)
        .owner(5, 6)
        .symlink("d/l", "f")
        .owner(5, 6)
        .dir("d/s")
        .mode(0o1777);
    let modes = |ownership: Ownership, chmod: Option<&str>| -> Vec<(u32, u32, u32)> {
        let chmod = chmod.map(|text| Chmod::parse(text).unwrap());
        let options = SelectOptions { ownership, chmod: chmod.as_ref(), ..SelectOptions::default() };
        let selection = select(&tree, "d", &options).unwrap();
        selection.roots[0].entries.iter().map(|e| (e.meta.mode, e.meta.uid, e.meta.gid)).collect()
    };
    assert_eq!(modes(Ownership::Keep, None), [(0o4640, 5, 6), (0o777, 5, 6), (0o1777, 0, 0)]);
    assert_eq!(modes(Ownership::Set(1, 2), Some("700")), [(0o700, 1, 2), (0o777, 1, 2), (0o700, 1, 2)]);
    assert_eq!(modes(Ownership::Keep, Some("go=u")), [(0o4666, 5, 6), (0o777, 5, 6), (0o1777, 0, 0)]);
}

/// A-105, B-017
#[test]
fn hard_links_are_kept_within_a_source() {
    let tree = MemTree::new().file("d/b", "x").hard_link("d/a", "d/b").hard_link("out", "d/b");
    let selection = context_of(&tree, "d");
    let links: Vec<_> = selection.roots[0].entries.iter().map(|e| e.hard_link_to.clone()).collect();
    assert_eq!(links, [None, Some(path("a"))]);
    assert_eq!(selection.roots[0].entries[1].data.as_ref().unwrap().size, 1);
    assert_eq!(context_of(&tree, "out").roots[0].entries[0].hard_link_to, None);
}
