//! What is different about one step.

use super::*;

/// The causes in words.
fn between(old: Keys, new: Keys) -> Vec<String> {
    let causes = explain((&old, &old.steps[0]), (&new, &new.steps[0]), &no_files);
    causes.iter().map(ToString::to_string).collect()
}

fn one(old: StepKey, new: StepKey) -> Vec<String> {
    between(keys(vec![old]), keys(vec![new]))
}

#[test]
fn settings_of_a_run() {
    let run = |more: Value| exec_with("RUN make", more);
    for (old, new, expected) in [
        (json!({}), json!({}), &[][..]),
        (json!({"cwd": "/a"}), json!({"cwd": "/b"}), &["WORKDIR changed: /a → /b"]),
        (json!({"user": ""}), json!({"user": "me"}), &["USER added: me"]),
        (json!({"user": "me"}), json!({"user": ""}), &["USER removed"]),
        (json!({"network": "default"}), json!({"network": "none"}), &["network changed: default → none"]),
        (
            json!({"security": "sandbox"}),
            json!({"security": "insecure"}),
            &["security changed: sandbox → insecure"],
        ),
        (
            json!({}),
            json!({"args": ["/bin/bash", "-c", "make"]}),
            &["SHELL changed: /bin/sh -c → /bin/bash -c"],
        ),
        (
            json!({}),
            json!({"platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}}),
            &["platform changed: linux/amd64 → linux/arm64/v8"],
        ),
        (json!({"env": [["A", "1"]]}), json!({"env": [["A", "2"]]}), &["ENV A changed: 1 → 2"]),
        (json!({"env": []}), json!({"env": [["A", "2"]]}), &["ENV A is set: 2"]),
        (json!({"env": [["A", "1"]]}), json!({"env": []}), &["ENV A is not set any more"]),
        (json!({"hostname": "a"}), json!({"hostname": "b"}), &["hostname changed: a → b"]),
        (json!({"ulimits": []}), json!({"ulimits": ["nofile=5:5"]}), &["--ulimit added: nofile=5:5"]),
        (
            json!({"mounts": [{"target": "/c", "readonly": false, "kind": {"type": "cache", "id": "a", "sharing": "shared"}}]}),
            json!({"mounts": [{"target": "/c", "readonly": false, "kind": {"type": "cache", "id": "a", "sharing": "locked"}}]}),
            &["mount /c changed: type=cache,id=a,sharing=shared → type=cache,id=a,sharing=locked"],
        ),
        (
            json!({"mounts": [{"target": "/c", "readonly": false, "kind": {"mode": 493, "from": {"input": 0}}}]}),
            json!({"mounts": [{"target": "/c", "readonly": false, "kind": {"mode": 448, "from": "empty"}}]}),
            &["mount /c changed: mode=0755,from a stage or an image → mode=0700,from=empty"],
        ),
        (json!({"field": 1}), json!({"field": 2}), &["a value that is not shown changed"]),
    ] {
        let found = one(run(old.clone()), run(new.clone()));
        assert_eq!(found, expected, "{old} {new}");
    }
    assert_eq!(one(exec("RUN make"), exec("RUN make all")), ["instruction changed"]);
    let rewritten = StepKey { text: "RUN   make".into(), ..exec_with("RUN make", json!({"cwd": "/b"})) };
    assert_eq!(one(exec("RUN make"), rewritten), ["WORKDIR changed: / → /b"], "blanks are no change");
}

#[test]
fn arguments_come_before_what_they_set() {
    let with = |version: &str, extra: &str| {
        let env = json!([["VERSION", version], ["URL", format!("http://x/{version}{extra}")]]);
        with_args(keys(vec![exec_with("RUN fetch", json!({"env": env}))]), &[("VERSION", version)])
    };
    assert_eq!(between(with("1", ""), with("2", "")), ["ARG VERSION changed: 1 → 2"]);
    let both = between(with("1", ""), with("2", "/more"));
    assert_eq!(both.len(), 2, "a change of its own is told: {both:?}");
    let hidden = |value: &str| {
        let env = json!({"env": [["TOKEN", mask::value("TOKEN", value)]]});
        with_args(keys(vec![exec_with("RUN x", env)]), &[("TOKEN", &mask::value("TOKEN", value))])
    };
    assert_eq!(between(hidden("a"), hidden("b")), ["ARG TOKEN changed"]);
}

#[test]
fn an_argument_that_an_instruction_mentions_explains_it() {
    let with = |text: &str, dir: &str| {
        with_args(keys(vec![copy_with(text, dir, json!({"dest": dir}))]), &[("DIR", dir), ("DIRECTORY", "x")])
    };
    for (text, expected) in [
        ("COPY a $DIR", "ARG DIR changed: /a → /b"),
        ("COPY a ${DIR:-x}/", "ARG DIR changed: /a → /b"),
        ("COPY a $DIRECTORY", "the destination changed: /a → /b"),
    ] {
        assert_eq!(between(with(text, "/a"), with(text, "/b"))[0], expected, "{text}");
    }
}

#[test]
fn images() {
    let name = "docker.io/library/debian:12";
    let moved = one(image("FROM debian:12", name, "1"), image("FROM debian:12", name, "2"));
    let short = |text: &str| Digest::of(text).short();
    assert_eq!(moved, [format!("base image {name} moved: {} → {}", short("1"), short("2"))]);
    let other = one(image("FROM debian:12", "debian:12", "1"), image("FROM debian:13", "debian:13", "2"));
    assert_eq!(other, ["base image changed: debian:12 → debian:13"]);
    let arg = |base: &str| with_args(keys(vec![image("FROM $BASE", base, base)]), &[("BASE", base)]);
    assert_eq!(between(arg("a"), arg("b")), ["ARG BASE changed: a → b"]);
}

#[test]
fn directories() {
    let mkdir = |path: &str, epoch: Value| {
        step("WORKDIR $X", json!({"op": "mkdir", "path": path, "user": "", "epoch": epoch}))
    };
    assert_eq!(one(mkdir("/a", json!(null)), mkdir("/b", json!(null))), ["WORKDIR changed: /a → /b"]);
    assert_eq!(one(mkdir("/a", json!(1)), mkdir("/a", json!(2))), ["ARG SOURCE_DATE_EPOCH changed: 1 → 2"]);
}

#[test]
fn fetched_files() {
    let http = |digest: &str| step("ADD http://x/y /", json!({"op": "http", "digest": digest, "mode": 384}));
    let found = one(http("sha256:aaaaaaaaaaaaaaaa"), http("sha256:bbbbbbbbbbbbbbbb"));
    assert_eq!(found, ["ADD http://x/y / changed: aaaaaaaaaaaa → bbbbbbbbbbbb"]);
}

#[test]
fn files() {
    let old = vec![entry("a", "1", 0o644), entry("b", "2", 0o644), entry("c", "3", 0o644)];
    let all = |new: Vec<KeyEntry>, ignore: &str| {
        let listings = |digest: &Digest| {
            [("old", &old), ("new", &new)]
                .into_iter()
                .find(|(name, _)| Digest::of(name) == *digest)
                .map(|(_, l)| l.clone())
        };
        let before = keys(vec![copy("COPY . /", "old")]);
        let after = Keys { ignore: Some(Digest::of(ignore)), ..keys(vec![copy("COPY . /", "new")]) };
        let before = Keys { ignore: Some(Digest::of("rules")), ..before };
        let causes = explain((&before, &before.steps[0]), (&after, &after.steps[0]), &listings);
        assert_eq!(causes.len(), 1, "{causes:?}");
        causes[0].to_string()
    };
    let (a, b, c) = (entry("a", "1", 0o644), entry("b", "2", 0o644), entry("c", "3", 0o644));
    assert_eq!(all(vec![entry("a", "x", 0o644), b.clone(), c.clone()], "rules"), "a changed");
    assert_eq!(all(vec![a.clone(), c.clone()], "rules"), "b removed");
    assert_eq!(all(vec![a.clone(), c.clone()], "other"), "b removed (the ignore file changed)");
    let changed = all(vec![entry("a", "x", 0o644), c.clone()], "other");
    assert_eq!(changed, "a changed, b removed", "the ignore file does not explain other content");
    let modes = all(vec![a.clone(), entry("b", "2", 0o664), c.clone()], "rules");
    assert_eq!(modes, "mode of b 644→664 (only modes: --context-modes=git would level them out)");
    let executable = all(vec![a.clone(), entry("b", "2", 0o755), c.clone()], "rules");
    assert!(executable.contains("would keep but the executable bit"), "{executable}");
    let mixed = all(vec![entry("a", "x", 0o755), b, c], "rules");
    assert_eq!(mixed, "a changed", "its mode too, but one remark for a file is enough");
    let many = all((0..9).map(|n| entry(&format!("n{n}"), "", 0o644)).collect(), "rules");
    assert_eq!(many, "a removed, b removed, c removed and 9 more files");
}

#[test]
fn files_that_are_not_listed_any_more() {
    let found = one(copy("COPY . /", "1"), copy("COPY . /", "2"));
    assert_eq!(found, ["files of the build context changed"]);
    let rewritten = one(copy("COPY a /", "1"), copy("COPY b /", "2"));
    assert_eq!(rewritten, ["instruction changed"]);
}

#[test]
fn files_of_a_mount() {
    let run = |content: &str| {
        let kind = json!({"type": "bind", "content": Digest::of(content)});
        exec_with("RUN make", json!({"mounts": [{"target": "/m", "readonly": true, "kind": kind}]}))
    };
    assert_eq!(one(run("1"), run("2")), ["mount /m: files of the build context changed"]);
}
