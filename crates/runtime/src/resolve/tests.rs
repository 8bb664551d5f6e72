use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::*;

fn open_dir(path: &Path) -> OwnedFd {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// A root with hostile links and, beside it, a canary that must stay as it is.
fn root() -> (tempfile::TempDir, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::create_dir(dir.path().join("canary")).unwrap();
    symlink("../../canary", root.join("up")).unwrap();
    symlink(dir.path().join("canary"), root.join("abs")).unwrap();
    symlink("/run/systemd/stub.conf", root.join("etc/resolv.conf")).unwrap();
    symlink("loop2", root.join("loop1")).unwrap();
    symlink("loop1", root.join("loop2")).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let fd = open_dir(&root);
    (dir, fd)
}

#[test]
fn creates_inside_only() {
    let canary_path = |d: &tempfile::TempDir| format!("root{}/canary/f", d.path().display());
    type Want<'a> = Result<(&'a str, usize), Errno>;
    let cases: [(&str, Leaf, Want<'_>); 10] = [
        ("/etc/hosts", Leaf::File, Ok(("root/etc/hosts", 1))),
        ("/etc", Leaf::Directory, Ok(("root/etc", 0))),
        ("/a/b/c", Leaf::Directory, Ok(("root/a/b/c", 3))),
        ("/a/../../b", Leaf::Directory, Ok(("root/b", 2))),
        ("/etc/resolv.conf", Leaf::File, Ok(("root/run/systemd/stub.conf", 3))),
        ("/up/f", Leaf::File, Ok(("root/canary/f", 2))),
        ("/abs/f", Leaf::File, Ok(("", 0))),
        ("/loop1/f", Leaf::File, Err(Errno::LOOP)),
        ("/file/x", Leaf::File, Err(Errno::NOTDIR)),
        ("/../../etc/./x/", Leaf::Directory, Ok(("root/etc/x", 1))),
    ];
    for (path, leaf, want) in cases {
        let (dir, root) = root();
        let mut made = Vec::new();
        let got = create_in_root(root.as_fd(), path, leaf, &mut made);
        match want {
            Err(e) => assert_eq!(got.err(), Some(e), "{path}"),
            Ok((at, count)) => {
                let fd = got.unwrap();
                let absolute = canary_path(&dir);
                let at = if at.is_empty() { absolute.as_str() } else { at };
                let found = std::fs::symlink_metadata(dir.path().join(at)).unwrap();
                assert_eq!(fstat(&fd).unwrap().st_ino, found.ino(), "{path}");
                assert!(at == absolute || made.len() == count, "{path}: {}", made.len());
            }
        }
        assert_eq!(std::fs::read_dir(dir.path().join("canary")).unwrap().count(), 0, "{path}");
    }
}

#[test]
fn magic_links_are_refused() {
    let proc = open_dir(Path::new("/proc"));
    let file = tempfile::tempdir().unwrap();
    let fd = open_dir(file.path());
    let path = format!("self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    assert_eq!(open_in_root(proc.as_fd(), &path, OFlags::PATH).err(), Some(Errno::LOOP));
}

/// CVE-2024-23651, CVE-2021-30465: a directory of the path is swapped for a link while it is being resolved.
#[test]
fn racing_renames_never_lead_out() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let (dir, root) = root();
    let at = |name: &str| dir.path().join("root").join(name);
    std::fs::create_dir_all(at("swap/in")).unwrap();
    std::fs::create_dir_all(dir.path().join("canary/in")).unwrap();
    symlink(dir.path().join("canary"), at("other")).unwrap();
    let canary = std::fs::metadata(dir.path().join("canary/in")).unwrap().ino();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, at("swap"), CWD, at("other"), flags).unwrap();
            }
        });
        let source = dir.path().join("root");
        let mut found = 0;
        for i in 0..10_000 {
            let opened = match i % 3 {
                0 => open_source(&source, "swap/in"),
                1 => create_in_root(root.as_fd(), "swap/in", Leaf::Directory, &mut Vec::new()),
                _ => create_in_root(root.as_fd(), "swap/../swap/new", Leaf::File, &mut Vec::new()),
            };
            if let Ok(fd) = opened {
                found += 1;
                assert_ne!(fstat(&fd).unwrap().st_ino, canary);
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(found > 0);
    });
    assert!(!dir.path().join("canary/new").exists());
}
