use crate::support::{TestClock, client, config, file, layer, noise, put_manifest, reference};
use rbuild_oci::Reference;
use rbuild_registry::{Client, ClientConfig, Credential, PushOutcome, RegistryError};
use rbuild_testkit::{Action, Auth, Fault, Options, TestRegistry};
use std::time::Duration;

fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.into(), password: password.into() }
}

fn with(host: &str, credential: Credential) -> ClientConfig {
    ClientConfig { credentials: [(host.to_owned(), credential)].into(), ..config() }
}

fn token_auth() -> Auth {
    Auth::Token {
        username: "me".into(),
        password: "secret".into(),
        identity: Some("refresh-me".into()),
        anonymous_pull: true,
        expires_in: Some(300),
    }
}

fn start(auth: Auth) -> (TestRegistry, Reference) {
    let registry = TestRegistry::start(Options { auth, ..Options::default() });
    put_manifest(&registry, "app", "1");
    let app = reference(&registry.host(), "app:1");
    (registry, app)
}

#[tokio::test]
async fn basic_credentials_are_shown_when_asked_for() {
    let (registry, app) = start(Auth::Basic("me".into(), "secret".into()));
    let good = Client::new(with(&registry.host(), password("me", "secret")));
    good.resolve(&app).await.unwrap();
    good.resolve(&app).await.unwrap();
    assert!(registry.log()[0].authorization.is_none(), "nothing is sent unasked");
    assert_eq!(registry.log().iter().filter(|e| e.status == 401).count(), 1, "the challenge is remembered");

    let wrong = Client::new(with(&registry.host(), password("me", "wrong"))).resolve(&app).await.unwrap_err();
    assert!(matches!(wrong, RegistryError::Unauthorized { .. }), "{wrong}");
    assert!(wrong.to_string().contains("docker login"), "{wrong}");

    let nobody = client().resolve(&app).await.unwrap_err();
    let expected = format!(
        "{app}: pull access denied, repository does not exist or may require authorization: server message: unauthorized: authentication required"
    );
    assert_eq!(nobody.to_string(), expected);
}

#[tokio::test]
async fn anonymous_tokens_pull_but_do_not_push() {
    let (registry, app) = start(token_auth());
    client().resolve(&app).await.unwrap();
    let bytes = noise(10);
    let source = file(&bytes);
    let error = client().push_blob(&app, &layer(&bytes), source.path(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("push access denied"), "{error}");
    assert!(error.to_string().contains("insufficient_scope: authorization failed"), "{error}");
    assert_eq!(registry.count("PUT", "uploads"), 0);
}

#[tokio::test]
async fn tokens_are_fetched_with_password_or_identity_token() {
    for credential in [password("me", "secret"), Credential::Identity("refresh-me".into())] {
        let (registry, app) = start(token_auth());
        registry.put_blob("base", noise(20));
        let client = Client::new(with(&registry.host(), credential));
        let (mounted, sent) = (noise(20), noise(30));
        let (first, second) = (file(&mounted), file(&sent));
        let outcome = client.push_blob(&app, &layer(&mounted), first.path(), &["base".into()]).await.unwrap();
        assert_eq!(outcome, PushOutcome::Mounted { from: "base".into() });
        let outcome = client.push_blob(&app, &layer(&sent), second.path(), &[]).await.unwrap();
        assert_eq!(outcome, PushOutcome::Uploaded);
        // One token for the repository, one that also reads the mount's source.
        assert_eq!(client.stats().token_requests, 2);
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_parallel_requests() {
    let (registry, app) = start(token_auth());
    let client = client();
    let resolves = (0..20).map(|_| client.resolve(&app));
    for resolved in futures_util::future::join_all(resolves).await {
        resolved.unwrap();
    }
    assert_eq!(client.stats().token_requests, 1);
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    let (_registry, app) = start(token_auth());
    let clock = TestClock::new();
    let client = Client::new(ClientConfig { clock: clock.clone(), ..ClientConfig::default() });
    for (advance, tokens) in [(0, 1), (200, 1), (200, 2)] {
        clock.advance(Duration::from_secs(advance));
        client.resolve(&app).await.unwrap();
        assert_eq!(client.stats().token_requests, tokens, "after {advance} s");
    }
}

#[tokio::test]
async fn a_revoked_token_is_replaced_in_the_middle_of_a_push() {
    let (registry, app) = start(token_auth());
    let client = Client::new(with(&registry.host(), password("me", "secret")));
    for i in 0..3 {
        let bytes = noise(100 + i);
        let source = file(&bytes);
        client.push_blob(&app, &layer(&bytes), source.path(), &[]).await.unwrap();
        registry.revoke_tokens();
    }
    assert_eq!(client.stats().token_requests, 3);
}

#[tokio::test]
async fn a_failing_token_service_is_asked_again() {
    let (registry, app) = start(token_auth());
    registry.fault(Fault::new("/token", Action::Status(503, vec![], String::new())).times(2));
    registry.fault(Fault::new("/token", Action::Close));
    client().resolve(&app).await.unwrap();
    assert_eq!(registry.count("GET", "/token"), 4);
}

#[tokio::test]
async fn a_refused_login_says_what_the_service_said() {
    let (registry, app) = start(token_auth());
    let client = Client::new(with(&registry.host(), password("me", "wrong")));
    let error = client.resolve(&app).await.unwrap_err().to_string();
    assert!(error.contains("failed to authorize: failed to fetch oauth token"), "{error}");
    assert!(error.contains("401") && error.contains("incorrect username or password"), "{error}");
    assert!(!error.contains("wrong\""), "{error}");
    assert_eq!(registry.count("GET", "/token"), 1, "a refusal is final");
}

#[tokio::test]
async fn a_registry_token_is_used_as_it_is() {
    let (registry, app) = start(token_auth());
    let client = Client::new(with(&registry.host(), Credential::Bearer("given".into())));
    client.resolve(&app).await.unwrap_err();
    assert_eq!(registry.count("GET", "/token"), 0);
    assert!(registry.log().iter().any(|e| e.authorization.as_deref() == Some("Bearer given")));
}

#[tokio::test]
async fn a_refused_token_is_refused_for_all_who_wait() {
    let (registry, app) = start(token_auth());
    let client = Client::new(with(&registry.host(), password("me", "wrong")));
    let resolves = (0..20).map(|_| client.resolve(&app));
    for resolved in futures_util::future::join_all(resolves).await {
        assert!(matches!(resolved, Err(RegistryError::Unauthorized { .. })), "{resolved:?}");
    }
    assert_eq!(registry.count("GET", "/token"), 1);
}
