use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn config_with(content: &str) -> (tempfile::TempDir, ClientConfig) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, content).unwrap();
    let config = ClientConfig {
        credential_files: vec![directory.path().join("missing.json"), file],
        ..ClientConfig::default()
    };
    (directory, config)
}

fn password(username: &str, password: &str) -> Option<Credential> {
    Some(Credential::Password { username: username.into(), password: password.into() })
}

#[tokio::test]
async fn entries_are_found_by_every_spelling_of_the_host() {
    // YTpi is a:b, YzpkOmU= is c:d:e.
    for (content, image, expected) in [
        (r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}}}"#, "debian", password("a", "b")),
        (r#"{"auths":{"docker.io":{"auth":"YTpi"}}}"#, "me/app", password("a", "b")),
        (r#"{"auths":{"r.example:5000":{"auth":"YzpkOmU="}}}"#, "r.example:5000/x", password("c", "d:e")),
        (r#"{"auths":{"https://r.example/v2/":{"auth":"YTpi"}}}"#, "r.example/x", password("a", "b")),
        (r#"{"auths":{"r.example/v1/":{"auth":"YTpi"}}}"#, "r.example/x", password("a", "b")),
        (
            r#"{"auths":{"http://r.example":{"username":"u","password":"p"}}}"#,
            "r.example/x",
            password("u", "p"),
        ),
        (r#"{"auths":{"r.example":{"auth":"YTpi"}}}"#, "r.example:5000/x", None),
        (r#"{"auths":{"r.example:5000":{"auth":"YTpi"}}}"#, "r.example/x", None),
        (r#"{"auths":{"example":{"auth":"YTpi"}}}"#, "r.example/x", None),
        (r#"{"auths":{"r.example":{}}}"#, "r.example/x", None),
        (r#"{"auths":{"r.example/team":{"auth":"YTpi"}}}"#, "r.example/team/app", password("a", "b")),
        (r#"{"auths":{"r.example/team":{"auth":"YTpi"}}}"#, "r.example/other/app", None),
        (
            r#"{"auths":{"r.example/team":{"auth":"YTpi"},"r.example":{"auth":"YzpkOmU="}}}"#,
            "r.example/teams/app",
            password("c", "d:e"),
        ),
        (
            r#"{"auths":{"r.example":{"auth":"YTpi","identitytoken":"t"}}}"#,
            "r.example/x",
            Some(Credential::Identity("t".into())),
        ),
        (
            r#"{"auths":{"r.example":{"registrytoken":"t"}}}"#,
            "r.example/x",
            Some(Credential::Bearer("t".into())),
        ),
        (r#"{"HttpHeaders":{"X":"y"},"psFormat":"z"}"#, "r.example/x", None),
        ("{}", "debian", None),
    ] {
        let (_directory, config) = config_with(content);
        assert_eq!(find(&config, &image.parse().unwrap()).await.unwrap(), expected, "{content} {image}");
    }
}

#[tokio::test]
async fn bad_files_are_named_and_never_quoted() {
    for content in [
        "not json secret",
        r#"{"auths":{"r.example":{"auth":"!secret!"}}}"#,
        r#"{"auths":{"r.example":{"auth":"c2VjcmV0"}}}"#,
        r#"{"auths":{"r.example":{"auth":{"secret":1}}}}"#,
        r#"{"auths":"secret"}"#,
        "",
    ] {
        let (_directory, config) = config_with(content);
        let error = find(&config, &"r.example/x".parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn debug_shows_no_secret() {
    for credential in [
        Credential::Password { username: "me".into(), password: "hidden".into() },
        Credential::Identity("hidden".into()),
        Credential::Bearer("hidden".into()),
    ] {
        assert!(!format!("{credential:?}").contains("hidden"));
    }
}

/// A helper program that answers by server.
fn install_helper(directory: &Path, suffix: &str, script: &str) {
    let program = directory.join(format!("docker-credential-{suffix}"));
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

const HELPER: &str = r#"
[ "$1" = get ] || exit 9
read -r server
case "$server" in
  https://index.docker.io/v1/) echo '{"ServerURL":"x","Username":"hub","Secret":"s"}' ;;
  r.example:5000) echo '{"ServerURL":"x","Username":"<token>","Secret":"refresh"}' ;;
  broken.example) echo 'no keychain here'; exit 1 ;;
  garbage.example) echo 'secret garbage' ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac"#;

#[tokio::test]
async fn helpers_are_asked_in_their_order() {
    let content = r#"{
        "credHelpers":{"r.example:5000":"one"},
        "credsStore":"two",
        "auths":{"file.example":{"auth":"YTpi"}}}"#;
    let (directory, mut config) = config_with(content);
    config.helper_path = Some(format!("{}:/usr/bin:/bin", directory.path().display()).into());
    install_helper(directory.path(), "one", HELPER);
    install_helper(directory.path(), "two", HELPER);
    for (image, expected) in [
        ("debian", password("hub", "s")),
        ("r.example:5000/x", Some(Credential::Identity("refresh".into()))),
        ("file.example/x", password("a", "b")),
        ("unknown.example/x", None),
    ] {
        assert_eq!(find(&config, &image.parse().unwrap()).await.unwrap(), expected, "{image}");
    }
    for (image, text) in [("broken.example/x", "no keychain here"), ("garbage.example/x", "no JSON answer")] {
        let error = find(&config, &image.parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("docker-credential-two") && error.contains(text), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn helpers_are_programs_of_the_path_only() {
    for suffix in ["../../tmp/x", "a b", "x;y"] {
        let (_directory, config) = config_with(&format!(r#"{{"credsStore":"{suffix}"}}"#));
        let error = find(&config, &"r.example/x".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("no program name"), "{error}");
    }
    let (directory, mut config) = config_with(r#"{"credsStore":"missing"}"#);
    config.helper_path = Some(directory.path().into());
    let error = find(&config, &"r.example/x".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("docker-credential-missing"), "{error}");
}

#[tokio::test]
async fn a_silent_helper_is_given_up_on() {
    let (directory, mut config) = config_with(r#"{"credsStore":"slow"}"#);
    install_helper(directory.path(), "slow", "exec sleep 1000");
    config.helper_path = Some(format!("{}:/usr/bin:/bin", directory.path().display()).into());
    config.timeouts.helper = std::time::Duration::from_millis(50);
    let error = find(&config, &"r.example/x".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}
