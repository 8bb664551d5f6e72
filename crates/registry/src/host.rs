//! How one registry is reached: scheme, connections, what it wants to see.

use crate::auth::Scheme;
use crate::certs;
use crate::client::Inner;
use crate::config::ClientConfig;
use crate::credentials::Credential;
use crate::error::{RegistryError, Target};
use crate::retry::{Failure, Hint, Retry};
use crate::tls::Trust;
use crate::token;
use crate::transport::{self, NOT_TLS};
use rbuild_oci::DEFAULT_DOMAIN;
use reqwest::Url;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, Semaphore};

/// Docker Hub's API is not on the host that its names carry.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Bytes of an answer to `GET /v2/` that are looked at.
const MAX_PING: usize = 4096;

/// The state the client keeps about one registry.
pub(crate) struct Host {
    /// As in references.
    pub(crate) name: String,
    /// Limits connections.
    pub(crate) permits: Arc<Semaphore>,
    /// The last challenge seen.
    pub(crate) scheme: Mutex<Option<Scheme>>,
    /// Bearer tokens.
    pub(crate) tokens: token::Cache,
    /// Credentials found, by repository.
    pub(crate) credentials: tokio::sync::Mutex<HashMap<String, Option<Credential>>>,
    endpoint: OnceCell<Endpoint>,
}

/// The root of a registry's API.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `https://host[:port]/`.
    pub(crate) base: Url,
    pub(crate) trust: Trust,
}

impl Host {
    pub(crate) fn new(name: &str, connections: usize) -> Self {
        Self {
            name: name.to_owned(),
            permits: Arc::new(Semaphore::new(connections.max(1))),
            scheme: Mutex::default(),
            tokens: token::Cache::default(),
            credentials: tokio::sync::Mutex::default(),
            endpoint: OnceCell::new(),
        }
    }

    /// Where the API is; found out once.
    pub(crate) async fn endpoint(&self, inner: &Inner) -> Result<&Endpoint, RegistryError> {
        self.endpoint
            .get_or_try_init(|| async {
                let config = &inner.config;
                let mut retry = Retry::new(&config.retry, &*config.clock, &inner.retries);
                loop {
                    match self.find_endpoint(inner).await {
                        Ok(endpoint) => return Ok(endpoint),
                        Err(failure) => retry.wait(failure).await?,
                    }
                }
            })
            .await
    }

    async fn find_endpoint(&self, inner: &Inner) -> Result<Endpoint, Failure> {
        let plan = self.plan(&inner.config)?;
        if let [only] = &plan[..] {
            return Ok(only.clone());
        }
        let mut first_failure: Option<Failure> = None;
        for endpoint in plan {
            match self.ping(inner, &endpoint).await {
                Ok(true) => return Ok(endpoint),
                Ok(false) => {}
                Err(failure) => {
                    // A certificate problem must not be answered by giving up TLS, and says more.
                    let certificate = matches!(failure.error, RegistryError::Tls { .. });
                    if certificate || first_failure.is_none() {
                        first_failure = Some(failure);
                    }
                    if certificate {
                        break;
                    }
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| {
            let message = "speaks neither HTTP nor HTTPS".into();
            RegistryError::Protocol { target: self.target(), message }.into()
        }))
    }

    /// The ways to try, the best first.
    ///
    /// As docker does: `https` for everybody; loopback registries are spoken to in plain HTTP and may use TLS
    /// with any certificate, unless a certs.d directory says which one.
    fn plan(&self, config: &ClientConfig) -> Result<Vec<Endpoint>, RegistryError> {
        let authority = if self.name == DEFAULT_DOMAIN { DOCKER_HUB } else { self.name.as_str() };
        let endpoint = |scheme: &str, trust: Trust| {
            let base = Url::parse(&format!("{scheme}://{authority}/")).map_err(|error| {
                RegistryError::Config(format!("`{authority}` is no registry host: {error}"))
            })?;
            Ok::<_, RegistryError>(Endpoint { base, trust })
        };
        let http = || endpoint("http", Trust::NoTls);
        Ok(if config.plain_http.contains(&self.name) {
            vec![http()?]
        } else if config.insecure.contains(&self.name) {
            vec![endpoint("https", Trust::Anyone)?, http()?]
        } else if !is_loopback(&self.name) {
            vec![endpoint("https", Trust::Verified)?]
        } else if certs::has_directory(config, &self.name) {
            vec![endpoint("https", Trust::Verified)?, http()?]
        } else {
            vec![http()?, endpoint("https", Trust::Anyone)?]
        })
    }

    /// Whether an HTTP registry answers there; `false` when the other side wants the other scheme.
    async fn ping(&self, inner: &Inner, endpoint: &Endpoint) -> Result<bool, Failure> {
        let url = endpoint.base.join("v2/").map_err(|error| RegistryError::Config(error.to_string()))?;
        let pool = inner.pool(&self.name, true, endpoint.trust, &url)?;
        let target = self.target();
        let answer = transport::send(inner, &target, pool.get(url.clone()), &url, None).await;
        let mut response = match answer {
            Ok(response) => response,
            Err(failure) => {
                return match failure.error {
                    RegistryError::Tls { message, .. } if message == NOT_TLS => Ok(false),
                    // A TLS server hangs up, or answers with an alert, on plain HTTP.
                    RegistryError::Connect { .. }
                        if endpoint.trust == Trust::NoTls && failure.hint == Hint::Backoff =>
                    {
                        Ok(false)
                    }
                    _ => Err(failure),
                };
            }
        };
        if response.status() == 401 {
            let scheme = crate::auth::best_scheme(&response);
            *self.scheme.lock().unwrap_or_else(|e| e.into_inner()) = scheme;
        }
        if response.status() == 400 && endpoint.trust == Trust::NoTls {
            let body = response.bytes(&target, MAX_PING).await.unwrap_or_default();
            return Ok(!String::from_utf8_lossy(&body).to_ascii_uppercase().contains("HTTPS"));
        }
        Ok(true)
    }

    fn target(&self) -> Target {
        Target { host: self.name.clone(), repository: String::new() }
    }
}

/// `localhost`, `127.0.0.0/8` and `::1`, with or without a port (F-002).
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        for (authority, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.200.3.4", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("128.0.0.1:5000", false),
            ("localhost.example", false),
            ("docker.io", false),
            ("[fc00::1]:5000", false),
        ] {
            assert_eq!(is_loopback(authority), loopback, "{authority}");
        }
    }

    #[test]
    fn schemes_are_tried_as_docker_does() {
        let certs = tempfile::tempdir().unwrap();
        std::fs::create_dir(certs.path().join("localhost:5001")).unwrap();
        let config = ClientConfig {
            certs_dirs: vec![certs.path().into()],
            insecure: ["weak.example".to_owned()].into(),
            plain_http: ["plain.example:80".to_owned()].into(),
            ..ClientConfig::default()
        };
        for (name, expected) in [
            ("docker.io", "https://registry-1.docker.io/ Verified"),
            ("r.example:5000", "https://r.example:5000/ Verified"),
            ("weak.example", "https://weak.example/ Anyone, http://weak.example/ NoTls"),
            ("plain.example:80", "http://plain.example/ NoTls"),
            ("localhost:5000", "http://localhost:5000/ NoTls, https://localhost:5000/ Anyone"),
            ("localhost:5001", "https://localhost:5001/ Verified, http://localhost:5001/ NoTls"),
        ] {
            let plan = Host::new(name, 1).plan(&config).unwrap();
            let shown: Vec<_> = plan.iter().map(|e| format!("{} {:?}", e.base, e.trust)).collect();
            assert_eq!(shown.join(", "), expected);
        }
    }
}
