//! Several processes and threads on one store, with prunes in between.

use crate::crash::{Child, check_store};
use crate::{layer, record, store, tiny_image};
use rbuild_oci::Digest;
use rbuild_store::{Batch, PruneOptions, Store};
use std::fs;
use std::io::Write;

/// One step of a busy process: lookups, and on a miss the making of whatever was missed, under the lock of its key.
/// Checks that everything it was given stays whole while it holds its lease.
pub(crate) fn work(store: &Store, seed: u64) {
    let key = Digest::of(format!("key {}", seed % 7));
    let id = Digest::of(format!("layer {}", seed % 7));
    let text = format!("{} ", seed % 7).repeat(3000);
    let lease = store.lease().unwrap();
    let hit = store.record(&key).unwrap();
    if hit.is_none() {
        let _lock = store.lock_key_blocking(&key, &|| false).unwrap();
        if store.record(&key).unwrap().is_none() {
            let ingest = store.new_layer_dir().unwrap();
            fs::write(ingest.upper.join("file"), &text).unwrap();
            store.commit_layer_dir(ingest, &id).unwrap();
            store.write(&Batch::new().layer(layer(id)).record(record(key, vec![id]), "{}")).unwrap();
        }
    }
    let mut writer = store.ingest().unwrap();
    for chunk in text.as_bytes().chunks(999) {
        writer.write_all(chunk).unwrap();
    }
    let (blob, size) = writer.commit(None).unwrap();
    let image = tiny_image(store, &format!("{}", seed % 5));
    let name = format!("app:{}", seed % 11).parse().unwrap();
    store.tag(&name, &image).unwrap();
    if seed.is_multiple_of(6) {
        store.untag(&name).unwrap();
    }
    let dir = store.layer_dir(&id).unwrap().unwrap();
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), text);
    assert_eq!(store.read_blob(&blob, size).unwrap(), text.as_bytes());
    store.read_blob(&image.digest, 9_999).unwrap();
    drop(lease);
    if seed.is_multiple_of(13) {
        store.prune(&PruneOptions { all: true, ..Default::default() }).unwrap();
    }
}

#[test]
fn four_processes_share_a_store() {
    let (_dir, store) = store();
    let children: Vec<Child> = (1..=4).map(|n| Child::start(store.root(), n * 1000, 200)).collect();
    for mut child in children {
        assert!(child.wait(), "a process failed");
    }
    let root = store.root().to_owned();
    drop(store);
    check_store(&root);
}

#[test]
fn threads_share_a_handle() {
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || (0..60).for_each(|n| work(store, thread * 17 + n)));
        }
    });
    let root = store.root().to_owned();
    drop(store);
    check_store(&root);
}
