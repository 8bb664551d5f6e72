//! A repository and tag of a registry.

use crate::backend::{Backend, Found, Progress};
use crate::error::CacheError;
use async_trait::async_trait;
use rbuild_oci::{Descriptor, Reference};
use rbuild_registry::{Blocking, Client, PushOutcome};
use std::io::Write;
use std::path::Path;

/// Blobs and a manifest in a registry.
pub struct RegistryBackend {
    client: Client,
    reference: Reference,
    name: String,
}

impl RegistryBackend {
    /// The backend of a reference; without tag and digest, `latest` is meant.
    pub fn new(client: Client, reference: &Reference) -> Self {
        let reference = reference.clone().with_default_tag();
        Self { client, name: reference.familiar(), reference }
    }
}

#[async_trait]
impl Backend for RegistryBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn repository(&self) -> Option<String> {
        Some(self.reference.name())
    }

    async fn manifest(&self) -> Result<Option<(Descriptor, Vec<u8>)>, CacheError> {
        match self.client.resolve(&self.reference).await {
            Ok(resolved) => Ok(Some((resolved.descriptor, resolved.bytes))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn manifest_by_digest(&self, manifest: &Descriptor) -> Result<Vec<u8>, CacheError> {
        Ok(self.client.manifest(&self.reference, manifest).await?)
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn Write + Send),
        progress: Progress<'_>,
    ) -> Result<(), CacheError> {
        Ok(self.client.pull_blob(&self.reference, blob, &mut Blocking(sink), progress).await?)
    }

    async fn find(&self, blob: &Descriptor, mount_from: &[String]) -> Result<Found, CacheError> {
        Ok(match self.client.find_blob(&self.reference, blob, mount_from).await? {
            Some(PushOutcome::Mounted { .. }) => Found::Mounted,
            Some(_) => Found::Present,
            None => Found::Missing,
        })
    }

    async fn put(&self, blob: &Descriptor, source: &Path) -> Result<(), CacheError> {
        Ok(self.client.upload_blob(&self.reference, blob, source).await?)
    }

    async fn put_bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), CacheError> {
        Ok(self.client.push_bytes(&self.reference, blob, bytes).await?)
    }

    async fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError> {
        self.client.push_manifest(&self.reference, media_type, bytes).await?;
        Ok(())
    }
}
