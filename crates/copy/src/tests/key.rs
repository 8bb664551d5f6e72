use super::*;

fn digest(tree: &MemTree, source: &str) -> rbuild_oci::Digest {
    selection_digest(&[context_of(tree, source)])
}

fn xattrs() -> Xattrs {
    Xattrs::from([(b"user.a".to_vec(), b"1".to_vec())])
}

fn tree() -> MemTree {
    MemTree::new().file("d/f", "data").dir("d/s").file("d/s/g", "more")
}

/// C-011: what a key sees and what it does not.
#[test]
fn the_key_is_what_will_be_written() {
    let base = digest(&tree(), "d");
    type Edit = fn(MemTree) -> MemTree;
    let cases: [(&str, Edit, bool); 12] = [
        ("data", |t| t.file("d/f", "atad"), true),
        ("file mode", |t| t.file("d/f", "data").mode(0o755), true),
        ("directory mode", |t| t.dir("d/s").mode(0o700), true),
        ("mode of the source directory itself", |t| t.dir("d").mode(0o700), false),
        ("time", |t| t.file("d/f", "data").mtime(5), false),
        ("owner in a context", |t| t.file("d/f", "data").owner(9, 9), false),
        ("another file", |t| t.file("d/h", ""), true),
        ("a file outside", |t| t.file("h", ""), false),
        ("type", |t| t.symlink("d/f", "data"), true),
        ("xattr in a context", |t| t.file("d/f", "data").xattrs(xattrs()), false),
        ("hard link", |t| t.hard_link("d/s/g", "d/f"), true),
        ("a link to outside", |t| t.hard_link("h", "d/f"), false),
    ];
    for (what, edit, changes) in cases {
        assert_eq!(digest(&edit(tree()), "d") != base, changes, "{what}");
    }
    let of_stage =
        |tree: &MemTree| selection_digest(&[select(tree, "d", &SelectOptions::default()).unwrap()]);
    assert_ne!(of_stage(&tree().file("d/f", "data").xattrs(xattrs())), of_stage(&tree()));
}

/// C-011, A-107: octal hides the source's mode, symbolic does not.
#[test]
fn chmod_in_the_key() {
    let key = |mode: u32, chmod: &str| {
        let chmod = Chmod::parse(chmod).unwrap();
        let tree = MemTree::new().file("f", "").mode(mode);
        let options = SelectOptions { chmod: Some(&chmod), ..SelectOptions::default() };
        selection_digest(&[select(&tree, "f", &options).unwrap()])
    };
    assert_eq!(key(0o644, "755"), key(0o600, "755"));
    assert_ne!(key(0o644, "+x"), key(0o600, "+x"));
}

/// C-011: names of matches and of single files are part of it, that of a directory is not.
#[test]
fn names_in_the_key() {
    let one = MemTree::new().file("a.x", "1").file("d/f", "2");
    let two = MemTree::new().file("b.x", "1").file("e/f", "2");
    assert_ne!(digest(&one, "*.x"), digest(&two, "*.x"));
    assert_ne!(digest(&one, "a.x"), digest(&two, "b.x"));
    assert_eq!(digest(&one, "d"), digest(&two, "e"));
    // How entries are spread over sources matters.
    let tree = MemTree::new().file("p/a", "").file("q/b", "").file("r/a", "").file("r/b", "");
    let both = selection_digest(&[context_of(&tree, "p"), context_of(&tree, "q")]);
    assert_ne!(both, selection_digest(&[context_of(&tree, "r")]));
    assert_ne!(selection_digest(&[]), selection_digest(&[context_of(&tree, "nothing*")]));
}

#[test]
fn the_digest_is_stable() {
    let tree = MemTree::new().file("d/f", "x").mode(0o755).symlink("d/l", "f");
    // A change here makes every COPY of every cache miss: raise the version in the encoder with it.
    assert_eq!(digest(&tree, "d").hex(), "ce604698b50e4c6eee37ffcbacc12d8acdcb11e0a6c551d5cd6276b639f20b2c");
}

#[test]
fn the_structured_key_round_trips() {
    let tree = tree()
        .symlink("d/l", "f")
        .special("d/c", FileKind::CharDevice, (1, 3))
        .file("d/x", "")
        .xattrs(xattrs());
    let of_stage = |path| select(&tree, path, &SelectOptions::default()).unwrap();
    let entries = key_entries(&[of_stage("d"), of_stage("d/f")]);
    let shown: Vec<_> = entries.iter().map(|e| format!("{:?} {}", e.kind, e.path)).collect();
    assert_eq!(shown, ["Char c", "File f", "Symlink l", "Dir s", "File s/g", "File x", "File f"]);
    assert_eq!((entries[0].rdev, entries[2].link.as_deref()), (Some((1, 3)), Some("f")));
    assert!(entries[5].xattrs.is_some() && entries[1].data.is_some());
    let text = serde_json::to_string(&entries).unwrap();
    assert_eq!(serde_json::from_str::<Vec<KeyEntry>>(&text).unwrap(), entries);
}
