//! Blobs, layer directories, key locks.

use crate::{make_layer, store};
use rbuild_oci::Digest;
use rbuild_store::{Store, StoreError};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

fn entries(store: &Store, dir: &str) -> usize {
    fs::read_dir(store.root().join(dir)).unwrap().count()
}

/// Files in this process's ingest directory.
fn ingested(store: &Store) -> usize {
    let sessions = fs::read_dir(store.root().join("ingest")).unwrap();
    sessions.map(|session| fs::read_dir(session.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn a_new_store_is_an_oci_layout() {
    let (_dir, store) = store();
    let read = |name| fs::read_to_string(store.root().join(name)).unwrap();
    assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(
        read("index.json"),
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
    );
    let mode = fs::metadata(store.root().join("snapshots")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "other users must not reach setuid programs of layers");
    Store::open(store.root()).unwrap();
}

#[test]
fn blobs_come_back_as_they_were_written() {
    let (_dir, store) = store();
    for size in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
        let bytes: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
        let mut writer = store.ingest().unwrap();
        for chunk in bytes.chunks(7_001) {
            writer.write_all(chunk).unwrap();
        }
        let (digest, length) = writer.commit(Some((Digest::of(&bytes), bytes.len() as u64))).unwrap();
        assert_eq!((digest, length), (Digest::of(&bytes), u64::from(size)));
        assert_eq!(store.read_blob(&digest, length).unwrap(), bytes);
        assert_eq!(store.put_blob(&bytes).unwrap(), (digest, length));
        let mut again = store.ingest_unhashed().unwrap();
        again.write_all(&bytes).unwrap();
        assert_eq!(again.commit(None).unwrap(), (digest, length));
        store.verify_blob(&digest).unwrap();
    }
    assert_eq!(ingested(&store), 0);
}

#[test]
fn wrong_bytes_are_refused_and_nothing_is_left() {
    let (_dir, store) = store();
    let write = |bytes: &[u8]| {
        let mut writer = store.ingest().unwrap();
        writer.write_all(bytes).unwrap();
        writer
    };
    let wanted = Digest::of("abc");
    let error = write(b"abd").commit(Some((wanted, 3))).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { expected, .. } if expected == wanted));
    let error = write(b"ab").commit(Some((wanted, 3))).unwrap_err();
    assert!(matches!(error, StoreError::SizeMismatch { expected: 3, actual: 2, .. }));
    let error = write(b"ab").commit_as(wanted, 3).unwrap_err();
    assert!(matches!(error, StoreError::SizeMismatch { .. }));
    drop(write(b"abc"));
    assert!(!store.has_blob(&wanted).unwrap());
    assert_eq!((entries(&store, "blobs/sha256"), ingested(&store)), (0, 0));
}

#[test]
fn a_damaged_or_missing_or_long_blob_is_an_error() {
    let (_dir, store) = store();
    let (digest, _) = store.put_blob(b"hello").unwrap();
    assert!(matches!(store.read_blob(&digest, 4), Err(StoreError::TooLarge { size: 5, max: 4, .. })));
    assert!(matches!(store.read_blob(&Digest::of("x"), 4), Err(StoreError::NoBlob(_))));
    fs::write(store.blob_path(&digest), b"hellO").unwrap();
    assert!(matches!(store.read_blob(&digest, 9), Err(StoreError::DigestMismatch { .. })));
    assert!(matches!(store.verify_blob(&digest), Err(StoreError::DigestMismatch { .. })));
}

#[test]
fn a_truncated_blob_is_healed_by_putting_it_again() {
    let (_dir, store) = store();
    let (digest, _) = store.put_blob(b"hello").unwrap();
    fs::write(store.blob_path(&digest), b"").unwrap();
    store.put_blob(b"hello").unwrap();
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
}

#[test]
fn a_full_disk_has_its_own_error() {
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
        let error = StoreError::io("write", "/x", kind.into());
        assert!(matches!(&error, StoreError::NoSpace { .. }));
        assert!(error.to_string().contains("rbuild prune"), "{error}");
    }
}

#[test]
fn a_layer_directory_is_kept_whole_and_once() {
    let (_dir, store) = store();
    let id = Digest::of("layer");
    assert_eq!(store.layer_dir(&id).unwrap(), None);
    let ingest = store.new_layer_dir().unwrap();
    for dir in [&ingest.upper, &ingest.work] {
        assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o7777, 0o755);
    }
    fs::write(ingest.upper.join("file"), "first").unwrap();
    fs::create_dir(ingest.work.join("work")).unwrap();
    let dir = store.commit_layer_dir(ingest, &id).unwrap();
    assert_eq!(dir, store.root().join("snapshots").join(id.hex()).join("fs"));
    assert_eq!(store.layer_dir(&id).unwrap(), Some(dir.clone()));
    make_layer(&store, &id, "second");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "first");
    assert!(!dir.with_file_name("work").exists(), "no work directory stays");
    drop(store.new_layer_dir().unwrap());
    assert_eq!(ingested(&store), 0);
}

#[test]
fn an_empty_upper_directory_is_a_layer() {
    let (_dir, store) = store();
    let id = Digest::of("empty");
    for _ in 0..2 {
        let ingest = store.new_layer_dir().unwrap();
        let dir = store.commit_layer_dir(ingest, &id).unwrap();
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }
}

#[test]
fn closing_leaves_no_session() {
    let (dir, store) = store();
    store.put_blob(b"x").unwrap();
    assert_eq!(entries(&store, "ingest"), 1);
    drop(store);
    assert_eq!(fs::read_dir(dir.path().join("root/ingest")).unwrap().count(), 0);
}

#[test]
fn what_dead_processes_left_is_cleared_and_what_live_ones_write_is_not() {
    let (_dir, store) = store();
    let ingest = store.new_layer_dir().unwrap();
    let dead = store.root().join("ingest/1-00000000-0000000000000000");
    fs::create_dir_all(dead.join("l0/fs/sub")).unwrap();
    fs::set_permissions(dead.join("l0/fs/sub"), fs::Permissions::from_mode(0o000)).unwrap();
    let other = Store::open(store.root()).unwrap();
    assert!(!dead.exists());
    assert!(ingest.upper.exists());
    other.prune(&Default::default()).unwrap();
    assert!(ingest.upper.exists());
    assert_eq!(entries(&store, "trash"), 0);
}

#[test]
fn a_key_lock_is_exclusive_between_handles_and_leaves_no_file() {
    let (_dir, store) = store();
    let other = Store::open(store.root()).unwrap();
    let key = Digest::of("key");
    let lock = store.try_lock_key(&key).unwrap().unwrap();
    assert!(store.try_lock_key(&key).unwrap().is_none());
    assert!(other.try_lock_key(&key).unwrap().is_none());
    assert!(other.try_lock_key(&Digest::of("other")).unwrap().is_some());
    assert!(matches!(other.lock_key_blocking(&key, &|| true), Err(StoreError::Cancelled)));
    drop(lock);
    drop(other.lock_key_blocking(&key, &|| false).unwrap());
    assert!(!store.root().join("locks").join(key.hex()).exists());
}

#[test]
fn a_key_lock_excludes_under_contention() {
    let (_dir, store) = store();
    let key = Digest::of("key");
    let counter = std::sync::atomic::AtomicU32::new(0);
    let inside = std::sync::atomic::AtomicBool::new(false);
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _lock = store.lock_key_blocking(&key, &|| false).unwrap();
                    assert!(!inside.swap(true, SeqCst), "two holders at once");
                    counter.fetch_add(1, SeqCst);
                    inside.store(false, SeqCst);
                }
            });
        }
    });
    assert_eq!(counter.load(SeqCst), 400);
}

#[test]
fn a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NewerVersion { .. })));
    fs::write(dir.path().join("oci-layout"), "{").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_note_stays_with_its_layer() {
    let (_dir, store) = store();
    let (with, without) = (Digest::of("with"), Digest::of("without"));
    for (id, note) in [(with, &b"a\0b\0"[..]), (without, b"")] {
        let ingest = store.new_layer_dir().unwrap();
        if !note.is_empty() {
            ingest.set_note(note).unwrap();
        }
        let dir = store.commit_layer_dir(ingest, &id).unwrap();
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "it is beside the files, not among them");
        assert_eq!(store.layer_note(&id).unwrap(), note);
    }
    assert_eq!(store.layer_note(&Digest::of("nothing")).unwrap(), b"");
}
