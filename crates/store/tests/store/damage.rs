//! A missing, damaged or foreign index.

use crate::{layer, make_layer, record, store, tiny_image};
use rbuild_oci::Digest;
use rbuild_store::{Batch, Store, StoreError};
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// A store with an image, a layer and a record, closed again.
fn filled(root: &Path) -> Digest {
    let store = Store::open(root).unwrap();
    let image = tiny_image(&store, "1");
    store.tag(&"app:1.0".parse().unwrap(), &image).unwrap();
    let id = Digest::of("layer");
    make_layer(&store, &id, "x");
    let mut batch = Batch::new().layer(layer(id));
    for n in 0..200 {
        batch = batch.record(record(Digest::of(format!("key {n}")), vec![id]), "x".repeat(500));
    }
    store.write(&batch).unwrap();
    assert!(store.take_warnings().is_empty());
    id
}

fn remove_index(root: &Path) {
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(root.join(name));
    }
}

fn assert_rebuilt(root: &Path, id: &Digest, case: &str) {
    let store = Store::open(root).unwrap();
    assert_eq!(store.record(&Digest::of("key 0")).unwrap(), None, "{case}");
    assert!(store.layer(id).unwrap().unwrap().has_dir, "{case}");
    assert_eq!(store.images().unwrap().len(), 1, "{case}");
    let warnings = store.take_warnings();
    assert_eq!(warnings.len(), 1, "{case}: {warnings:?}");
    assert!(warnings[0].contains("index.db"), "{case}: {warnings:?}");
    let fresh = record(Digest::of("key 0"), vec![*id]);
    store.put_record(fresh, "{}").unwrap();
    drop(store);
    let again = Store::open(root).unwrap();
    assert!(again.record(&Digest::of("key 0")).unwrap().is_some(), "{case}");
    assert!(again.take_warnings().is_empty(), "{case}");
}

#[test]
fn a_missing_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let id = filled(dir.path());
    remove_index(dir.path());
    assert_rebuilt(dir.path(), &id, "all files");
    // The WAL of a lost database must not be taken for that of the new one.
    fs::remove_file(dir.path().join("index.db")).unwrap();
    assert_rebuilt(dir.path(), &id, "without the WAL");
}

#[test]
fn a_damaged_index_is_moved_aside_and_rebuilt() {
    // SQLite takes a single byte for an empty database: there is nothing worth moving aside.
    let cases: [(&str, &[u8], usize); 4] = [
        ("no database", b"this is no database, it is only some text", 1),
        ("empty", b"", 0),
        ("one byte", b"S", 0),
        ("zeros", &[0; 9000], 1),
    ];
    for (case, bytes, moved) in cases {
        let dir = tempfile::tempdir().unwrap();
        let id = filled(dir.path());
        remove_index(dir.path());
        fs::write(dir.path().join("index.db"), bytes).unwrap();
        assert_rebuilt(dir.path(), &id, case);
        let aside = fs::read_dir(dir.path()).unwrap().flatten();
        let aside =
            aside.filter(|e| e.file_name().to_string_lossy().starts_with("index.db.damaged-")).count();
        assert_eq!(aside, moved, "{case}");
        Store::open(dir.path()).unwrap().prune(&Default::default()).unwrap();
    }
}

#[test]
fn an_index_without_our_tables_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let id = filled(dir.path());
    remove_index(dir.path());
    let foreign = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    foreign.execute_batch("CREATE TABLE other (x); PRAGMA user_version = 1;").unwrap();
    drop(foreign);
    assert_rebuilt(dir.path(), &id, "foreign tables");
}

#[test]
fn pages_damaged_behind_a_good_header_are_found_when_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let id = filled(dir.path());
    let path = dir.path().join("index.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let _: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    drop(db);
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > 3 * 4096, "the index has grown beyond its schema");
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xA5; usize::try_from(length - 4096).unwrap()]).unwrap();
    drop(file);
    assert_rebuilt(dir.path(), &id, "pages");
}

#[test]
fn two_handles_repair_once() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (one, two) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    remove_index(dir.path());
    fs::write(dir.path().join("index.db"), "rubbish, and enough of it to be looked at").unwrap();
    std::thread::scope(|scope| {
        for store in [&one, &two] {
            scope.spawn(|| store.put_record(record(Digest::of("new"), vec![]), "{}").unwrap());
        }
    });
    let warnings = [one.take_warnings(), two.take_warnings()].concat();
    assert_eq!(warnings.iter().filter(|w| w.contains("damaged")).count(), 1, "{warnings:?}");
}

#[test]
fn a_newer_index_is_refused_and_left_alone() {
    let (_dir, store) = store();
    store.put_record(record(Digest::of("key"), vec![]), "{}").unwrap();
    let root = store.root().to_owned();
    drop(store);
    let db = rusqlite::Connection::open(root.join("index.db")).unwrap();
    db.execute_batch("PRAGMA user_version = 2;").unwrap();
    drop(db);
    let store = Store::open(&root).unwrap();
    let error = store.record(&Digest::of("key")).unwrap_err();
    assert!(matches!(&error, StoreError::NewerVersion { found, .. } if found == "2"), "{error}");
    assert!(root.join("index.db").exists());
}
