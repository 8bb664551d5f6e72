//! Against the real thing: Debian's docker-registry with TLS and basic auth.

use crate::support::{config, file, layer, noise, pull, reference};
use rbuild_oci::{Descriptor, Digest, Manifest, media_type};
use rbuild_registry::{Client, ClientConfig, PushOutcome, RegistryError};
use rbuild_testkit::{CertAuthority, DebianOptions, DebianRegistry, docker_config};
use std::process::Command;
use std::sync::Arc;

const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;

struct Setup {
    registry: DebianRegistry,
    home: tempfile::TempDir,
}

fn setup(test: &str) -> Option<Setup> {
    let ca = Arc::new(CertAuthority::new());
    let options = DebianOptions { tls: Some(ca.clone()), basic: Some(("me".into(), "secret word".into())) };
    let registry = DebianRegistry::start(test, &options)?;
    let home = tempfile::tempdir().unwrap();
    ca.install(&home.path().join("certs.d"), &registry.host());
    let json = docker_config(&registry.host(), "me", "secret word");
    std::fs::write(home.path().join("config.json"), json).unwrap();
    Some(Setup { registry, home })
}

impl Setup {
    fn client(&self) -> Client {
        Client::new(ClientConfig {
            certs_dirs: vec![self.home.path().join("certs.d")],
            credential_files: vec![self.home.path().join("config.json")],
            ..config()
        })
    }
}

/// Pushes an image of one layer; gives its manifest.
async fn push(client: &Client, host: &str, rest: &str, bytes: &[u8]) -> (Manifest, Digest, PushOutcome) {
    let app = reference(host, rest);
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::of(CONFIG), CONFIG.len() as u64);
    let (layer_file, config_file) = (file(bytes), file(CONFIG));
    let outcome =
        client.push_blob(&app, &layer(bytes), layer_file.path(), &["team/base".into()]).await.unwrap();
    client.push_blob(&app, &config, config_file.path(), &[]).await.unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.into()),
        artifact_type: None,
        config,
        layers: vec![layer(bytes)],
        annotations: Default::default(),
    };
    let json = serde_json::to_vec(&manifest).unwrap();
    let digest = client.push_manifest(&app, media_type::OCI_MANIFEST, &json).await.unwrap();
    (manifest, digest, outcome)
}

#[tokio::test]
async fn push_and_pull_with_tls_and_password() {
    let Some(setup) = setup("push_and_pull_with_tls_and_password") else { return };
    let host = setup.registry.host();
    let bytes = noise(3_000_000);
    let first = setup.client();
    let (manifest, digest, outcome) = push(&first, &host, "team/base:1.0", &bytes).await;
    assert_eq!(outcome, PushOutcome::Uploaded);

    let second = setup.client();
    let app = reference(&host, "team/base:1.0");
    let resolved = second.resolve(&app).await.unwrap();
    assert_eq!(resolved.descriptor.digest, digest);
    assert_eq!(second.resolve_descriptor(&app).await.unwrap(), resolved.descriptor);
    assert_eq!(serde_json::from_slice::<Manifest>(&resolved.bytes).unwrap(), manifest);
    assert_eq!(pull(&second, &app, &manifest.layers[0]).await.unwrap(), bytes);
    assert_eq!(second.blob_bytes(&app, &manifest.config).await.unwrap(), CONFIG);
    assert_eq!(second.tags(&app).await.unwrap(), ["1.0"]);

    let again = setup.client();
    let (_, same, outcome) = push(&again, &host, "team/base:1.0", &bytes).await;
    assert_eq!((same, outcome), (digest, PushOutcome::Existed));
    assert_eq!((again.stats().blobs_uploaded, again.stats().blobs_existed), (0, 2));

    let (_, _, outcome) = push(&setup.client(), &host, "team/app:1.0", &bytes).await;
    assert_eq!(outcome, PushOutcome::Mounted { from: "team/base".into() });

    let missing = second.resolve(&reference(&host, "team/base:2.0")).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let nobody = ClientConfig { credential_files: vec![], ..config() };
    let nobody = ClientConfig { certs_dirs: vec![setup.home.path().join("certs.d")], ..nobody };
    let error = Client::new(nobody).resolve(&app).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    skopeo_reads_it(&setup, &host);
}

/// Another tool pulls what was pushed.
fn skopeo_reads_it(setup: &Setup, host: &str) {
    let output = Command::new("skopeo")
        .args(["copy", "--authfile"])
        .arg(setup.home.path().join("config.json"))
        .arg("--src-cert-dir")
        .arg(setup.home.path().join("certs.d").join(host))
        .arg(format!("docker://{host}/team/app:1.0"))
        .arg(format!("dir:{}", setup.home.path().join("copy").display()))
        .output();
    match output {
        Err(error) => println!("skipped: skopeo_reads_it: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[tokio::test]
async fn a_plain_docker_registry_is_spoken_to_in_http() {
    let test = "a_plain_docker_registry_is_spoken_to_in_http";
    let Some(registry) = DebianRegistry::start(test, &DebianOptions::default()) else { return };
    let bytes = noise(10_000);
    let client = Client::new(config());
    push(&client, &registry.host(), "app:1", &bytes).await;
    let app = reference(&registry.host(), "app:1");
    assert_eq!(pull(&client, &app, &layer(&bytes)).await.unwrap(), bytes);
}
