//! A place that keeps blobs and one manifest under a name.

use crate::CacheError;
use async_trait::async_trait;
use rbuild_oci::Descriptor;
use std::io::Write;
use std::path::Path;

/// Told how many bytes have come so far.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) + Send);

/// How a blob was found at a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It was there.
    Present,
    /// The backend took it over from another of its repositories.
    Mounted,
    /// It has to be sent.
    Missing,
}

/// A registry's repository and tag, or a directory. It knows nothing of cache records: whatever is made of blobs and a
/// manifest can be kept in it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// As the user may have written it, for messages.
    fn name(&self) -> &str;

    /// `registry/path`, if the blobs can be had from there by digest in later builds and mounted by other repositories.
    fn repository(&self) -> Option<String>;

    /// The manifest that the name stands for now; `None` if there is none.
    async fn manifest(&self) -> Result<Option<(Descriptor, Vec<u8>)>, CacheError>;

    /// A manifest by digest, verified.
    async fn manifest_by_digest(&self, manifest: &Descriptor) -> Result<Vec<u8>, CacheError>;

    /// Writes a blob to `sink` and verifies it. After an error, what was written is worthless.
    async fn fetch(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn Write + Send),
        progress: Progress<'_>,
    ) -> Result<(), CacheError>;

    /// Looks for a blob, and takes it over from one of `mount_from` (paths of repositories of the same registry) if that
    /// works without its bytes.
    async fn find(&self, blob: &Descriptor, mount_from: &[String]) -> Result<Found, CacheError>;

    /// Sends a blob out of a file.
    async fn put(&self, blob: &Descriptor, source: &Path) -> Result<(), CacheError>;

    /// Sends a small blob.
    async fn put_bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), CacheError>;

    /// Makes the name stand for a manifest, all of whose blobs are there.
    async fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError>;
}

/// The bytes of a blob of at most `limit` bytes.
pub(crate) async fn read(
    backend: &dyn Backend,
    blob: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, CacheError> {
    if blob.size > limit {
        let reason = format!("{} has {} bytes; more than {limit} are not read", blob.digest, blob.size);
        return Err(CacheError::Damaged(reason));
    }
    let mut bytes = Vec::new();
    backend.fetch(blob, &mut bytes, &mut |_| {}).await?;
    Ok(bytes)
}
