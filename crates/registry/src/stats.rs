//! What the client did, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of the client's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// HTTP requests of any kind, redirects and token requests included.
    pub requests: u64,
    /// Requests to token services.
    pub token_requests: u64,
    /// Requests that were tried again.
    pub retries: u64,
    /// Bytes of bodies received.
    pub bytes_received: u64,
    /// Bytes of bodies sent.
    pub bytes_sent: u64,
    /// Blobs downloaded and verified.
    pub blobs_pulled: u64,
    /// Blobs uploaded.
    pub blobs_uploaded: u64,
    /// Blobs that were mounted from another repository.
    pub blobs_mounted: u64,
    /// Blobs that were there already.
    pub blobs_existed: u64,
    /// Manifests and indexes uploaded.
    pub manifests_pushed: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) token_requests: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) blobs_pulled: AtomicU64,
    pub(crate) blobs_uploaded: AtomicU64,
    pub(crate) blobs_mounted: AtomicU64,
    pub(crate) blobs_existed: AtomicU64,
    pub(crate) manifests_pushed: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self, retries: u32) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            requests: read(&self.requests),
            token_requests: read(&self.token_requests),
            retries: u64::from(retries),
            bytes_received: read(&self.bytes_received),
            bytes_sent: read(&self.bytes_sent),
            blobs_pulled: read(&self.blobs_pulled),
            blobs_uploaded: read(&self.blobs_uploaded),
            blobs_mounted: read(&self.blobs_mounted),
            blobs_existed: read(&self.blobs_existed),
            manifests_pushed: read(&self.manifests_pushed),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
