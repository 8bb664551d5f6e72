use crate::support::{MANIFEST, client, file, layer, noise, pull, put_manifest, reference};
use rbuild_oci::{Descriptor, Digest, Index, media_type};
use rbuild_registry::{Client, ClientConfig, PushOutcome, Stats};
use rbuild_testkit::{Options, TestRegistry};
use std::sync::Mutex;

#[tokio::test]
async fn push_then_pull_and_push_again_uploads_nothing() {
    let registry = TestRegistry::start(Options::default());
    let app = reference(&registry.host(), "team/app:1.0");
    let bytes = noise(700_000);
    let (source, descriptor) = (file(&bytes), layer(&bytes));

    let first = client();
    let outcome = first.push_blob(&app, &descriptor, source.path(), &[]).await.unwrap();
    assert_eq!(outcome, PushOutcome::Uploaded);
    let digest = first.push_manifest(&app, media_type::OCI_MANIFEST, MANIFEST).await.unwrap();
    assert_eq!(digest, Digest::of(MANIFEST));
    let stats = first.stats();
    assert_eq!((stats.blobs_uploaded, stats.manifests_pushed), (1, 1));
    assert_eq!(stats.bytes_sent, bytes.len() as u64 + MANIFEST.len() as u64);

    let second = client();
    let resolved = second.resolve(&app).await.unwrap();
    assert_eq!(resolved.bytes, MANIFEST);
    assert_eq!(second.resolve_descriptor(&app).await.unwrap(), resolved.descriptor);
    assert_eq!(second.manifest(&app, &resolved.descriptor).await.unwrap(), MANIFEST);
    let seen = Mutex::new(Vec::new());
    let mut sink = rbuild_registry::Blocking(Vec::new());
    second.pull_blob(&app, &descriptor, &mut sink, |n| seen.lock().unwrap().push(n)).await.unwrap();
    assert_eq!(sink.0, bytes);
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&(bytes.len() as u64)), "{seen:?}");

    registry.clear_log();
    let third = client();
    let outcome = third.push_blob(&app, &descriptor, source.path(), &[]).await.unwrap();
    assert_eq!(outcome, PushOutcome::Existed);
    assert_eq!(third.stats().bytes_sent, 0);
    assert_eq!((registry.count("POST", ""), registry.count("PUT", "")), (0, 0));
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_it_is() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(1000);
    registry.put_blob("library/debian", bytes.clone());
    let app = reference(&registry.host(), "app:1");
    let source = file(&bytes);
    let from = ["app".to_owned(), "library/debian".to_owned()];
    let client = client();
    let outcome = client.push_blob(&app, &layer(&bytes), source.path(), &from).await.unwrap();
    assert_eq!(outcome, PushOutcome::Mounted { from: "library/debian".into() });
    assert_eq!(client.stats().bytes_sent, 0);
    assert_eq!(registry.blob("app", &Digest::of(&bytes)), Some(bytes));
}

#[tokio::test]
async fn a_mount_that_is_not_possible_becomes_the_upload() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(1000);
    let app = reference(&registry.host(), "app:1");
    let source = file(&bytes);
    let client = client();
    let outcome = client.push_blob(&app, &layer(&bytes), source.path(), &["other".into()]).await.unwrap();
    assert_eq!(outcome, PushOutcome::Uploaded);
    // The session that the mount opened is the one that is used.
    assert_eq!((registry.count("POST", "/uploads/"), registry.count("PUT", "/uploads/")), (1, 1));
}

#[tokio::test]
async fn a_manifest_without_tag_is_pushed_by_digest() {
    let registry = TestRegistry::start(Options::default());
    let repository = reference(&registry.host(), "app");
    let digest = client().push_manifest(&repository, media_type::OCI_MANIFEST, MANIFEST).await.unwrap();
    assert_eq!(registry.count("PUT", &digest.to_string()), 1);
    let pinned = repository.with_digest(digest);
    assert_eq!(client().resolve(&pinned).await.unwrap().bytes, MANIFEST);
}

#[tokio::test]
async fn a_digest_pin_makes_the_tag_irrelevant() {
    let registry = TestRegistry::start(Options::default());
    let digest = put_manifest(&registry, "app", "1");
    let pinned = reference(&registry.host(), "app:moved").with_digest(digest);
    assert_eq!(client().resolve(&pinned).await.unwrap().descriptor.digest, digest);
    assert_eq!(registry.count("GET", "moved"), 0);
}

#[tokio::test]
async fn an_empty_blob_and_a_small_one() {
    let registry = TestRegistry::start(Options::default());
    let app = reference(&registry.host(), "app");
    for bytes in [&b""[..], b"{}"] {
        registry.put_blob("app", bytes);
        assert_eq!(pull(&client(), &app, &layer(bytes)).await.unwrap(), bytes);
        assert_eq!(client().blob_bytes(&app, &layer(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn tags_are_listed_over_all_pages() {
    let registry = TestRegistry::start(Options::default());
    for tag in ["1", "2", "3", "4", "latest"] {
        put_manifest(&registry, "app", tag);
    }
    let tags = client().tags(&reference(&registry.host(), "app")).await.unwrap();
    assert_eq!(tags, ["1", "2", "3", "4", "latest"]);
    assert_eq!(registry.count("GET", "/tags/list"), 3);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let registry = TestRegistry::start(Options::default());
    put_manifest(&registry, "app", "1");
    let missing = reference(&registry.host(), "app:2");
    let error = client().resolve(&missing).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(error.to_string(), format!("{missing}: not found: manifest unknown"));
    let (error, _) = pull(&client(), &missing, &layer(b"nothing")).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(!client().has_blob(&missing, &layer(b"nothing")).await.unwrap());
}

#[tokio::test]
async fn a_client_that_is_not_used_does_nothing() {
    // None of these exist or parse; only a request would notice.
    let client = Client::new(ClientConfig {
        credential_files: vec!["/proc/self/mem".into()],
        ca_file: Some("/nonexistent".into()),
        certs_dirs: vec!["/dev/null".into()],
        ..ClientConfig::default()
    });
    assert_eq!(client.stats(), Stats::default());
}

#[tokio::test]
async fn connections_to_one_registry_are_limited() {
    let registry = TestRegistry::start(Options::default());
    let app = reference(&registry.host(), "app");
    let blobs: Vec<_> = (0..40).map(|i| noise(1000 + i)).collect();
    for blob in &blobs {
        registry.put_blob("app", blob.clone());
    }
    let client = Client::new(ClientConfig { connections: 2, ..crate::support::config() });
    let pulls = blobs.iter().map(|blob| {
        let (client, app) = (client.clone(), app.clone());
        async move { pull(&client, &app, &layer(blob)).await.map(|found| found == *blob) }
    });
    for found in futures_util::future::join_all(pulls).await {
        assert!(found.unwrap());
    }
    assert_eq!(client.stats().blobs_pulled, 40);
}

/// Everything can be spawned on a runtime with several threads.
#[test]
fn operations_are_send() {
    fn assert_send<T: Send>(_: T) {}
    let (client, app, descriptor) = (client(), reference("localhost", "app"), layer(b""));
    let mut sink = rbuild_registry::Blocking(Vec::new());
    assert_send(client.resolve(&app));
    assert_send(client.resolve_descriptor(&app));
    assert_send(client.manifest(&app, &descriptor));
    assert_send(client.pull_blob(&app, &descriptor, &mut sink, |_| {}));
    assert_send(client.blob_bytes(&app, &descriptor));
    assert_send(client.has_blob(&app, &descriptor));
    assert_send(client.push_blob(&app, &descriptor, std::path::Path::new(""), &[]));
    assert_send(client.push_manifest(&app, "", b""));
    assert_send(client.tags(&app));
}

/// An index of `entries` (platform, digest, media type).
fn index(entries: &[(&str, Digest, &str, u64)]) -> Vec<u8> {
    let manifests = entries
        .iter()
        .map(|(platform, digest, kind, size)| {
            let mut descriptor = Descriptor::new(*kind, *digest, *size);
            descriptor.platform = (!platform.is_empty()).then(|| platform.parse().unwrap());
            descriptor
        })
        .collect();
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        manifests,
        annotations: Default::default(),
    };
    serde_json::to_vec(&index).unwrap()
}

#[tokio::test]
async fn the_platforms_manifest_is_chosen_also_in_nested_indexes() {
    let registry = TestRegistry::start(Options::default());
    let manifest = put_manifest(&registry, "app", "manifest");
    let size = MANIFEST.len() as u64;
    let inner = index(&[
        ("linux/arm64", Digest::of("not there"), media_type::OCI_MANIFEST, 1),
        ("linux/amd64", manifest, media_type::OCI_MANIFEST, size),
    ]);
    let inner_digest = registry.put_manifest("app", "inner", media_type::OCI_INDEX, inner.clone());
    let outer = index(&[("", inner_digest, media_type::OCI_INDEX, inner.len() as u64)]);
    registry.put_manifest("app", "outer", media_type::OCI_INDEX, outer.clone());
    let host = registry.host();
    for (tag, root) in [("manifest", MANIFEST), ("inner", &inner), ("outer", &outer)] {
        let image = client()
            .resolve_image(&reference(&host, &format!("app:{tag}")), &"linux/amd64/v3".parse().unwrap())
            .await
            .unwrap();
        assert_eq!((image.root.bytes.as_slice(), image.manifest.bytes.as_slice()), (root, MANIFEST));
        assert_eq!(image.manifest.descriptor.digest, manifest);
    }
    let error = client()
        .resolve_image(&reference(&host, "app:inner"), &"linux/s390x".parse().unwrap())
        .await
        .unwrap_err();
    let expected = format!(
        "{host}/app:inner: no match for platform in manifest: linux/s390x (available: linux/arm64, linux/amd64)"
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn indexes_within_indexes_end() {
    let registry = TestRegistry::start(Options::default());
    let mut bytes = index(&[]);
    for depth in 0..10 {
        let digest = registry.put_manifest("app", &format!("d{depth}"), media_type::OCI_INDEX, bytes.clone());
        bytes = index(&[("linux/amd64", digest, media_type::OCI_INDEX, bytes.len() as u64)]);
    }
    let deep = reference(&registry.host(), "app:d9");
    let error = client().resolve_image(&deep, &"linux/amd64".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("more than 4 indexes"), "{error}");
}
