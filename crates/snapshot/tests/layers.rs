//! Diffs, recipes, materialising, export and removal, case by case. Whiteouts need root.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rbuild_oci::Digest;
use rbuild_snapshot::{
    ChainLayer, ChainView, DirLayer, OPAQUE_XATTR, Recipe, SnapshotError, content_digest, diff_upper,
    export_tree, implied_metadata, materialize, remove_tree, set_directories, tree_entries,
};
use rbuild_tree::{
    DataRef, DataSource, DirTree, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, Tree, TreePath,
    Xattrs,
};
use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags};
use rustix::mount::UnmountFlags;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "skipped: {test}: needs root");
    }
    root
}

fn path(text: &str) -> TreePath {
    TreePath::clamped(text).unwrap()
}

/// `name` is a directory with a trailing slash, a whiteout with a leading `-`, `a=b` a file with bytes, `a->b` a
/// symlink, `a~b` a hard link, `name/!` marks a directory opaque. Times are all the same.
fn make(root: &Path, names: &[&str]) {
    for name in names {
        if let Some(name) = name.strip_prefix('-') {
            rustix::fs::mknodat(CWD, root.join(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        } else if let Some(name) = name.strip_suffix("/!") {
            rustix::fs::setxattr(root.join(name), OPAQUE_XATTR, b"y", XattrFlags::empty()).unwrap();
        } else if let Some((name, target)) = name.split_once("->") {
            symlink(target, root.join(name)).unwrap();
            stamp(&root.join(name), 1000, 7);
        } else if let Some((name, target)) = name.split_once('~') {
            std::fs::hard_link(root.join(target), root.join(name)).unwrap();
        } else if let Some((name, bytes)) = name.split_once('=') {
            std::fs::write(root.join(name), bytes).unwrap();
            stamp(&root.join(name), 1000, 7);
        } else {
            std::fs::create_dir(root.join(name)).unwrap();
        }
    }
}

fn stamp(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn tell(entries: &[LayerEntry]) -> Vec<String> {
    let one = |entry: &LayerEntry| match &entry.kind {
        LayerEntryKind::Whiteout => format!("-{}", entry.path),
        LayerEntryKind::Opaque => format!("!{}", entry.path),
        LayerEntryKind::Node { hard_link_to: Some(target), .. } => format!("{}~{target}", entry.path),
        LayerEntryKind::Node { meta, .. } if meta.is_dir() => format!("{}/", entry.path),
        LayerEntryKind::Node { .. } => entry.path.to_string(),
    };
    entries.iter().map(one).collect()
}

fn layer(path: &Path) -> ChainLayer {
    ChainLayer::Dir(Arc::new(DirLayer::open(path).unwrap()))
}

#[test]
fn a_diff_tells_what_changed_and_nothing_else() {
    if !root_or_skip("a_diff_tells_what_changed_and_nothing_else") {
        return;
    }
    let base = ["d/", "d/e/", "d/e/f=1", "a=1", "b~a", "l->a", "x="];
    type Touch = fn(&Path);
    let nothing: Touch = |_| ();
    let cases: [(&str, &[&str], Touch, &[&str]); 22] = [
        ("nothing", &[], nothing, &[]),
        ("a new file", &["d/", "d/n=1"], nothing, &["/d/", "/d/n"]),
        ("a new file deep down", &["d/", "d/e/", "d/e/n=1"], nothing, &["/d/", "/d/e/", "/d/e/n"]),
        ("copied up", &["d/", "d/e/", "d/e/f=1", "l->a", "x="], nothing, &[]),
        ("other bytes", &["a=2"], |r| stamp(&r.join("a"), 1001, 7), &["/a"]),
        ("other size", &["a=22"], nothing, &["/a"]),
        ("other bytes, same times without nanoseconds", &["x=2"], |r| stamp(&r.join("x"), 1000, 0), &["/x"]),
        ("touched", &["a=1"], |r| stamp(&r.join("a"), 1000, 8), &["/a"]),
        ("mode", &["a=1"], |r| chmod(&r.join("a"), 0o600), &["/a"]),
        ("setuid", &["a=1"], |r| chmod(&r.join("a"), 0o4644), &["/a"]),
        ("owner", &["a=1"], |r| std::os::unix::fs::lchown(r.join("a"), Some(1), None).unwrap(), &["/a"]),
        ("link target", &["l->b"], nothing, &["/l"]),
        ("directory mode", &["d/", "d/e/"], |r| chmod(&r.join("d/e"), 0o700), &["/d/", "/d/e/"]),
        ("directory time", &["d/", "d/e/"], |r| stamp(&r.join("d"), 5, 5), &[]),
        ("removed", &["-a", "d/", "-d/e"], nothing, &["-/a", "/d/", "-/d/e"]),
        ("removed before it was there", &["-n", "d/", "-d/n"], nothing, &[]),
        ("opaque", &["d/", "d/!", "d/e/", "d/e/f=1"], nothing, &["/d/", "!/d", "/d/e/", "/d/e/f"]),
        ("opaque over nothing", &["n/", "n/!", "n/f=1"], nothing, &["/n/", "/n/f"]),
        ("a directory over a file", &["a/", "a/f=1"], nothing, &["/a/", "/a/f"]),
        ("a file over a directory", &["d=1"], nothing, &["/d"]),
        ("links", &["y=1", "z~y", "d/", "d/y~y"], nothing, &["/d/", "/d/y", "/y~/d/y", "/z~/d/y"]),
        ("a link to what is below", &["a=1", "n~a"], nothing, &["/n"]),
    ];
    for (what, changes, touch, expected) in cases {
        let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(lower.path(), &base);
        stamp(&lower.path().join("x"), 1000, if what.contains("without") { 0 } else { 7 });
        make(upper.path(), changes);
        touch(upper.path());
        let view = ChainView::new(vec![layer(lower.path())]);
        let entries = diff_upper(&DirLayer::open(upper.path()).unwrap(), &view).unwrap();
        assert_eq!(tell(&entries), expected, "{what}");
        Recipe::new(entries).unwrap();
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_nanoseconds_the_bytes_decide() {
    let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (root, last) in [(&lower, b"12"), (&upper, b"13")] {
        for (name, bytes) in [("same", b"11"), ("other", last)] {
            std::fs::write(root.path().join(name), bytes.repeat(100_000)).unwrap();
            stamp(&root.path().join(name), 1000, 0);
        }
    }
    let view = ChainView::new(vec![layer(lower.path())]);
    let entries = diff_upper(&DirLayer::open(upper.path()).unwrap(), &view).unwrap();
    assert_eq!(tell(&entries), ["/other"]);
}

#[test]
fn a_socket_is_skipped_but_hides_what_was_there() {
    let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(lower.path(), &["a=1"]);
    for name in ["a", "b"] {
        rustix::fs::mknodat(CWD, upper.path().join(name), FileType::Socket, Mode::RUSR, 0).unwrap();
    }
    let view = ChainView::new(vec![layer(lower.path())]);
    let entries = diff_upper(&DirLayer::open(upper.path()).unwrap(), &view).unwrap();
    assert_eq!(tell(&entries), ["-/a"]);
}

fn meta(kind: FileKind, mode: u32) -> Metadata {
    let mtime = Timestamp { seconds: 1_600_000_000, nanos: 123_456_789 };
    Metadata { kind, mode, ..Metadata::directory(mtime) }
}

fn node(name: &str, kind: FileKind, mode: u32) -> LayerEntry {
    let kind = LayerEntryKind::Node { meta: meta(kind, mode), data: None, hard_link_to: None };
    LayerEntry { path: path(name), kind }
}

fn file(name: &str, bytes: &[u8], digest: Option<Digest>) -> LayerEntry {
    let meta = Metadata { size: bytes.len() as u64, ..meta(FileKind::Regular, 0o640) };
    let data = DataRef { size: meta.size, digest, source: DataSource::Inline(bytes.into()) };
    LayerEntry { path: path(name), kind: LayerEntryKind::Node { meta, data: Some(data), hard_link_to: None } }
}

fn link(name: &str, target: &str) -> LayerEntry {
    let meta = meta(FileKind::Regular, 0o640);
    let kind = LayerEntryKind::Node { meta, data: None, hard_link_to: Some(path(target)) };
    LayerEntry { path: path(name), kind }
}

fn mark(name: &str, kind: LayerEntryKind) -> LayerEntry {
    LayerEntry { path: path(name), kind }
}

#[test]
fn entries_that_make_no_layer_are_refused() {
    let dir = |name| node(name, FileKind::Directory, 0o755);
    for (entries, reason) in [
        (vec![file("a/b", b"", None)], "parent"),
        (vec![file("a", b"", None), file("a/b", b"", None)], "parent"),
        (vec![dir("a"), dir("a-"), file("a/b/c", b"", None)], "parent"),
        (vec![mark("a/b", LayerEntryKind::Whiteout)], "parent"),
        (vec![dir("a"), dir("a")], "twice"),
        (vec![dir("a"), mark("a", LayerEntryKind::Whiteout)], "twice"),
        (vec![mark("a", LayerEntryKind::Opaque)], "opaque"),
        (vec![file("a", b"", None), mark("a", LayerEntryKind::Opaque)], "opaque"),
        (vec![dir("b"), mark("a", LayerEntryKind::Opaque)], "opaque"),
        (vec![link("a", "b"), file("b", b"", None)], "no earlier"),
        (vec![link("b", "a")], "no earlier"),
        (vec![dir("a"), link("b", "a")], "no earlier"),
        (vec![node("a", FileKind::Regular, 0)], "data"),
        (vec![node("a", FileKind::Socket, 0)], "socket"),
        (vec![mark("", LayerEntryKind::Whiteout)], "root"),
        (vec![file("", b"", None)], "root"),
    ] {
        let told = tell(&entries);
        let error = Recipe::new(entries).unwrap_err().to_string();
        assert!(error.contains(reason), "{told:?}: {error}");
    }
    Recipe::new(vec![dir("a/b"), dir(""), dir("a"), file("a/b/c", b"", None), dir("b")]).unwrap();
}

fn sample() -> Vec<LayerEntry> {
    let mut owned = file("d/owned", b"mine", Some(Digest::of("mine")));
    if let LayerEntryKind::Node { meta, .. } = &mut owned.kind {
        (meta.uid, meta.gid, meta.mode) = (12, 34, 0o6755);
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        meta.xattrs = Xattrs::from([(b"security.capability".to_vec(), capability.to_vec())]);
    }
    let mut symlink = node("d/l", FileKind::Symlink, 0o777);
    if let LayerEntryKind::Node { meta, .. } = &mut symlink.kind {
        meta.link_target = b"/nowhere".to_vec();
        (meta.uid, meta.gid) = (5, 6);
    }
    let mut device = node("null", FileKind::CharDevice, 0o666);
    if let LayerEntryKind::Node { meta, .. } = &mut device.kind {
        meta.rdev = (1, 3);
    }
    vec![
        node("d", FileKind::Directory, 0o1777),
        mark("d", LayerEntryKind::Opaque),
        node("d/ro", FileKind::Directory, 0o555),
        file("d/ro/f", &b"x".repeat(300_000), Some(Digest::of(b"x".repeat(300_000)))),
        owned,
        symlink,
        device,
        node("fifo", FileKind::Fifo, 0o622),
        file("empty", b"", None),
        link("z", "d/owned"),
        mark("gone", LayerEntryKind::Whiteout),
    ]
}

#[test]
fn a_recipe_and_its_directory_look_the_same() {
    if !root_or_skip("a_recipe_and_its_directory_look_the_same") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let dest = tmp.path().join("layer");
    let recipe = Arc::new(Recipe::new(sample()).unwrap());
    materialize(&recipe, &dest).unwrap();
    let owned = std::fs::metadata(dest.join("d/owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777, owned.nlink()), (12, 34, 0o6755, 2));
    assert_eq!((owned.mtime(), owned.mtime_nsec()), (1_600_000_000, 123_456_789));
    let raw = DirTree::open(&dest).unwrap();
    assert_eq!(
        raw.lstat(&path("gone")).unwrap().map(|m| (m.kind, m.rdev)),
        Some((FileKind::CharDevice, (0, 0)))
    );
    let views = [ChainLayer::Recipe(recipe), layer(&dest)].map(|top| ChainView::new(vec![top]));
    let [a, b] = views.each_ref().map(|view| {
        let walked = view.walk(&TreePath::root()).unwrap();
        walked.into_iter().map(|(p, m)| (p, Metadata { hard_link: None, ..m })).collect::<Vec<_>>()
    });
    // A hard link's own metadata is that of the file.
    let z = |(p, _): &&(TreePath, Metadata)| *p != path("z");
    assert_eq!(a.iter().filter(z).collect::<Vec<_>>(), b.iter().filter(z).collect::<Vec<_>>());
    assert_eq!(a.len(), 9);
    for view in &views {
        assert_eq!(view.digest(&path("z")).unwrap(), Digest::of("mine"));
        assert_eq!(std::io::read_to_string(view.open(&path("z")).unwrap()).unwrap(), "mine");
        let links = ["z", "d/owned", "empty"].map(|p| view.lstat(&path(p)).unwrap().unwrap().hard_link);
        assert!(links[0].is_some() && links[0] == links[1] && links[2].is_none());
    }
    let lower = tempfile::tempdir().unwrap();
    make(lower.path(), &["d/", "d/old=1", "gone=1"]);
    let below = ChainView::new(vec![layer(lower.path())]);
    let again = diff_upper(&DirLayer::open(&dest).unwrap(), &below).unwrap();
    let first = Recipe::new(sample()).unwrap().into_entries();
    assert_eq!(tell(&again), tell(&first));
    assert_eq!(content_digest(&again).unwrap(), content_digest(&first).unwrap());
}

#[test]
fn bytes_that_are_not_those_of_the_recipe_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("f"), vec![1; 100_000]).unwrap();
    let below = DirTree::open(tmp.path()).unwrap().data_source(&path("f")).unwrap();
    let sources =
        [below, DataSource::Owned(tmp.path().join("f")), DataSource::Inline(vec![1; 100_000].into())];
    let right = Digest::of(vec![1; 100_000]);
    for (number, source) in sources.into_iter().enumerate() {
        for (case, (size, digest, ok)) in [
            (100_000, Some(right), true),
            (100_000, None, true),
            (100_000, Some(Digest::of("")), false),
            (99_999, None, false),
            (100_001, Some(right), false),
        ]
        .into_iter()
        .enumerate()
        {
            let data = DataRef { size, digest, source: source.clone() };
            let mut entry = file("f", b"", None);
            if let LayerEntryKind::Node { data: slot, .. } = &mut entry.kind {
                *slot = Some(data);
            }
            let dest = tmp.path().join(format!("{number}-{case}"));
            let result = materialize(&Recipe::new(vec![entry]).unwrap(), &dest);
            match result {
                Ok(()) => assert!(ok && std::fs::read(dest.join("f")).unwrap() == vec![1; 100_000]),
                Err(error) => {
                    assert!(!ok, "{error}");
                    assert!(matches!(error, SnapshotError::SourceChanged { .. }), "{error}");
                    assert!(error.to_string().contains("/f changed"), "{error}");
                }
            }
        }
    }
}

#[test]
fn the_content_digest_sees_all_but_times() {
    let digest = |entries: &[LayerEntry]| content_digest(entries).unwrap();
    let base = vec![file("a", b"1", None), file("b", b"1", None)];
    let change = |change: &dyn Fn(&mut Metadata)| {
        let mut entries = base.clone();
        if let LayerEntryKind::Node { meta, .. } = &mut entries[0].kind {
            change(meta);
        }
        digest(&entries)
    };
    let same = digest(&base);
    assert_eq!(change(&|m| m.mtime.seconds += 1), same);
    assert_eq!(change(&|m| m.hard_link = Some((1, 2))), same);
    assert_eq!(digest(&[file("a", b"1", Some(Digest::of("1"))), file("b", b"1", None)]), same);
    let mut all = vec![
        same,
        change(&|m| m.mode = 0o600),
        change(&|m| m.uid = 1),
        change(&|m| m.gid = 1),
        change(&|m| m.rdev = (0, 1)),
        change(&|m| m.link_target = b"x".to_vec()),
        change(&|m| m.xattrs = Xattrs::from([(b"a".to_vec(), b"b".to_vec())])),
        digest(&base[..1]),
        digest(&[]),
        digest(&[file("a", b"1", None), file("b", b"2", None)]),
        digest(&[file("a", b"1", None), link("b", "a")]),
        digest(&[file("a", b"1", None), mark("b", LayerEntryKind::Whiteout)]),
        digest(&[file("a", b"1", None), mark("b", LayerEntryKind::Opaque)]),
    ];
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "each change gives another digest");
}

#[test]
fn a_long_chain_is_looked_through() {
    if !root_or_skip("a_long_chain_is_looked_through") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let mut layers = Vec::new();
    for n in 0..60 {
        let dir = tmp.path().join(n.to_string());
        std::fs::create_dir(&dir).unwrap();
        make(&dir, &["d/", "d/e/", "d/e/same=x"]);
        for k in 0..4 {
            make(&dir, &[&format!("d/e/f{n}-{k}="), &format!("g{n}-{k}/")]);
        }
        if n > 0 {
            make(&dir, &[&format!("-d/e/f{}-0", n - 1)]);
        }
        layers.push(layer(&dir));
    }
    let view = ChainView::new(layers);
    assert_eq!(view.read_dir(&path("d/e")).unwrap().len(), 1 + 60 * 3 + 1);
    assert_eq!(view.walk(&TreePath::root()).unwrap().len(), 2 + 182 + 240);
    for n in 0..60 {
        assert_eq!(view.lstat(&path(&format!("d/e/f{n}-0"))).unwrap().is_some(), n == 59);
        assert!(view.lstat(&path(&format!("d/e/f{n}-1"))).unwrap().is_some());
        assert!(view.lstat(&path(&format!("g{n}-1/x/y"))).unwrap().is_none());
    }
    assert!(view.read_dir(&path("d/none")).is_err());
    assert!(view.open(&path("d/e")).is_err());
}

#[test]
fn an_export_replaces_and_never_follows() {
    let (view_dir, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outside = tempfile::tempdir().unwrap();
    make(view_dir.path(), &["d/", "d/f=new", "e/", "e/g=new", "l->d", "file=new", "name=new", "name2~name"]);
    make(
        dest.path(),
        &["kept=old", "d/", "d/f=old", "d/kept=old", "file/", "file/x=old", "l=old", "name2=old"],
    );
    make(outside.path(), &["f=outside", "g=outside"]);
    symlink(outside.path(), dest.path().join("e")).unwrap();
    symlink(outside.path().join("f"), dest.path().join("name")).unwrap();
    chmod(&view_dir.path().join("d/f"), 0o4750);
    let view = ChainView::new(vec![layer(view_dir.path())]);
    for _ in 0..2 {
        export_tree(&view, dest.path(), None).unwrap();
        let read = |name: &str| std::fs::read_to_string(dest.path().join(name)).unwrap();
        for (name, bytes) in [
            ("kept", "old"),
            ("d/f", "new"),
            ("d/kept", "old"),
            ("e/g", "new"),
            ("file", "new"),
            ("name", "new"),
            ("name2", "new"),
            ("l/f", "new"),
        ] {
            assert_eq!(read(name), bytes, "{name}");
        }
        assert!(!dest.path().join("e").is_symlink());
        assert!(dest.path().join("l").is_symlink());
        let f = std::fs::metadata(dest.path().join("d/f")).unwrap();
        assert_eq!((f.mode() & 0o7777, f.mtime(), f.mtime_nsec()), (0o4750, 1000, 7));
        assert_eq!(std::fs::metadata(dest.path().join("name")).unwrap().nlink(), 2);
        assert_eq!(std::fs::read_dir(dest.path()).unwrap().count(), 7, "no temporary file is left");
    }
    for name in ["f", "g"] {
        assert_eq!(std::fs::read_to_string(outside.path().join(name)).unwrap(), "outside");
    }
}

#[test]
fn a_tree_as_entries_is_a_layer() {
    let tmp = tempfile::tempdir().unwrap();
    make(tmp.path(), &["d/", "d/f=1", "a~d/f", "l->d"]);
    rustix::fs::mknodat(CWD, tmp.path().join("sock"), FileType::Socket, Mode::RUSR, 0).unwrap();
    let on_disk = DirTree::open(tmp.path()).unwrap();
    for (view, digest) in
        [(&on_disk as &dyn Tree, Some(Digest::of("1"))), (&ChainView::new(vec![layer(tmp.path())]), None)]
    {
        let entries = tree_entries(view).unwrap();
        assert_eq!(tell(&entries), ["/a", "/d/", "/d/f~/a", "/l"]);
        let LayerEntryKind::Node { data: Some(data), .. } = &entries[0].kind else { panic!("a has data") };
        assert_eq!(data.digest, digest, "our own store need not be hashed, anything else must be");
        Recipe::new(entries).unwrap();
    }
}

#[test]
fn removal_takes_all_and_follows_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    make(outside.path(), &["kept=1"]);
    let root: PathBuf = tmp.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    make(&root, &["d/", "d/e/", "d/e/f=1", "ro/", "ro/f=1", "none/", "im/", "im/f=1", "im/sub/"]);
    symlink(outside.path(), root.join("out")).unwrap();
    symlink(outside.path(), root.join("d/out")).unwrap();
    chmod(&root.join("ro"), 0o500);
    chmod(&root.join("none"), 0);
    for name in ["im/f", "im/sub", "im"] {
        let fd = std::fs::File::open(root.join(name)).unwrap();
        if let Err(error) = rustix::fs::ioctl_setflags(&fd, IFlags::IMMUTABLE) {
            let _ = writeln!(std::io::stderr(), "skipped: immutable part of the removal test: {error}");
        }
    }
    remove_tree(&root).unwrap();
    assert!(!root.exists());
    assert!(outside.path().join("kept").exists());
    remove_tree(&root).unwrap();
    remove_tree(tmp.path().join("never/there")).unwrap();
    assert!(remove_tree("/").is_err());
}

#[test]
fn removal_stops_at_a_mount() {
    let (tmp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(outside.path(), &["kept=1"]);
    make(tmp.path(), &["tree/", "tree/m/", "tree/f=1"]);
    let mount = tmp.path().join("tree/m");
    if let Err(error) = rustix::mount::mount_bind(outside.path(), &mount) {
        let _ = writeln!(std::io::stderr(), "skipped: removal_stops_at_a_mount: {error}");
        return;
    }
    let result = remove_tree(tmp.path().join("tree"));
    rustix::mount::unmount(&mount, UnmountFlags::DETACH).unwrap();
    assert!(result.unwrap_err().to_string().contains("/m"));
    assert!(outside.path().join("kept").exists());
    remove_tree(tmp.path().join("tree")).unwrap();
}

/// A directory that a layer only implies takes after the one below, unless the layer hides that one.
#[test]
fn implied_directories_take_after_those_below() {
    if !root_or_skip("implied_directories_take_after_those_below") {
        return;
    }
    let (below, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(below.path(), &["tmp/", "same/", "hidden/", "hidden/in/", "file=1", "link->tmp"]);
    chmod(&below.path().join("tmp"), 0o1777);
    stamp(&below.path().join("tmp"), 77, 7);
    std::os::unix::fs::lchown(below.path().join("tmp"), Some(3), Some(4)).unwrap();
    chmod(&below.path().join("hidden/in"), 0o700);
    let names = ["tmp", "same", "hidden", "hidden/in", "file", "link", "new"];
    make(above.path(), &names.map(|name| format!("{name}/")).each_ref().map(String::as_str));
    make(above.path(), &["hidden/!"]);
    let upper = DirLayer::open(above.path()).unwrap();
    let lower = ChainView::new(vec![layer(below.path())]);
    let changed = implied_metadata(&upper, &names.map(path), &lower).unwrap();
    let shown: Vec<_> = changed.iter().map(|(path, meta)| format!("{path} {:o}", meta.mode)).collect();
    assert_eq!(shown, ["/tmp 1777"]);
    set_directories(above.path(), &changed).unwrap();
    let made = std::fs::metadata(above.path().join("tmp")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid(), made.mtime()), (0o1777, 3, 4, 77));
    assert!(implied_metadata(&upper, &names.map(path), &lower).unwrap().is_empty());
    set_directories(above.path(), &[(path("link/../../x"), changed[0].1.clone())]).unwrap_err();
}

/// D-025
#[test]
fn an_exported_tree_has_no_time_after_the_epoch() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(from.path(), &["d/", "d/new=1", "d/old=2"]);
    stamp(&from.path().join("d/old"), 10, 5);
    stamp(&from.path().join("d/new"), 500, 1);
    export_tree(&ChainView::new(vec![layer(from.path())]), to.path(), Some(500)).unwrap();
    for (name, time) in [("d", (500, 0)), ("d/new", (500, 0)), ("d/old", (10, 5))] {
        let meta = std::fs::metadata(to.path().join(name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), time, "{name}");
    }
}
