//! The documents of the image: its config with history and times, its manifest, and the index of several platforms.

use rbuild_ir::ImageResult;
use rbuild_oci::time::{format_rfc3339, format_seconds, parse_rfc3339};
use rbuild_oci::{Descriptor, Digest, History, ImageConfig, Index, Manifest, RootFs, go_json, media_type};
use rbuild_op::PackedLayer;
use std::time::SystemTime;

/// A layer of the image: its packed form, and when it was made if a step of ours made it.
#[derive(Debug, Clone)]
pub(crate) struct ImageLayer {
    pub(crate) packed: PackedLayer,
    pub(crate) created: Option<SystemTime>,
}

/// The bytes of an image's documents.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    /// Describes `manifest`.
    pub(crate) descriptor: Descriptor,
    pub(crate) config_digest: Digest,
    /// `config.created`.
    pub(crate) created: Option<String>,
}

/// Makes the documents. Errors only if a value cannot be serialised.
pub(crate) fn documents(
    image: &ImageResult,
    layers: &[ImageLayer],
    inline_cache: Option<String>,
) -> serde_json::Result<Documents> {
    let mut config = config(image, layers);
    if let Some(cache) = inline_cache {
        config.other.insert(rbuild_cache::INLINE_KEY.to_owned(), cache.into());
    }
    let config_bytes = sorted_json(&config)?;
    let config_digest = Digest::of(&config_bytes);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(media_type::OCI_CONFIG, config_digest, config_bytes.len() as u64),
        layers: layers.iter().map(|layer| layer.packed.descriptor.clone()).collect(),
        annotations: Default::default(),
    };
    let manifest = serde_json::to_vec_pretty(&manifest)?;
    let mut descriptor =
        Descriptor::new(media_type::OCI_MANIFEST, Digest::of(&manifest), manifest.len() as u64);
    descriptor.platform = Some(image.platform.clone());
    let created = config.created.clone();
    Ok(Documents { config: config_bytes, manifest, descriptor, config_digest, created })
}

/// The index of these images (B-025): its descriptor, and its bytes. Errors only if a value cannot be serialised.
pub(crate) fn index(images: &[Documents]) -> serde_json::Result<(Descriptor, Vec<u8>)> {
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: images.iter().map(|image| image.descriptor.clone()).collect(),
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec_pretty(&index)?;
    Ok((Descriptor::new(media_type::OCI_INDEX, Digest::of(&bytes), bytes.len() as u64), bytes))
}

/// B-006: top-level keys sorted, Go's escapes.
fn sorted_json(config: &ImageConfig) -> serde_json::Result<Vec<u8>> {
    let value = serde_json::to_value(config)?;
    let serde_json::Value::Object(fields) = value else { return go_json(config) };
    let sorted: std::collections::BTreeMap<String, serde_json::Value> = fields.into_iter().collect();
    go_json(&sorted)
}

/// The config with diff IDs, history and times.
fn config(image: &ImageResult, layers: &[ImageLayer]) -> ImageConfig {
    // B-012: what an instruction adds is as old as SOURCE_DATE_EPOCH, also where its layer is older and was cached.
    let epoch = image.source_date_epoch.map(|epoch| format_seconds(epoch, 0));
    let new = image.history.iter().map(|entry| History {
        created: epoch.clone(),
        created_by: Some(entry.created_by.clone()),
        author: None,
        comment: Some(entry.comment.clone()).filter(|comment| !comment.is_empty()),
        empty_layer: entry.vertex.is_none(),
    });
    let mut history: Vec<History> = image.config.history.iter().cloned().chain(new).collect();
    match_layers(&mut history, layers.len(), &image.origins);
    set_times(&mut history, layers);
    if let Some(epoch) = image.source_date_epoch {
        let base = image.config.history.iter();
        let kept = base.zip(&history).take_while(|(before, now)| before == now).count();
        clamp(&mut history[kept..], epoch);
    }
    let created = history.iter().rev().find_map(|entry| entry.created.clone());
    let created = match (created, image.source_date_epoch) {
        // An image without any dated layer is as old as it is told to be.
        (None, Some(epoch)) => Some(format_seconds(epoch, 0)),
        (created, _) => created,
    };
    let diff_ids = layers.iter().map(|layer| layer.packed.diff_id).collect();
    ImageConfig { created, history, rootfs: RootFs { diff_ids, ..RootFs::default() }, ..image.config.clone() }
}

/// What BuildKit says of a layer that it has no description of.
const UNKNOWN: &str = "created by buildkit";

/// B-010: as many non-empty entries as layers. Entries that are missing are added at the end, for the last layers: a base
/// that tells less than it has shifts the entries of the instructions to its own layers, as in BuildKit.
fn match_layers(history: &mut Vec<History>, layers: usize, origins: &[String]) {
    let mut seen = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        seen += 1;
        if seen > layers {
            entry.empty_layer = true;
        }
    }
    let base_layers = layers.saturating_sub(origins.len().saturating_sub(1));
    for layer in seen..layers {
        let origin = origins.get((layer + 1).saturating_sub(base_layers));
        let origin = origin.filter(|origin| !origin.is_empty()).map_or(UNKNOWN, String::as_str);
        history.push(History {
            created_by: Some(origin.to_owned()),
            comment: Some("buildkit.exporter.image.v0".into()),
            ..History::default()
        });
    }
}

/// B-009: an entry with a layer has the layer's time; the others have that of the first new layer before them, else of
/// whatever is known.
fn set_times(history: &mut [History], layers: &[ImageLayer]) {
    let mut layers = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        let created = layers.next().and_then(|layer| layer.created);
        if entry.created.is_none() {
            entry.created = created.map(format_rfc3339);
        }
    }
    let mut known = None;
    let mut gap = false;
    for entry in history.iter() {
        match &entry.created {
            Some(created) => {
                known = Some(created.clone());
                if gap {
                    break;
                }
            }
            None => gap = true,
        }
    }
    gap = false;
    for entry in history {
        match &entry.created {
            Some(created) if gap => known = Some(created.clone()),
            Some(_) => {}
            None => {
                gap = true;
                entry.created.clone_from(&known);
            }
        }
    }
}

/// B-012: entries are not later than SOURCE_DATE_EPOCH.
fn clamp(history: &mut [History], epoch: i64) {
    for entry in history {
        let later = entry.created.as_deref().and_then(parse_rfc3339).is_none_or(|created| created >= epoch);
        if later {
            entry.created = Some(format_seconds(epoch, 0));
        }
    }
}

#[cfg(test)]
mod tests;
