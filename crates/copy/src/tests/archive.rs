use super::*;

fn archive() -> MemTree {
    MemTree::new()
        .dir("etc")
        .mode(0o700)
        .owner(1, 1)
        .mtime(11)
        .file("etc/conf", "new")
        .owner(2, 2)
        .file("lib/so", "so")
        .symlink("was-dir", "etc")
        .file("was-file/in", "in")
        .special("pipe", FileKind::Fifo, (0, 0))
}

/// What an archive of this tree says, without entries for some of the directories.
pub(super) fn entries_of(tree: &MemTree, without: &[&str]) -> Vec<Selected> {
    let walked = tree.walk(&TreePath::root()).unwrap().into_iter();
    let kept = walked.filter(|(path, _)| !without.iter().any(|one| path.as_bytes() == one.as_bytes()));
    kept.map(|(path, meta)| {
        let data = (meta.kind == FileKind::Regular).then(|| tree.data_ref(&path, &meta).unwrap());
        Selected { dest: path.clone(), source: path, meta, data, hard_link_to: None, implied: false }
    })
    .collect()
}

/// A file of the archive, and another name of one.
fn file(path: &str, text: &str) -> Selected {
    entries_of(&MemTree::new().file(path, text).owner(3, 4), &[]).pop().unwrap()
}

fn link(path: &str, target: &str) -> Selected {
    let hard_link_to = Some(TreePath::clamped(target).unwrap());
    Selected { hard_link_to, data: None, ..file(path, "") }
}

fn extract(tree: &MemTree, entries: Vec<Selected>) -> Result<Vec<String>, CopyError> {
    let layer = place(&[select_archive(entries)], "/dest", tree, &options())?;
    check_layer(&layer, Some(tree));
    Ok(shown(&layer))
}

fn unpack(tree: &MemTree, implied: &[&str], chown: Option<(u32, u32)>) -> Vec<LayerEntry> {
    let selection = select_archive(entries_of(&archive(), implied));
    let layer = place(&[selection], "/dest", tree, &PlaceOptions { chown, ..options() }).unwrap();
    check_layer(&layer, Some(tree));
    layer
}

/// A-114: metadata of the archive, conflicts replaced either way.
#[test]
fn an_archive_replaces_what_is_in_its_way() {
    let tree = MemTree::new()
        .dir("dest")
        .owner(5, 5)
        .file("dest/etc/conf", "old")
        .file("dest/etc/keep", "")
        .file("dest/was-dir/a/b", "gone")
        .file("dest/was-file", "gone");
    let layer = unpack(&tree, &["lib"], None);
    let want = [
        "d755 5:5 0 /dest",
        "d700 1:1 11 /dest/etc",
        r#"-644 2:2 0 /dest/etc/conf "new""#,
        "d755 0:0 1000 /dest/lib",
        r#"-644 0:0 0 /dest/lib/so "so""#,
        "p644 0:0 0 /dest/pipe",
        "l777 0:0 0 /dest/was-dir -> etc",
        "d755 0:0 0 /dest/was-file",
        r#"-644 0:0 0 /dest/was-file/in "in""#,
    ];
    assert_eq!(shown(&layer), want);
    let names = paths(&after(&tree, &layer));
    assert!(names.contains(&"/dest/etc/keep".to_owned()) && !names.contains(&"/dest/was-dir/a".to_owned()));
}

/// A-114: --chown overrides every owner in the archive, and that of the destination; a directory that the archive only
/// implies is root's.
#[test]
fn chown_of_an_archive() {
    let owner = |entry: &LayerEntry| match &entry.kind {
        LayerEntryKind::Node { meta, .. } => (meta.uid, meta.gid),
        other => panic!("{other:?}"),
    };
    for entry in unpack(&MemTree::new(), &["lib"], Some((7, 8))) {
        let expected = if entry.path.as_bytes() == b"dest/lib" { (0, 0) } else { (7, 8) };
        assert_eq!(owner(&entry), expected, "{}", entry.path);
    }
}

/// A-114: --chmod means nothing to an archive, nor to the directories made for it.
#[test]
fn chmod_of_an_archive() {
    let options = PlaceOptions { chmod: Some(Chmod::parse("700").unwrap()), ..options() };
    let layer = place(&[select_archive(vec![file("f", "")])], "/a/b", &MemTree::new(), &options).unwrap();
    let modes: Vec<_> = shown(&layer).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(modes, ["d755", "d755", "-644"]);
}

/// A-114: symlinks in the middle of a name are followed, confined to the destination; one that a directory has the name of is
/// replaced.
#[test]
fn links_are_confined_to_the_destination() {
    let tree = MemTree::new().dir("dest/usr/lib").symlink("dest/lib", "/usr/lib").dir("usr/lib");
    let layer = unpack(&tree, &["lib"], None);
    let names: Vec<_> = layer.iter().map(|entry| entry.path.to_string()).collect();
    assert!(names.contains(&"/dest/usr/lib/so".to_owned()), "{names:?}");
    assert!(!names.contains(&"/usr/lib/so".to_owned()) && !names.contains(&"/dest/lib".to_owned()));
    let shown = shown(&unpack(&tree, &[], None));
    let lib = shown.iter().filter(|line| line.contains("/lib")).collect::<Vec<_>>();
    assert_eq!(lib, ["d755 0:0 0 /dest/lib", r#"-644 0:0 0 /dest/lib/so "so""#]);
    let tree = MemTree::new().symlink("dest/lib", "/../../etc/there");
    let shown = super::shown(&unpack(&tree, &["lib"], None));
    assert!(shown.contains(&"d755 0:0 1000 /dest/etc/there".to_owned()), "{shown:?}");
    // A circle has no inside.
    let tree = MemTree::new().symlink("dest/lib", "lib");
    assert!(extract(&tree, entries_of(&archive(), &["lib"])).is_err());
}

/// A file that is no directory is in the way only of what is below it, not of what replaces it.
#[test]
fn a_file_in_the_middle_of_a_name_is_an_error() {
    let tree = MemTree::new().file("dest/f", "");
    let error = extract(&tree, vec![file("f/below", "")]).unwrap_err();
    assert!(matches!(&error, CopyError::ParentNotDirectory(path) if path.as_bytes() == b"dest/f"), "{error}");
}

/// Later entries see what earlier ones made, and the last of a name counts.
#[test]
fn entries_are_unpacked_in_their_order() {
    let dir = |path| entries_of(&MemTree::new().dir(path), &[]).pop().unwrap();
    let to = |path, target| entries_of(&MemTree::new().symlink(path, target), &[]).pop().unwrap();
    let made = extract(
        &MemTree::new(),
        vec![
            dir("a"),
            to("s", "a"),
            file("s/one", "1"),
            file("a/one", "2"),
            to("s", "b"),
            file("s/two", "3"),
        ],
    );
    let want = [
        "d755 0:0 1000 /dest",
        "d755 0:0 0 /dest/a",
        r#"-644 3:4 0 /dest/a/one "2""#,
        "d755 0:0 1000 /dest/b",
        r#"-644 3:4 0 /dest/b/two "3""#,
        "l777 0:0 0 /dest/s -> b",
    ];
    assert_eq!(made.unwrap(), want);
}

/// A hard link's target is looked for in the destination: what the archive says of the link is then true of both names.
#[test]
fn hard_links_to_files_of_the_destination() {
    let tree = || {
        MemTree::new().file("dest/old", "old").owner(9, 9).mode(0o600).mtime(77).symlink("dest/sym", "old")
    };
    let one_file = ["d755 0:0 0 /dest", r#"-644 3:4 0 /dest/new "old""#, "-644 3:4 0 /dest/old == /dest/new"];
    assert_eq!(extract(&tree(), vec![link("new", "old")]).unwrap(), one_file);
    assert_eq!(extract(&tree(), vec![link("new", "/old"), link("new", "old")]).unwrap(), one_file);
    // A symlink is itself linked, also with its parents behind a symlink.
    let shown = extract(&tree().symlink("dest/here", "."), vec![link("new", "here/sym")]).unwrap();
    assert_eq!(shown[1..], ["l777 3:4 0 /dest/new -> old", "l777 3:4 0 /dest/sym == /dest/new"]);
    // The file is replaced afterwards: the link keeps the old one.
    let shown = extract(&tree(), vec![link("new", "old"), file("old", "other")]).unwrap();
    assert_eq!(shown[1..], [r#"-644 3:4 0 /dest/new "old""#, r#"-644 3:4 0 /dest/old "other""#]);
    // In the archive it is as ever, also when the first name has gone its own way between two links.
    let entries = vec![file("a", "1"), link("b", "a"), file("a", "2"), link("c", "a"), link("d", "b")];
    let shown = extract(&MemTree::new(), entries).unwrap();
    let want = [
        r#"-644 3:4 0 /dest/a "2""#,
        r#"-644 3:4 0 /dest/b "1""#,
        "-644 3:4 0 /dest/c == /dest/a",
        "-644 3:4 0 /dest/d == /dest/b",
    ];
    assert_eq!(shown[1..], want);
    for (what, path, target) in
        [("nothing", "new", "missing"), ("a directory", "new", "dir"), ("itself", "old", "old")]
    {
        let error = extract(&tree().dir("dest/dir"), vec![link(path, target)]).unwrap_err();
        assert!(matches!(error, CopyError::LinkTarget { .. }), "{what}: {error}");
    }
}

/// A directory that became a file and a directory again shows nothing of the lower one.
#[test]
fn a_directory_replaced_twice_is_opaque() {
    let tree = MemTree::new().file("dest/d/old", "old");
    let one = MemTree::new().file("d", "file");
    let two = MemTree::new().file("d/new", "new");
    let select = |tree: &MemTree| select_archive(entries_of(tree, &[]));
    let layer = place(&[select(&one), select(&two)], "/dest", &tree, &options()).unwrap();
    check_layer(&layer, Some(&tree));
    let want =
        ["d755 0:0 0 /dest", "d755 0:0 0 /dest/d", "opaque /dest/d", r#"-644 0:0 0 /dest/d/new "new""#];
    assert_eq!(shown(&layer), want);
    assert_eq!(paths(&after(&tree, &layer)), ["/dest", "/dest/d", "/dest/d/new"]);
}
