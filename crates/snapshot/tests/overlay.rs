//! Random changes through a real overlay mount: the view, the diff and the directory made from the diff must all show
//! what the kernel shows.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use rbuild_oci::Digest;
use rbuild_snapshot::{
    ChainLayer, ChainView, DirLayer, Recipe, content_digest, diff_upper, export_tree, materialize,
};
use rbuild_tree::{CAPABILITY, DirTree, FileKind, Metadata, Timestamp, Tree, TreePath};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An overlay mount that ends with the test.
struct Overlay {
    merged: PathBuf,
}

impl Overlay {
    fn mount(lower: &[PathBuf], upper: &Path, work: &Path, merged: &Path) -> Result<Self, String> {
        let lower: Vec<String> = lower.iter().rev().map(|p| p.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=off",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let options = CString::new(options).unwrap();
        rustix::mount::mount("overlay", merged, "overlay", MountFlags::empty(), options.as_c_str())
            .map_err(|e| e.to_string())?;
        Ok(Self { merged: merged.to_owned() })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.merged, UnmountFlags::DETACH);
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(String, u8),
    Mkdir(String),
    Remove(String),
    Rename(String, String),
    Chmod(String, u32),
    Chown(String, u32),
    Symlink(String, u8),
    Link(String, String),
    Touch(String, i64, u32),
    /// Opened for writing and closed: copied up, nothing changed.
    CopyUp(String),
    Fifo(String),
    Device(String),
    Capability(String),
}

fn a_path() -> impl Strategy<Value = String> {
    prop::collection::vec(0u8..3, 1..4)
        .prop_map(|parts| parts.iter().map(|n| format!("n{n}")).collect::<Vec<_>>().join("/"))
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (a_path(), 0u8..4).prop_map(|(p, n)| Change::Write(p, n)),
        4 => a_path().prop_map(Change::Mkdir),
        3 => a_path().prop_map(Change::Remove),
        2 => (a_path(), a_path()).prop_map(|(a, b)| Change::Rename(a, b)),
        1 => (a_path(), prop_oneof![Just(0o644), Just(0o4755), Just(0o1777), Just(0o600)])
            .prop_map(|(p, m)| Change::Chmod(p, m)),
        1 => (a_path(), 0u32..3).prop_map(|(p, u)| Change::Chown(p, u)),
        1 => (a_path(), 0u8..3).prop_map(|(p, n)| Change::Symlink(p, n)),
        2 => (a_path(), a_path()).prop_map(|(a, b)| Change::Link(a, b)),
        2 => (a_path(), 1_000_000..1_000_003i64, prop_oneof![Just(0), Just(5)])
            .prop_map(|(p, s, n)| Change::Touch(p, s, n)),
        2 => a_path().prop_map(Change::CopyUp),
        1 => a_path().prop_map(Change::Fifo),
        1 => a_path().prop_map(Change::Device),
        1 => a_path().prop_map(Change::Capability),
    ]
}

/// Applies one change as a RUN step might; what cannot be done is not.
fn apply(root: &Path, change: &Change) {
    let at = |path: &str| root.join(path);
    let real = |path: &str| std::fs::symlink_metadata(at(path)).is_ok_and(|m| !m.is_symlink());
    match change {
        Change::Write(path, n) => {
            // A FIFO without a reader must not block.
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
            if let Ok(file) = rustix::fs::open(at(path), flags, Mode::from_raw_mode(0o644)) {
                let _ = std::fs::File::from(file).write_all(&[b'a' + n; 4]);
            }
        }
        Change::Mkdir(path) => {
            let _ = std::fs::create_dir_all(at(path));
        }
        Change::Remove(path) => {
            let _ = std::fs::remove_dir_all(at(path)).or_else(|_| std::fs::remove_file(at(path)));
        }
        Change::Rename(from, to) => {
            let _ = std::fs::rename(at(from), at(to));
        }
        Change::Chmod(path, mode) if real(path) => {
            let _ = rustix::fs::chmod(at(path), Mode::from_raw_mode(*mode));
        }
        Change::Chown(path, uid) => {
            let _ = std::os::unix::fs::lchown(at(path), Some(*uid), Some(*uid));
        }
        Change::Symlink(path, n) => {
            let _ = std::os::unix::fs::symlink(format!("n{n}"), at(path));
        }
        Change::Link(from, to) => {
            let _ = std::fs::hard_link(at(from), at(to));
        }
        Change::Touch(path, seconds, nanos) => {
            let time = Timespec { tv_sec: *seconds, tv_nsec: i64::from(*nanos) };
            let times = Timestamps { last_access: time, last_modification: time };
            let _ = rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        Change::CopyUp(path) => {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let _ = rustix::fs::open(at(path), flags, Mode::empty());
        }
        Change::Fifo(path) => {
            let _ = rustix::fs::mknodat(CWD, at(path), FileType::Fifo, Mode::RUSR, 0);
        }
        Change::Device(path) => {
            let device = rustix::fs::makedev(1, 3);
            let _ = rustix::fs::mknodat(CWD, at(path), FileType::CharacterDevice, Mode::RUSR, device);
        }
        Change::Capability(path) if std::fs::symlink_metadata(at(path)).is_ok_and(|m| m.is_file()) => {
            let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let _ = rustix::fs::lsetxattr(at(path), CAPABILITY, &value, XattrFlags::empty());
        }
        Change::Chmod(..) | Change::Capability(_) => {}
    }
}

type Listing = BTreeMap<TreePath, (Metadata, Option<Digest>, Vec<TreePath>)>;

/// All that a tree shows: metadata, content, and the other names of each file. The inode numbers themselves, which a
/// mount makes up, are left out.
fn listing(tree: &dyn Tree) -> Listing {
    let walked = tree.walk(&TreePath::root()).unwrap();
    let mut names: BTreeMap<(u64, u64), Vec<TreePath>> = BTreeMap::new();
    for (path, meta) in &walked {
        if let Some(inode) = meta.hard_link {
            names.entry(inode).or_default().push(path.clone());
        }
    }
    let regular: Vec<_> = walked.iter().filter(|(_, m)| m.kind == FileKind::Regular).cloned().collect();
    let digests: BTreeMap<_, _> =
        regular.iter().map(|(p, _)| p.clone()).zip(tree.digests(&regular).unwrap()).collect();
    let mut out = Listing::new();
    for (path, mut meta) in walked {
        // Each way to look at a tree tells the same.
        let single = tree.lstat(&path).unwrap();
        assert_eq!(
            single.map(|m| (m.kind, m.mode, m.size)),
            Some((meta.kind, meta.mode, meta.size)),
            "{path}"
        );
        let parent = tree.read_dir(&path.parent().unwrap()).unwrap();
        assert!(parent.iter().any(|name| Some(&**name) == path.file_name()), "{path}");
        if meta.kind == FileKind::Regular {
            assert_eq!(tree.digest(&path).unwrap(), digests[&path]);
        }
        let mut others = meta.hard_link.take().map(|inode| names[&inode].clone()).unwrap_or_default();
        if others.len() == 1 {
            others.clear();
        }
        let digest = digests.get(&path).copied();
        out.insert(path, (meta, digest, others));
    }
    out
}

/// Without what a layer does not carry: the times of directories that only had their contents changed, and that an
/// unchanged copy is no longer the same file as its other names below.
fn as_a_layer_tells(mut listing: Listing) -> Listing {
    for (meta, _, others) in listing.values_mut() {
        if meta.is_dir() {
            meta.mtime = Timestamp::default();
        }
        others.clear();
    }
    listing
}

fn dir(path: &Path) -> ChainLayer {
    ChainLayer::Dir(Arc::new(DirLayer::open(path).unwrap()))
}

fn check(rounds: &[Vec<Change>]) -> Result<(), String> {
    let tmp = tempfile::tempdir().unwrap();
    let make = |name: String| {
        let path = tmp.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let base = make("base".into());
    rounds[0].iter().for_each(|change| apply(&base, change));
    let mut lower = vec![base];
    for (round, changes) in rounds[1..].iter().enumerate() {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| make(format!("{name}{round}")));
        let overlay = Overlay::mount(&lower, &upper, &work, &merged)?;
        changes.iter().for_each(|change| apply(&merged, change));
        let shown = listing(&DirTree::open(&merged).unwrap());
        drop(overlay);

        let below: Vec<ChainLayer> = lower.iter().map(|path| dir(path)).collect();
        let with = |top: ChainLayer| ChainView::new([below.clone(), vec![top]].concat());
        assert_eq!(listing(&with(dir(&upper))), shown, "the view of directories");

        let layer = DirLayer::open(&upper).unwrap();
        let entries = diff_upper(&layer, &ChainView::new(below.clone())).unwrap();
        let digest = content_digest(&entries).unwrap();
        let recipe = Arc::new(Recipe::new(entries).unwrap());
        let by_recipe = listing(&with(ChainLayer::Recipe(Arc::clone(&recipe))));
        assert_eq!(
            as_a_layer_tells(by_recipe.clone()),
            as_a_layer_tells(shown.clone()),
            "the view of the diff"
        );

        let again = tmp.path().join(format!("again{round}"));
        materialize(&recipe, &again).unwrap();
        assert_eq!(listing(&with(dir(&again))), by_recipe, "the view of the diff made a directory");
        let again = DirLayer::open(&again).unwrap();
        let second = diff_upper(&again, &ChainView::new(below.clone())).unwrap();
        assert_eq!(content_digest(&second).unwrap(), digest, "the diff of the diff");

        let exported = make(format!("exported{round}"));
        let view = with(dir(&upper));
        export_tree(&view, &exported, None).unwrap();
        export_tree(&view, &exported, None).unwrap();
        let mut expected = shown;
        for (meta, _, _) in expected.values_mut() {
            (meta.uid, meta.gid) = (0, 0);
            meta.xattrs.clear();
        }
        assert_eq!(listing(&DirTree::open(&exported).unwrap()), expected, "the exported tree");
        lower.push(upper);
    }
    Ok(())
}

fn overlay_works() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    check(&[vec![], vec![]])
}

fn skip(test: &str) -> bool {
    match overlay_works() {
        Ok(()) => false,
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
            true
        }
    }
}

#[test]
fn random_changes_look_as_the_kernel_shows_them() {
    if skip("random_changes_look_as_the_kernel_shows_them") {
        return;
    }
    let changes = || prop::collection::vec(a_change(), 0..14);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(changes(), 2..5), |rounds| {
            check(&rounds).unwrap();
            Ok(())
        })
        .unwrap();
}

#[test]
fn known_changes_look_as_the_kernel_shows_them() {
    use Change::*;
    if skip("known_changes_look_as_the_kernel_shows_them") {
        return;
    }
    let s = str::to_string;
    let base = vec![Mkdir(s("n0/n1")), Write(s("n0/n1/n2"), 0), Write(s("n1"), 1), Link(s("n1"), s("n2"))];
    for changes in [
        vec![Remove(s("n0")), Mkdir(s("n0")), Write(s("n0/n0"), 1)],
        vec![Remove(s("n1")), Mkdir(s("n1/n0"))],
        vec![Remove(s("n0")), Write(s("n0"), 2)],
        vec![Remove(s("n0/n1")), Symlink(s("n0/n1"), 0)],
        vec![CopyUp(s("n0/n1/n2")), CopyUp(s("n1"))],
        vec![Link(s("n0/n1/n2"), s("n0/n0"))],
        vec![Chmod(s("n0"), 0o700), Touch(s("n0/n1/n2"), 1, 0)],
        vec![Mkdir(s("n0/n2")), Remove(s("n0/n2"))],
    ] {
        check(&[base.clone(), changes.clone(), vec![], changes]).unwrap();
    }
}
