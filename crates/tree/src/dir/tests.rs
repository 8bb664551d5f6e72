use super::*;
use crate::FileKind;
use crate::walk::Visit;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

fn path(text: &str) -> TreePath {
    TreePath::clamped(text).unwrap()
}

fn sample() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    for dir in ["a", "a/b", "a/b/c", "empty"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    for file in ["a/z", "a/b/f", "a/b/c/g", "a-b", "a.c"] {
        std::fs::write(at(file), file).unwrap();
    }
    std::fs::hard_link(at("a/z"), at("zz")).unwrap();
    symlink("../..", at("a/b/up")).unwrap();
    tmp
}

#[test]
fn a_walk_is_in_path_order_and_agrees_with_lstat() {
    let tmp = sample();
    let tree = DirTree::open(tmp.path()).unwrap();
    let walked = tree.walk(&TreePath::root()).unwrap();
    let names: Vec<String> = walked.iter().map(|(p, _)| p.to_string()).collect();
    let expected =
        ["/a", "/a/b", "/a/b/c", "/a/b/c/g", "/a/b/f", "/a/b/up", "/a/z", "/a-b", "/a.c", "/empty", "/zz"];
    assert_eq!(names, expected);
    let mut sorted = walked.clone();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(sorted, walked);
    for (path, meta) in &walked {
        assert_eq!(tree.lstat(path).unwrap().as_ref(), Some(meta));
        let std = std::fs::symlink_metadata(tmp.path().join(path.as_path())).unwrap();
        assert_eq!((meta.mode, meta.mtime.seconds), (std.mode() & 0o7777, std.mtime()));
    }
    assert_eq!(tree.walk(&path("a/b")).unwrap().len(), 4);
    assert_eq!(tree.read_dir(&path("a/b")).unwrap(), ["c", "f", "up"]);
}

#[test]
fn kinds_links_and_sizes_are_told() {
    let tmp = sample();
    let tree = DirTree::open(tmp.path()).unwrap();
    let meta = |p: &str| tree.lstat(&path(p)).unwrap().unwrap();
    assert_eq!(meta("a/b/up").link_target, b"../..");
    assert_eq!((meta("a/z").size, meta("a").size), (3, 0));
    assert!(meta("a/z").hard_link.is_some());
    assert_eq!(meta("a/z").hard_link, meta("zz").hard_link);
    assert_eq!(meta("a-b").hard_link, None);
    assert_eq!(meta("").kind, FileKind::Directory);
    for absent in ["x", "a/z/y", "a/b/up/a", "a/b/up/etc/passwd"] {
        assert_eq!(tree.lstat(&path(absent)).unwrap(), None, "{absent}");
    }
}

#[test]
fn digests_are_those_of_the_bytes() {
    let tmp = sample();
    std::fs::write(tmp.path().join("big"), vec![7; 3 * content::CHUNK]).unwrap();
    std::fs::write(tmp.path().join("none"), "").unwrap();
    let tree = DirTree::open(tmp.path()).unwrap();
    let files: Vec<_> = tree
        .walk(&TreePath::root())
        .unwrap()
        .into_iter()
        .filter(|(_, meta)| meta.kind == FileKind::Regular)
        .collect();
    for ((path, _), digest) in files.iter().zip(tree.digests(&files).unwrap()) {
        let bytes = std::fs::read(tmp.path().join(path.as_path())).unwrap();
        assert_eq!(digest, Digest::of(bytes), "{path}");
        assert_eq!(digest, tree.digest(path).unwrap(), "{path}");
    }
}

#[test]
fn what_is_not_a_regular_file_is_not_read() {
    let tmp = sample();
    let tree = DirTree::open(tmp.path()).unwrap();
    let fifo = tmp.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    for (name, part) in [("fifo", "regular"), ("a", "/a"), ("a/b/up", "/a/b/up"), ("none", "/none")] {
        let error = tree.digest(&path(name)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_that_never_holds_still_is_an_error_that_names_it() {
    let tmp = sample();
    let root = File::open(tmp.path()).unwrap();
    let mut times = 0;
    let result = hash_file(&root, &path("a-b"), &mut Vec::new(), |_| {
        times += 1;
        std::fs::write(tmp.path().join("a-b"), vec![0; times]).unwrap();
    });
    assert_eq!(times, 3);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("/a-b changed while it was being read"), "{error}");
}

#[test]
fn a_change_between_two_readings_gives_the_new_digest() {
    let tmp = sample();
    let root = File::open(tmp.path()).unwrap();
    let mut changed = false;
    let hashed = hash_file(&root, &path("a-b"), &mut Vec::new(), |_| {
        if !changed {
            std::fs::write(tmp.path().join("a-b"), "new").unwrap();
            changed = true;
        }
    });
    assert_eq!(hashed.unwrap().digest, Digest::of("new"));
}

struct Only(&'static str);

impl Select for Only {
    fn select(&self, path: &TreePath, is_dir: bool) -> Visit {
        match (path.to_string().ends_with(self.0), is_dir) {
            (true, _) => Visit::Include,
            (false, true) => Visit::IfNotEmpty,
            (false, false) => Visit::Skip,
        }
    }
}

#[test]
fn a_directory_that_holds_nothing_selected_is_left_out() {
    let tmp = sample();
    let tree = DirTree::open(tmp.path()).unwrap();
    let names = |end: &'static str| -> Vec<String> {
        let walked = tree.walk_select(&TreePath::root(), &Only(end)).unwrap();
        walked.iter().map(|w| w.path.to_string()).collect()
    };
    assert_eq!(names("/g"), ["/a", "/a/b", "/a/b/c", "/a/b/c/g"]);
    assert_eq!(names("/f"), ["/a", "/a/b", "/a/b/f"]);
    assert_eq!(names("nothing"), Vec::<String>::new());
}

/// A directory swapped with a symlink to the outside, over and over, while the tree is read.
#[test]
fn a_swapped_symlink_never_leads_outside() {
    let tmp = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "outside").unwrap();
    let at = |name: &str| tmp.path().join(name);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/file"), "inside").unwrap();
    symlink(outside.path(), at("evil")).unwrap();
    let tree = DirTree::open(tmp.path()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, at("d"), CWD, at("evil"), flags).unwrap();
            }
        });
        for _ in 0..300 {
            if let Ok(digest) = tree.digest(&path("d/file")) {
                assert_eq!(digest, Digest::of("inside"));
            }
            if let Some(meta) = tree.lstat(&path("d/file")).unwrap() {
                assert_eq!(meta.size, 6);
            }
            if let Ok(walked) = tree.walk(&TreePath::root()) {
                assert!(walked.iter().all(|(_, m)| m.kind != FileKind::Regular || m.size == 6));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_deep_tree_is_walked_and_too_deep_a_one_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    let mut dir: OwnedFd = File::open(tmp.path()).unwrap().into();
    let grow = |dir: &mut OwnedFd, levels: usize| {
        for _ in 0..levels {
            rustix::fs::mkdirat(&*dir, name.as_str(), Mode::RWXU).unwrap();
            *dir = openat(&*dir, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
    };
    grow(&mut dir, 40);
    let tree = DirTree::open(tmp.path()).unwrap();
    let walked = tree.walk(&TreePath::root()).unwrap();
    assert_eq!(walked.len(), 40);
    // 8,039 bytes: too long for one system call, reached component by component.
    assert_eq!(tree.lstat(&walked[39].0).unwrap().as_ref(), Some(&walked[39].1));
    grow(&mut dir, 140);
    let error = tree.walk(&TreePath::root()).unwrap_err().to_string();
    assert!(error.contains("too long"), "{}", &error[error.len() - 60..]);
    let status = std::process::Command::new("rm").arg("-rf").arg(tmp.path()).status().unwrap();
    assert!(status.success());
}
