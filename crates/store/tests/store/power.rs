//! What a power loss takes. It is played by changing the boot that the store's mark names, and cutting files short.

use crate::{layer, make_layer, record, store, tiny_image};
use rbuild_oci::Digest;
use rbuild_store::{Batch, Store};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// The mark of another boot, flushed at this time.
fn reboot(root: &Path, flushed: i64) {
    fs::write(root.join("synced"), format!("rbuild.synced.v1 another-boot {flushed}\n")).unwrap();
}

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

struct Filled {
    root: std::path::PathBuf,
    good: Digest,
    cut: Digest,
    good_layer: Digest,
    cut_layer: Digest,
}

/// An image and two steps with a layer each; the handle is closed.
fn filled(store: Store) -> Filled {
    store.tag(&"app:1".parse().unwrap(), &tiny_image(&store, "1")).unwrap();
    let lease = store.lease().unwrap();
    let (good, _) = store.put_blob(b"a blob that is good").unwrap();
    let (cut, _) = store.put_blob(b"a blob that is cut").unwrap();
    let layers = ["good layer", "cut layer"].map(|name| {
        let id = Digest::of(name);
        make_layer(&store, &id, name);
        store
            .write(
                &Batch::new()
                    .layer(layer(id))
                    .record(record(Digest::of(format!("key {name}")), vec![id]), "{}"),
            )
            .unwrap();
        id
    });
    drop(lease);
    Filled { root: store.root().to_owned(), good, cut, good_layer: layers[0], cut_layer: layers[1] }
}

impl Filled {
    fn lose(&self, store: &Store) {
        cut(&store.blob_path(&self.cut), 3);
        cut(&self.root.join("snapshots").join(self.cut_layer.hex()).join("fs/file"), 0);
    }
}

#[test]
fn what_was_cut_short_is_gone_and_the_rest_is_there() {
    let (dir, store) = store();
    let filled = filled(store.clone());
    filled.lose(&store);
    drop(store);
    reboot(&filled.root, now() - 60);
    let store = Store::open(&filled.root).unwrap();
    let warnings = store.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("1 blobs and 1 unpacked layers"), "{warnings:?}");
    assert!(store.has_blob(&filled.good).unwrap() && !store.has_blob(&filled.cut).unwrap());
    assert!(store.record(&Digest::of("key good layer")).unwrap().is_some());
    assert!(store.record(&Digest::of("key cut layer")).unwrap().is_none());
    assert!(store.layer_dir(&filled.good_layer).unwrap().is_some());
    assert_eq!(store.images().unwrap().len(), 1);
    let report = store.fsck(&Default::default()).unwrap();
    assert_eq!(report.damage().count(), 0, "{:#?}", report.problems);
    // Once a boot, and nothing more for those that come later.
    cut(&store.blob_path(&filled.good), 3);
    let later = Store::open(&filled.root).unwrap();
    assert!(later.has_blob(&filled.good).unwrap() && later.take_warnings().is_empty());
    drop(dir);
}

#[test]
fn what_was_flushed_is_not_read_again() {
    let (_dir, store) = store();
    let filled = filled(store.clone());
    filled.lose(&store);
    // As if everything had been put there long before the flush.
    reboot(&filled.root, now() + 900);
    let store = Store::open(&filled.root).unwrap();
    assert!(store.take_warnings().is_empty());
    assert!(store.has_blob(&filled.cut).unwrap() && store.layer_dir(&filled.cut_layer).unwrap().is_some());
}

#[test]
fn a_mark_that_says_nothing_means_that_nothing_was_flushed() {
    let marks = [
        None,
        Some(String::new()),
        Some("\0\0\0\0".to_owned()),
        Some("rbuild.synced.v1 another-boot".to_owned()),
        Some("rbuild.synced.v1 another-boot soon\n".to_owned()),
        Some(format!("rbuild.synced.v1 another-boot {}\n", now() + 1_000_000)),
        Some("x".repeat(10_000)),
    ];
    for mark in marks {
        let (_dir, store) = store();
        let filled = filled(store.clone());
        filled.lose(&store);
        let path = filled.root.join("synced");
        match &mark {
            None => fs::remove_file(path).unwrap(),
            Some(text) => fs::write(path, text).unwrap(),
        }
        let store = Store::open(&filled.root).unwrap();
        assert!(!store.has_blob(&filled.cut).unwrap(), "{mark:?}");
        assert!(store.has_blob(&filled.good).unwrap(), "{mark:?}");
    }
}

#[test]
fn a_layer_without_its_sum_is_not_trusted() {
    let (_dir, store) = store();
    let filled = filled(store);
    fs::remove_file(filled.root.join("snapshots").join(filled.good_layer.hex()).join("sum")).unwrap();
    reboot(&filled.root, now() - 60);
    let store = Store::open(&filled.root).unwrap();
    assert_eq!(store.layer_dir(&filled.good_layer).unwrap(), None);
    assert!(store.layer_dir(&filled.cut_layer).unwrap().is_some());
}

#[test]
fn a_tag_whose_image_is_lost_is_named() {
    let (_dir, store) = store();
    let filled = filled(store.clone());
    let lost = tiny_image(&store, "lost");
    store.tag(&"lost:2".parse().unwrap(), &lost).unwrap();
    cut(&store.blob_path(&lost.digest), 0);
    reboot(&filled.root, now() - 60);
    let store = Store::open(&filled.root).unwrap();
    let warnings = store.take_warnings();
    assert!(warnings.iter().any(|text| text.contains("docker.io/library/lost:2")), "{warnings:?}");
    let names: Vec<_> = store.images().unwrap().into_iter().filter_map(|image| image.name).collect();
    assert_eq!(names, ["docker.io/library/app:1"]);
}

#[test]
fn an_emptied_index_json_is_what_it_was_before() {
    for emptied in [Some(""), Some("\0\0\0\0\0\0"), Some("{\"manif"), None] {
        let (_dir, store) = store();
        let filled = filled(store.clone());
        // The state with one image is on the disk; the second tag is not.
        let mark = fs::read_to_string(filled.root.join("synced")).unwrap();
        let boot = mark.split(' ').nth(1).unwrap();
        fs::write(filled.root.join("synced"), format!("rbuild.synced.v1 {boot} {}\n", now() + 5)).unwrap();
        store.tag(&"app:2".parse().unwrap(), &tiny_image(&store, "2")).unwrap();
        let index = filled.root.join("index.json");
        match emptied {
            Some(text) => fs::write(&index, text).unwrap(),
            None => fs::remove_file(&index).unwrap(),
        }
        reboot(&filled.root, now() - 60);
        let store = Store::open(&filled.root).unwrap();
        let names: Vec<_> = store.images().unwrap().into_iter().filter_map(|image| image.name).collect();
        assert_eq!(names, ["docker.io/library/app:1"], "{emptied:?}");
    }
    let (_dir, store) = store();
    fs::write(store.root().join("oci-layout"), "").unwrap();
    reboot(store.root(), now());
    Store::open(store.root()).unwrap();
    assert_eq!(fs::read(store.root().join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn downloads_that_were_cut_short_are_forgotten() {
    let (_dir, store) = store();
    let filled = filled(store.clone());
    let url = filled.root.join("http").join(Digest::of("url").hex());
    fs::write(&url, "{\"digest").unwrap();
    let repository = store.git_dir("https://example.org/x");
    fs::create_dir(&repository).unwrap();
    reboot(&filled.root, now() - 60);
    let store = Store::open(&filled.root).unwrap();
    assert!(!url.exists() && !repository.exists());
    drop(store);
}

#[test]
fn many_openers_verify_once() {
    let (_dir, store) = store();
    let filled = filled(store.clone());
    filled.lose(&store);
    reboot(&filled.root, now() - 60);
    let warnings = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(&filled.root).unwrap();
                assert!(!store.has_blob(&filled.cut).unwrap());
                warnings.lock().unwrap().extend(store.take_warnings());
            });
        }
    });
    assert_eq!(warnings.into_inner().unwrap().len(), 1);
}
