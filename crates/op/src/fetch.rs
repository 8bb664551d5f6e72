//! Where layers of base images come from.

use async_trait::async_trait;
use rbuild_oci::{Descriptor, Digest};
use rbuild_solver::{OpError, StepContext};

/// A layer of an image, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledLayer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar, from the image config.
    pub diff_id: Digest,
}

/// Brings blobs of images into the store.
#[async_trait]
pub trait BlobFetcher: Send + Sync {
    /// Makes sure that the blob is in the store, its digest verified while it was streamed. Called at most once at a
    /// time for a blob.
    async fn fetch(&self, blob: &Descriptor, step: &StepContext) -> Result<(), OpError>;
}
