//! The config of a manifest of cache mounts.

use crate::backend::{Backend, read};
use crate::error::CacheError;
use rbuild_oci::{Descriptor, Digest, Manifest, media_type};
use serde::{Deserialize, Serialize};

/// Media type of the config.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.rbuild.cachemounts.v1+json";
/// Media type of a chunk.
pub(super) const CHUNK_MEDIA_TYPE: &str = "application/vnd.rbuild.cachemounts.chunk.v1.tar+zstd";
/// Smallest, average and largest chunk, in bytes before compression.
pub(super) const CHUNK_SIZES: (usize, usize, usize) = (256 << 10, 1 << 20, 4 << 20);
/// Most mounts of one manifest.
pub const MAX_MOUNTS: usize = 1024;
/// Most chunks of one manifest: 64 GiB or so, in a manifest that registries take (4 MiB).
pub(super) const MAX_CHUNKS: usize = 16_000;
/// Longest config that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;
/// Longest id, in bytes.
pub(super) const MAX_ID: usize = 4096;
/// Longest compressed chunk that is read, in bytes.
pub(super) const MAX_CHUNK_BLOB: u64 = 8 << 20;
/// Version of the format. A reader takes no other.
const VERSION: u32 = 1;

/// What a manifest of cache mounts holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<StoredMount>,
    pub(super) chunks: Vec<Chunk>,
}

/// A cache mount that is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMount {
    /// Name of its directory: a hash of the id and of what the mount begins with.
    pub directory: Digest,
    /// The id, as it was written.
    pub id: String,
    /// Mode of the mount's root.
    pub mode: u32,
    /// Owner of the mount's root.
    pub uid: u32,
    /// Group of the mount's root.
    pub gid: u32,
    /// Length of its archive in bytes.
    pub size: u64,
    /// Places of its chunks among all, in order.
    pub(super) chunks: Vec<usize>,
}

/// A piece of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// Digest before compression.
    pub(super) digest: Digest,
    /// Length before compression.
    pub(super) size: u64,
    /// Digest of the blob.
    pub(super) blob: Digest,
    /// Length of the blob.
    pub(super) blob_size: u64,
}

impl Chunk {
    pub(super) fn descriptor(&self) -> Descriptor {
        Descriptor::new(CHUNK_MEDIA_TYPE, self.blob, self.blob_size)
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    mounts: Vec<StoredMount>,
    chunks: Vec<Chunk>,
}

impl Mounts {
    pub(super) fn config(&self) -> Vec<u8> {
        let Self { mounts, chunks } = self.clone();
        serde_json::to_vec(&Document { version: VERSION, mounts, chunks }).expect("plain data serialises")
    }

    pub(super) fn manifest(&self, config: Descriptor) -> Vec<u8> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers: self.chunks.iter().map(Chunk::descriptor).collect(),
            annotations: Default::default(),
        };
        serde_json::to_vec(&manifest).expect("plain data serialises")
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| format!("its config is damaged: {error}"))?;
        if document.version != VERSION {
            return Err(format!("its format has version {}, this rbuild knows {VERSION}", document.version));
        }
        let mounts = Self { mounts: document.mounts, chunks: document.chunks };
        mounts.check()?;
        Ok(mounts)
    }

    /// Every chunk that is referred to is there, and every number is what it can be.
    fn check(&self) -> Result<(), String> {
        if self.mounts.len() > MAX_MOUNTS || self.chunks.len() > MAX_CHUNKS {
            return Err("it has too many mounts or chunks".to_owned());
        }
        let largest = CHUNK_SIZES.2 as u64;
        let fits = |chunk: &Chunk| (1..=largest).contains(&chunk.size) && chunk.blob_size <= MAX_CHUNK_BLOB;
        if !self.chunks.iter().all(fits) {
            return Err("one of its chunks has an impossible size".to_owned());
        }
        for mount in &self.mounts {
            if mount.id.len() > MAX_ID {
                return Err("one of its ids is too long".to_owned());
            }
            if mount.chunks.len() > MAX_CHUNKS {
                return Err(format!("{:?} has too many chunks", mount.id));
            }
            let sizes = mount.chunks.iter().map(|place| self.chunks.get(*place).map(|chunk| chunk.size));
            let total = sizes.into_iter().try_fold(0_u64, |sum, size| sum.checked_add(size?));
            if total != Some(mount.size) {
                return Err(format!("the chunks of {:?} do not add up", mount.id));
            }
        }
        Ok(())
    }

    /// What a place holds, with the digest of its manifest; `None` if there is nothing or something else.
    pub(super) async fn read(backend: &dyn Backend) -> Result<Option<(Digest, Self)>, CacheError> {
        let Some((descriptor, bytes)) = backend.manifest().await? else { return Ok(None) };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
            return Err(CacheError::Foreign { found: descriptor.media_type });
        };
        if manifest.config.media_type != CONFIG_MEDIA_TYPE {
            return Err(CacheError::Foreign { found: manifest.config.media_type });
        }
        let config = read(backend, &manifest.config, MAX_CONFIG).await?;
        Ok(Some((descriptor.digest, Self::parse(&config).map_err(CacheError::Damaged)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts() -> Mounts {
        let chunk = Chunk { digest: Digest::of("a"), size: 10, blob: Digest::of("b"), blob_size: 8 };
        let mount = StoredMount {
            directory: Digest::of("apt"),
            id: "apt".into(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 20,
            chunks: vec![0, 0],
        };
        Mounts { mounts: vec![mount], chunks: vec![chunk] }
    }

    #[test]
    fn a_config_is_read_as_it_was_written() {
        assert_eq!(Mounts::parse(&mounts().config()), Ok(mounts()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut Mounts)| {
            let mut mounts = mounts();
            change(&mut mounts);
            Mounts::parse(&mounts.config()).unwrap_err()
        };
        assert!(refused(|it| it.mounts[0].chunks.push(1)).contains("do not add up"));
        assert!(refused(|it| it.mounts[0].size = u64::MAX).contains("do not add up"));
        assert!(refused(|it| it.chunks[0].size = 1 << 40).contains("impossible size"));
        assert!(refused(|it| it.chunks[0].blob_size = 1 << 40).contains("impossible size"));
        assert!(refused(|it| it.mounts[0].chunks = vec![0; MAX_CHUNKS + 1]).contains("too many chunks"));
        assert!(refused(|it| it.mounts[0].id = "x".repeat(MAX_ID + 1)).contains("too long"));
        assert!(refused(|it| it.chunks[0].size = 0).contains("impossible size"));
        assert!(
            Mounts::parse(b"{\"version\":2,\"mounts\":[],\"chunks\":[]}").unwrap_err().contains("version 2")
        );
        assert!(Mounts::parse(b"[").unwrap_err().contains("damaged"));
    }
}
