//! How lowering learns about base images without doing I/O.

use rbuild_oci::{Digest, ImageConfig, Platform};

/// An image that the build needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRequest {
    /// Normalised reference (`docker.io/library/debian:12`), or `oci-layout://…` of a named context as written.
    pub reference: String,
    /// The platform wanted.
    pub platform: Platform,
}

/// What is known about an image once it is resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// Digest of the manifest for the platform.
    pub manifest: Digest,
    /// Its config, as read.
    pub config: ImageConfig,
}

/// Why an image cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// The whole reason, e.g. `docker.io/library/busybx:latest: not found`.
    pub message: String,
}

/// Gives the configs of base images. Lowering asks at most once for each use of an image.
pub trait Resolver {
    /// Finds the image. The caller may have fetched it beforehand (see [`crate::image_requests`]).
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError>;
}
