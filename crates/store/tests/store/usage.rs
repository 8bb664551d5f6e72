//! What du says, against du(1).

use crate::{layer, make_layer, record, store, tiny_image};
use rbuild_oci::{Digest, Platform};
use rbuild_store::{Batch, CacheMountSharing, Fetched, Filter, Packed, Store, UsageKind, UsageRow};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Allocated bytes below `path` as du(1) counts them.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_agrees(store: &Store, case: &str) {
    let (ours, theirs) = (store.usage().unwrap().total(), du(store.root()));
    assert!(ours.abs_diff(theirs) * 100 <= theirs, "{case}: {ours} instead of {theirs}");
}

/// Waits for the sums of layers, which are written beside builds.
fn settle(store: &Store) {
    drop(store.lease().unwrap());
}

fn filled(store: &Store) -> Digest {
    let image = tiny_image(store, "1");
    store.tag(&"app:1".parse().unwrap(), &image).unwrap();
    let id = Digest::of("layer");
    let ingest = store.new_layer_dir().unwrap();
    fs::write(ingest.upper.join("a"), vec![7; 300_000]).unwrap();
    // Three links count once, a hole not at all, and directories as what they take.
    fs::hard_link(ingest.upper.join("a"), ingest.upper.join("b")).unwrap();
    fs::hard_link(ingest.upper.join("a"), ingest.upper.join("c")).unwrap();
    File::create(ingest.upper.join("hole")).unwrap().set_len(1 << 30).unwrap();
    let many = ingest.upper.join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..500 {
        fs::write(many.join(format!("a-rather-long-name-so-that-directories-grow-{n:04}")), "x").unwrap();
    }
    store.commit_layer_dir(ingest, &id).unwrap();
    let (blob, size) = store.put_blob(&[3; 70_000]).unwrap();
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
    let preimage = r#"{"name":"[1/2] RUN make \"all\"","operation":{}}"#;
    let step = record(Digest::of("step"), vec![id]);
    store.write(&Batch::new().layer(layer(id)).packed(form).record(step, preimage)).unwrap();
    id
}

fn row(rows: &[UsageRow], kind: UsageKind, id: &str) -> UsageRow {
    rows.iter().find(|row| row.kind == kind && row.id.contains(id)).unwrap().clone()
}

#[test]
fn the_total_is_that_of_du() {
    let (_dir, store) = store();
    assert_agrees(&store, "empty");
    filled(&store);
    settle(&store);
    assert_agrees(&store, "an image and a step");
    let mount = store.try_cache_mount(&Digest::of("m"), CacheMountSharing::Private, true).unwrap().unwrap();
    let content = store.new_layer_dir().unwrap();
    fs::write(content.upper.join("file"), vec![1; 50_000]).unwrap();
    mount.fill(&content).unwrap();
    let (digest, size) = store.put_blob(&[9; 9_000]).unwrap();
    let fetched = Fetched { digest, size, etag: None, last_modified: None, modified: None, asked: 0 };
    store.remember_fetched("https://example.org/x", &fetched).unwrap();
    fs::create_dir_all(store.git_dir("https://example.org/y").join("objects")).unwrap();
    fs::write(store.git_dir("https://example.org/y").join("HEAD"), vec![1; 30_000]).unwrap();
    fs::write(store.history_dir().join("1"), vec![1; 20_000]).unwrap();
    fs::write(store.stat_cache_dir().join("1"), vec![1; 10_000]).unwrap();
    let half_done = store.new_layer_dir().unwrap();
    fs::write(half_done.upper.join("file"), vec![1; 40_000]).unwrap();
    fs::write(store.root().join("foreign"), vec![1; 15_000]).unwrap();
    fs::write(store.root().join("snapshots/foreign"), vec![1; 15_000]).unwrap();
    assert_agrees(&store, "everything");
    let rows = store.usage().unwrap().rows;
    for (kind, least) in [
        (UsageKind::Ingest, 40_000),
        (UsageKind::History, 20_000),
        (UsageKind::StatCache, 10_000),
        (UsageKind::Index, 4_096),
        (UsageKind::CacheMount, 50_000),
        (UsageKind::Git, 30_000),
        (UsageKind::Fetched, 1),
        (UsageKind::Other, 30_000),
    ] {
        let found: u64 = rows.iter().filter(|row| row.kind == kind).map(|row| row.bytes).sum();
        assert!(found >= least, "{kind:?}: {found}");
    }
    let held = row(&rows, UsageKind::CacheMount, &Digest::of("m").hex());
    assert_eq!((held.in_use, held.reclaimable, held.mutable), (true, false, true));
}

#[test]
fn links_between_layers_count_once() {
    let (_dir, store) = store();
    let (one, two) = (Digest::of("one"), Digest::of("two"));
    let first = store.new_layer_dir().unwrap();
    fs::write(first.upper.join("file"), vec![1; 500_000]).unwrap();
    let second = store.new_layer_dir().unwrap();
    fs::hard_link(first.upper.join("file"), second.upper.join("file")).unwrap();
    store.commit_layer_dir(first, &one).unwrap();
    store.commit_layer_dir(second, &two).unwrap();
    settle(&store);
    assert_agrees(&store, "linked layers");
}

#[test]
fn rows_say_what_they_are() {
    let (_dir, store) = store();
    let id = filled(&store);
    let base = tiny_image(&store, "base");
    store.remember_resolution(&"debian".parse().unwrap(), &Platform::linux("amd64"), &base).unwrap();
    store.put_record(record(Digest::of("bare"), vec![]), r#"{"name":"bare step"}"#).unwrap();
    store.record(&Digest::of("step")).unwrap();
    store.flush_uses().unwrap();
    let rows = store.usage().unwrap().rows;
    let made = row(&rows, UsageKind::Layer, &id.hex());
    assert_eq!(made.description, "[1/2] RUN make \"all\"");
    assert_eq!((made.uses, made.cost_ms, made.record_type), (1, 5, "regular"));
    assert_eq!((made.reclaimable, made.shared, made.in_use), (true, false, false));
    let base = row(&rows, UsageKind::Blob, &base.digest.hex());
    assert_eq!((base.record_type, base.reclaimable), ("source.image", true));
    assert!(base.description.contains("debian"), "{}", base.description);
    // The empty layer is in the tagged image as well as in the base.
    let both = row(&rows, UsageKind::Blob, &Digest::of([0; 1024]).hex());
    assert_eq!((both.shared, both.reclaimable), (true, false));
    assert_eq!(both.images, ["docker.io/library/app:1"]);
    assert_eq!(row(&rows, UsageKind::Record, &Digest::of("bare").hex()).description, "bare step");

    let build = Store::open(store.root()).unwrap();
    let _lease = build.lease().unwrap();
    build.layer_dir(&id).unwrap();
    let rows = store.usage().unwrap().rows;
    let made = row(&rows, UsageKind::Layer, &id.hex());
    assert_eq!((made.reclaimable, made.in_use), (false, true));
}

#[test]
fn filters_pick_rows() {
    let (_dir, store) = store();
    let id = filled(&store);
    make_layer(&store, &Digest::of("orphan"), "x");
    let count = |text: &str| {
        let mut usage = store.usage().unwrap();
        usage.retain(&Filter::parse(text, |_| Ok(i64::MAX)).unwrap());
        usage.rows.len()
    };
    assert_eq!(count("type=layer"), 2);
    assert_eq!(count(&format!("type=layer,id={}", id.hex())), 1);
    assert_eq!(count("description~=RUN make"), 2, "the layer and its packed form");
    assert_eq!(count("type=image"), 3);
    assert_eq!(count("until=1h"), store.usage().unwrap().rows.len());
    assert_eq!(count("inuse"), 1, "what is being written");
}
