use super::*;

#[test]
fn escapes_and_options() {
    let layers =
        Layers { lower: vec!["a:b".into(), "c,d\\e".into()], scratch: Some(("u,1:2".into(), "w".into())) };
    assert_eq!(
        layers.options(),
        r"lowerdir=a\:b:c\,d\\e,upperdir=u\,1:2,workdir=w,volatile,index=off,metacopy=off,redirect_dir=off,xino=off"
    );
}

#[test]
fn common_directories() {
    let cases: [(&[&str], &str); 4] = [
        (&["/a/b/c", "/a/b/d"], "/a/b"),
        (&["/a/b", "/a/bc/d"], "/a"),
        (&["/a", "/b"], "/"),
        (&["/s/1/fs"], "/s/1"),
    ];
    for (paths, want) in cases {
        assert_eq!(common_directory(paths.iter().map(Path::new)), Path::new(want));
    }
}

#[test]
fn repeated_directories_keep_their_topmost_place() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|n| dir.path().join(n));
    std::fs::create_dir(&a).unwrap();
    std::fs::create_dir(&b).unwrap();
    std::os::unix::fs::symlink(&a, &c).unwrap();
    assert_eq!(distinct(&[a.clone(), b.clone(), a.clone()]).unwrap(), [&b, &a]);
    assert_eq!(distinct(&[a.clone(), b.clone(), c.clone()]).unwrap(), [&b, &c]);
    assert!(distinct(&[dir.path().join("missing")]).is_err());
}

/// The way of kernels before 6.8, on whatever kernel this is.
#[test]
fn mounts_with_an_option_string() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounts_with_an_option_string: not root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().to_path_buf();
    for name in ["a:1", "b,2", "upper", "work"] {
        std::fs::create_dir(base.join(name)).unwrap();
        std::fs::write(base.join(name).join("f"), name).unwrap();
    }
    std::fs::remove_file(base.join("upper/f")).unwrap();
    std::fs::remove_file(base.join("work/f")).unwrap();
    let read = |layers: &Layers| {
        let root = layers.mount_old(&base).unwrap();
        let file = crate::resolve::open_in_root(root.as_fd(), "f", rustix::fs::OFlags::RDONLY).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text).unwrap();
        let made = rustix::fs::mkdirat(&root, "made", rustix::fs::Mode::RWXU);
        (text, made)
    };
    // A thread of its own: it changes its mount namespace and working directory.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sys::unshare_mounts().unwrap();
            rustix::process::chdir(&base).unwrap();
            let lower = vec!["b,2".to_owned(), "a:1".to_owned()];
            let mut layers = Layers { lower, scratch: None };
            assert_eq!(read(&layers), ("b,2".to_owned(), Err(Errno::ROFS)));
            layers.scratch = Some(("upper".to_owned(), "work".to_owned()));
            assert_eq!(read(&layers), ("b,2".to_owned(), Ok(())));
        });
    });
    assert!(base.join("upper/made").is_dir());
}
