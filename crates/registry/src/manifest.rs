//! Manifests and indexes: resolving names, fetching by digest, pushing.

use crate::auth::{Request, Session};
use crate::client::Client;
use crate::error::{Access, RegistryError};
use crate::retry::Failure;
use crate::stats;
use crate::transport::{Payload, Response};
use rbuild_oci::{Descriptor, Digest, Reference, media_type};
use reqwest::Method;
use serde::Deserialize;

/// Largest manifest, index or config that is accepted, in bytes (distribution-spec: at least 4 MiB).
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// A manifest or index that a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Media type, digest and size of `bytes`.
    pub descriptor: Descriptor,
    /// Exactly what the registry holds.
    pub bytes: Vec<u8>,
}

/// The parts of a manifest or an index that tell what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

impl Client {
    /// Fetches what `reference` stands for. A digest decides alone; without tag and digest, `latest` is meant.
    ///
    /// The bytes are verified against the pinned digest and against `Docker-Content-Digest`, and must be what
    /// their media type says.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        let session = self.session(reference, Access::Pull);
        let mut retry = session.retry();
        loop {
            match fetch(&session, &version(reference), reference.digest(), MAX_MANIFEST as u64).await {
                Ok(resolved) => return Ok(resolved),
                Err(failure) => retry.wait(failure).await?,
            }
        }
    }

    /// The descriptor of what `reference` stands for, by HEAD where the registry answers it fully.
    pub async fn resolve_descriptor(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let session = self.session(reference, Access::Pull);
        let response =
            session.send(&request(&session, Method::HEAD, &version(reference)).await?, &[200]).await?;
        let digest = announced_digest(&session, &response)?;
        let kind = content_type(&response).filter(|kind| is_known(kind)).map(ToOwned::to_owned);
        let size = response.length();
        drop(response);
        match (kind, digest, size) {
            (Some(kind), Some(digest), Some(size)) if size <= MAX_MANIFEST as u64 => {
                check_pin(&session, reference.digest(), digest)?;
                Ok(Descriptor::new(kind, digest, size))
            }
            _ => Ok(self.resolve(reference).await?.descriptor),
        }
    }

    /// The bytes of the manifest or index `descriptor` in `reference`'s repository, verified.
    pub async fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let session = self.session(reference, Access::Pull);
        if descriptor.size > MAX_MANIFEST as u64 {
            return Err(RegistryError::TooLarge {
                target: session.target,
                limit: MAX_MANIFEST as u64,
                found: descriptor.size,
            });
        }
        let mut retry = session.retry();
        let version = descriptor.digest.to_string();
        let resolved = loop {
            match fetch(&session, &version, Some(descriptor.digest), descriptor.size).await {
                Ok(resolved) => break resolved,
                Err(failure) => retry.wait(failure).await?,
            }
        };
        let found = &resolved.descriptor;
        if found.size != descriptor.size {
            return Err(RegistryError::Truncated {
                target: session.target,
                expected: descriptor.size,
                found: found.size,
            });
        }
        if found.media_type != descriptor.media_type {
            return Err(session.protocol(format!(
                "{} is {} but was announced as {}",
                descriptor.digest, found.media_type, descriptor.media_type
            )));
        }
        Ok(resolved.bytes)
    }

    /// Uploads a manifest or index under `reference`'s tag, or by digest when it has none. Everything it
    /// refers to must be there already.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let session = self.session(reference, Access::Push);
        let digest = Digest::of(bytes);
        check_pin(&session, reference.digest(), digest)?;
        let version = reference.tag().map_or_else(|| digest.to_string(), ToOwned::to_owned);
        let url = session.url(&format!("manifests/{version}")).await?;
        let mut request = Request::new(Method::PUT, url).header("content-type", media_type);
        request.payload = Some(Payload::Bytes(bytes.to_vec().into()));
        let response = session.send(&request, &[200, 201, 202]).await?;
        if let Some(found) = announced_digest(&session, &response)? {
            check_pin(&session, Some(digest), found)?;
        }
        stats::add(&self.inner.counters.manifests_pushed, 1);
        Ok(digest)
    }
}

/// The last part of the manifest's URL.
fn version(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    }
}

async fn request(session: &Session<'_>, method: Method, version: &str) -> Result<Request, RegistryError> {
    let accept = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
        "*/*",
    ];
    let url = session.url(&format!("manifests/{version}")).await?;
    Ok(Request::new(method, url).header("accept", &accept.join(", ")))
}

/// One try to get a manifest and to find out what it is.
async fn fetch(
    session: &Session<'_>,
    version: &str,
    pinned: Option<Digest>,
    limit: u64,
) -> Result<Resolved, Failure> {
    let request = request(session, Method::GET, version).await?;
    let mut response = session.try_once(&request, &[200]).await?;
    let announced = announced_digest(session, &response)?;
    let limit = usize::try_from(limit).unwrap_or(MAX_MANIFEST).min(MAX_MANIFEST);
    let bytes = response.bytes(&session.target, limit).await?;
    let digest = Digest::of(&bytes);
    check_pin(session, pinned.or(announced), digest)?;
    if let Some(announced) = announced {
        check_pin(session, Some(announced), digest)?;
    }
    let kind = kind_of(session, content_type(&response), &bytes)?;
    let descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
    Ok(Resolved { descriptor, bytes })
}

fn check_pin(session: &Session<'_>, expected: Option<Digest>, found: Digest) -> Result<(), RegistryError> {
    match expected {
        Some(expected) if expected != found => {
            Err(RegistryError::DigestMismatch { target: session.target.clone(), expected, found })
        }
        _ => Ok(()),
    }
}

/// `Docker-Content-Digest`; one that cannot be understood is refused rather than ignored.
fn announced_digest(session: &Session<'_>, response: &Response) -> Result<Option<Digest>, RegistryError> {
    let Some(text) = response.header("docker-content-digest").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error| {
        session
            .protocol(format!("bad Docker-Content-Digest: {}", crate::error::one_line(&format!("{error}"))))
    })
}

/// `Content-Type` without parameters.
fn content_type(response: &Response) -> Option<&str> {
    response.header("content-type").and_then(|value| value.split(';').next()).map(str::trim)
}

fn is_known(kind: &str) -> bool {
    media_type::is_index(kind) || media_type::is_manifest(kind)
}

/// The media type of a manifest; header, body and shape must agree (CVE-2021-41190).
fn kind_of(session: &Session<'_>, header: Option<&str>, bytes: &[u8]) -> Result<String, RegistryError> {
    let shape: Shape = serde_json::from_slice(bytes)
        .map_err(|error| session.protocol(format!("the manifest is no valid JSON: {error}")))?;
    let header = header.filter(|kind| is_known(kind) || kind.contains("manifest.v1"));
    if shape.schema_version == 1 || header.is_some_and(|kind| kind.contains("distribution.manifest.v1")) {
        return Err(session.protocol(
            "this is a schema 1 manifest, a format without verifiable layers that is no longer supported: push the image again with a current tool",
        ));
    }
    let kind = match (header, shape.media_type.as_deref()) {
        (Some(header), Some(body)) if header != body => {
            return Err(session.protocol(format!(
                "the manifest says `{}` but was sent as `{header}`",
                crate::error::one_line(body)
            )));
        }
        (Some(kind), _) | (None, Some(kind)) => kind,
        (None, None) if shape.manifests.is_some() => media_type::OCI_INDEX,
        (None, None) => media_type::OCI_MANIFEST,
    };
    let is_index = shape.manifests.is_some();
    let is_manifest = shape.config.is_some() || shape.layers.is_some();
    let consistent = match kind {
        kind if media_type::is_index(kind) => is_index && !is_manifest,
        kind if media_type::is_manifest(kind) => is_manifest && !is_index,
        other => {
            return Err(session.protocol(format!(
                "`{}` is neither an image manifest nor an index",
                crate::error::one_line(other)
            )));
        }
    };
    if !consistent {
        return Err(session.protocol(format!("the content is not what its media type `{kind}` says")));
    }
    Ok(kind.to_owned())
}
