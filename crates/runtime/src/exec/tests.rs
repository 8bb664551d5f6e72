use super::*;

fn spec(env: &[(&str, &str)]) -> Spec {
    let mut spec = Spec::new(Vec::new(), "/u".into(), "/w".into(), vec!["x".to_owned()]);
    spec.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    spec
}

#[test]
fn a_077_environment() {
    type Pairs = &'static [(&'static str, &'static str)];
    let cases: [(Pairs, Pairs); 3] = [
        (&[], &[("PATH", DEFAULT_PATH), ("HOME", "/h")]),
        (&[("HOME", ""), ("A", "1")], &[("A", "1"), ("PATH", DEFAULT_PATH), ("HOME", "/h")]),
        (&[("A", "1"), ("PATH", "/p"), ("A", "2")], &[("PATH", "/p"), ("A", "2"), ("HOME", "/h")]),
    ];
    for (given, want) in cases {
        assert_eq!(environment(&spec(given), &[], "/h"), Ok(spec(want).env));
    }
}

#[test]
fn look_up_like_runc() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().to_str().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::copy("/bin/true", dir.path().join("prog")).unwrap();
    std::fs::write(dir.path().join("plain"), "x").unwrap();
    let missing = format!("{d}/missing");
    type Want = Result<String, (String, i32)>;
    let cases: [(String, String, Want); 7] = [
        ("prog".into(), format!("/nope:{d}"), Ok(format!("{d}/prog"))),
        (format!("{d}/prog"), String::new(), Ok(format!("{d}/prog"))),
        ("foo".into(), d.into(), Err((r#"exec: "foo": executable file not found in $PATH"#.into(), 127))),
        ("plain".into(), d.into(), Err((r#"exec: "plain": executable file not found in $PATH"#.into(), 126))),
        ("sub".into(), d.into(), Err((r#"exec: "sub": executable file not found in $PATH"#.into(), 127))),
        (format!("{d}/sub"), d.into(), Err((format!(r#"exec: "{d}/sub": is a directory"#), 126))),
        (
            missing.clone(),
            d.into(),
            Err((format!(r#"exec: "{missing}": stat {missing}: no such file or directory"#), 127)),
        ),
    ];
    for (name, path, want) in cases {
        let want = want.map_err(|(message, code)| RuntimeError::Exec { message, code });
        assert_eq!(look_up(&name, &path), want, "{name} in {path}");
    }
}

// A-081
#[test]
fn an_emulator_is_told_the_program_and_its_name() {
    let args = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(emulated("/q", "/bin/sh", &args(&["/bin/sh", "-c", "x"])), ["/q", "/bin/sh", "-c", "x"]);
    assert_eq!(emulated("/q", "/bin/sh", &args(&["sh"])), ["/q", "-0", "sh", "/bin/sh"]);
}

#[test]
fn secrets_become_variables_by_their_place() {
    let with = |place: usize, value: &[u8]| {
        let mut spec = Spec::new(vec![], "/u".into(), "/w".into(), vec!["x".into()]);
        spec.env = vec![("TOKEN".to_owned(), "plain".to_owned())];
        spec.secret_env = vec![("TOKEN".to_owned(), place)];
        environment(&spec, &[value.to_vec()], "/h").map(|env| {
            assert_eq!([&env[0].0, &env[2].0], ["PATH", "HOME"]);
            env[1].1.clone()
        })
    };
    assert_eq!(with(0, b"s3cret"), Ok("s3cret".to_owned()));
    for (place, value) in [(1, &b"s3cret"[..]), (0, b"a\0b"), (0, b"\xff")] {
        let error = with(place, value).unwrap_err().to_string();
        assert!(error.contains("TOKEN") && !error.contains("s3cret"), "{error}");
    }
}
