//! Writing a cache: what the place has already is not sent, the manifest comes last.

use crate::backend::{Backend, Found};
use crate::contents::Contents;
use crate::documents::{CONFIG_MEDIA_TYPE, Form, config_json, manifest_json};
use crate::error::CacheError;
use rbuild_oci::{Descriptor, Digest};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// How an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The place held exactly this.
    Unchanged,
    /// The manifest was written.
    Written,
}

/// What the place held before this build.
#[derive(Default)]
struct Existing {
    manifest: Option<Digest>,
    blobs: HashSet<Digest>,
}

/// Writes one cache. Whatever several builds do at once, the last manifest wins, and its blobs are there.
pub struct Exporter {
    backend: Arc<dyn Backend>,
    form: Form,
    existing: OnceCell<Existing>,
    placed: Mutex<HashSet<Digest>>,
}

impl Exporter {
    /// An exporter that has done nothing yet.
    pub fn new(backend: Arc<dyn Backend>, form: Form) -> Self {
        Self { backend, form, existing: OnceCell::new(), placed: Mutex::default() }
    }

    /// The place.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// What is there, read once. An existing manifest that is no manifest is as good as none.
    async fn existing(&self) -> Result<&Existing, CacheError> {
        let read = || async {
            let found = match self.backend.manifest().await {
                Ok(found) => found,
                Err(CacheError::Damaged(_) | CacheError::WrongBlob { .. }) => None,
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            let Some((descriptor, bytes)) = found else { return Ok(Existing::default()) };
            Ok(Existing { manifest: Some(descriptor.digest), blobs: named_blobs(&bytes) })
        };
        self.existing.get_or_try_init(read).await
    }

    fn set_placed(&self, blob: Digest) {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).insert(blob);
    }

    /// Whether the blob is known to be there.
    pub fn is_placed(&self, blob: &Digest) -> bool {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).contains(blob)
    }

    /// Whether the place has the blob, or can get it without its bytes. Nothing is asked about a blob that the existing
    /// manifest names, unless `probe`.
    pub async fn find(
        &self,
        blob: &Descriptor,
        mount_from: &[String],
        probe: bool,
    ) -> Result<bool, CacheError> {
        let known = self.is_placed(&blob.digest) || self.existing().await?.blobs.contains(&blob.digest);
        if (probe || !known) && self.backend.find(blob, mount_from).await? == Found::Missing {
            return Ok(false);
        }
        self.set_placed(blob.digest);
        Ok(true)
    }

    /// Sends a blob that [`Exporter::find`] did not find.
    pub async fn send(&self, blob: &Descriptor, source: &Path) -> Result<(), CacheError> {
        self.backend.put(blob, source).await?;
        self.set_placed(blob.digest);
        Ok(())
    }

    /// Writes config and manifest, unless the place holds them. All blobs must have been placed.
    pub async fn publish(&self, contents: &Contents) -> Result<Published, CacheError> {
        let not_json = |error: serde_json::Error| CacheError::Damaged(error.to_string());
        let bytes = config_json(contents).map_err(not_json)?;
        let config = Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of(&bytes), bytes.len() as u64);
        let (media_type, manifest) = manifest_json(contents, &config, self.form).map_err(not_json)?;
        if self.existing().await?.manifest == Some(Digest::of(&manifest)) {
            return Ok(Published::Unchanged);
        }
        self.backend.put_bytes(&config, &bytes).await?;
        self.backend.put_manifest(media_type, &manifest).await?;
        Ok(Published::Written)
    }
}

/// All blobs that a manifest, or an index whose entries are blobs, names.
fn named_blobs(bytes: &[u8]) -> HashSet<Digest> {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let lists = ["layers", "manifests"].into_iter().filter_map(|key| document[key].as_array());
    let entries = lists.flatten().chain(document.get("config"));
    entries.filter_map(|entry| entry["digest"].as_str()?.parse().ok()).collect()
}
