//! An image of the store as it is shown: the documents of one platform, or of several.

use crate::exit::Usage;
use anyhow::{Context as _, Result};
use rbuild_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, best_match, media_type};
use rbuild_store::{MAX_DOCUMENT, Store};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// An image's documents.
pub(crate) struct Documents {
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
}

/// An image for one platform, or an index of images.
pub(crate) struct Shown {
    /// Digest of the config, or of the index.
    pub(crate) id: Digest,
    /// The index, if it is one.
    pub(crate) index: Option<Index>,
    /// The images that are here, each with its descriptor; not empty.
    images: Vec<(Descriptor, Documents)>,
}

impl Shown {
    /// Reads the image or index behind a descriptor. Of an index, images that are not here are left out.
    pub(crate) fn read(store: &Store, descriptor: &Descriptor) -> Result<Self> {
        if !media_type::is_index(&descriptor.media_type) {
            let documents = documents(store, &descriptor.digest)?;
            let id = documents.manifest.config.digest;
            return Ok(Self { id, index: None, images: vec![(descriptor.clone(), documents)] });
        }
        let index: Index = parse(store, &descriptor.digest)?;
        let entries = index.manifests.iter().filter(|entry| {
            // Attestations are for `unknown/unknown`.
            let is_image = entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            is_image && media_type::is_manifest(&entry.media_type)
        });
        let images: Vec<_> = entries
            .filter_map(|entry| Some((entry.clone(), documents(store, &entry.digest).ok()?)))
            .collect();
        if images.is_empty() {
            anyhow::bail!("index {}: none of its images is here", descriptor.digest);
        }
        Ok(Self { id: descriptor.digest, index: Some(index), images })
    }

    /// The platforms that are here.
    pub(crate) fn platforms(&self) -> Vec<String> {
        self.images
            .iter()
            .map(|(descriptor, documents)| platform(descriptor, documents).to_string())
            .collect()
    }

    /// All documents, in the order of the index.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Documents> {
        self.images.iter().map(|(_, documents)| documents)
    }

    /// The image for a platform, `None` being this machine's; if that is not among them and was not asked for, the first.
    pub(crate) fn choose(&self, wanted: Option<&str>) -> Result<&Documents> {
        let parsed = match wanted {
            None | Some("local") => Platform::host(),
            Some(text) => text.parse().map_err(|error| Usage::new(format!("--platform: {error}")))?,
        };
        let offered: Vec<Descriptor> = (self.images.iter())
            .map(|(descriptor, documents)| Descriptor {
                platform: Some(platform(descriptor, documents)),
                ..descriptor.clone()
            })
            .collect();
        match (best_match(&offered, &parsed), wanted) {
            (Some(place), _) => Ok(&self.images[place].1),
            (None, None) => Ok(&self.images[0].1),
            (None, Some(text)) => {
                let problem =
                    format!("the image is not for {text}: it is for {}", self.platforms().join(", "));
                Err(Usage::new(problem).into())
            }
        }
    }

    /// Bytes of all layers, each counted once.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self.documents().flat_map(|documents| &documents.manifest.layers);
        layers.map(|layer| (layer.digest, layer.size)).collect::<BTreeMap<_, _>>().into_values().sum()
    }
}

/// What the index says, else what the image says of itself.
fn platform(descriptor: &Descriptor, documents: &Documents) -> Platform {
    let config = &documents.config;
    descriptor.platform.clone().unwrap_or_else(|| Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: None,
        variant: config.variant.clone(),
    })
}

/// Reads the manifest and config behind a manifest's digest.
fn documents(store: &Store, digest: &Digest) -> Result<Documents> {
    let manifest: Manifest = parse(store, digest)?;
    let config = parse(store, &manifest.config.digest)?;
    Ok(Documents { manifest, config })
}

fn parse<T: DeserializeOwned>(store: &Store, digest: &Digest) -> Result<T> {
    let bytes = store.read_blob(digest, MAX_DOCUMENT)?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {digest}"))
}
