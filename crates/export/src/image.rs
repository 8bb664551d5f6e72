//! The image that is exported, and the blobs it consists of.

use crate::error::{ExportError, Result};
use rbuild_oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};
use rbuild_store::{MAX_DOCUMENT, Store};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Indexes within indexes that are followed.
const MAX_DEPTH: u32 = 8;

/// An image of the store and what it is to be called.
#[derive(Debug, Clone)]
pub struct ExportImage {
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// Its names, in the order they were given; may be empty.
    pub names: Vec<Reference>,
    /// RFC 3339 time for `org.opencontainers.image.created`; the annotation is left out without it.
    pub created: Option<String>,
}

/// `blob`s of an image by digest, without repetition.
pub(crate) type Blobs = BTreeMap<Digest, Descriptor>;

impl ExportImage {
    /// An image with names and without a time.
    pub fn new(descriptor: Descriptor, names: impl IntoIterator<Item = Reference>) -> Self {
        Self { descriptor, names: names.into_iter().collect(), created: None }
    }

    /// Every blob of the image. All of them are in the store with the announced length; only layers that may not be
    /// distributed can be missing, and are left out then.
    pub(crate) fn blobs(&self, store: &Store) -> Result<Blobs> {
        let mut blobs = Blobs::new();
        collect(store, &self.descriptor, MAX_DEPTH, &mut blobs)?;
        Ok(blobs)
    }

    /// The manifest of a single-platform image.
    pub(crate) fn manifest(&self, store: &Store) -> Result<Manifest> {
        if media_type::is_index(&self.descriptor.media_type) {
            return Err(ExportError::SeveralPlatforms);
        }
        read(store, &self.descriptor)
    }
}

fn collect(store: &Store, descriptor: &Descriptor, depth: u32, blobs: &mut Blobs) -> Result<()> {
    if blobs.contains_key(&descriptor.digest) {
        return Ok(());
    }
    match store.blob_size(&descriptor.digest)? {
        None if is_foreign(&descriptor.media_type) => return Ok(()),
        None => return Err(rbuild_store::StoreError::NoBlob(descriptor.digest).into()),
        Some(actual) if actual != descriptor.size => {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            return Err(rbuild_store::StoreError::SizeMismatch { digest, expected, actual }.into());
        }
        Some(_) => {}
    }
    blobs.insert(descriptor.digest, descriptor.clone());
    if media_type::is_index(&descriptor.media_type) {
        if depth == 0 {
            let reason = format!("indexes are nested more than {MAX_DEPTH} deep");
            return Err(ExportError::Manifest { digest: descriptor.digest, reason });
        }
        let index: Index = read(store, descriptor)?;
        index.manifests.iter().try_for_each(|entry| collect(store, entry, depth - 1, blobs))
    } else if media_type::is_manifest(&descriptor.media_type) {
        let manifest: Manifest = read(store, descriptor)?;
        let parts = manifest.layers.iter().chain([&manifest.config]);
        parts.into_iter().try_for_each(|part| collect(store, part, 0, blobs))
    } else {
        Ok(())
    }
}

fn read<T: DeserializeOwned>(store: &Store, descriptor: &Descriptor) -> Result<T> {
    let bytes = store.read_blob(&descriptor.digest, MAX_DOCUMENT)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| ExportError::Manifest { digest: descriptor.digest, reason: e.to_string() })
}

/// Whether registries refuse to keep layers of this type (B-023).
fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}
