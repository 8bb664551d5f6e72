//! Image references: `[domain/]path[:tag][@digest]` (distribution/reference's grammar).

use crate::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

/// The registry of names that name none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
/// Longest repository path in bytes.
const MAX_PATH: usize = 255;
/// Longest tag in bytes.
const MAX_TAG: usize = 128;
/// Longest input that is looked at, in bytes.
const MAX_INPUT: usize = 4096;

/// A normalised image reference: domain and path are always present (`docker.io`, `library/…`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is no image reference. The texts are those docker prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hex digits alone would be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    HexName(String),
    /// The repository path is too long.
    #[error("repository name must not be more than {MAX_PATH} characters")]
    TooLong,
    /// The digest is well-formed but not SHA-256.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

impl Reference {
    /// Registry host, with a port if it has one (`docker.io`, `localhost:5000`).
    pub fn domain(&self) -> &str {
        &self.domain
    }
    /// Repository below the registry (`library/debian`).
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The tag as written; see [`Reference::with_default_tag`].
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// The digest pin.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
    /// `domain/path`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
    /// Adds `:latest` when there is neither tag nor digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }
    /// The same repository under another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }
    /// The same reference pinned to `digest`; a tag stays.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
    /// The repository alone, without tag and digest.
    pub fn without_tag(mut self) -> Self {
        self.tag = None;
        self.digest = None;
        self
    }
    /// As people write it: `debian` for `docker.io/library/debian`.
    pub fn familiar(&self) -> String {
        let mut name = String::new();
        if self.domain == DEFAULT_DOMAIN {
            match self.path.strip_prefix(OFFICIAL_PREFIX) {
                Some(official) if !official.contains('/') => name.push_str(official),
                _ => name.push_str(&self.path),
            }
        } else {
            name.push_str(&self.name());
        }
        self.append_version(&mut name);
        name
    }

    fn append_version(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.append_version(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    /// Normalises as docker does: `debian` is `docker.io/library/debian`.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_INPUT {
            return Err(ReferenceError::Format);
        }
        if Digest::from_hex(text).is_some() {
            return Err(ReferenceError::HexName(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let repository = remainder.split(':').next().unwrap_or_default();
        // The check comes before the grammar so that the frequent mistake gets the better message.
        if repository.to_lowercase() != repository {
            return Err(ReferenceError::Uppercase(repository.to_owned()));
        }
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(ReferenceError::Format),
            None => (rest, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        if path.len() > MAX_PATH {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain: domain.to_owned(), path: path.to_owned(), tag, digest })
    }
}

/// The registry that `text` names, or docker's, and the rest with `library/` where it is implied.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        None => (DEFAULT_DOMAIN, text),
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) || has_upper(first) => {
            (first, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    let rest = if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        format!("{OFFICIAL_PREFIX}{rest}")
    } else {
        rest.to_owned()
    };
    (domain, rest)
}

fn has_upper(text: &str) -> bool {
    text.to_lowercase() != text
}

/// `name(.name)*` or `[v6]`, with an optional port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) => {
                let valid =
                    !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
                if !valid {
                    return false;
                }
                match rest.strip_prefix(':') {
                    Some(port) => (None, Some(port)),
                    None if rest.is_empty() => (None, None),
                    None => return false,
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let port_valid = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit()));
    port_valid && host.is_none_or(|host| host.split('.').all(is_domain_component))
}

fn is_domain_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
}

/// Lower-case alphanumerics separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let mut separator = String::new();
    let mut after_word = false;
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                if !separator.is_empty() {
                    let valid = matches!(separator.as_str(), "." | "_" | "__")
                        || separator.bytes().all(|c| c == b'-');
                    if !after_word || !valid {
                        return false;
                    }
                    separator.clear();
                }
                after_word = true;
            }
            '.' | '_' | '-' => separator.push(c),
            _ => return false,
        }
    }
    after_word && separator.is_empty()
}

fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    (1..=MAX_TAG).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    text.parse().map_err(|error| match error {
        DigestError::Algorithm(_) => {
            let hex = text.split_once(':').map_or("", |(_, hex)| hex);
            if hex.len() >= 32 && hex.bytes().all(|c| c.is_ascii_hexdigit()) {
                ReferenceError::DigestAlgorithm
            } else {
                ReferenceError::Format
            }
        }
        DigestError::Format(_) => ReferenceError::Format,
    })
}

#[cfg(test)]
mod tests;
