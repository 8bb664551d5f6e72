//! Replays BuildKit's tables for the parts of lowering that have their own.

use super::remote::{Remote, classify};
use super::{config, copy};
use crate::conformance::{differs, replay};
use crate::paths;
use serde_json::Value;

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

///
#[test]
fn workdir_normalize() {
    replay("workdir-normalize.json", |entry| {
        let got = paths::workdir(text(entry, "current"), text(entry, "workdir"));
        differs(entry, got.as_str(), text(entry, "result"))
    });
}

#[test]
fn copy_path_normalize() {
    replay("copy-path-normalize.json", |entry| {
        let (cwd, path) = (text(entry, "cwd"), text(entry, "path"));
        let got = (paths::copy_dest(cwd, path), paths::copy_source(path));
        differs(entry, (got.0.as_str(), got.1.as_str()), (text(entry, "as_dest"), text(entry, "as_src")))
    });
}

#[test]
fn durations() {
    replay("durations.json", |entry| {
        if !entry["error"].is_null() {
            return None;
        }
        let ns = entry["ns"].as_i64().expect("nanoseconds");
        differs(entry, config::go_duration(ns).as_str(), text(entry, "string"))
    });
}

#[test]
fn git_ref() {
    replay("git-ref.json", |entry| {
        let remote = entry["is_git"].as_bool().unwrap_or(false)
            && !entry["git"]["IndistinguishableFromLocal"].as_bool().unwrap_or(false);
        differs(entry, classify(text(entry, "ref")) == Remote::Git, remote)
    });
}

#[test]
fn chmod() {
    replay("chmod-symbolic.json", |entry| {
        let got = copy::check_chmod(text(entry, "chmod"));
        differs(entry, got.err().as_deref(), entry["error"].as_str())
    });
}
