//! `rbuild lock`, `--locked`, `--offline` and `--max-resolution-age`.

use crate::lab::{Built, Lab};
use rbuild_testkit::{Options, Page, TestRegistry};
use std::fs;

/// A lab whose Dockerfile takes a base from a registry, a file from a web server and a tree from a repository.
struct Sources {
    lab: Lab,
    registry: TestRegistry,
}

impl Sources {
    fn new(test: &str) -> Option<Self> {
        let lab = Lab::with_git(test)?;
        let sources = Self { lab, registry: TestRegistry::start(Options::default()) };
        sources.push_base("one");
        sources
            .lab
            .server
            .put("/file", Page::new("one").with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"));
        sources.lab.repository("repo");
        sources.lab.write("repo", "tree", "one");
        sources.lab.commit("repo");
        let dockerfile = format!(
            "FROM {} AS base\nFROM base\nADD {} /file\nADD {}#main /repo/\n",
            sources.base(),
            sources.lab.server.url("/file"),
            sources.lab.remote("repo")
        );
        fs::write(sources.lab.path("context/Dockerfile"), dockerfile).unwrap();
        Some(sources)
    }

    fn base(&self) -> String {
        format!("{}/base:1", self.registry.host())
    }

    /// Gives the base another content, from a store of its own.
    fn push_base(&self, content: &str) {
        let dir = self.lab.path("base");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("Dockerfile"), format!("FROM scratch\nCOPY <<E /base\n{content}\nE\n")).unwrap();
        let store = self.lab.path("base-store");
        let args = ["--root", store.to_str().unwrap(), "build", "-t", &self.base(), "--push", "base"];
        self.lab.run(&args).succeeded();
    }

    /// Everything that moves, moves.
    fn move_on(&self) {
        self.push_base("two");
        self.lab.server.put("/file", Page::new("two"));
        self.lab.write("repo", "tree", "two");
        self.lab.commit("repo");
    }

    fn build(&self, args: &[&str]) -> Built {
        let fixed = ["build", "--progress=plain", "-t", "app"];
        self.lab.run(&[&fixed[..], args, &["context"]].concat())
    }

    fn lock(&self, args: &[&str]) -> Built {
        self.lab.run(&[&["lock"], args, &["context"]].concat())
    }

    /// What the image holds of base, file and tree.
    fn contents(&self) -> [String; 3] {
        let image = self.lab.app();
        ["base", "file", "repo/tree"].map(|path| image.text(path).trim().to_owned())
    }

    fn forget(&self) {
        self.registry.clear_log();
        self.lab.server.take_log();
    }

    fn requests(&self) -> usize {
        self.registry.log().len() + self.lab.server.take_log().len()
    }
}

#[test]
fn a_locked_build_keeps_to_the_lock_and_asks_nobody() {
    let Some(sources) = Sources::new("a_locked_build_keeps_to_the_lock_and_asks_nobody") else { return };
    sources.build(&["--locked"]).refused(2, "there is no lock file");
    let written = sources.lock(&[]);
    written.succeeded();
    assert_eq!(written.said.matches("added").count(), 3, "{}", written.said);
    sources.move_on();

    // On a cold machine: what was locked is fetched, not what there is now.
    fs::remove_dir_all(sources.lab.store()).unwrap();
    sources.lab.server.put("/file", Page::new("one").with("Last-Modified", "Mon, 07 Nov 1994 08:49:37 GMT"));
    sources.build(&["--locked"]).succeeded();
    assert_eq!(sources.contents(), ["one", "one", "one"]);
    assert_eq!(sources.lab.app().entry("file").mtime, 784_111_777, "the time is locked, too");

    sources.forget();
    let again = sources.build(&["--locked"]);
    assert!(again.succeeded().all_cached(), "{}", again.said);
    assert_eq!(sources.requests(), 0, "a locked build that has everything makes no request");
    sources.build(&["--offline"]).succeeded();
    assert_eq!(sources.requests(), 0);
}

#[test]
fn a_lock_is_kept_to_without_a_flag_and_updated_on_demand() {
    let Some(sources) = Sources::new("a_lock_is_kept_to_without_a_flag_and_updated_on_demand") else {
        return;
    };
    sources.lock(&[]).succeeded();
    sources.build(&[]).succeeded();
    sources.move_on();
    sources.build(&[]).succeeded();
    assert_eq!(sources.contents(), ["one", "one", "one"]);

    let same = sources.lock(&[]);
    assert!(same.succeeded().said.contains("is up to date: 3 unchanged"), "{}", same.said);
    sources.lock(&["--update=/file"]).succeeded();
    sources.build(&["--locked"]).succeeded();
    assert_eq!(sources.contents(), ["one", "two", "one"]);
    let updated = sources.lock(&["--update", "--format=json"]);
    assert_eq!(updated.succeeded().said.matches("\"updated\"").count(), 2, "{}", updated.said);
    sources.build(&["--locked"]).succeeded();
    assert_eq!(sources.contents(), ["two", "two", "two"]);
}

#[test]
fn what_is_not_in_the_lock_is_named() {
    let Some(sources) = Sources::new("what_is_not_in_the_lock_is_named") else { return };
    sources.lock(&[]).succeeded();
    let path = sources.lab.path("context/Dockerfile");
    let text = fs::read_to_string(&path).unwrap();
    let other = sources.lab.server.url("/other");
    sources.lab.server.put("/other", Page::new("other"));
    fs::write(&path, format!("{text}ADD {other} /other\n")).unwrap();
    sources.build(&["--locked"]).refused(2, &format!("`{other}` is not in the lock file: run `rbuild lock`"));
    sources.lock(&["--check"]).refused(2, &format!("`{other}` is not in the lock file"));
    sources.build(&[]).succeeded();
    sources.lock(&[]).succeeded();
    sources.lock(&["--check"]).succeeded();
    sources.build(&["--locked"]).succeeded();

    fs::write(&path, text.replace("AS base", "AS base\nFROM busybox:1 AS unused\n")).unwrap();
    sources.build(&["--locked"]).succeeded();
    fs::write(&path, text.replace("FROM base\n", "FROM busybox:1\n")).unwrap();
    let refused = sources.build(&["--locked"]);
    refused.refused(2, "`docker.io/library/busybox:1` is not in the lock file");
    assert!(refused.said.contains("FROM busybox:1"), "the line is shown: {}", refused.said);

    fs::write(&path, text).unwrap();
    let pruned = sources.lock(&["--prune"]);
    assert!(pruned.succeeded().said.contains("removed"), "{}", pruned.said);
    fs::write(sources.lab.path("context/rbuild.lock"), "{\"version\": 7}").unwrap();
    sources.build(&[]).refused(2, "rbuild.lock`: its format has version 7");
}

#[test]
fn a_file_that_changed_under_its_lock_is_refused() {
    let Some(sources) = Sources::new("a_file_that_changed_under_its_lock_is_refused") else { return };
    sources.lock(&[]).succeeded();
    fs::remove_dir_all(sources.lab.store()).unwrap();
    sources.lab.server.put("/file", Page::new("two"));
    sources.build(&["--locked"]).refused(3, "but the lock file says sha256:");
}

#[test]
fn offline_uses_what_is_here_and_names_what_is_not() {
    let Some(sources) = Sources::new("offline_uses_what_is_here_and_names_what_is_not") else { return };
    sources.build(&["--offline"]).refused(3, "--offline forbids fetching it");
    sources.build(&[]).succeeded();
    sources.move_on();
    sources.forget();
    sources.build(&["--offline"]).succeeded();
    assert_eq!(sources.requests(), 0);
    assert_eq!(sources.contents(), ["one", "one", "one"]);
    sources.build(&["--offline", "--no-cache"]).succeeded();
    assert_eq!(sources.requests(), 0);

    let path = sources.lab.path("context/Dockerfile");
    let text = fs::read_to_string(&path).unwrap();
    for (line, missing) in [
        (format!("ADD {} /x", sources.lab.server.url("/elsewhere")), "/elsewhere is not in the store"),
        (format!("ADD {}#v2 /x", sources.lab.remote("repo")), "/git/repo/.git#v2 is not in the store"),
    ] {
        fs::write(&path, format!("{text}{line}\n")).unwrap();
        sources.build(&["--offline"]).refused(3, missing);
    }
    assert_eq!(sources.requests(), 0);
    sources.lab.run(&["lock", &sources.lab.remote("repo")]).refused(2, "clone them and lock there");
    sources.build(&["--offline", "--push"]).refused(2, "cannot be used with");
}

#[test]
fn an_answer_is_believed_for_as_long_as_the_user_says() {
    let Some(sources) = Sources::new("an_answer_is_believed_for_as_long_as_the_user_says") else { return };
    sources.build(&[]).succeeded();
    sources.move_on();
    sources.forget();
    sources.build(&["--max-resolution-age=1h"]).succeeded();
    assert_eq!((sources.contents(), sources.requests()), (["one", "one", "one"].map(String::from), 0));
    sources.build(&["--max-resolution-age=1h", "--pull"]).succeeded();
    assert_eq!(sources.contents(), ["two", "one", "one"], "--pull asks about images");
    sources.build(&[]).succeeded();
    assert_eq!(sources.contents(), ["two", "two", "two"]);
    sources.build(&["--max-resolution-age=soon"]).refused(2, "`soon` is not a duration");
}
