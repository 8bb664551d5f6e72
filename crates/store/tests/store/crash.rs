//! Processes that are killed at random moments (DESIGN promise 4).

use crate::sharing::work;
use rbuild_oci::Digest;
use rbuild_store::{Store, UsageKind};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// In the working directory of a child: its seed and how many steps it does. Other runs of `child` do nothing.
const ORDERS: &str = "orders";

/// A process that works on a store: this test binary, running the test `child`.
pub(crate) struct Child {
    process: std::process::Child,
    _dir: tempfile::TempDir,
}

impl Child {
    pub(crate) fn start(root: &Path, seed: u64, steps: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let orders = serde_json::json!({"root": root, "seed": seed, "steps": steps});
        fs::write(dir.path().join(ORDERS), orders.to_string()).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--ignored", "--test-threads=1"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, _dir: dir }
    }

    /// Waits for the end; whether it succeeded.
    pub(crate) fn wait(&mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "started by other tests as a process of its own"]
fn child() {
    let Ok(orders) = fs::read_to_string(ORDERS) else { return };
    let orders: serde_json::Value = serde_json::from_str(&orders).unwrap();
    let store = Store::open(orders["root"].as_str().unwrap()).unwrap();
    let seed = orders["seed"].as_u64().unwrap();
    for step in 0..orders["steps"].as_u64().unwrap() {
        work(&store, seed + step);
    }
}

/// Opens the store anew and verifies all that is visible in it.
pub(crate) fn check_store(root: &Path) {
    let store = Store::open(root).unwrap();
    let report = store.fsck(&Default::default()).unwrap();
    assert_eq!(report.damage().collect::<Vec<_>>(), [] as [&rbuild_store::Problem; 0]);
    for row in store.usage().unwrap().rows {
        match row.kind {
            UsageKind::Blob => store.verify_blob(&row.id.parse().unwrap()).unwrap(),
            UsageKind::Layer => {
                let dir = store.layer_dir(&row.id.parse().unwrap()).unwrap().unwrap();
                let text = fs::read_to_string(dir.join("file")).unwrap();
                assert_eq!(text.len(), 6000, "a layer is whole");
            }
            _ => {}
        }
    }
    for image in store.images().unwrap() {
        let bytes = store.read_blob(&image.descriptor.digest, 9_999).unwrap();
        let manifest: rbuild_oci::Manifest = serde_json::from_slice(&bytes).unwrap();
        for descriptor in manifest.layers.iter().chain([&manifest.config]) {
            assert_eq!(store.blob_size(&descriptor.digest).unwrap(), Some(descriptor.size));
        }
    }
    for key in (0..7).map(|n| Digest::of(format!("key {n}"))) {
        if let Some(record) = store.record(&key).unwrap() {
            for id in &record.chain {
                assert!(store.layer_dir(id).unwrap().is_some());
            }
        }
    }
    assert!(store.take_warnings().is_empty());
    let ingest = fs::read_dir(store.root().join("ingest")).unwrap().count();
    assert_eq!(ingest, 0, "what dead processes were writing is gone");
}

#[test]
fn killed_processes_leave_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    // xorshift: the moments differ from round to round, and are the same in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..40_u64 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut one = Child::start(&root, round * 31, u64::MAX / 2);
        let mut two = (round % 2 == 0).then(|| Child::start(&root, round * 37 + 5, u64::MAX / 2));
        std::thread::sleep(Duration::from_micros(3_000 + state % 60_000));
        one.kill();
        if let Some(two) = &mut two {
            two.kill();
        }
        check_store(&root);
    }
    let store = Store::open(&root).unwrap();
    (0..20).for_each(|n| work(&store, n));
    drop(store);
    check_store(&root);
}
