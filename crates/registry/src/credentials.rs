//! Where credentials come from: docker's `config.json`, containers' `auth.json`, credential helpers (F-004).

use crate::config::ClientConfig;
use crate::error::RegistryError;
use crate::helper;
use base64::Engine as _;
use rbuild_oci::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The key under which docker keeps Docker Hub's credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Largest credential file that is read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What a registry or its token service is shown. `Debug` does not print secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Password {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// An OAuth2 refresh token (`identitytoken`).
    Identity(String),
    /// A bearer token that is used as it is (`registrytoken`).
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?}, …)"),
            Self::Identity(_) => f.write_str("Identity(…)"),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

impl Credential {
    /// `Basic` with the value of the header, if this is a password.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { username, password } => {
                let plain = format!("{username}:{password}");
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)))
            }
            _ => None,
        }
    }
}

/// One credential file, as docker and containers write it; other keys are ignored.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry")
    }
}

/// The credential for `reference`'s repository, if there is one.
pub(crate) async fn find(
    config: &ClientConfig,
    reference: &Reference,
) -> Result<Option<Credential>, RegistryError> {
    let host = reference.domain();
    if let Some(credential) = config.credentials.get(host) {
        return Ok(Some(credential.clone()));
    }
    for path in &config.credential_files {
        let Some(file) = read(path)? else { continue };
        let helper = file
            .cred_helpers
            .iter()
            .find(|(key, _)| same_host(key, host))
            .map(|(_, suffix)| suffix)
            .or(file.creds_store.as_ref())
            .filter(|suffix| !suffix.is_empty());
        if let Some(suffix) = helper {
            let server = if host == rbuild_oci::DEFAULT_DOMAIN { DOCKER_HUB_KEY } else { host };
            if let Some(credential) = helper::get(config, suffix, server).await? {
                return Ok(Some(credential));
            }
        }
        if let Some(credential) = from_auths(&file, reference, path)? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<File>, RegistryError> {
    let problem = |message: String| RegistryError::Credentials(format!("{}: {message}", path.display()));
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(problem(format!("larger than {MAX_FILE} bytes")));
        }
        Ok(metadata) if !metadata.is_file() => return Err(problem("not a regular file".into())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(problem(error.to_string())),
    }
    let bytes = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    // The position only: a parse error's text could repeat a secret.
    let parsed = serde_json::from_slice(&bytes).map_err(|error| {
        problem(format!("not a docker config.json (line {}, column {})", error.line(), error.column()))
    })?;
    Ok(Some(parsed))
}

/// The most specific entry: `host/namespace/repository` first, then shorter ones, then the host.
fn from_auths(file: &File, reference: &Reference, path: &Path) -> Result<Option<Credential>, RegistryError> {
    let name = reference.name();
    let mut prefix = name.as_str();
    loop {
        let found = if prefix == reference.domain() {
            let exact = [prefix, DOCKER_HUB_KEY];
            let exact = if prefix == rbuild_oci::DEFAULT_DOMAIN { &exact[..] } else { &exact[..1] };
            exact
                .iter()
                .find_map(|key| file.auths.get_key_value(*key))
                .or_else(|| file.auths.iter().find(|(key, _)| same_host(key, prefix)))
        } else {
            file.auths.get_key_value(prefix)
        };
        if let Some((key, entry)) = found
            && let Some(credential) = entry_credential(entry, key, path)?
        {
            return Ok(Some(credential));
        }
        match prefix.rsplit_once('/') {
            Some((shorter, _)) => prefix = shorter,
            None => return Ok(None),
        }
    }
}

/// Whether `key` (with or without scheme and API path) names `host`. Docker Hub has several names.
fn same_host(key: &str, host: &str) -> bool {
    let (had_scheme, rest) = match key.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, key),
    };
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Without a scheme a path is a namespace (auth.json), except for the old API versions.
    if !had_scheme && !matches!(path.trim_end_matches('/'), "" | "v1" | "v2") {
        return false;
    }
    let hub = |name: &str| matches!(name, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    name == host || (hub(name) && host == rbuild_oci::DEFAULT_DOMAIN)
}

fn entry_credential(entry: &Entry, key: &str, path: &Path) -> Result<Option<Credential>, RegistryError> {
    if !entry.registrytoken.is_empty() {
        return Ok(Some(Credential::Bearer(entry.registrytoken.clone())));
    }
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credential::Identity(entry.identitytoken.clone())));
    }
    if !entry.auth.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(entry.auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((username, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return Err(RegistryError::Credentials(format!(
                "{}: `auth` of {key} is not base64 of user:password (log in again: `docker login`)",
                path.display()
            )));
        };
        return Ok(Some(Credential::Password {
            username: username.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        }));
    }
    if entry.username.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential::Password { username: entry.username.clone(), password: entry.password.clone() }))
}

#[cfg(test)]
mod tests;
