use crate::support::{
    TestClock, client, config, file, impatient, layer, noise, pull, put_manifest, reference,
};
use rbuild_oci::Digest;
use rbuild_registry::{Blocking, Client, ClientConfig, PushOutcome, RegistryError};
use rbuild_testkit::{Action, Fault, Options, TestRegistry};
use std::time::Duration;

fn status(status: u16) -> Action {
    Action::Status(status, vec![], String::new())
}

fn retry_after(status: u16, value: &str) -> Action {
    Action::Status(status, vec![("Retry-After".into(), value.into())], String::new())
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    for (action, times, requests, succeeds) in [
        (status(500), 4, 5, true),
        (status(500), 5, 5, false),
        (status(502), 1, 2, true),
        (status(429), 1, 2, true),
        (Action::Close, 2, 3, true),
        (Action::CutAfter(10), 1, 2, true),
        (status(400), 1, 1, false),
        (status(403), 1, 1, false),
        (status(404), 1, 1, false),
        (status(418), 1, 1, false),
    ] {
        let registry = TestRegistry::start(Options::default());
        put_manifest(&registry, "app", "1");
        registry.fault(Fault::new("/manifests/", action.clone()).times(times));
        let client = client();
        let result = client.resolve(&reference(&registry.host(), "app:1")).await;
        assert_eq!(result.is_ok(), succeeds, "{action:?} × {times}: {result:?}");
        assert_eq!(registry.count("GET", "/manifests/"), requests, "{action:?} × {times}");
        assert_eq!(client.stats().retries, requests as u64 - 1);
    }
}

#[tokio::test]
async fn the_registrys_own_words_are_repeated() {
    let registry = TestRegistry::start(Options::default());
    let body =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let headers = vec![("Retry-After".to_owned(), "7200".to_owned())];
    registry.fault(Fault::new("/manifests/", Action::Status(429, headers, body.into())));
    let error = client().resolve(&reference(&registry.host(), "app:1")).await.unwrap_err().to_string();
    assert!(error.contains("429"), "{error}");
    assert!(error.contains("toomanyrequests: You have reached your pull rate limit."), "{error}");
    assert!(error.contains("retry after 7200 s"), "{error}");
    assert_eq!(registry.count("GET", "/manifests/"), 1, "hours are not waited for");
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let registry = TestRegistry::start(Options::default());
    put_manifest(&registry, "app", "1");
    registry.fault(Fault::new("/manifests/", retry_after(429, "17")));
    registry.fault(Fault::new("/manifests/", retry_after(503, "Thu, 01 Jan 1970 00:00:40 GMT")));
    let clock = TestClock::new();
    let client = Client::new(ClientConfig { clock: clock.clone(), ..ClientConfig::default() });
    client.resolve(&reference(&registry.host(), "app:1")).await.unwrap();
    assert_eq!(clock.waits(), [Duration::from_secs(17), Duration::from_secs(23)]);
}

#[tokio::test]
async fn waits_grow_between_tries() {
    let registry = TestRegistry::start(Options::default());
    registry.fault(Fault::new("/manifests/", status(500)).times(9));
    let clock = TestClock::new();
    let client = Client::new(ClientConfig { clock: clock.clone(), ..ClientConfig::default() });
    let error = client.resolve(&reference(&registry.host(), "app:1")).await.unwrap_err();
    assert!(error.to_string().contains("(tried 5 times)"), "{error}");
    for (wait, bound) in clock.waits().iter().zip([1, 2, 4, 8]) {
        let bound = Duration::from_secs(bound);
        assert!(*wait >= bound / 2 && *wait <= bound, "{wait:?} of {bound:?}");
    }
    assert_eq!(clock.waits().len(), 4);
}

#[tokio::test]
async fn the_retry_budget_ends_everything() {
    let registry = TestRegistry::start(Options::default());
    registry.fault(Fault::new("/manifests/", status(500)).times(100));
    let mut config = config();
    config.retry.budget = 6;
    let client = Client::new(config);
    for _ in 0..5 {
        client.resolve(&reference(&registry.host(), "app:1")).await.unwrap_err();
    }
    assert_eq!(registry.count("GET", "/manifests/"), 5 + 6);
}

#[tokio::test]
async fn a_download_that_breaks_is_resumed_where_it_broke() {
    for cut in [0, 1, 4096, 99_999] {
        let registry = TestRegistry::start(Options::default());
        let bytes = noise(100_000);
        registry.put_blob("app", bytes.clone());
        registry.fault(Fault::new("/blobs/", Action::CutAfter(cut)));
        let app = reference(&registry.host(), "app");
        assert_eq!(pull(&client(), &app, &layer(&bytes)).await.unwrap(), bytes, "cut after {cut}");
        let log: Vec<_> = registry.log().into_iter().filter(|e| e.target.contains("/blobs/")).collect();
        assert_eq!(log.len(), 2);
        // What arrived before the break depends on buffering; what is asked for must fit what is answered.
        let asked = log[1].range.as_deref().map_or(0, |r| r[6..r.len() - 1].parse::<u64>().unwrap());
        assert!(asked <= cut as u64);
        assert_eq!(asked + log[1].sent, bytes.len() as u64);
    }
}

#[tokio::test]
async fn a_download_resumes_many_times_as_long_as_it_moves() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(400_000);
    registry.put_blob("app", bytes.clone());
    registry.fault(Fault::new("/blobs/", Action::CutAfter(40_000)).times(9));
    let app = reference(&registry.host(), "app");
    assert_eq!(pull(&client(), &app, &layer(&bytes)).await.unwrap(), bytes);
    assert!(registry.count("GET", "/blobs/") > 5, "more tries than one request without progress has");
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_read_from_the_start() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(100_000);
    registry.put_blob("app", bytes.clone());
    registry.fault(Fault::new("/blobs/", Action::CutAfter(50_000)));
    registry.fault(Fault::new("/blobs/", Action::IgnoreRange));
    let app = reference(&registry.host(), "app");
    assert_eq!(pull(&client(), &app, &layer(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_wrong_range_is_refused() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(100_000);
    registry.put_blob("app", bytes.clone());
    registry.fault(Fault::new("/blobs/", Action::CutAfter(50_000)));
    let wrong = Action::Header("Content-Range".into(), "bytes 0-99999/100000".into());
    registry.fault(Fault::new("/blobs/", wrong));
    let (error, _) = pull(&client(), &reference(&registry.host(), "app"), &layer(&bytes)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_blob_that_stays_short_is_truncated() {
    for action in [Action::Short(10), Action::CutAfter(10), Action::ContentLength(10)] {
        let registry = TestRegistry::start(Options::default());
        let bytes = noise(1000);
        registry.put_blob("app", bytes.clone());
        registry.fault(Fault::new("/blobs/", action.clone()).times(1));
        registry.fault(Fault::new("/blobs/", Action::Status(416, vec![], String::new())).times(50));
        let app = reference(&registry.host(), "app");
        let (error, _) = pull(&client(), &app, &layer(&bytes)).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Truncated { expected: 1000, found: 10, .. }),
            "{action:?}: {error}"
        );
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_sent_again_as_a_whole() {
    for (method, path, action) in [
        ("PUT", "/uploads/", status(500)),
        ("PUT", "/uploads/", Action::Close),
        ("PUT", "/uploads/", Action::HangUp),
        ("PUT", "/uploads/", status(404)),
        ("POST", "/uploads/", status(503)),
        ("POST", "/uploads/", Action::Close),
        ("HEAD", "/blobs/", status(500)),
    ] {
        let registry = TestRegistry::start(Options::default());
        let bytes = noise(600_000);
        let source = file(&bytes);
        registry.fault(Fault::new(path, action.clone()).method(method));
        let app = reference(&registry.host(), "app:1");
        let outcome = client().push_blob(&app, &layer(&bytes), source.path(), &[]).await;
        assert_eq!(outcome.unwrap(), PushOutcome::Uploaded, "{method} {action:?}");
        assert_eq!(registry.blob("app", &Digest::of(&bytes)).as_ref(), Some(&bytes));
        let put = registry.log().into_iter().rfind(|e| e.method == "PUT").unwrap();
        assert_eq!(put.content_length, Some(bytes.len() as u64), "storage services want the length");
    }
}

#[tokio::test]
async fn a_source_that_changed_is_refused_by_somebody() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(1000);
    let app = reference(&registry.host(), "app:1");
    let shorter = file(&bytes[..500]);
    let error = client().push_blob(&app, &layer(&bytes), shorter.path(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("500 bytes long, expected 1000"), "{error}");
    let mut other = bytes.clone();
    other[7] ^= 1;
    let other = file(&other);
    let error = client().push_blob(&app, &layer(&bytes), other.path(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("digest invalid"), "{error}");
    let missing = std::path::Path::new("/nonexistent/blob");
    let error = client().push_blob(&app, &layer(&bytes), missing, &[]).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/blob"), "{error}");
}

#[tokio::test]
async fn silence_is_given_up_on() {
    let registry = TestRegistry::start(Options::default());
    put_manifest(&registry, "app", "1");
    registry.fault(Fault::new("/manifests/", Action::Delay(Duration::from_secs(1))).times(2));
    let mut config = ClientConfig { timeouts: impatient(), ..config() };
    config.retry.attempts = 2;
    let error = Client::new(config).resolve(&reference(&registry.host(), "app:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { attempts: 2, .. }), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_said_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = client();
    let error = client.resolve(&reference(&format!("127.0.0.1:{port}"), "app:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(client.stats().retries, 0);
}

#[tokio::test]
async fn a_full_disk_is_named_and_not_retried() {
    let registry = TestRegistry::start(Options::default());
    let bytes = noise(100_000);
    registry.put_blob("app", bytes.clone());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let app = reference(&registry.host(), "app");
    let error = client().pull_blob(&app, &layer(&bytes), &mut Blocking(full), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert_eq!(registry.count("GET", "/blobs/"), 1);
}
