//! Fetching files and git trees into the store, for ADD and for build contexts.

mod checkout;
mod command;
mod git;
mod http;
mod resolving;

pub(crate) use checkout::preimage;
pub(crate) use git::Commit;
pub use http::HttpFile;
pub use resolving::{PinnedFile, Pins, Resolving, git_pin_name};

use crate::error::OpFailure;
use crate::secret::Confidential;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_registry::{Client, ClientConfig};
use rbuild_solver::OpError;
use rbuild_store::Store;
use std::sync::Arc;

/// Fetches files and git trees into a store. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    store: Store,
    client: Client,
    config: Arc<ClientConfig>,
    /// `HTTP_AUTH_…` and `GIT_AUTH_…` secrets, and the agent called `default`.
    confidential: Confidential,
    resolving: Resolving,
}

/// A secret that was found for a host.
#[derive(Debug, Clone)]
struct Authorization {
    /// The secret's name, which may be shown.
    name: String,
    /// The value of an `Authorization` header.
    header: String,
}

impl Remote {
    /// Fetches into `store`; `config` says how servers are reached.
    pub fn new(store: Store, config: ClientConfig, confidential: Confidential) -> Self {
        Self {
            store,
            client: Client::new(config.clone()),
            config: Arc::new(config),
            confidential,
            resolving: Resolving::default(),
        }
    }

    /// The same with another way to resolve names.
    #[must_use]
    pub fn resolving(self, resolving: Resolving) -> Self {
        Self { resolving, ..self }
    }

    fn text_secret(&self, id: &str) -> Result<Option<String>, OpError> {
        let Some(value) = self.confidential.secrets.get(id) else { return Ok(None) };
        let text = std::str::from_utf8(value.bytes()).ok().map(|text| text.trim().to_owned());
        let fits = |text: &String| !text.is_empty() && !text.contains(|c: char| c.is_control());
        match text.filter(fits) {
            Some(text) => Ok(Some(text)),
            None => Err(OpFailure::BadSecret(id.to_owned()).into()),
        }
    }

    /// HTTP_AUTH_HEADER_<host>, HTTP_AUTH_TOKEN_<host>.
    fn http_authorization(&self, host: &str) -> Result<Option<Authorization>, OpError> {
        let name = format!("HTTP_AUTH_HEADER_{host}");
        if let Some(header) = self.text_secret(&name)? {
            return Ok(Some(Authorization { name, header }));
        }
        let name = format!("HTTP_AUTH_TOKEN_{host}");
        let token = self.text_secret(&name)?;
        Ok(token.map(|token| Authorization { header: format!("Bearer {token}"), name }))
    }

    /// GIT_AUTH_HEADER[.host], GIT_AUTH_TOKEN[.host].
    fn git_authorization(&self, host: &str) -> Result<Option<Authorization>, OpError> {
        for name in [format!("GIT_AUTH_HEADER.{host}"), "GIT_AUTH_HEADER".to_owned()] {
            if let Some(header) = self.text_secret(&name)? {
                return Ok(Some(Authorization { name, header }));
            }
        }
        for name in [format!("GIT_AUTH_TOKEN.{host}"), "GIT_AUTH_TOKEN".to_owned()] {
            if let Some(token) = self.text_secret(&name)? {
                let header = basic("x-access-token", &token);
                return Ok(Some(Authorization { name, header }));
            }
        }
        Ok(None)
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    crate::layer::since_epoch(std::time::SystemTime::now()).0
}

/// The header of a user name and password.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The host of a URL, without user and port.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}
