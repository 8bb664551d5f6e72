//! A local context as a tree: what a filter hides, and whose its files are.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rbuild_context::{Filter, LocalContext, Modes, StatCache};
use rbuild_oci::Digest;
use rbuild_tree::{FileKind, Tree, TreePath};
use std::path::Path;
use std::sync::Arc;

fn path(text: &str) -> TreePath {
    TreePath::clamped(text).unwrap()
}

/// Excludes what begins with one of the first, unless it begins with one of the second.
struct Prefixes(&'static [&'static str], &'static [&'static str]);

impl Filter for Prefixes {
    fn excluded(&self, of: &TreePath) -> bool {
        let below = |list: &[&str]| list.iter().any(|prefix| of.strip_prefix(&path(prefix)).is_some());
        below(self.0) && !below(self.1)
    }

    fn may_include_below(&self, dir: &TreePath) -> bool {
        self.1.iter().any(|prefix| path(prefix).strip_prefix(dir).is_some())
    }
}

fn sample() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    for file in ["Dockerfile", "a/b/keep", "a/b/drop", "a/c/drop", "d/e", "out/x/y"] {
        std::fs::create_dir_all(tmp.path().join(file).parent().unwrap()).unwrap();
        std::fs::write(tmp.path().join(file), file).unwrap();
    }
    std::os::unix::fs::symlink("b", tmp.path().join("a/l")).unwrap();
    tmp
}

fn open(dir: &Path, filter: Prefixes, cache: Option<StatCache>) -> LocalContext {
    LocalContext::open(dir, Some(Arc::new(filter)), cache).unwrap()
}

fn names(context: &LocalContext, start: &str) -> Vec<String> {
    context.walk(&path(start)).unwrap().iter().map(|(path, _)| path.to_string()).collect()
}

#[test]
fn what_is_excluded_does_not_exist() {
    let tmp = sample();
    let excluded = Prefixes(&["a", "out", "Dockerfile"], &["a/b/keep", "out/none"]);
    let context = open(tmp.path(), excluded, None);
    assert_eq!(names(&context, ""), ["/a", "/a/b", "/a/b/keep", "/d", "/d/e"]);
    assert_eq!(names(&context, "a"), ["/a/b", "/a/b/keep"]);
    for (name, exists) in [
        ("", true),
        ("a", true),
        ("a/b", true),
        ("a/b/keep", true),
        ("d/e", true),
        ("a/b/drop", false),
        ("a/c", false),
        ("a/l", false),
        ("Dockerfile", false),
        // It could hold something, but does not.
        ("out", false),
        ("out/x/y", false),
    ] {
        assert_eq!(context.lstat(&path(name)).unwrap().is_some(), exists, "{name}");
    }
    assert_eq!(context.read_dir(&path("")).unwrap(), ["a", "d"]);
    assert_eq!(context.read_dir(&path("a")).unwrap(), ["b"]);
    assert!(context.read_dir(&path("out")).is_err());
    assert!(context.walk(&path("a/c")).is_err());
    for hidden in ["a/b/drop", "Dockerfile", "a", "none"] {
        assert!(context.open(&path(hidden)).is_err(), "{hidden}");
        assert!(context.digest(&path(hidden)).is_err(), "{hidden}");
    }
    // Naming bytes asks nothing of the file system: only the rules are looked at.
    for hidden in ["a/b/drop", "Dockerfile"] {
        assert!(context.data_source(&path(hidden)).is_err(), "{hidden}");
    }
    assert_eq!(context.digest(&path("a/b/keep")).unwrap(), Digest::of("a/b/keep"));
    assert!(context.unfiltered().lstat(&path("Dockerfile")).unwrap().is_some());
}

#[test]
fn digests_are_right_with_and_without_a_cache_and_a_walk() {
    let (tmp, cache) = (sample(), tempfile::tempdir().unwrap());
    for with_cache in [false, true, true] {
        for walk_first in [true, false] {
            let cache = with_cache.then(|| StatCache::open(cache.path(), tmp.path()));
            let context = open(tmp.path(), Prefixes(&[], &[]), cache);
            let walked = match walk_first {
                true => context.walk(&TreePath::root()),
                false => context.unfiltered().walk(&TreePath::root()),
            };
            let mut files = walked.unwrap();
            files.retain(|(_, meta)| meta.kind == FileKind::Regular);
            files.reverse();
            let digests = context.digests(&files).unwrap();
            let expected: Vec<_> = files.iter().map(|(path, _)| Digest::of(path.as_bytes())).collect();
            assert_eq!(digests, expected);
            context.save_stat_cache().unwrap();
        }
    }
}

#[test]
fn a_file_changed_after_the_walk_is_hashed_as_it_is_now() {
    let (tmp, cache) = (sample(), tempfile::tempdir().unwrap());
    let build = || {
        let cache = StatCache::open(cache.path(), tmp.path());
        let context = open(tmp.path(), Prefixes(&[], &[]), Some(cache));
        (context.walk(&path("d")).unwrap(), context)
    };
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (files, context) = build();
    context.digests(&files).unwrap();
    assert!(context.save_stat_cache().unwrap());
    let (_, context) = build();
    std::fs::write(tmp.path().join("d/e"), "longer than before").unwrap();
    let fresh = context.unfiltered().walk(&path("d")).unwrap();
    assert_eq!(context.digests(&fresh).unwrap(), [Digest::of("longer than before")]);
    std::fs::remove_file(tmp.path().join("d/e")).unwrap();
    let error = context.digests(&fresh).unwrap_err().to_string();
    assert!(error.contains("/d/e"), "{error}");
}

#[test]
fn owners_are_reset_when_asked() {
    let tmp = sample();
    if let Err(error) = std::os::unix::fs::lchown(tmp.path().join("d/e"), Some(77), Some(88)) {
        eprintln!("skipped: owners_are_reset_when_asked: {error}");
        return;
    }
    for (reset, owner) in [(false, (77, 88)), (true, (0, 0))] {
        let context = LocalContext::open(tmp.path(), None, None).unwrap().reset_owner(reset);
        let single = context.lstat(&path("d/e")).unwrap().unwrap();
        let walked = context.walk(&path("d")).unwrap().remove(0).1;
        assert_eq!((single.uid, single.gid), owner);
        assert_eq!(walked, single);
    }
}

/// `--context-modes=git`: the umask of whoever made the files does not show, whether the owner may execute them does.
#[test]
fn modes_as_git_has_them() {
    use std::os::unix::fs::PermissionsExt;
    let shown = |modes: Modes, umask: u32| {
        let tmp = tempfile::tempdir().unwrap();
        for (name, mode) in [("dir", 0o777), ("dir/file", 0o666), ("dir/run", 0o4777), ("group", 0o676)] {
            let path = tmp.path().join(name);
            match name {
                "dir" => std::fs::create_dir(&path).unwrap(),
                _ => std::fs::write(&path, name).unwrap(),
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode & !umask)).unwrap();
        }
        std::os::unix::fs::symlink("file", tmp.path().join("dir/link")).unwrap();
        let context = LocalContext::open(tmp.path(), None, None).unwrap().modes(modes);
        let walked = context.walk(&path("")).unwrap();
        for (path, meta) in &walked {
            assert_eq!(context.lstat(path).unwrap().unwrap().mode, meta.mode, "{path}");
        }
        walked.iter().map(|(path, meta)| format!("{path} {:o}", meta.mode)).collect::<Vec<_>>()
    };
    let git = ["/dir 755", "/dir/file 644", "/dir/link 777", "/dir/run 755", "/group 644"];
    for umask in [0o002, 0o022, 0o077, 0] {
        assert_eq!(shown(Modes::Git, umask), git, "umask {umask:o}");
    }
    let kept = ["/dir 700", "/dir/file 600", "/dir/link 777", "/dir/run 4700", "/group 600"];
    assert_eq!(shown(Modes::Keep, 0o077), kept);
}
