use crate::support::{MANIFEST, config, put_manifest, reference};
use rbuild_oci::media_type;
use rbuild_registry::{Client, ClientConfig, Proxies};
use rbuild_testkit::{Action, Fault, Options, TestRegistry};

#[tokio::test]
async fn proxies_are_used_except_for_loopback() {
    let proxy = TestRegistry::start(Options::default());
    let headers = vec![("Content-Type".to_owned(), media_type::OCI_MANIFEST.to_owned())];
    let text = String::from_utf8(MANIFEST.to_vec()).unwrap();
    proxy.fault(Fault::new("http://plain.example/v2/app/manifests/1", Action::Status(200, headers, text)));
    let config = ClientConfig {
        plain_http: ["plain.example".to_owned()].into(),
        proxies: Proxies { http: Some(proxy.origin().to_owned()), ..Proxies::default() },
        ..config()
    };
    let client = Client::new(config);
    let resolved = client.resolve(&reference("plain.example", "app:1")).await.unwrap();
    assert_eq!(resolved.bytes, MANIFEST);
    assert_eq!(proxy.log().len(), 1);

    let local = TestRegistry::start(Options::default());
    put_manifest(&local, "app", "1");
    client.resolve(&reference(&local.host(), "app:1")).await.unwrap();
    assert_eq!(proxy.log().len(), 1);
}

#[tokio::test]
async fn an_https_proxy_is_asked_to_connect() {
    let proxy = TestRegistry::start(Options::default());
    let mut config = ClientConfig {
        proxies: Proxies { https: Some(proxy.origin().to_owned()), ..Proxies::default() },
        ..config()
    };
    config.retry.connect_attempts = 1;
    let error = Client::new(config).resolve(&reference("r.example", "app:1")).await.unwrap_err();
    assert!(error.to_string().contains("r.example"), "{error}");
    assert_eq!(proxy.count("CONNECT", "r.example:443"), 1);
}

#[tokio::test]
async fn a_proxy_that_is_no_url_is_named_as_configuration() {
    let config = ClientConfig {
        proxies: Proxies { https: Some("http://[".into()), ..Proxies::default() },
        ..config()
    };
    let error = Client::new(config).resolve(&reference("r.example", "app:1")).await.unwrap_err();
    assert!(error.to_string().starts_with("registry configuration:"), "{error}");
}
