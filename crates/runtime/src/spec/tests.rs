use super::*;

fn spec() -> Spec {
    Spec::new(vec!["/l".into()], "/u".into(), "/w".into(), vec!["true".to_owned()])
}

fn tmpfs(target: &str) -> MountSpec {
    MountSpec {
        target: target.to_owned(),
        kind: MountKind::Tmpfs { size: None, mode: 0o755 },
        readonly: false,
    }
}

#[test]
fn json_round_trip() {
    let mut s = spec();
    s.mounts.push(tmpfs("/t"));
    s.mounts.push(MountSpec {
        target: "/o".to_owned(),
        kind: MountKind::Overlay {
            lower: vec!["/a".into()],
            scratch: Some(Scratch { upper: "/b".into(), work: "/c".into() }),
            subpath: "d".to_owned(),
        },
        readonly: true,
    });
    s.rlimits.push(Rlimit { resource: "nofile".to_owned(), soft: Some(1), hard: None });
    let json = serde_json::to_string(&s).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), s);
}

#[test]
fn refuses_what_cannot_run() {
    type Change = fn(&mut Spec);
    let cases: [(&str, Change); 9] = [
        ("arguments are required", |s| s.args.clear()),
        ("must not contain NUL", |s| s.args.push("a\0b".to_owned())),
        ("cannot be the name", |s| s.env.push(("A=B".to_owned(), String::new()))),
        ("cannot be the name", |s| s.env.push((String::new(), String::new()))),
        ("not absolute", |s| s.cwd = "x".to_owned()),
        ("not absolute", |s| s.upper = "x".into()),
        ("invalid mount target \"/\"", |s| s.mounts.push(tmpfs("/"))),
        ("invalid mount target \"/..\"", |s| s.mounts.push(tmpfs("/.."))),
        ("invalid mount target \"a\"", |s| s.mounts.push(tmpfs("a"))),
    ];
    for (want, change) in cases {
        let mut s = spec();
        change(&mut s);
        let message = s.validate().unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
    spec().validate().unwrap();
}
