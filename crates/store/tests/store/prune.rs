//! What prune removes, and what it must not.

use crate::{layer, make_layer, record, store, tiny_image};
use rbuild_oci::{Digest, Platform};
use rbuild_store::{Batch, Layer, LayerKind, Packed, PruneOptions, Record, Store, UsageKind};
use std::fs;

fn all() -> PruneOptions {
    PruneOptions { all: true, ..PruneOptions::default() }
}

fn packed(layer: Digest, (blob, size): (Digest, u64)) -> Packed {
    Packed {
        layer,
        codec: "gzip".into(),
        epoch: None,
        diff_id: layer,
        blob,
        size,
        tar_size: 1,
        media_type: "x".into(),
    }
}

/// A record with a layer that is unpacked and packed.
fn step(store: &Store, name: &str) -> (Record, Digest) {
    let id = Digest::of(format!("layer {name}"));
    make_layer(store, &id, name);
    let blob = store.put_blob(name.as_bytes()).unwrap();
    let record = record(Digest::of(name), vec![id]);
    store
        .write(&Batch::new().layer(layer(id)).packed(packed(id, blob)).record(record.clone(), "{}"))
        .unwrap();
    (record, blob.0)
}

fn is_whole(store: &Store, step: &(Record, Digest)) -> bool {
    let record = store.record(&step.0.key).unwrap();
    let dir = store.layer_dir(&step.0.chain[0]).unwrap();
    let blob = store.has_blob(&step.1).unwrap();
    assert_eq!((record.is_some(), dir.is_some()), (blob, blob), "removed as a whole or not at all");
    blob
}

fn blobs(store: &Store) -> usize {
    fs::read_dir(store.root().join("blobs/sha256")).unwrap().count()
}

#[test]
fn what_nothing_uses_goes_and_images_stay() {
    let (_dir, store) = store();
    let image = tiny_image(&store, "1");
    store.tag(&"app".parse().unwrap(), &image).unwrap();
    let step = step(&store, "step");
    store.put_blob(b"orphan").unwrap();
    make_layer(&store, &Digest::of("orphan"), "x");
    let preview = store.prune(&PruneOptions { dry_run: true, ..all() }).unwrap();
    assert!(is_whole(&store, &step));
    let report = store.prune(&PruneOptions::default()).unwrap();
    let count = |kind| report.removed.iter().filter(|object| object.kind == kind).count();
    assert_eq!([UsageKind::Record, UsageKind::Layer, UsageKind::Blob].map(count), [1, 2, 2]);
    assert_eq!(preview.bytes, report.bytes);
    assert!(report.bytes > 0);
    assert!(!is_whole(&store, &step));
    assert!(store.evicted(&step.0.key).unwrap().is_some());
    assert_eq!(store.preimage(&step.0.key).unwrap(), None);
    assert_eq!(blobs(&store), 3, "manifest, config, layer");
    assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
    store.untag(&"app".parse().unwrap()).unwrap();
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(blobs(&store), 0);
    assert!(!store.usage().unwrap().rows.iter().any(|row| row.reclaimable));
}

#[test]
fn an_image_index_keeps_its_manifests() {
    let (_dir, store) = store();
    let one = tiny_image(&store, "1");
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [one]}).to_string();
    let (digest, size) = store.put_blob(index.as_bytes()).unwrap();
    let descriptor = rbuild_oci::Descriptor::new(rbuild_oci::media_type::OCI_INDEX, digest, size);
    store.tag(&"app".parse().unwrap(), &descriptor).unwrap();
    assert!(store.prune(&all()).unwrap().removed.is_empty());
    assert_eq!(blobs(&store), 4);
}

#[test]
fn base_images_go_only_with_all() {
    let (_dir, store) = store();
    let base = tiny_image(&store, "base");
    let id = Digest::of([0; 1024]);
    make_layer(&store, &id, "x");
    let row = Layer { kind: LayerKind::Pulled, ..layer(id) };
    store.write(&Batch::new().layer(row).packed(packed(id, (id, 1024)))).unwrap();
    let name = "debian:13".parse().unwrap();
    store.remember_resolution(&name, &Platform::linux("amd64"), &base).unwrap();
    // That a build is using the manifest must not hide what the manifest leads to.
    let other = Store::open(store.root()).unwrap();
    let lease = other.lease().unwrap();
    assert!(other.has_blob(&base.digest).unwrap());
    assert!(store.prune(&PruneOptions::default()).unwrap().removed.is_empty());
    drop(lease);
    assert!(store.prune(&PruneOptions::default()).unwrap().removed.is_empty());
    assert!(store.layer_dir(&id).unwrap().is_some());
    assert_eq!(store.prune(&all()).unwrap().removed.len(), 4, "three blobs and a layer");
    assert_eq!(store.resolution(&name, &Platform::linux("amd64")).unwrap(), None);
}

#[test]
fn what_was_used_since_stays() {
    let (_dir, store) = store();
    let step = step(&store, "step");
    let since = |unused_since| PruneOptions { unused_since: Some(unused_since), ..all() };
    assert!(store.prune(&since(0)).unwrap().removed.is_empty());
    assert!(is_whole(&store, &step));
    store.prune(&since(i64::MAX)).unwrap();
    assert!(!is_whole(&store, &step));
}

#[test]
fn what_a_running_build_uses_stays() {
    let (_dir, store) = store();
    let (found, made_before, unused) = (step(&store, "found"), step(&store, "layer"), step(&store, "unused"));
    let build = Store::open(store.root()).unwrap();
    let lease = build.lease().unwrap();
    let joined = build.clone().lease().unwrap();
    drop(lease);
    assert!(build.record(&found.0.key).unwrap().is_some());
    assert!(build.layer_dir(&made_before.0.chain[0]).unwrap().is_some());
    let new = step(&build, "new");
    let (lone, _) = build.put_blob(b"not tagged yet").unwrap();
    let half_done = build.new_layer_dir().unwrap();
    store.prune(&all()).unwrap();
    assert!(is_whole(&store, &found));
    assert!(is_whole(&store, &new));
    assert!(store.layer_dir(&made_before.0.chain[0]).unwrap().is_some(), "a mounted layer");
    assert!(store.has_blob(&lone).unwrap());
    assert!(!is_whole(&store, &unused));
    build.commit_layer_dir(half_done, &Digest::of("half")).unwrap();
    drop(joined);
    store.prune(&all()).unwrap();
    assert!(!is_whole(&store, &found));
    assert_eq!(fs::read_dir(store.root().join("locks/leases")).unwrap().count(), 0);
}

#[test]
fn a_dead_build_holds_nothing() {
    let (_dir, store) = store();
    let step = step(&store, "step");
    let lease = store.root().join("locks/leases/0123");
    fs::write(&lease, step.0.key.as_bytes()).unwrap();
    store.prune(&all()).unwrap();
    assert!(!is_whole(&store, &step));
    assert!(!lease.exists());
}

#[test]
fn stale_lock_files_go_and_held_ones_stay() {
    let (_dir, store) = store();
    let stale = store.root().join("locks").join(Digest::of("stale").hex());
    fs::write(&stale, "").unwrap();
    let lock = store.try_lock_key(&Digest::of("held")).unwrap().unwrap();
    store.prune(&all()).unwrap();
    assert!(!stale.exists());
    assert!(store.try_lock_key(&Digest::of("held")).unwrap().is_none());
    drop(lock);
}

/// Docker calls them dangling. An entry without a name that another tool wrote is not ours to remove.
#[test]
fn images_without_a_name_go() {
    let (_dir, store) = store();
    let (unnamed, running, theirs) =
        (tiny_image(&store, "1"), tiny_image(&store, "2"), tiny_image(&store, "3"));
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [theirs] });
    fs::write(store.root().join("index.json"), index.to_string()).unwrap();
    store.keep_unnamed(&unnamed).unwrap();
    let other = Store::open(store.root()).unwrap();
    let lease = other.lease().unwrap();
    other.keep_unnamed(&running).unwrap();
    let images =
        || -> Vec<_> { store.images().unwrap().into_iter().map(|image| image.descriptor.digest).collect() };
    let preview = store.prune(&PruneOptions { dry_run: true, ..all() }).unwrap();
    assert_eq!(images().len(), 3);
    let report = store.prune(&all()).unwrap();
    assert_eq!(preview, report);
    let gone: Vec<_> = report
        .removed
        .iter()
        .filter(|gone| gone.kind == UsageKind::Image)
        .map(|gone| gone.id.clone())
        .collect();
    assert_eq!(gone, [unnamed.digest.to_string()]);
    assert_eq!(images(), [theirs.digest, running.digest]);
    assert!(!store.has_blob(&unnamed.digest).unwrap() && store.has_blob(&theirs.digest).unwrap());
    drop(lease);
    store.prune(&all()).unwrap();
    assert_eq!(images(), [theirs.digest]);
}
