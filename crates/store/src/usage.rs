//! What takes how much space (`du`).

use crate::error::{IoContext, Result};
use crate::fsutil::disk_bytes;
use crate::layer::snapshot_id;
use crate::{Store, locked};
use rbuild_oci::Digest;
use std::fs;

/// What a row of the usage is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageKind {
    /// A file of `blobs/sha256`.
    Blob,
    /// An unpacked layer.
    Layer,
    /// A directory of RUN --mount=type=cache.
    CacheMount,
}

/// One object on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// What it is.
    pub kind: UsageKind,
    /// Its digest, layer id, or the hash of a cache mount's id.
    pub id: Digest,
    /// What it takes on disk.
    pub bytes: u64,
}

impl Store {
    /// Every blob, unpacked layer and cache mount with the space it takes, measured now, in no particular order.
    pub fn disk_usage(&self) -> Result<Vec<UsageRow>> {
        let mut rows = Vec::new();
        for (name, kind) in [("blobs/sha256", UsageKind::Blob), ("snapshots", UsageKind::Layer)] {
            let dir = self.root().join(name);
            for entry in fs::read_dir(&dir).at("list", &dir)? {
                let path = entry.at("list", &dir)?.path();
                if let Some(id) = snapshot_id(&path) {
                    rows.push(UsageRow { kind, id, bytes: disk_bytes(&path) });
                }
            }
        }
        for (id, path) in self.cache_mounts()? {
            rows.push(UsageRow { kind: UsageKind::CacheMount, id, bytes: disk_bytes(&path) });
        }
        Ok(rows)
    }

    /// Whether this handle holds a lease.
    pub fn is_leased(&self) -> bool {
        locked(&self.inner.lease).is_some()
    }
}
