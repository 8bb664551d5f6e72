//! Keeping to a budget: by prune, after builds, and while there is no room.

use crate::{layer, make_layer, record, store, tiny_image};
use rbuild_oci::Digest;
use rbuild_store::{Batch, Budget, Filter, PruneOptions, Record, Space, Store, UsageKind};
use std::fs;

const MB: u64 = 1 << 20;

/// A step whose layer has a megabyte, on top of the layers of another.
fn step(store: &Store, name: &str, below: &[Digest], cost_ms: u64) -> Record {
    let id = Digest::of(format!("layer {name}"));
    let ingest = store.new_layer_dir().unwrap();
    fs::write(ingest.upper.join("file"), vec![1; MB as usize]).unwrap();
    store.commit_layer_dir(ingest, &id).unwrap();
    let chain = below.iter().copied().chain([id]).collect();
    let record = Record { cost_ms, ..record(Digest::of(name), chain) };
    let preimage = serde_json::json!({"name": format!("RUN {name}")}).to_string();
    store.write(&Batch::new().layer(layer(id)).record(record.clone(), preimage)).unwrap();
    record
}

fn here(store: &Store, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| store.record(&Digest::of(name)).unwrap().is_some()).collect()
}

fn most(bytes: u64) -> Option<Budget> {
    Some(Budget { max_used: Some(Space::Bytes(bytes)), ..Budget::default() })
}

fn close_enough(store: &Store) -> u64 {
    let usage = store.usage().unwrap();
    usage.sum(|row| matches!(row.kind, UsageKind::Layer | UsageKind::Blob))
}

#[test]
fn the_least_worth_goes_until_the_rest_fits() {
    let (_dir, store) = store();
    for (name, cost) in [("slow", 60_000), ("quick", 10), ("middle", 5_000), ("slower", 600_000)] {
        step(&store, name, &[], cost);
    }
    let names = ["slower", "slow", "middle", "quick"];
    for (budget, expected) in [
        (5 * MB, [true, true, true, true]),
        (7 * MB / 2, [true, true, true, false]),
        (5 * MB / 2, [true, true, false, false]),
        (MB / 2, [false, false, false, false]),
    ] {
        let options = PruneOptions { budget: most(budget), ..PruneOptions::default() };
        store.prune(&options).unwrap();
        assert_eq!(here(&store, &names), expected, "{budget}");
        assert!(close_enough(&store) <= budget);
    }
    assert!(store.evicted(&Digest::of("quick")).unwrap().is_some());
}

#[test]
fn reserved_space_is_kept() {
    let (_dir, store) = store();
    for n in 0..4 {
        step(&store, &n.to_string(), &[], 10);
    }
    let budget = Budget {
        reserved: Some(Space::Bytes(5 * MB / 2)),
        max_used: Some(Space::Bytes(1)),
        min_free: Some(Space::Percent(100)),
    };
    store.prune(&PruneOptions { budget: Some(budget), ..PruneOptions::default() }).unwrap();
    assert_eq!(here(&store, &["0", "1", "2", "3"]).iter().filter(|here| **here).count(), 2);
}

#[test]
fn steps_go_before_what_they_stand_on() {
    let (_dir, store) = store();
    let base = step(&store, "base", &[], 1);
    step(&store, "top", &base.chain, 1_000_000);
    step(&store, "side", &[], 50_000);
    // Alone the base would be the first to go; with what stands on it, it is the last.
    store.prune(&PruneOptions { budget: most(5 * MB / 2), ..PruneOptions::default() }).unwrap();
    assert_eq!(here(&store, &["base", "top", "side"]), [true, true, false]);
    store.prune(&PruneOptions { budget: most(3 * MB / 2), ..PruneOptions::default() }).unwrap();
    assert_eq!(here(&store, &["base", "top"]), [true, false]);
}

#[test]
fn images_neither_count_nor_go() {
    let (_dir, store) = store();
    let image = tiny_image(&store, &"x".repeat(3 * MB as usize));
    store.tag(&"app".parse().unwrap(), &image).unwrap();
    step(&store, "step", &[], 10);
    let report = store.prune(&PruneOptions { budget: most(2 * MB), ..PruneOptions::default() }).unwrap();
    assert_eq!(report.removed, []);
    store.prune(&PruneOptions { budget: most(1), ..PruneOptions::default() }).unwrap();
    assert_eq!(here(&store, &["step"]), [false]);
    assert!(store.has_blob(&image.digest).unwrap());
}

#[test]
fn filters_choose_and_dependents_keep() {
    let (_dir, store) = store();
    let base = step(&store, "base", &[], 1);
    step(&store, "top", &base.chain, 1);
    step(&store, "side", &[], 1);
    let prune = |text: &str| {
        let filters = vec![Filter::parse(text, |_| Ok(0)).unwrap()];
        let report = store.prune(&PruneOptions { filters, ..PruneOptions::default() }).unwrap();
        report.removed.iter().filter(|gone| gone.kind == UsageKind::Record).count()
    };
    assert_eq!(prune("description~=base"), 0, "top stands on it");
    assert_eq!(prune("until=1h"), 0, "all was used since 1970");
    assert_eq!(prune("type=exec.cachemount"), 0);
    assert_eq!(prune("shared"), 0);
    assert_eq!(prune(&format!("parents={}", base.chain[0].hex())), 1);
    assert_eq!(here(&store, &["base", "top", "side"]), [true, false, true]);
    assert_eq!(prune("description~=^RUN base$"), 1);
    assert_eq!(prune("immutable"), 1);
}

/// A handle like that of a build, with what it has used kept by a lease.
fn build(store: &Store, budget: Option<Budget>) -> (Store, rbuild_store::Lease) {
    let build = Store::open(store.root()).unwrap();
    build.set_budget(budget.unwrap());
    let lease = build.lease().unwrap();
    (build, lease)
}

#[test]
fn builds_keep_to_their_budget_and_keep_their_own() {
    let (_dir, store) = store();
    for n in 0..5 {
        step(&store, &n.to_string(), &[], 10);
    }
    // Without a budget it only takes note.
    assert_eq!(store.collect_garbage().unwrap(), None);
    let (one, _lease) = build(&store, most(4 * MB));
    assert_eq!(one.collect_garbage().unwrap(), None, "it has put nothing in place");
    assert!(one.record(&Digest::of("0")).unwrap().is_some());
    step(&one, "new", &[], 10);
    let report = one.collect_garbage().unwrap().unwrap();
    assert!(report.bytes >= 2 * MB, "{report:?}");
    assert!(close_enough(&store) <= 4 * MB);
    assert_eq!(here(&store, &["0", "new"]), [true, true], "in use");
    assert_eq!(one.collect_garbage().unwrap(), None);
    // What it uses alone may be more than the budget.
    let (two, _lease) = build(&store, most(1));
    step(&two, "newer", &[], 10);
    two.collect_garbage().unwrap();
    assert_eq!(here(&store, &["0", "new", "newer"]), [true, true, true]);
}

#[test]
fn a_budget_that_is_kept_to_is_not_measured() {
    let (_dir, store) = store();
    let (one, _lease) = build(&store, most(100 * MB));
    step(&one, "a", &[], 10);
    assert_eq!(one.collect_garbage().unwrap(), None);
    // Nobody looks at what is there as long as the numbers in the index are low.
    make_layer(&store, &Digest::of("unseen"), "x");
    fs::write(
        store.root().join("snapshots").join(Digest::of("unseen").hex()).join("fs/big"),
        vec![1; 9 << 20],
    )
    .unwrap();
    let (two, _lease) = build(&store, most(5 * MB));
    step(&two, "b", &[], 10);
    assert_eq!(two.collect_garbage().unwrap(), None);
    let (three, _lease) = build(&store, most(5 * MB));
    for name in ["c", "d", "e"] {
        step(&three, name, &[], 10);
    }
    assert!(three.collect_garbage().unwrap().is_some());
}
