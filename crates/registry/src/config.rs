//! What the client has to be told: nothing here reads the environment by itself.

use crate::credentials::Credential;
use crate::retry::{Clock, RetryPolicy, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Settings of a [`Client`](crate::Client). [`ClientConfig::default`] knows no credentials, certificates or proxies;
/// [`ClientConfig::from_values`] derives the usual ones from environment-like values.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `config.json` (docker) and `auth.json` (containers) files, the first match wins. Missing files are fine.
    pub credential_files: Vec<PathBuf>,
    /// Credentials given directly, by registry host; they come before all files.
    pub credentials: BTreeMap<String, Credential>,
    /// `PATH` for `docker-credential-*`; `None` uses that of this process.
    pub helper_path: Option<OsString>,
    /// Directories that hold `<host[:port]>/{*.crt,*.cert,*.key}`.
    pub certs_dirs: Vec<PathBuf>,
    /// `SSL_CERT_FILE`: a PEM bundle that replaces the system's.
    pub ca_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`, split: directories of PEM files that replace the system's.
    pub ca_dirs: Vec<PathBuf>,
    /// Proxies; loopback registries are never proxied.
    pub proxies: Proxies,
    /// Hosts whose certificates are not verified, with fallback to plain HTTP (`registry.insecure=true`).
    pub insecure: BTreeSet<String>,
    /// Hosts that are spoken to in plain HTTP only.
    pub plain_http: BTreeSet<String>,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Time; tests replace it.
    pub clock: Arc<dyn Clock>,
    /// Limits on waiting.
    pub timeouts: Timeouts,
    /// Connections to one registry at a time.
    pub connections: usize,
    /// `User-Agent`.
    pub user_agent: String,
}

/// Proxy URLs as in the environment (F-009).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `NO_PROXY`.
    pub no_proxy: Option<String>,
}

/// How long a silent peer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS set-up.
    pub connect: Duration,
    /// Between two pieces of a body, and for the head of an answer to a request without a body.
    pub idle: Duration,
    /// From the last byte of an upload to its answer: registries may copy the blob first.
    pub commit: Duration,
    /// For a credential helper.
    pub helper: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            commit: Duration::from_secs(300),
            helper: Duration::from_secs(60),
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            credential_files: Vec::new(),
            credentials: BTreeMap::new(),
            helper_path: None,
            certs_dirs: Vec::new(),
            ca_file: None,
            ca_dirs: Vec::new(),
            proxies: Proxies::default(),
            insecure: BTreeSet::new(),
            plain_http: BTreeSet::new(),
            retry: RetryPolicy::default(),
            clock: Arc::new(SystemClock),
            timeouts: Timeouts::default(),
            connections: 6,
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

impl ClientConfig {
    /// The usual files, directories and proxies, from the values of environment variables that `lookup` gives.
    ///
    /// Looks at `HOME`, `PATH`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`, `XDG_CONFIG_HOME`,
    /// `SSL_CERT_FILE`, `SSL_CERT_DIR` and the proxy variables in either case.
    pub fn from_values(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name: &str| lookup(name).filter(|v| !v.is_empty());
        let path = |name: &str| value(name).map(PathBuf::from);
        let text = |name: &str| {
            value(name).or_else(|| value(&name.to_lowercase())).and_then(|v| v.into_string().ok())
        };
        let home = path("HOME");
        let below_home = |rest: &str| home.as_deref().map(|home: &Path| home.join(rest));
        let config_home = path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let docker = path("DOCKER_CONFIG").or_else(|| below_home(".docker"));
        let credential_files = [
            path("REGISTRY_AUTH_FILE"),
            docker.map(|dir| dir.join("config.json")),
            path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            config_home.as_ref().map(|dir| dir.join("containers/auth.json")),
        ];
        let certs_dirs = [
            config_home.as_ref().map(|dir| dir.join("docker/certs.d")),
            config_home.as_ref().map(|dir| dir.join("containers/certs.d")),
            Some("/etc/docker/certs.d".into()),
            Some("/etc/containers/certs.d".into()),
        ];
        Self {
            credential_files: credential_files.into_iter().flatten().collect(),
            helper_path: value("PATH"),
            certs_dirs: certs_dirs.into_iter().flatten().collect(),
            ca_file: path("SSL_CERT_FILE"),
            ca_dirs: value("SSL_CERT_DIR").map(|v| std::env::split_paths(&v).collect()).unwrap_or_default(),
            proxies: Proxies {
                http: text("HTTP_PROXY"),
                https: text("HTTPS_PROXY"),
                no_proxy: text("NO_PROXY"),
            },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(values: &[(&str, &str)]) -> ClientConfig {
        ClientConfig::from_values(|name| {
            values.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn files_follow_the_usual_variables() {
        for (values, files) in [
            (&[][..], &[][..]),
            (
                &[("HOME", "/home/me")],
                &["/home/me/.docker/config.json", "/home/me/.config/containers/auth.json"],
            ),
            (
                &[
                    ("HOME", "/h"),
                    ("DOCKER_CONFIG", "/d"),
                    ("REGISTRY_AUTH_FILE", "/a"),
                    ("XDG_RUNTIME_DIR", "/r"),
                ],
                &["/a", "/d/config.json", "/r/containers/auth.json", "/h/.config/containers/auth.json"],
            ),
            (
                &[("HOME", "/h"), ("DOCKER_CONFIG", "")],
                &["/h/.docker/config.json", "/h/.config/containers/auth.json"],
            ),
        ] {
            let found: Vec<_> =
                from(values).credential_files.iter().map(|p| p.display().to_string()).collect();
            assert_eq!(found, files);
        }
        assert_eq!(from(&[]).certs_dirs.len(), 2);
        assert_eq!(from(&[("HOME", "/h")]).certs_dirs.len(), 4);
    }

    #[test]
    fn proxies_and_certificates_are_taken_over() {
        let config = from(&[
            ("https_proxy", "http://p:1"),
            ("HTTP_PROXY", "http://P:2"),
            ("http_proxy", "http://p:2"),
            ("NO_PROXY", "a,b"),
            ("SSL_CERT_FILE", "/f.pem"),
            ("SSL_CERT_DIR", "/c:/d"),
        ]);
        assert_eq!(config.proxies.https.as_deref(), Some("http://p:1"));
        assert_eq!(config.proxies.http.as_deref(), Some("http://P:2"));
        assert_eq!(config.proxies.no_proxy.as_deref(), Some("a,b"));
        assert_eq!(config.ca_file, Some("/f.pem".into()));
        assert_eq!(config.ca_dirs, [PathBuf::from("/c"), PathBuf::from("/d")]);
    }
}
