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
