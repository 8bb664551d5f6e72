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

fn unpack(tree: &MemTree, implied: &[&str], chown: Option<(u32, u32)>) -> Vec<LayerEntry> {
    let implied = |path: &TreePath| implied.iter().any(|one| path.as_bytes() == one.as_bytes());
    let selection = select_archive(&archive(), &implied, Ownership::Keep).unwrap();
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
    let layer = unpack(&tree, &["lib", "was-file"], None);
    let want = [
        "d755 5:5 0 /dest",
        "d700 1:1 11 /dest/etc",
        r#"-644 2:2 0 /dest/etc/conf "new""#,
        "d755 0:0 1000 /dest/lib",
        r#"-644 0:0 0 /dest/lib/so "so""#,
        "p644 0:0 0 /dest/pipe",
        "l777 0:0 0 /dest/was-dir -> etc",
        "d755 0:0 1000 /dest/was-file",
        r#"-644 0:0 0 /dest/was-file/in "in""#,
    ];
    assert_eq!(shown(&layer), want);
    let names = paths(&after(&tree, &layer));
    assert!(names.contains(&"/dest/etc/keep".to_owned()) && !names.contains(&"/dest/was-dir/a".to_owned()));
}

/// A-114: --chown overrides every owner; created parents too.
#[test]
fn chown_of_an_archive() {
    let layer = unpack(&MemTree::new(), &["lib"], Some((7, 8)));
    assert!(layer.iter().all(
        |entry| matches!(&entry.kind, LayerEntryKind::Node { meta, .. } if (meta.uid, meta.gid) == (7, 8))
    ));
}

/// A-114: a directory that is only implied follows a symlink, confined to the destination; an explicit one replaces it.
#[test]
fn links_are_confined_to_the_destination() {
    let tree = MemTree::new().dir("dest/usr/lib").symlink("dest/lib", "/usr/lib").dir("usr/lib");
    let names: Vec<_> = unpack(&tree, &["lib"], None).iter().map(|entry| entry.path.to_string()).collect();
    assert!(names.contains(&"/dest/usr/lib/so".to_owned()) && !names.contains(&"/usr/lib/so".to_owned()));
    let layer = unpack(&tree, &[], None);
    assert!(shown(&layer).contains(&"d755 0:0 0 /dest/lib".to_owned()));
    // A link that leads nowhere, or to itself, is replaced.
    for target in ["/../../etc/passwd", "lib"] {
        let tree = MemTree::new().symlink("dest/lib", target);
        assert!(shown(&unpack(&tree, &["lib"], None)).contains(&"d755 0:0 1000 /dest/lib".to_owned()));
    }
}

/// A directory that became a file and a directory again shows nothing of the lower one.
#[test]
fn a_directory_replaced_twice_is_opaque() {
    let tree = MemTree::new().file("dest/d/old", "old");
    let one = MemTree::new().file("d", "file");
    let two = MemTree::new().file("d/new", "new");
    let select = |tree: &MemTree| select_archive(tree, &|_| false, Ownership::Keep).unwrap();
    let layer = place(&[select(&one), select(&two)], "/dest", &tree, &options()).unwrap();
    check_layer(&layer, Some(&tree));
    let want =
        ["d755 0:0 0 /dest", "d755 0:0 0 /dest/d", "opaque /dest/d", r#"-644 0:0 0 /dest/d/new "new""#];
    assert_eq!(shown(&layer), want);
    assert_eq!(paths(&after(&tree, &layer)), ["/dest", "/dest/d", "/dest/d/new"]);
}
