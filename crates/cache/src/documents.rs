//! The config and the manifest of a cache.

use crate::contents::{Contents, RemoteLayer, RemoteRecord};
use rbuild_oci::{Descriptor, Digest, Manifest, media_type};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Media type of a cache's config, BuildKit's.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Longest config that is read, in bytes.
pub const MAX_CONFIG: u64 = 64 << 20;
/// Longest config that BuildKit reads, in bytes.
const KIT_LIMIT: usize = 1 << 20;
/// Version of the part under `rbuild`. A reader takes no other.
const VERSION: u32 = 1;
/// Annotation of a layer's descriptor that BuildKit and containerd read.
const DIFF_ID: &str = "containerd.io/uncompressed";

/// How a cache is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An image manifest (`image-manifest=true`).
    Manifest,
    /// An index whose entries are the blobs (`image-manifest=false`), with OCI or docker media types.
    Index {
        /// `oci-mediatypes`.
        oci: bool,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    layers: Vec<KitLayer>,
    records: Vec<KitRecord>,
    rbuild: Own<'a>,
}

/// A layer as BuildKit describes it.
#[derive(Serialize)]
struct KitLayer {
    blob: Digest,
    /// Place of the layer below; -1 for none. Zero is left out by BuildKit, and may be written.
    parent: i64,
    annotations: KitAnnotations,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KitAnnotations {
    media_type: String,
    #[serde(rename = "diffID")]
    diff_id: Digest,
    size: u64,
    created_at: String,
}

#[derive(Serialize)]
struct KitRecord {
    digest: Digest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<KitResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KitResult {
    layer: usize,
    created_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own<'a> {
    version: u32,
    layers: Vec<OwnLayer>,
    #[serde(borrow)]
    records: Vec<OwnRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnLayer {
    #[serde(rename = "diffID")]
    diff_id: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<OwnBlob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnBlob {
    media_type: String,
    digest: Digest,
    size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnRecord<'a> {
    key: Digest,
    operation: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_key: Option<Digest>,
    reads_parent: bool,
    #[serde(default)]
    needs: Vec<Digest>,
    #[serde(default)]
    name: String,
    chain: Vec<usize>,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    cost_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    preimage: Option<&'a RawValue>,
}

/// Enough of a config to find our part; what BuildKit wrote is not looked at.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(default, borrow)]
    rbuild: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    version: u32,
}

/// The config of a cache with these contents. If it would be longer than BuildKit reads, without preimages.
pub fn config_json(contents: &Contents) -> serde_json::Result<Vec<u8>> {
    let whole = whole_config_json(contents)?;
    if whole.len() <= KIT_LIMIT {
        return Ok(whole);
    }
    let mut shorter = contents.clone();
    for record in &mut shorter.records {
        record.preimage = None;
    }
    whole_config_json(&shorter)
}

fn whole_config_json(contents: &Contents) -> serde_json::Result<Vec<u8>> {
    let mut kit = Kit::default();
    let records = contents.records.iter().map(|record| kit.record(contents, record)).collect();
    let own = Own {
        version: VERSION,
        layers: contents.layers.iter().map(own_layer).collect(),
        records: contents.records.iter().map(own_record).collect(),
    };
    serde_json::to_vec(&Written { layers: kit.layers, records, rbuild: own })
}

/// Layers as BuildKit counts them: one for each blob on each parent.
#[derive(Default)]
struct Kit {
    layers: Vec<KitLayer>,
    places: HashMap<(i64, Digest), usize>,
}

impl Kit {
    fn record(&mut self, contents: &Contents, record: &RemoteRecord) -> KitRecord {
        let mut top = None;
        for layer in record.chain.iter().map(|place| &contents.layers[*place]) {
            let Some(blob) = &layer.blob else { continue };
            let parent = top.map_or(-1, |top: usize| i64::try_from(top).unwrap_or(-1));
            let layers = &mut self.layers;
            top = Some(*self.places.entry((parent, blob.digest)).or_insert_with(|| {
                layers.push(kit_layer(layer, blob, parent));
                layers.len() - 1
            }));
        }
        let created_at = rfc3339(record.created);
        let layers = top.into_iter().map(|layer| KitResult { layer, created_at: created_at.clone() });
        KitRecord { digest: record.key, layers: layers.collect() }
    }
}

fn kit_layer(layer: &RemoteLayer, blob: &Descriptor, parent: i64) -> KitLayer {
    let annotations = KitAnnotations {
        media_type: blob.media_type.clone(),
        diff_id: layer.diff_id,
        size: blob.size,
        created_at: rfc3339(layer.created.map_or(0, |(seconds, _)| seconds)),
    };
    KitLayer { blob: blob.digest, parent, annotations }
}

/// Seconds since 1970 in the years that RFC 3339 has.
pub(crate) fn rfc3339(seconds: i64) -> String {
    const LAST: i64 = 253_402_300_799;
    rbuild_oci::time::format_seconds(seconds.clamp(0, LAST), 0)
}

fn own_layer(layer: &RemoteLayer) -> OwnLayer {
    let RemoteLayer { diff_id, blob, content, created, epoch } = layer;
    let blob = blob.as_ref().map(|blob| OwnBlob {
        media_type: blob.media_type.clone(),
        digest: blob.digest,
        size: blob.size,
    });
    OwnLayer { diff_id: *diff_id, blob, content: *content, created: *created, epoch: *epoch }
}

fn own_record(record: &RemoteRecord) -> OwnRecord<'_> {
    let RemoteRecord {
        key,
        operation,
        content_key,
        reads_parent,
        needs,
        name,
        chain,
        created,
        cost_ms,
        config,
        preimage,
    } = record;
    OwnRecord {
        key: *key,
        operation: *operation,
        content_key: *content_key,
        reads_parent: *reads_parent,
        needs: needs.clone(),
        name: name.clone(),
        chain: chain.clone(),
        created: *created,
        cost_ms: *cost_ms,
        config: config.clone(),
        // A preimage that is no JSON is not worth an error.
        preimage: preimage.as_deref().and_then(|text| serde_json::from_str(text).ok()),
    }
}

/// What a cache's config says; `None` if nothing of it was written by an rbuild that writes as this one does.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_config(bytes: &[u8]) -> Result<Option<Contents>, String> {
    let damaged = |error: serde_json::Error| format!("the cache config is damaged: {error}");
    let read: Read<'_> = serde_json::from_slice(bytes).map_err(damaged)?;
    let Some(raw) = read.rbuild else { return Ok(None) };
    let version: Version = serde_json::from_str(raw.get()).map_err(damaged)?;
    if version.version != VERSION {
        return Ok(None);
    }
    let own: Own<'_> = serde_json::from_str(raw.get()).map_err(damaged)?;
    let layers = own.layers.into_iter().map(|layer| RemoteLayer {
        diff_id: layer.diff_id,
        blob: layer.blob.map(|blob| Descriptor::new(blob.media_type, blob.digest, blob.size)),
        content: layer.content,
        created: layer.created,
        epoch: layer.epoch,
    });
    let records = own.records.into_iter().map(|record| RemoteRecord {
        key: record.key,
        operation: record.operation,
        content_key: record.content_key,
        reads_parent: record.reads_parent,
        needs: record.needs,
        name: record.name,
        chain: record.chain,
        created: record.created,
        cost_ms: record.cost_ms,
        config: record.config,
        preimage: record.preimage.map(|raw| raw.get().to_owned()),
    });
    let contents = Contents { layers: layers.collect(), records: records.collect() };
    contents.check()?;
    Ok(Some(contents))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// The manifest (or index) of a cache, with its media type.
pub fn manifest_json(
    contents: &Contents,
    config: &Descriptor,
    form: Form,
) -> serde_json::Result<(&'static str, Vec<u8>)> {
    let layers = contents.blobs().into_iter().filter_map(|layer| {
        let mut blob = layer.blob.clone()?;
        blob.annotations.insert(DIFF_ID.to_owned(), layer.diff_id.to_string());
        Some(blob)
    });
    match form {
        Form::Manifest => {
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                artifact_type: None,
                config: config.clone(),
                layers: layers.collect(),
                annotations: Default::default(),
            };
            Ok((media_type::OCI_MANIFEST, serde_json::to_vec(&manifest)?))
        }
        Form::Index { oci } => {
            let media_type = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_INDEX };
            let manifests = layers.chain([config.clone()]).collect();
            let index = IndexDocument { schema_version: 2, media_type, manifests };
            Ok((media_type, serde_json::to_vec(&index)?))
        }
    }
}
