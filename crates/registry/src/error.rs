//! Every way a registry operation can fail, worded for the person who has to act.

use rbuild_oci::Digest;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// Longest piece of a server's answer that is repeated in a message, in characters.
const MAX_SERVER_TEXT: usize = 300;

/// Whom the operation was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Registry host as in the reference (`docker.io`, `localhost:5000`).
    pub host: String,
    /// Repository, with `:tag` or `@digest` when one was meant.
    pub repository: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.repository.is_empty() {
            f.write_str(&self.host)
        } else {
            write!(f, "{}/{}", self.host, self.repository)
        }
    }
}

/// What was wanted of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Writing.
    Push,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
        })
    }
}

/// Why a registry operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The token service or the credentials were no good.
    #[error("{target}: failed to authorize: {message} (check the credentials: `docker login {host}`)", host = target.host)]
    Unauthorized {
        /// About what.
        target: Target,
        /// What the service said.
        message: String,
    },
    /// The registry does not allow it, or hides that the repository does not exist.
    #[error(
        "{target}: {access} access denied, repository does not exist or may require authorization: server message: {message}"
    )]
    Denied {
        /// About what.
        target: Target,
        /// What was wanted.
        access: Access,
        /// What the registry said.
        message: String,
    },
    /// There is no such manifest, blob or repository.
    #[error("{target}: not found{}", with_message(message))]
    NotFound {
        /// About what.
        target: Target,
        /// What the registry said.
        message: String,
    },
    /// An index has nothing for the platform.
    #[error("{target}: no match for platform in manifest: {wanted} (available: {available})")]
    NoPlatform {
        /// About what.
        target: Box<Target>,
        /// The platform asked for.
        wanted: String,
        /// The platforms that the index has.
        available: String,
    },
    /// The bytes are not those that were asked for; nothing of them may be used.
    #[error(
        "{target}: digest mismatch: expected {expected}, the registry sent {found} (damaged in the registry or on the way; try again or ask its operator)"
    )]
    DigestMismatch {
        /// About what.
        target: Target,
        /// What was wanted.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Fewer bytes came than the descriptor says, however often it was tried.
    #[error(
        "{target}: truncated: {found} of {expected} bytes were sent (try again, or ask the registry's operator)"
    )]
    Truncated {
        /// About what.
        target: Target,
        /// Bytes wanted.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// More bytes came, or were announced, than are allowed.
    #[error("{target}: larger than allowed: the limit is {limit} bytes, the registry sends at least {found}")]
    TooLarge {
        /// About what.
        target: Target,
        /// The descriptor's size, or the limit on manifests.
        limit: u64,
        /// Announced or received.
        found: u64,
    },
    /// No secure connection: certificate or handshake.
    #[error(
        "{target}: TLS to {host} failed: {message} (if the registry has its own CA, put the CA into /etc/docker/certs.d/{host}/ca.crt)", host = target.host
    )]
    Tls {
        /// About what.
        target: Target,
        /// What is wrong.
        message: String,
    },
    /// No connection, or it broke.
    #[error("{target}: cannot reach {address}: {message}{} (check the name, the network and the proxy settings)", tries(*attempts))]
    Connect {
        /// About what.
        target: Target,
        /// Host and port that were tried.
        address: String,
        /// What is wrong.
        message: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The peer was silent for too long.
    #[error("{target}: no answer from {address} for {} s{} (check the network, or try again later)", waited.as_secs_f32(), tries(*attempts))]
    Timeout {
        /// About what.
        target: Target,
        /// Host and port.
        address: String,
        /// For how long.
        waited: Duration,
        /// How often it was tried.
        attempts: u32,
    },
    /// The registry answered with an error.
    #[error("{target}: unexpected status from {method} request to {url}: {status}{}{}", with_message(message), tries(*attempts))]
    Status {
        /// About what.
        target: Box<Target>,
        /// HTTP method.
        method: &'static str,
        /// Where, without query and user.
        url: String,
        /// `500 Internal Server Error`.
        status: String,
        /// The registry's `errors[]`, or the beginning of its answer.
        message: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The registry breaks the protocol, or does something that is not safe to follow.
    #[error("{target}: {message}")]
    Protocol {
        /// About what.
        target: Target,
        /// What and what to do.
        message: String,
    },
    /// Credentials are stored in a way that cannot be read.
    #[error("cannot read registry credentials: {0}")]
    Credentials(String),
    /// Certificates, keys or proxies cannot be used.
    #[error("registry configuration: {0}")]
    Config(String),
    /// The local file or sink failed.
    #[error("{target}: {message}")]
    Io {
        /// About what.
        target: Target,
        /// What failed.
        message: String,
    },
}

impl RegistryError {
    /// The same error after `attempts` tries.
    pub(crate) fn after(mut self, tried: u32) -> Self {
        match &mut self {
            Self::Connect { attempts, .. }
            | Self::Timeout { attempts, .. }
            | Self::Status { attempts, .. } => {
                *attempts = tried;
            }
            _ => {}
        }
        self
    }

    /// Whether the thing that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

fn tries(attempts: u32) -> String {
    if attempts > 1 { format!(" (tried {attempts} times)") } else { String::new() }
}

fn with_message(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// One line out of an error answer: distribution's `errors[]`, a token service's description, or its text.
pub(crate) fn server_message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(parsed) if !parsed.errors.is_empty() => {
            parsed.errors.iter().map(error_entry).collect::<Vec<_>>().join("; ")
        }
        Ok(parsed) => parsed.error_description.or(parsed.details).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    one_line(&text)
}

fn error_entry(entry: &ErrorEntry) -> String {
    let code = entry.code.as_deref().unwrap_or("unknown").to_lowercase().replace('_', " ");
    match entry.message.as_deref() {
        None | Some("") => code,
        Some(message) if message.eq_ignore_ascii_case(&code) => code,
        Some(message) => format!("{code}: {message}"),
    }
}

/// Printable and short: what a server sends must not control the terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.split_whitespace().flat_map(|word| word.chars().chain([' ']));
    for c in chars.by_ref().take(MAX_SERVER_TEXT) {
        out.push(if c.is_control() { '\u{fffd}' } else { c });
    }
    let mut out = out.trim_end().to_owned();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_messages_are_short_and_printable() {
        for (body, message) in [
            (r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#, "manifest unknown"),
            (r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X_Y"}]}"#, "denied: no; x y"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error_description":"bad"}"#, "bad"),
            ("<html>\n  Bad \x1b[31m Gateway", "<html> Bad \u{fffd}[31m Gateway"),
            ("", ""),
            ("{}", ""),
        ] {
            assert_eq!(server_message(body.as_bytes()), message);
        }
        let long = server_message("x".repeat(100_000).as_bytes());
        assert_eq!(long.chars().count(), MAX_SERVER_TEXT + 1);
    }

    #[test]
    fn errors_name_host_repository_and_remedy() {
        let target = Target { host: "r.example:5000".into(), repository: "a/b:1".into() };
        let tls = RegistryError::Tls { target: target.clone(), message: "unknown issuer".into() };
        assert!(tls.to_string().contains("/etc/docker/certs.d/r.example:5000/ca.crt"), "{tls}");
        let denied =
            RegistryError::Denied { target, access: Access::Pull, message: "insufficient_scope".into() };
        assert_eq!(
            denied.to_string(),
            "r.example:5000/a/b:1: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope"
        );
    }

    #[test]
    fn errors_stay_small() {
        assert!(std::mem::size_of::<RegistryError>() <= 136);
    }
}
