use crate::support::{config, put_manifest, reference};
use rbuild_registry::{Client, ClientConfig, RegistryError};
use rbuild_testkit::{CertAuthority, Options, TestRegistry};
use std::path::Path;
use std::sync::Arc;

fn start(ca: &Arc<CertAuthority>, client_ca: Option<&Arc<CertAuthority>>) -> TestRegistry {
    let registry = TestRegistry::start(Options {
        tls: Some(ca.clone()),
        client_ca: client_ca.cloned(),
        ..Options::default()
    });
    put_manifest(&registry, "app", "1");
    registry
}

async fn resolve(registry: &TestRegistry, certs: &Path) -> Result<(), RegistryError> {
    let config = ClientConfig { certs_dirs: vec!["/nonexistent".into(), certs.into()], ..config() };
    Client::new(config).resolve(&reference(&registry.host(), "app:1")).await.map(|_| ())
}

#[tokio::test]
async fn the_ca_in_certs_d_is_trusted_and_no_other() {
    let (ca, stranger) = (Arc::new(CertAuthority::new()), CertAuthority::new());
    let registry = start(&ca, None);
    let right = tempfile::tempdir().unwrap();
    ca.install(right.path(), &registry.host());
    resolve(&registry, right.path()).await.unwrap();

    let wrong = tempfile::tempdir().unwrap();
    stranger.install(wrong.path(), &registry.host());
    let error = resolve(&registry, wrong.path()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    let remedy = format!("/etc/docker/certs.d/{}/ca.crt", registry.host());
    assert!(error.to_string().contains(&remedy), "{error}");
}

#[tokio::test]
async fn ca_of_another_port_does_not_count_but_loopback_needs_none() {
    let ca = Arc::new(CertAuthority::new());
    let registry = start(&ca, None);
    let certs = tempfile::tempdir().unwrap();
    ca.install(certs.path(), "127.0.0.1:1");
    // As docker does: a loopback registry without a CA may show any certificate.
    resolve(&registry, certs.path()).await.unwrap();
}

#[tokio::test]
async fn a_bundle_from_ssl_cert_file_is_trusted() {
    let ca = Arc::new(CertAuthority::new());
    let registry = start(&ca, None);
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle.pem");
    std::fs::write(&bundle, ca.pem()).unwrap();
    // An empty certs.d directory makes verification strict.
    std::fs::create_dir(directory.path().join(registry.host())).unwrap();
    let config = ClientConfig { certs_dirs: vec![directory.path().into()], ..config() };
    let app = reference(&registry.host(), "app:1");
    Client::new(config.clone()).resolve(&app).await.unwrap_err();
    Client::new(ClientConfig { ca_file: Some(bundle), ..config }).resolve(&app).await.unwrap();
}

#[tokio::test]
async fn client_certificates_are_shown() {
    let (ca, client_ca) = (Arc::new(CertAuthority::new()), Arc::new(CertAuthority::new()));
    let registry = start(&ca, Some(&client_ca));
    let certs = tempfile::tempdir().unwrap();
    ca.install(certs.path(), &registry.host());
    let error = resolve(&registry, certs.path()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. } | RegistryError::Connect { .. }), "{error}");

    let pair = client_ca.sign(&["client"]);
    let directory = certs.path().join(registry.host());
    std::fs::write(directory.join("client.cert"), pair.certificate).unwrap();
    let error = resolve(&registry, certs.path()).await.unwrap_err();
    assert!(error.to_string().contains("missing key client.key"), "{error}");
    std::fs::write(directory.join("client.key"), pair.key).unwrap();
    resolve(&registry, certs.path()).await.unwrap();
}

#[tokio::test]
async fn a_plain_registry_is_reached_even_with_a_certs_d_directory() {
    let registry = TestRegistry::start(Options::default());
    put_manifest(&registry, "app", "1");
    let certs = tempfile::tempdir().unwrap();
    std::fs::create_dir(certs.path().join(registry.host())).unwrap();
    resolve(&registry, certs.path()).await.unwrap();
}

#[tokio::test]
async fn insecure_hosts_need_no_certificate_and_fall_back_to_http() {
    let ca = Arc::new(CertAuthority::new());
    let plain = TestRegistry::start(Options::default());
    put_manifest(&plain, "app", "1");
    for registry in [start(&ca, None), plain] {
        let config = ClientConfig { insecure: [registry.host()].into(), ..config() };
        Client::new(config).resolve(&reference(&registry.host(), "app:1")).await.unwrap();
    }
}
