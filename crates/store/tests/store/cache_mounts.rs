//! Directories of RUN --mount=type=cache.

use crate::store;
use rbuild_oci::Digest;
use rbuild_store::CacheMountSharing::{Locked, Private, Shared};
use rbuild_store::{CacheMount, CacheMountSharing, PruneOptions, Store, UsageKind};
use std::fs;

/// Takes hold of a directory and makes it if need be; `None` while others are in the way.
fn take(store: &Store, id: &Digest, sharing: CacheMountSharing) -> Option<CacheMount> {
    let mount = store.try_cache_mount(id, sharing, false).unwrap()?;
    if mount.is_new().unwrap() {
        assert!(mount.is_exclusive());
        mount.fill(&store.new_layer_dir().unwrap()).unwrap();
    }
    if sharing == Shared && mount.is_exclusive() { mount.share().unwrap() } else { Some(mount) }
}

#[test]
fn c_035_who_may_hold_a_directory_together() {
    let (_dir, store) = store();
    let other = Store::open(store.root()).unwrap();
    for (first, second, together) in [
        (Shared, Shared, Some(true)),
        (Shared, Locked, None),
        (Locked, Shared, None),
        (Locked, Locked, None),
        (Private, Private, Some(false)),
        (Shared, Private, Some(false)),
    ] {
        let id = Digest::of(format!("{first:?} {second:?}"));
        let one = take(&store, &id, first).unwrap();
        let two = take(&other, &id, second);
        assert_eq!(two.as_ref().map(|two| two.path() == one.path()), together, "{first:?} {second:?}");
        drop((one, two));
        // Once they are free again, everybody gets the same one.
        assert!(take(&other, &id, second).unwrap().path().ends_with(format!("{}-0", id.hex())));
    }
}

#[test]
fn content_outlives_its_users_and_can_be_thrown_away() {
    let (_dir, store) = store();
    let id = Digest::of("cache");
    let mount = take(&store, &id, Shared).unwrap();
    fs::write(mount.path().join("file"), "kept").unwrap();
    assert!(store.try_cache_mount(&id, Shared, true).unwrap().is_none(), "alone means alone");
    drop(mount);
    let mount = take(&store, &id, Locked).unwrap();
    assert_eq!(fs::read_to_string(mount.path().join("file")).unwrap(), "kept");
    mount.clear().unwrap();
    assert!(mount.is_new().unwrap());
    drop(mount);
    assert_eq!(fs::read_dir(take(&store, &id, Shared).unwrap().path()).unwrap().count(), 0);
}

#[test]
fn prune_takes_what_nobody_uses() {
    let (_dir, store) = store();
    let (used, unused) = (Digest::of("used"), Digest::of("unused"));
    let held = take(&store, &used, Shared).unwrap();
    fs::write(take(&store, &unused, Private).unwrap().path().join("file"), "x").unwrap();
    let count = || {
        let usage = store.usage().unwrap();
        usage.rows.iter().filter(|row| row.kind == UsageKind::CacheMount).count()
    };
    assert_eq!(count(), 2);
    let since = PruneOptions { unused_since: Some(1), ..PruneOptions::default() };
    assert!(store.prune(&since).unwrap().removed.is_empty(), "used since then");
    let dry = PruneOptions { dry_run: true, ..PruneOptions::default() };
    for options in [dry, PruneOptions::default()] {
        let removed = store.prune(&options).unwrap().removed;
        let found: Vec<_> = removed.iter().filter(|gone| gone.kind == UsageKind::CacheMount).collect();
        assert_eq!((found.len(), &found[0].id), (1, &unused.to_string()));
    }
    assert_eq!(count(), 1);
    assert!(held.path().exists());
    drop(held);
    assert!(take(&store, &unused, Shared).is_some());
}
