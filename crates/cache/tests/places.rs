//! Backends, import and export against a registry in memory and a directory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use rbuild_cache::{
    Backend, CacheError, Contents, Exporter, Form, Found, Importer, LocalBackend, Published, RegistryBackend,
    RemoteLayer, RemoteRecord,
};
use rbuild_event::{Event, Reporter};
use rbuild_oci::{Descriptor, Digest, Platform, media_type};
use rbuild_registry::{Client, ClientConfig};
use rbuild_testkit::{Action, Fault, Options, TestRegistry};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(bytes), bytes.len() as u64)
}

fn contents(blobs: &[&[u8]]) -> Contents {
    let layers = blobs.iter().map(|bytes| RemoteLayer {
        diff_id: Digest::of([b"tar", *bytes].concat()),
        blob: Some(blob(bytes)),
        content: None,
        created: Some((1, 0)),
        epoch: None,
    });
    let records = (0..blobs.len()).map(|place| RemoteRecord {
        key: Digest::of(place.to_string()),
        operation: Digest::of("op"),
        content_key: None,
        reads_parent: true,
        needs: Vec::new(),
        name: String::new(),
        chain: (0..=place).collect(),
        created: 1,
        cost_ms: 0,
        config: None,
        preimage: None,
    });
    Contents { layers: layers.collect(), records: records.collect() }
}

fn registry(server: &TestRegistry, name: &str) -> Arc<dyn Backend> {
    let reference = format!("{}/{name}", server.host()).parse().unwrap();
    Arc::new(RegistryBackend::new(Client::new(ClientConfig::default()), &reference))
}

async fn export(backend: &Arc<dyn Backend>, dir: &Path, blobs: &[&[u8]]) -> Published {
    let exporter = Exporter::new(Arc::clone(backend), Form::Manifest);
    for bytes in blobs {
        if !exporter.find(&blob(bytes), &[], false).await.unwrap() {
            let file = dir.join("blob");
            std::fs::write(&file, bytes).unwrap();
            exporter.send(&blob(bytes), &file).await.unwrap();
        }
        assert!(exporter.is_placed(&Digest::of(bytes)));
    }
    exporter.publish(&contents(blobs)).await.unwrap()
}

fn importer(backends: Vec<Arc<dyn Backend>>) -> (Importer, Arc<Mutex<Vec<String>>>) {
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&warnings);
    let reporter = Reporter::new(move |event| {
        if let Event::Warning { text } = event {
            told.lock().unwrap().push(text);
        }
    });
    (Importer::new(backends, vec![Platform::linux("amd64")], reporter), warnings)
}

#[tokio::test]
async fn every_place_gives_back_what_it_was_given() {
    let server = TestRegistry::start(Options::default());
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let local = || Arc::new(LocalBackend::new(dir.path(), "t", None, false)) as Arc<dyn Backend>;
    for backend in [registry(&server, "a/b:c"), local()] {
        assert!(backend.manifest().await.unwrap().is_none());
        assert_eq!(export(&backend, scratch.path(), &[b"one", b"two"]).await, Published::Written);
        assert_eq!(export(&backend, scratch.path(), &[b"one", b"two"]).await, Published::Unchanged);
        assert_eq!(export(&backend, scratch.path(), &[b"one", b"two", b"three"]).await, Published::Written);
        let (importer, warnings) = importer(vec![Arc::clone(&backend)]);
        assert!(importer.records(&Digest::of("0")).next().is_none(), "nothing is read before");
        importer.load().await;
        importer.load().await;
        assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
        let found = importer.records(&Digest::of("2")).next().unwrap();
        assert_eq!((found.layers.len(), found.cache), (3, backend.name()));
        assert_eq!(importer.records_of_operation(&Digest::of("op")).count(), 3);
        let sources = importer.sources(&Digest::of("two"));
        assert_eq!(sources.len(), 1);
        let mut bytes = Vec::new();
        let mut told = 0;
        sources[0].fetch(&blob(b"two"), &mut bytes, &mut |count| told = count).await.unwrap();
        assert_eq!((&bytes[..], told), (&b"two"[..], 3));
        assert!(
            sources[0]
                .fetch(&blob(b"nobody's"), &mut Vec::new(), &mut |_| {})
                .await
                .unwrap_err()
                .is_not_found()
        );
        assert_eq!(backend.find(&blob(b"two"), &[]).await.unwrap(), Found::Present);
        assert_eq!(backend.find(&blob(b"nobody's"), &[]).await.unwrap(), Found::Missing);
    }
}

#[tokio::test]
async fn a_blob_in_another_repository_is_mounted() {
    let server = TestRegistry::start(Options::default());
    server.put_blob("other/repo", b"layer".to_vec());
    let backend = registry(&server, "a/b:c");
    let exporter = Exporter::new(Arc::clone(&backend), Form::Manifest);
    assert!(exporter.find(&blob(b"layer"), &["other/repo".into()], false).await.unwrap());
    assert!(server.blob("a/b", &Digest::of("layer")).is_some());
}

#[tokio::test]
async fn c_025_failures_are_told_once_and_the_other_caches_work() {
    let server = TestRegistry::start(Options::default());
    let scratch = tempfile::tempdir().unwrap();
    let good = registry(&server, "good:1");
    export(&good, scratch.path(), &[b"one"]).await;
    let dead: Arc<dyn Backend> = Arc::new(RegistryBackend::new(
        Client::new(ClientConfig::default()),
        &"127.0.0.1:1/dead:1".parse().unwrap(),
    ));
    let missing = registry(&server, "missing:1");
    let (importer, warnings) = importer(vec![dead, missing, good]);
    importer.load().await;
    assert!(importer.records(&Digest::of("0")).next().is_some());
    assert_eq!(warnings.lock().unwrap().len(), 2);
    let failures = importer.failures();
    let unreachable: Vec<bool> = failures.iter().map(|failure| failure.unreachable).collect();
    assert_eq!(unreachable, [true, false], "{failures:?}");
    assert!(failures[0].cache.contains("127.0.0.1:1/dead"), "{failures:?}");
}

#[tokio::test]
async fn only_what_is_new_is_asked_about() {
    let server = TestRegistry::start(Options::default());
    let scratch = tempfile::tempdir().unwrap();
    let backend = registry(&server, "a/b:c");
    export(&backend, scratch.path(), &[b"one", b"two"]).await;
    server.clear_log();
    export(&registry(&server, "a/b:c"), scratch.path(), &[b"one", b"two"]).await;
    let asked: Vec<String> =
        server.log().iter().map(|entry| format!("{} {}", entry.method, entry.target)).collect();
    assert_eq!(asked, ["GET /v2/", "GET /v2/a/b/manifests/c"]);
    server.clear_log();
    export(&registry(&server, "a/b:c"), scratch.path(), &[b"one", b"two", b"three"]).await;
    assert_eq!(server.count("HEAD", "/blobs/"), 2, "the new layer and the config");
    assert_eq!(server.count("POST", "/blobs/uploads"), 2);
}

#[tokio::test]
async fn a_damaged_manifest_is_replaced() {
    let server = TestRegistry::start(Options::default());
    let scratch = tempfile::tempdir().unwrap();
    server.put_blob("a/b", b"{}".to_vec());
    let damaged = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":7},"layers":[{"digest":"sha256:x"}, 3]}"#;
    server.put_manifest("a/b", "c", media_type::OCI_MANIFEST, damaged);
    let backend = registry(&server, "a/b:c");
    assert_eq!(export(&backend, scratch.path(), &[b"one"]).await, Published::Written);
}

#[tokio::test]
async fn a_refused_manifest_is_an_error() {
    let server = TestRegistry::start(Options::default());
    server
        .fault(Fault::new("/manifests/", Action::Status(400, vec![], String::new())).method("PUT").times(9));
    let exporter = Exporter::new(registry(&server, "a/b:c"), Form::Manifest);
    assert!(exporter.publish(&Contents::default()).await.is_err());
}

#[tokio::test]
async fn c_034_a_damaged_file_of_a_directory_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(dir.path(), "t", None, false));
    export(&backend, scratch.path(), &[b"one"]).await;
    let path = dir.path().join("blobs/sha256").join(Digest::of("one").hex());
    for damage in [&b"two"[..], b"on", b"one and more"] {
        std::fs::write(&path, damage).unwrap();
        let fetched = backend.fetch(&blob(b"one"), &mut Vec::new(), &mut |_| {}).await;
        assert!(matches!(fetched, Err(CacheError::WrongBlob { .. })), "{fetched:?}");
    }
    std::fs::write(dir.path().join("index.json"), "{").unwrap();
    let (importer, warnings) = importer(vec![backend]);
    importer.load().await;
    assert_eq!(warnings.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn c_028_reset_removes_what_no_name_needs() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let place =
        |tag: &str, reset| Arc::new(LocalBackend::new(dir.path(), tag, None, reset)) as Arc<dyn Backend>;
    let has = |bytes: &[u8]| dir.path().join("blobs/sha256").join(Digest::of(bytes).hex()).exists();
    export(&place("a", false), scratch.path(), &[b"one", b"two"]).await;
    export(&place("b", false), scratch.path(), &[b"two", b"three"]).await;
    export(&place("a", false), scratch.path(), &[b"four"]).await;
    assert!(has(b"one"), "without reset nothing goes");
    export(&place("a", true), scratch.path(), &[b"five"]).await;
    assert!(!has(b"one") && !has(b"four"), "nobody needs these");
    assert!(has(b"two") && has(b"three") && has(b"five"));
    let (importer, warnings) = importer(vec![place("a", false), place("b", false)]);
    importer.load().await;
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
    let digest = place("b", false).manifest().await.unwrap().unwrap().0.digest;
    let pinned = LocalBackend::new(dir.path(), "nobody's", Some(digest), false);
    assert_eq!(pinned.manifest().await.unwrap().unwrap().0.digest, digest);
}

#[tokio::test]
async fn writers_of_one_directory_do_not_lose_each_others_names() {
    let dir = tempfile::tempdir().unwrap();
    let writers = (0..8).map(|number| {
        let dir = dir.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let scratch = tempfile::tempdir().unwrap();
            let backend: Arc<dyn Backend> =
                Arc::new(LocalBackend::new(&dir, &number.to_string(), None, false));
            runtime.block_on(export(&backend, scratch.path(), &[b"shared"]))
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for number in 0..8 {
        let backend = LocalBackend::new(dir.path(), &number.to_string(), None, false);
        assert!(backend.manifest().await.unwrap().is_some(), "{number}");
    }
    let left = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(left.count(), 0);
}
