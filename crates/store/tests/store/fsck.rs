//! What fsck finds, and what repair leaves.

use crate::{layer, make_layer, record, store, tiny_image};
use rbuild_oci::{Descriptor, Digest};
use rbuild_store::{
    Batch, FsckOptions, FsckReport, LayerCheck, LayerOnDisk, Packed, Problem, ProblemKind, Store, StoreError,
};
use std::fs;
use std::path::Path;

/// An image, a step with an unpacked and packed layer, and a step on top of that.
struct Filled {
    image: Descriptor,
    layer: Digest,
    blob: Digest,
}

fn filled(store: &Store) -> Filled {
    let image = tiny_image(store, "1");
    store.tag(&"app:1".parse().unwrap(), &image).unwrap();
    store.tag(&"app:2".parse().unwrap(), &tiny_image(store, "2")).unwrap();
    let id = Digest::of("layer");
    make_layer(store, &id, "some text");
    let (blob, size) = store.put_blob(b"packed").unwrap();
    let form = Packed {
        layer: id,
        codec: "gzip".into(),
        epoch: None,
        diff_id: id,
        blob,
        size,
        tar_size: 1,
        media_type: "x".into(),
    };
    store
        .write(&Batch::new().layer(layer(id)).packed(form).record(record(Digest::of("one"), vec![id]), "{}"))
        .unwrap();
    let top = Digest::of("top");
    make_layer(store, &top, "top");
    store
        .write(&Batch::new().layer(layer(top)).record(record(Digest::of("two"), vec![id, top]), "{}"))
        .unwrap();
    // The end of a lease waits for the sums of layers.
    drop(store.lease().unwrap());
    Filled { image, layer: id, blob }
}

fn check(store: &Store, repair: bool) -> FsckReport {
    store.fsck(&FsckOptions { repair, layers: None }).unwrap()
}

fn kinds(report: &FsckReport) -> Vec<ProblemKind> {
    report.problems.iter().map(|problem| problem.kind).collect()
}

fn find(report: &FsckReport, kind: ProblemKind) -> &Problem {
    report.problems.iter().find(|problem| problem.kind == kind).unwrap()
}

fn here(store: &Store, key: &str) -> bool {
    store.record(&Digest::of(key)).unwrap().is_some()
}

/// Found without repair and left as it is; repaired; and then no more.
fn assert_repaired(store: &Store, expected: &[ProblemKind]) -> FsckReport {
    let found = check(store, false);
    assert_eq!(kinds(&found), expected, "{:#?}", found.problems);
    assert!(found.problems.iter().all(|problem| problem.repair.is_none()));
    assert_eq!(kinds(&check(store, false)), expected, "nothing was changed");
    let repaired = check(store, true);
    assert_eq!(repaired.damage().count(), 0, "{:#?}", repaired.problems);
    let again = check(store, false);
    assert!(again.problems.iter().all(|problem| !problem.is_damage()), "{:#?}", again.problems);
    repaired
}

#[test]
fn a_whole_store_has_no_problems() {
    let (_dir, store) = store();
    filled(&store);
    let report = check(&store, false);
    assert_eq!(report.problems, []);
    assert_eq!((report.blobs, report.layers, report.records, report.images), (6, 2, 2, 2));
    assert!(report.bytes > 1024);
}

#[test]
fn a_damaged_blob_is_put_away_with_the_tags_that_need_it() {
    let (_dir, store) = store();
    let filled = filled(&store);
    let path = store.blob_path(&filled.image.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let report = assert_repaired(&store, &[ProblemKind::Blob, ProblemKind::Image]);
    assert_eq!(find(&report, ProblemKind::Image).object, "docker.io/library/app:1");
    let names: Vec<_> = store.images().unwrap().into_iter().filter_map(|image| image.name).collect();
    assert_eq!(names, ["docker.io/library/app:2"]);
    assert_eq!(fs::read_dir(store.root().join("quarantine")).unwrap().count(), 1);
    store.prune(&Default::default()).unwrap();
    assert_eq!(fs::read_dir(store.root().join("quarantine")).unwrap().count(), 0);
}

#[test]
fn a_truncated_or_missing_part_of_an_image_is_named() {
    let layer = Digest::of([0; 1024]);
    for truncate in [true, false] {
        let (_dir, store) = store();
        filled(&store);
        let mut expected = vec![ProblemKind::Image, ProblemKind::Image];
        if truncate {
            fs::File::options().write(true).open(store.blob_path(&layer)).unwrap().set_len(100).unwrap();
            expected.insert(0, ProblemKind::Blob);
        } else {
            fs::remove_file(store.blob_path(&layer)).unwrap();
        }
        let report = assert_repaired(&store, &expected);
        assert!(find(&report, ProblemKind::Image).detail.contains(&layer.to_string()));
        assert_eq!(store.images().unwrap(), []);
    }
}

#[test]
fn a_damaged_packed_form_costs_only_itself() {
    let (_dir, store) = store();
    let filled = filled(&store);
    fs::write(store.blob_path(&filled.blob), "pAcked").unwrap();
    assert_repaired(&store, &[ProblemKind::Blob, ProblemKind::Row]);
    assert_eq!(store.packed_known(&filled.layer).unwrap(), []);
    assert!(here(&store, "one") && here(&store, "two"), "the layer is still unpacked");
}

#[test]
fn a_layer_that_was_cut_short_costs_its_records() {
    let (_dir, store) = store();
    let filled = filled(&store);
    fs::write(store.layer_dir(&Digest::of("top")).unwrap().unwrap().join("file"), "").unwrap();
    assert_repaired(&store, &[ProblemKind::Layer, ProblemKind::Row]);
    assert!(here(&store, "one") && !here(&store, "two"));
    assert!(store.evicted(&Digest::of("two")).unwrap().is_some());
    fs::remove_dir_all(store.root().join("quarantine")).unwrap();
    // One that is packed as well is only put away: it can be unpacked again.
    fs::write(store.layer_dir(&filled.layer).unwrap().unwrap().join("more"), "").unwrap();
    assert_repaired(&store, &[ProblemKind::Layer]);
    assert!(here(&store, "one"));
    assert_eq!(store.layer_dir(&filled.layer).unwrap(), None);
}

#[test]
fn rows_without_files_are_forgotten() {
    let (_dir, store) = store();
    let filled = filled(&store);
    fs::remove_dir_all(store.root().join("snapshots").join(filled.layer.hex())).unwrap();
    fs::remove_file(store.blob_path(&filled.blob)).unwrap();
    assert_repaired(&store, &[ProblemKind::Row, ProblemKind::Row, ProblemKind::Row]);
    assert!(!here(&store, "one") && !here(&store, "two"));
}

#[test]
fn what_nothing_leads_to_is_no_damage() {
    let (_dir, store) = store();
    filled(&store);
    store.put_blob(b"orphan").unwrap();
    make_layer(&store, &Digest::of("orphan"), "x");
    let root = store.root();
    fs::write(root.join("locks").join(Digest::of("stale").hex()), "").unwrap();
    fs::write(root.join("locks/leases/0123"), "").unwrap();
    fs::write(root.join("blobs/sha256/README"), "").unwrap();
    fs::write(root.join("snapshots/README"), "").unwrap();
    let report = check(&store, false);
    assert_eq!(kinds(&report), vec![ProblemKind::Leftover; 6], "{:#?}", report.problems);
    assert_eq!(report.damage().count(), 0);
    store.prune(&Default::default()).unwrap();
    assert_eq!(check(&store, false).problems.len(), 2, "what is not ours");
}

#[test]
fn a_broken_index_json_is_put_away() {
    let (_dir, store) = store();
    filled(&store);
    fs::write(store.root().join("index.json"), "{\"manifests\": [").unwrap();
    let report = assert_repaired(&store, &[ProblemKind::Layout]);
    assert!(find(&report, ProblemKind::Layout).repair.as_ref().unwrap().contains("quarantine/"));
    assert_eq!(store.images().unwrap(), []);
    fs::write(store.root().join("oci-layout"), "{").unwrap();
    assert!(matches!(Store::open(store.root()), Err(StoreError::Damaged { .. })));
    let (_, problems) = Store::open_for_repair(store.root()).unwrap();
    assert_eq!(problems.len(), 1);
    Store::open(store.root()).unwrap();
}

#[test]
fn a_damaged_index_is_rebuilt() {
    let (dir, store) = store();
    let filled = filled(&store);
    for n in 0..200 {
        let record = record(Digest::of(format!("key {n}")), vec![filled.layer]);
        store.put_record(record, "x".repeat(500)).unwrap();
    }
    let root = store.root().to_owned();
    drop(store);
    let path = root.join("index.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let _: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    drop(db);
    // Somewhere behind the schema, where most commands would never look.
    let mut bytes = fs::read(&path).unwrap();
    let from = bytes.len() - 4096;
    bytes[from..].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let store = Store::open(&root).unwrap();
    let report = check(&store, true);
    assert!(kinds(&report).contains(&ProblemKind::Index), "{:#?}", report.problems);
    assert_eq!(report.damage().count(), 0, "{:#?}", report.problems);
    assert!(check(&store, false).problems.iter().all(|problem| !problem.is_damage()));
    assert!(store.layer(&filled.layer).unwrap().unwrap().has_dir);
    assert_eq!(store.images().unwrap().len(), 2);
    drop((store, dir));
}

/// Says of each layer what its file says.
struct FileCheck;

impl LayerCheck for FileCheck {
    fn content_digest(&self, layer: &LayerOnDisk<'_>) -> Result<Digest, String> {
        let read = |dir: &Path| fs::read_to_string(dir.join("file")).map_err(|error| error.to_string());
        let mut text = read(layer.dir)?;
        for dir in layer.below {
            text += &read(dir)?;
        }
        Ok(Digest::of(text))
    }
}

#[test]
fn deep_checks_compare_content() {
    let (_dir, store) = store();
    let filled = filled(&store);
    let mut top = store.layer(&Digest::of("top")).unwrap().unwrap();
    top.content_digest = Some(Digest::of("topsome text"));
    store.put_layer(top).unwrap();
    let deep = |repair| store.fsck(&FsckOptions { repair, layers: Some(&FileCheck) }).unwrap();
    assert_eq!(deep(false).problems, []);
    // As long as before: only the content tells.
    fs::write(store.layer_dir(&Digest::of("top")).unwrap().unwrap().join("file"), "tOp").unwrap();
    assert_eq!(check(&store, false).problems, []);
    assert_eq!(kinds(&deep(false)), [ProblemKind::Layer, ProblemKind::Row]);
    assert_eq!(deep(true).damage().count(), 0);
    assert_eq!(deep(false).damage().count(), 0);
    assert!(store.layer_dir(&filled.layer).unwrap().is_some());
}
