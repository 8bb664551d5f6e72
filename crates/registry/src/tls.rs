//! TLS settings and HTTP connection pools.

use crate::certs::{self, HostCerts};
use crate::config::ClientConfig;
use crate::error::RegistryError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Unused connections are closed before usual servers and load balancers do it (60 s and more): a request
/// that meets a closed one costs a retry.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// The roots of trust that all hosts share; read on first use.
#[derive(Debug, Default)]
pub(crate) struct SystemRoots(OnceLock<RootCertStore>);

impl SystemRoots {
    fn get(&self, config: &ClientConfig) -> &RootCertStore {
        self.0.get_or_init(|| {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(certs::system_authorities(config));
            store
        })
    }
}

/// Whom a pool of connections trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// System CAs and those of certs.d.
    Verified,
    /// Anybody.
    Anyone,
    /// The pool speaks plain HTTP; a TLS connection through it would trust nobody.
    NoTls,
}

/// What a pool of connections is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// `name[:port]` that is connected to: its certs.d directory counts.
    pub(crate) host: String,
    /// The registry on whose behalf, if another: its CAs count, its client certificate does not.
    pub(crate) behalf: Option<String>,
    pub(crate) trust: Trust,
    /// Loopback hosts are never proxied.
    pub(crate) proxied: bool,
}

/// Builds the pool that `key` describes.
pub(crate) fn pool(
    config: &ClientConfig,
    roots: &SystemRoots,
    key: &PoolKey,
) -> Result<reqwest::Client, RegistryError> {
    let bad = |error: reqwest::Error| RegistryError::Config(crate::transport::chain(&error));
    // HTTP/1.1 only: one stream per connection is faster for large bodies than HTTP/2's flow control (F-016).
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(config, roots, key)?)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(&config.user_agent)
        .connect_timeout(config.timeouts.connect)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(config.connections.max(1))
        .no_proxy();
    if key.proxied {
        let except = || config.proxies.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        if let Some(url) = config.proxies.http.as_deref().filter(|url| !url.is_empty()) {
            builder = builder.proxy(reqwest::Proxy::http(url).map_err(bad)?.no_proxy(except()));
        }
        if let Some(url) = config.proxies.https.as_deref().filter(|url| !url.is_empty()) {
            builder = builder.proxy(reqwest::Proxy::https(url).map_err(bad)?.no_proxy(except()));
        }
    }
    builder.build().map_err(bad)
}

fn client_config(
    config: &ClientConfig,
    roots: &SystemRoots,
    key: &PoolKey,
) -> Result<rustls::ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad = |error: rustls::Error| RegistryError::Config(format!("TLS for {}: {error}", key.host));
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(bad)?;
    let HostCerts { authorities, identity } = match key.trust {
        Trust::NoTls => HostCerts::default(),
        _ => certs::host_certs(config, &key.host)?,
    };
    let builder = match key.trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyone(provider)))
        }
        Trust::NoTls => {
            return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        }
        Trust::Verified => {
            let mut store = roots.get(config).clone();
            store.add_parsable_certificates(authorities);
            if let Some(registry) = &key.behalf {
                store.add_parsable_certificates(certs::host_certs(config, registry)?.authorities);
            }
            builder.with_root_certificates(store)
        }
    };
    match identity {
        Some((chain, private_key)) => builder.with_client_auth_cert(chain, private_key).map_err(bad),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// For hosts that the user declared insecure, and loopback registries without a CA.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
