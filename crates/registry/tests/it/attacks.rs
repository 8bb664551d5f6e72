//! What a hostile registry, or somebody in between, may try (CVE numbers where there are some).

use crate::support::{MANIFEST, client, config, file, layer, noise, pull, put_manifest, reference};
use rbuild_oci::{Descriptor, Digest, media_type};
use rbuild_registry::{Client, ClientConfig, Credential, MAX_MANIFEST, RegistryError};
use rbuild_testkit::{Action, Auth, CertAuthority, Fault, Options, TestRegistry};
use std::sync::Arc;

fn header(name: &str, value: &str) -> Action {
    Action::Header(name.into(), value.into())
}

/// Bytes that are not what the digest says: damaged, of another blob, too many.
#[tokio::test]
async fn a_blob_that_is_not_the_digests_is_refused() {
    let bytes = noise(100_000);
    for (action, matches) in [
        (Action::Corrupt(0), "mismatch"),
        (Action::Corrupt(99_999), "mismatch"),
        (Action::Body(vec![1; 50_000]), "mismatch"),
        (Action::Append(b"x".to_vec()), "large"),
        (Action::AppendUnannounced(b"x".to_vec()), "large"),
        (Action::AppendUnannounced(noise(1_000_000)), "large"),
        (Action::ContentLength(1 << 40), "large"),
        (Action::Body(vec![0; 300_000]), "large"),
    ] {
        let registry = TestRegistry::start(Options::default());
        registry.put_blob("app", bytes.clone());
        registry.fault(Fault::new("/blobs/", action.clone()).times(50));
        let app = reference(&registry.host(), "app");
        let (error, sink) = pull(&client(), &app, &layer(&bytes)).await.unwrap_err();
        let fits = match matches {
            "mismatch" => matches!(error, RegistryError::DigestMismatch { .. }),
            _ => matches!(error, RegistryError::TooLarge { limit: 100_000, .. }),
        };
        assert!(fits, "{matches}: {error}");
        assert!(sink.len() <= bytes.len(), "never more than the descriptor's size is written");
        assert!(error.to_string().contains(&registry.host()), "{error}");
    }
}

/// The second half, fetched after a broken connection, is another blob's.
#[tokio::test]
async fn a_chunk_swapped_after_a_resume_is_noticed() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(100_000);
    registry.put_blob("app", bytes.clone());
    registry.fault(Fault::new("/blobs/", Action::CutAfter(60_000)));
    registry.fault(Fault::new("/blobs/", Action::Corrupt(0)));
    let (error, _) = pull(&client(), &reference(&registry.host(), "app"), &layer(&bytes)).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_not_the_digests_is_refused() {
    let registry = TestRegistry::start(Options::default());
    let digest = put_manifest(&registry, "app", "1");
    let tagged = reference(&registry.host(), "app:1");
    let pinned = tagged.clone().with_digest(digest);
    let other = Digest::of("other").to_string();
    for (reference, action) in [
        (&tagged, Action::Corrupt(5)),
        (&tagged, header("Docker-Content-Digest", &other)),
        (&pinned, Action::Corrupt(5)),
        (&pinned, header("Docker-Content-Digest", &other)),
    ] {
        registry.fault(Fault::new("/manifests/", action.clone()));
        let error = client().resolve(reference).await.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{action:?}: {error}");
    }
    // Even when header and body agree with each other.
    registry.fault(Fault::new("/manifests/", Action::Body(b"{}".to_vec())));
    registry.fault(Fault::new("/manifests/", header("Docker-Content-Digest", "")));
    let descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"x"), 2);
    client().manifest(&tagged, &descriptor).await.unwrap_err();
}

/// CVE-2024-3727: digests that are paths, or of unknown kinds.
#[tokio::test]
async fn strange_digests_are_refused() {
    for digest in ["sha256:../../../etc/passwd", "sha512:00", "md5:0", "latest", "sha256:"] {
        let registry = TestRegistry::start(Options::default());
        put_manifest(&registry, "app", "1");
        registry.fault(Fault::new("/manifests/", header("Docker-Content-Digest", digest)));
        let error = client().resolve(&reference(&registry.host(), "app:1")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Protocol { .. }), "{digest}: {error}");
    }
}

/// CVE-2021-41190: one document, two meanings.
#[tokio::test]
async fn media_type_body_and_header_must_agree() {
    const INDEX: &str =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    const BOTH: &str = r#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#;
    const BARE_INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;
    for (kind, body, good) in [
        (media_type::OCI_INDEX, INDEX, Some(media_type::OCI_INDEX)),
        (media_type::OCI_MANIFEST, INDEX, None),
        (media_type::OCI_INDEX, BOTH, None),
        (media_type::OCI_MANIFEST, BOTH, None),
        (media_type::OCI_MANIFEST, BARE_INDEX, None),
        (media_type::OCI_INDEX, BARE_INDEX, Some(media_type::OCI_INDEX)),
        ("application/json", INDEX, Some(media_type::OCI_INDEX)),
        ("text/plain", BARE_INDEX, Some(media_type::OCI_INDEX)),
        ("application/json", r#"{"mediaType":"text/html","layers":[]}"#, None),
        (media_type::OCI_INDEX, "not JSON", None),
        (media_type::OCI_INDEX, "[]", None),
        (media_type::OCI_INDEX, "", None),
    ] {
        let registry = TestRegistry::start(Options::default());
        registry.put_manifest("app", "1", kind, body);
        let found = client().resolve(&reference(&registry.host(), "app:1")).await;
        let found = found.map(|resolved| resolved.descriptor.media_type);
        assert_eq!(found.as_deref().ok(), good, "{kind} {body}: {found:?}");
    }
}

#[tokio::test]
async fn an_announced_type_must_be_the_real_one() {
    let registry = TestRegistry::start(Options::default());
    let digest = put_manifest(&registry, "app", "1");
    let app = reference(&registry.host(), "app:1");
    let lie = Descriptor::new(media_type::OCI_INDEX, digest, MANIFEST.len() as u64);
    client().manifest(&app, &lie).await.unwrap_err();
    let lie = Descriptor::new(media_type::OCI_MANIFEST, digest, MANIFEST.len() as u64 + 1);
    client().manifest(&app, &lie).await.unwrap_err();
    let lie = Descriptor::new(media_type::OCI_MANIFEST, digest, MANIFEST.len() as u64 - 1);
    let error = client().manifest(&app, &lie).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn schema_1_is_refused_with_advice() {
    let registry = TestRegistry::start(Options::default());
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.put_manifest("app", "1", kind, r#"{"schemaVersion":1}"#);
    let error = client().resolve(&reference(&registry.host(), "app:1")).await.unwrap_err();
    assert!(error.to_string().contains("schema 1") && error.to_string().contains("push the image again"));
}

#[tokio::test]
async fn large_documents_are_not_read() {
    let registry = TestRegistry::start(Options::default());
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, vec![b' '; MAX_MANIFEST + 1]);
    let app = reference(&registry.host(), "app:1");
    for action in [None, Some(Action::AppendUnannounced(b" ".to_vec()))] {
        if let Some(action) = action {
            registry.fault(Fault::new("/manifests/", action));
        }
        let error = client().resolve(&app).await.unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    }
    let huge = Descriptor::new(media_type::OCI_CONFIG, Digest::of("x"), u64::MAX);
    assert!(matches!(client().blob_bytes(&app, &huge).await, Err(RegistryError::TooLarge { .. })));
    assert!(matches!(client().manifest(&app, &huge).await, Err(RegistryError::TooLarge { .. })));
}

fn secret(host: &str) -> ClientConfig {
    let credential = Credential::Password { username: "me".into(), password: "secret".into() };
    ClientConfig { credentials: [(host.to_owned(), credential)].into(), ..config() }
}

/// CVE-2020-15157: whoever we are sent to sees no credentials, even if it asks.
#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let registry = TestRegistry::start(Options {
        auth: Auth::Basic("me".into(), "secret".into()),
        ..Options::default()
    });
    let bytes = noise(1000);
    registry.put_blob("app", bytes.clone());
    let storage = TestRegistry::start(Options::default());
    storage.put_blob("app", bytes.clone());
    let app = reference(&registry.host(), "app");
    let location = format!("{}/v2/app/blobs/{}?signature=1", storage.origin(), Digest::of(&bytes));
    registry.fault(Fault::new("/blobs/", Action::Redirect(location)).times(10));
    let client = Client::new(secret(&registry.host()));
    assert_eq!(pull(&client, &app, &layer(&bytes)).await.unwrap(), bytes);
    assert_eq!(storage.log().len(), 1);
    assert!(registry.log().iter().any(|e| e.authorization.is_some() && e.status == 307));

    // It asks for credentials.
    for challenge in ["Basic realm=\"x\"".to_owned(), format!("Bearer realm=\"{}/token\"", storage.origin())]
    {
        let headers = vec![("WWW-Authenticate".to_owned(), challenge)];
        storage.fault(Fault::new("/blobs/", Action::Status(401, headers, String::new())));
        let (error, _) = pull(&client, &app, &layer(&bytes)).await.unwrap_err();
        assert!(matches!(error, RegistryError::Status { .. }), "{error}");
        assert!(!error.to_string().contains("signature"), "{error}");
    }
    assert!(storage.log().iter().all(|e| e.authorization.is_none()), "{:?}", storage.log());
    assert_eq!(storage.count("GET", "/token"), 0);
}

#[tokio::test]
async fn redirects_do_not_leave_https_or_http_and_end() {
    let ca = Arc::new(CertAuthority::new());
    let registry = TestRegistry::start(Options { tls: Some(ca.clone()), ..Options::default() });
    let certs = tempfile::tempdir().unwrap();
    ca.install(certs.path(), &registry.host());
    let bytes = noise(10);
    registry.put_blob("app", bytes.clone());
    let plain = TestRegistry::start(Options::default());
    plain.put_blob("app", bytes.clone());
    let config = || ClientConfig { certs_dirs: vec![certs.path().into()], ..config() };
    let app = reference(&registry.host(), "app");
    for (location, why) in [
        (format!("{}/v2/app/blobs/{}", plain.origin(), Digest::of(&bytes)), "give up TLS"),
        ("file:///etc/passwd".to_owned(), "no host"),
        ("ftp://127.0.0.1/x".to_owned(), "neither https nor http"),
        ("https://".to_owned(), "not a URL"),
        (format!("/v2/app/blobs/{}", Digest::of(&bytes)), "more than 10 redirects"),
    ] {
        registry.fault(Fault::new("/blobs/", Action::Redirect(location.clone())).times(11));
        let (error, _) = pull(&Client::new(config()), &app, &layer(&bytes)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{location}: {error}");
        // Use up what is left of the fault.
        for _ in 0..11 {
            let _ = Client::new(config()).has_blob(&app, &layer(&bytes)).await;
        }
    }
    assert!(plain.log().is_empty());
}

/// A token realm gets the password, so it must be worth it.
#[tokio::test]
async fn credentials_go_to_no_unsafe_realm() {
    let thief = TestRegistry::start(Options::default());
    let ca = Arc::new(CertAuthority::new());
    let certs = tempfile::tempdir().unwrap();
    let with_tls = TestRegistry::start(Options { tls: Some(ca.clone()), ..Options::default() });
    ca.install(certs.path(), &with_tls.host());
    let plain = TestRegistry::start(Options::default());
    for (registry, realm) in [
        (&with_tls, format!("{}/token", thief.origin())),
        (&with_tls, "/token".to_owned()),
        (&with_tls, "file:///etc/passwd".to_owned()),
        (&with_tls, String::new()),
        (&plain, format!("{}/token", thief.origin().replace("127.0.0.1", "127.0.0.2"))),
        (&plain, "http://localhost.example/token".to_owned()),
    ] {
        registry.fault(Fault::new("/manifests/", Action::ForeignRealm(realm.clone())));
        let config = ClientConfig { certs_dirs: vec![certs.path().into()], ..secret(&registry.host()) };
        let error = Client::new(config).resolve(&reference(&registry.host(), "app:1")).await.unwrap_err();
        assert!(error.to_string().contains("refusing to authenticate"), "{realm}: {error}");
    }
    assert!(thief.log().is_empty(), "{:?}", thief.log());
}

/// An upload must not be led away with credentials either.
#[tokio::test]
async fn an_upload_location_elsewhere_gets_no_credentials() {
    let registry = TestRegistry::start(Options {
        auth: Auth::Basic("me".into(), "secret".into()),
        ..Options::default()
    });
    let elsewhere = TestRegistry::start(Options::default());
    let bytes = noise(100);
    let source = file(&bytes);
    let location = format!("{}/v2/app/blobs/uploads/1?_state=a%3Db", elsewhere.origin());
    registry.fault(Fault::new("/uploads/", header("Location", &location)).method("POST").times(9));
    let client = Client::new(secret(&registry.host()));
    let app = reference(&registry.host(), "app:1");
    client.push_blob(&app, &layer(&bytes), source.path(), &[]).await.unwrap_err();
    assert!(elsewhere.count("PUT", "/uploads/1?_state=a%3Db&digest=sha256%3A") > 0, "{:?}", elsewhere.log());
    assert!(elsewhere.log().iter().all(|e| e.authorization.is_none()));
}

/// A registry behind a TLS proxy that says http is kept on https; another host in the clear is not followed.
#[tokio::test]
async fn an_upload_location_never_gives_up_tls() {
    let ca = Arc::new(CertAuthority::new());
    let registry = TestRegistry::start(Options { tls: Some(ca.clone()), ..Options::default() });
    let certs = tempfile::tempdir().unwrap();
    ca.install(certs.path(), &registry.host());
    let plain = TestRegistry::start(Options::default());
    let bytes = noise(100);
    let source = file(&bytes);
    let app = reference(&registry.host(), "app:1");
    let client = Client::new(ClientConfig { certs_dirs: vec![certs.path().into()], ..config() });

    let same = header("Location", "http://127.0.0.1/v2/app/blobs/uploads/1?_state=a%3Db");
    registry.fault(Fault::new("/uploads/", same).method("POST"));
    client.push_blob(&app, &layer(&bytes), source.path(), &[]).await.unwrap();

    let other = noise(101);
    let source = file(&other);
    let location = plain.origin().replace("127.0.0.1", "localhost");
    let foreign = header("Location", &format!("{location}/v2/app/blobs/uploads/1?_state=a%3Db"));
    registry.fault(Fault::new("/uploads/", foreign).method("POST"));
    let error = client.push_blob(&app, &layer(&other), source.path(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("give up TLS"), "{error}");
    assert!(plain.log().is_empty());
}

#[tokio::test]
async fn server_text_does_not_reach_the_terminal_raw() {
    let registry = TestRegistry::start(Options::default());
    let body = format!("\x1b]0;owned\x07{}", "x".repeat(1 << 20));
    registry.fault(Fault::new("/manifests/", Action::Status(400, vec![], body)));
    let error = client().resolve(&reference(&registry.host(), "app:1")).await.unwrap_err().to_string();
    assert!(!error.contains('\x1b') && error.len() < 1000, "{error}");
}
