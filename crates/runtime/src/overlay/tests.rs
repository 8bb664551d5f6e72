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
