//! A file system that is full.

use crate::{layer, make_layer, record, tiny_image};
use rbuild_oci::Digest;
use rbuild_store::{Batch, Store, StoreError};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A tmpfs of a few MiB, unmounted when it is dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        status.is_ok_and(|output| output.status.success()).then(|| Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
}

fn assert_no_space<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::NoSpace { .. })), "{what}: {result:?}");
}

#[test]
fn a_full_disk_is_said_and_the_store_stays_whole() {
    let Some(disk) = Tmpfs::mount("6m") else {
        println!("skipped: a_full_disk_is_said_and_the_store_stays_whole: tmpfs cannot be mounted");
        return;
    };
    let root = disk.0.path().join("root");
    let store = Store::open(&root).unwrap();
    let (one, two) = (tiny_image(&store, "1"), tiny_image(&store, "2"));
    store.tag(&"app:1".parse().unwrap(), &one).unwrap();
    let id = Digest::of("layer");
    make_layer(&store, &id, "x");
    let kept = record(Digest::of("kept"), vec![id]);
    store.write(&Batch::new().layer(layer(id)).record(kept.clone(), "{}")).unwrap();
    fill(&disk.0.path().join("filler"));

    let bytes = vec![7; 300_000];
    assert_no_space("put_blob", store.put_blob(&bytes));
    let written = store.ingest().and_then(|mut writer| {
        writer.write_all(&bytes).map_err(|e| StoreError::io("write", writer.path(), e))?;
        writer.commit(None)
    });
    assert_no_space("ingest", written);
    assert_no_space("tag", store.tag(&"app:2".parse().unwrap(), &two));
    let large = "x".repeat(3_000_000);
    assert_no_space("record", store.put_record(record(Digest::of("large"), vec![id]), large));
    assert!(store.record(&kept.key).unwrap().is_some());

    fs::remove_file(disk.0.path().join("filler")).unwrap();
    store.tag(&"app:2".parse().unwrap(), &two).unwrap();
    store.put_record(record(Digest::of("later"), vec![id]), "{}").unwrap();
    drop(store);
    let store = Store::open(&root).unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
    assert!(store.record(&kept.key).unwrap().is_some());
    assert!(store.record(&Digest::of("large")).unwrap().is_none());
    assert!(!store.has_blob(&Digest::of(&bytes)).unwrap());
    assert!(store.take_warnings().is_empty());
    assert_eq!(fs::read_dir(root.join("ingest")).unwrap().count(), 0);
    drop(store);
}

/// Input/output error.
const EIO: i32 = 5;

#[test]
fn a_broken_disk_is_said_and_the_store_stays_whole() {
    let (_dir, store) = crate::store();
    let image = tiny_image(&store, "1");
    store.tag(&"app:1".parse().unwrap(), &image).unwrap();
    let id = Digest::of("layer");
    make_layer(&store, &id, "x");
    store.write(&Batch::new().layer(layer(id)).record(record(Digest::of("kept"), vec![id]), "{}")).unwrap();
    for site in rbuild_store::FAULT_SITES {
        store.inject_fault(Some((site, EIO)));
        let blob = store.put_blob(b"new");
        let made = store.new_layer_dir();
        let layer =
            made.and_then(|ingest| store.commit_layer_dir(ingest, &Digest::of("new layer")).map(drop));
        let tagged = store.tag(&"app:2".parse().unwrap(), &image);
        let failed: Vec<StoreError> =
            [blob.map(drop), layer, tagged].into_iter().filter_map(std::result::Result::err).collect();
        assert_eq!(failed.len(), 1, "{site}: {failed:?}");
        let is_eio =
            matches!(&failed[0], StoreError::Io { source, .. } if source.raw_os_error() == Some(EIO));
        assert!(is_eio, "{site}: {failed:?}");
        let text = failed[0].to_string();
        assert!(
            text.contains("Input/output error") && text.contains(store.root().to_str().unwrap()),
            "{text}"
        );
        store.inject_fault(None);
        store.put_blob(b"new").unwrap();
        make_layer(&store, &Digest::of("new layer"), "");
        store.tag(&"app:2".parse().unwrap(), &image).unwrap();
        store.untag(&"app:2".parse().unwrap()).unwrap();
        let report = store.fsck(&Default::default()).unwrap();
        assert_eq!(report.damage().count(), 0, "{site}: {:#?}", report.problems);
        store
            .prune(&rbuild_store::PruneOptions {
                filters: vec![rbuild_store::Filter::parse("id=0", |_| Ok(0)).unwrap()],
                ..Default::default()
            })
            .unwrap();
        // The next round begins without what this one has made.
        fs::remove_file(store.blob_path(&Digest::of("new"))).unwrap();
        fs::remove_dir_all(store.root().join("snapshots").join(Digest::of("new layer").hex())).unwrap();
    }
    assert!(store.record(&Digest::of("kept")).unwrap().is_some());
}

#[test]
fn what_fits_after_unused_cache_is_removed_is_written() {
    let Some(disk) = Tmpfs::mount("6m") else {
        println!("skipped: what_fits_after_unused_cache_is_removed_is_written: tmpfs cannot be mounted");
        return;
    };
    let root = disk.0.path().join("root");
    let cache = Store::open(&root).unwrap();
    let step = |store: &Store, name: &str, bytes: usize| {
        let id = Digest::of(format!("layer {name}"));
        let ingest = store.new_layer_dir().unwrap();
        fs::write(ingest.upper.join("file"), vec![1; bytes]).unwrap();
        store.commit_layer_dir(ingest, &id).unwrap();
        store.write(&Batch::new().layer(layer(id)).record(record(Digest::of(name), vec![id]), "{}")).unwrap();
    };
    step(&cache, "unused", 3 << 20);
    step(&cache, "used", 1 << 20);
    drop(cache.lease().unwrap());
    drop(cache);
    let build = Store::open(&root).unwrap();
    let lease = build.lease().unwrap();
    assert!(build.record(&Digest::of("used")).unwrap().is_some());
    let bytes = vec![7; 2 << 20];
    // Nobody has said that anything may be removed.
    assert_no_space("without a budget", build.put_blob(&bytes));
    build.set_budget(rbuild_store::Budget::default());
    build.put_blob(&bytes).unwrap();
    assert!(build.record(&Digest::of("used")).unwrap().is_some());
    assert!(build.record(&Digest::of("unused")).unwrap().is_none());
    assert!(build.evicted(&Digest::of("unused")).unwrap().is_some());
    // There is nothing left to remove.
    assert_no_space("too much", build.put_blob(&vec![8; 4 << 20]));
    assert!(build.record(&Digest::of("used")).unwrap().is_some());
    assert_eq!(build.fsck(&Default::default()).unwrap().damage().count(), 0);
    drop(lease);
    drop(build);
}

#[test]
fn a_disk_without_a_byte_is_made_room_on() {
    let Some(disk) = Tmpfs::mount("4m") else {
        println!("skipped: a_disk_without_a_byte_is_made_room_on: tmpfs cannot be mounted");
        return;
    };
    let root = disk.0.path().join("root");
    let store = Store::open(&root).unwrap();
    let id = Digest::of("layer");
    make_layer(&store, &id, &"x".repeat(1 << 20));
    store.write(&Batch::new().layer(layer(id)).record(record(Digest::of("unused"), vec![id]), "{}")).unwrap();
    drop(store.lease().unwrap());
    store.set_budget(rbuild_store::Budget::default());
    fill(&disk.0.path().join("filler"));
    // Not even the rows can be deleted before the files are.
    store.put_blob(&vec![7; 500_000]).unwrap();
    store.put_record(record(Digest::of("new"), vec![]), "{}").unwrap();
    assert!(store.record(&Digest::of("unused")).unwrap().is_none());
    assert!(store.record(&Digest::of("new")).unwrap().is_some());
    drop(store);
}
