//! Whether a store is whole, told without the code that wrote it as far as possible.

use crate::context::{TestContext, run};
use rbuild_oci::Digest;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Whether this rbuild can check its store itself.
fn has_fsck() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let mut command = Command::new(crate::context::rbuild_binary());
        let found = command
            .arg("--help")
            .output()
            .is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(" fsck "));
        if !found {
            println!("skipped: rbuild fsck: this rbuild does not have it");
        }
        found
    })
}

/// Fails unless every blob is what its name says, every image is complete, the index is whole, and `rbuild fsck` agrees.
#[track_caller]
pub fn store_is_whole(test: &TestContext) {
    let store = test.store();
    blobs_are_what_they_are_called(&store);
    images_are_complete(&store);
    index_is_whole(&store);
    if has_fsck() {
        let checked = test.rbuild(&["fsck", "--deep"]);
        assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    }
}

fn blobs_are_what_they_are_called(store: &Path) {
    for entry in std::fs::read_dir(store.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let digest = Digest::of(std::fs::read(entry.path()).unwrap());
        assert_eq!(digest.hex(), entry.file_name().to_str().unwrap(), "a blob is not what it is called");
    }
}

fn images_are_complete(store: &Path) {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = store.join("blobs").join(digest.replace(':', "/"));
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{digest}: {error}"));
        assert_eq!(descriptor["size"], bytes.len(), "size of {digest}");
        bytes
    };
    let Ok(text) = std::fs::read(store.join("index.json")) else { return };
    let index: Value = serde_json::from_slice(&text).expect("index.json is whole");
    for image in index["manifests"].as_array().unwrap() {
        let manifest: Value = serde_json::from_slice(&blob(image)).unwrap();
        blob(&manifest["config"]);
        for layer in manifest["layers"].as_array().unwrap() {
            blob(layer);
        }
    }
}

/// SQLite's own check, through Python.
fn index_is_whole(store: &Path) {
    const PROGRAM: &str = "import sqlite3, sys
print(sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True).execute('PRAGMA integrity_check').fetchone()[0])";
    let index = store.join("index.db");
    if !index.exists() {
        return;
    }
    let out = Command::new("python3").args(["-c", PROGRAM]).arg(&index).output();
    let Ok(out) = out else { return println!("skipped: integrity of index.db: no python3") };
    let said = [out.stdout, out.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said).trim(), "ok", "index.db");
}

/// Fails if anything unfinished, mounted or running is left once an undisturbed build has gone by.
#[track_caller]
pub fn nothing_is_left(test: &TestContext) {
    test.assert_nothing_left();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mine = test.path("");
    assert!(!mounts.contains(mine.to_str().unwrap()), "{mounts}");
    for dir in [test.path(""), test.path("context")] {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".rbuild-")).collect();
        assert!(left.is_empty(), "left beside what was written: {left:?}");
    }
    let leases = test.store().join("locks/leases");
    // A lease of a killed build is removed by prune; until then it takes a few bytes.
    let count = std::fs::read_dir(leases).unwrap().count();
    assert!(count < 1000, "{count} leases");
}

/// The trash of a store is emptied in the background of other commands; whatever is left must go.
pub fn trash_goes(test: &TestContext) {
    let mut command = test.command();
    command.args(["prune", "-f"]);
    run(command, b"").ok();
    let trash = std::fs::read_dir(test.store().join("trash")).unwrap().count();
    assert_eq!(trash, 0, "left in the trash");
    let leases = std::fs::read_dir(test.store().join("locks/leases")).unwrap().count();
    assert_eq!(leases, 0, "left leases");
}
