//! Replays BuildKit's tables for the parts of lowering that have their own.

use super::remote::{Remote, classify};
use super::{config, copy};
use crate::paths;
use serde_json::Value;
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn table(name: &str) -> Vec<Value> {
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    match std::fs::read_to_string(root.join("golden").join(name)) {
        Ok(text) => serde_json::from_str(&text).expect("the table is JSON"),
        Err(error) => {
            println!("skipped: {name}: {error}");
            Vec::new()
        }
    }
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

#[test]
fn workdir_normalize() {
    for entry in table("workdir-normalize.json") {
        assert_eq!(
            paths::workdir(text(&entry, "current"), text(&entry, "workdir")),
            text(&entry, "result"),
            "{entry}"
        );
    }
}

#[test]
fn copy_path_normalize() {
    for entry in table("copy-path-normalize.json") {
        let (cwd, path) = (text(&entry, "cwd"), text(&entry, "path"));
        assert_eq!(paths::copy_dest(cwd, path), text(&entry, "as_dest"), "{entry}");
        assert_eq!(paths::copy_source(path), text(&entry, "as_src"), "{entry}");
    }
}

#[test]
fn durations() {
    for entry in table("durations.json").iter().filter(|entry| entry["error"].is_null()) {
        let ns = entry["ns"].as_i64().expect("nanoseconds");
        assert_eq!(config::go_duration(ns), text(entry, "string"), "{entry}");
    }
}

#[test]
fn git_ref() {
    for entry in table("git-ref.json") {
        let remote = entry["is_git"].as_bool().unwrap_or(false)
            && !entry["git"]["IndistinguishableFromLocal"].as_bool().unwrap_or(false);
        assert_eq!(classify(text(&entry, "ref")) == Remote::Git, remote, "{entry}");
    }
}

#[test]
fn chmod() {
    for entry in table("chmod-symbolic.json") {
        let got = copy::check_chmod(text(&entry, "chmod"));
        assert_eq!(got.err().as_deref(), entry["error"].as_str(), "{entry}");
    }
}
