//! Records in an image's own config (C-029): only of the steps that made the image's layers.

use crate::contents::{Contents, RemoteLayer, RemoteRecord};
use crate::documents::rfc3339;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

/// The key of an image config that holds base64 of a JSON array of BuildKit's records.
pub const INLINE_KEY: &str = "moby.buildkit.cache.v0";

#[derive(Serialize, Deserialize)]
struct InlineRecord {
    digest: Digest,
    #[serde(default)]
    layers: Vec<InlineResult>,
    /// Ours; BuildKit ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rbuild: Option<InlineOwn>,
}

#[derive(Serialize, Deserialize)]
struct InlineResult {
    layer: usize,
    #[serde(rename = "createdAt", default)]
    created_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InlineOwn {
    operation: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_key: Option<Digest>,
    reads_parent: bool,
    /// Of the record's own layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
}

/// The value of [`INLINE_KEY`] for an image whose layers are those of `contents`, in that order. What differs between two
/// builds of the same (how long a step took) is left out.
pub fn inline_value(contents: &Contents) -> serde_json::Result<String> {
    let records = contents.records.iter().filter_map(|record| {
        let top = *record.chain.last()?;
        let layer = contents.layers.get(top)?;
        let created_at = rfc3339(layer.created.map_or(0, |(seconds, _)| seconds));
        Some(InlineRecord {
            digest: record.key,
            layers: vec![InlineResult { layer: top, created_at }],
            rbuild: Some(InlineOwn {
                operation: record.operation,
                content_key: record.content_key,
                reads_parent: record.reads_parent,
                content: layer.content,
                created: layer.created,
                epoch: layer.epoch,
            }),
        })
    });
    Ok(STANDARD.encode(serde_json::to_vec(&records.collect::<Vec<_>>())?))
}

/// What an image's config says: `value` is that of [`INLINE_KEY`], `blobs` and `diff_ids` are the image's layers.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_inline(
    value: &str,
    blobs: &[Descriptor],
    diff_ids: &[Digest],
) -> Result<Option<Contents>, String> {
    if blobs.len() != diff_ids.len() {
        return Err("the image's manifest and config have different numbers of layers".to_owned());
    }
    let damaged = |error: String| format!("the image's inline cache is damaged: {error}");
    let bytes = STANDARD.decode(value).map_err(|error| damaged(error.to_string()))?;
    let records: Vec<InlineRecord> =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut layers: Vec<RemoteLayer> = (blobs.iter().zip(diff_ids))
        .map(|(blob, diff_id)| RemoteLayer {
            diff_id: *diff_id,
            blob: Some(blob.clone()),
            content: None,
            created: None,
            epoch: None,
        })
        .collect();
    let mut found = Vec::new();
    for record in records {
        let (Some(own), [result]) = (record.rbuild, &record.layers[..]) else { continue };
        let layer = layers.get_mut(result.layer);
        let layer = layer.ok_or_else(|| damaged(format!("there is no layer {}", result.layer)))?;
        (layer.content, layer.created, layer.epoch) = (own.content, own.created, own.epoch);
        found.push(RemoteRecord {
            key: record.digest,
            operation: own.operation,
            content_key: own.content_key,
            reads_parent: own.reads_parent,
            needs: Vec::new(),
            name: String::new(),
            chain: if own.reads_parent { (0..=result.layer).collect() } else { vec![result.layer] },
            created: own.created.map_or(0, |(seconds, _)| seconds),
            cost_ms: 0,
            config: None,
            preimage: None,
        });
    }
    if found.is_empty() {
        return Ok(None);
    }
    // Layers that no record of ours made are the base's: they are had from where the base is.
    for layer in layers.iter_mut().filter(|layer| layer.created.is_none()) {
        layer.blob = None;
    }
    let contents = Contents { layers, records: found };
    contents.check()?;
    Ok(Some(contents))
}
