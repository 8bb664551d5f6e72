//! The record schema: what every place that records can live in keeps (DESIGN section 5).

use rbuild_oci::{Descriptor, Digest};
use std::collections::{BTreeMap, BTreeSet};

/// Most layers of a cache that are read.
pub const MAX_LAYERS: usize = 100_000;
/// Most records of a cache that are read.
pub const MAX_RECORDS: usize = 100_000;
/// Most layers of one record; overlayfs takes fewer.
pub const MAX_CHAIN: usize = 1_000;
/// Most layers of all records together.
const MAX_CHAINS: usize = 4_000_000;

/// A layer that records name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLayer {
    /// Digest of its uncompressed tar: its identity on every machine.
    pub diff_id: Digest,
    /// Its blob in the cache; `None` for a layer of a base image, which is had from where the image is.
    pub blob: Option<Descriptor>,
    /// Digest of its content but for times, for the second lookup.
    pub content: Option<Digest>,
    /// When its step made it: seconds since 1970 and nanoseconds. `None` for a layer of a base image.
    pub created: Option<(i64, u32)>,
    /// SOURCE_DATE_EPOCH it was packed under.
    pub epoch: Option<i64>,
}

/// The result of a step under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRecord {
    /// Definition key.
    pub key: Digest,
    /// Digest of the operation alone.
    pub operation: Digest,
    /// Digest of what the operation read of its inputs, if it is known.
    pub content_key: Option<Digest>,
    /// Whether the result depends on the root that the step stands on. If not, `chain` is its own layer alone.
    pub reads_parent: bool,
    /// Definition keys of parent and inputs.
    pub needs: Vec<Digest>,
    /// The step as shown.
    pub name: String,
    /// Layers of the result, the base first: places in [`Contents::layers`].
    pub chain: Vec<usize>,
    /// When the step ran, seconds since 1970.
    pub created: i64,
    /// How long it ran, in milliseconds.
    pub cost_ms: u64,
    /// What else the step resulted in, as JSON.
    pub config: Option<String>,
    /// Preimage of the key as JSON; left out when it is long.
    pub preimage: Option<String>,
}

/// Everything that one cache says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Layers, each once.
    pub layers: Vec<RemoteLayer>,
    /// Records, each after what it needs as far as that is here.
    pub records: Vec<RemoteRecord>,
}

impl Contents {
    /// Whether every place is one and nothing is larger than allowed.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.layers.len() > MAX_LAYERS || self.records.len() > MAX_RECORDS {
            return Err(format!(
                "it has {} layers and {} records; more than {MAX_LAYERS} and {MAX_RECORDS} are not read",
                self.layers.len(),
                self.records.len()
            ));
        }
        let mut chains = 0;
        for record in &self.records {
            chains += record.chain.len();
            if record.chain.len() > MAX_CHAIN || chains > MAX_CHAINS {
                return Err(format!("record {} has too many layers", record.key));
            }
            if record.chain.is_empty() {
                return Err(format!("record {} has no layer", record.key));
            }
            if let Some(place) = record.chain.iter().find(|place| **place >= self.layers.len()) {
                return Err(format!("record {} names layer {place}, which is not there", record.key));
            }
        }
        Ok(())
    }

    /// The blobs of all layers, each once, in the order of the layers.
    pub fn blobs(&self) -> Vec<&RemoteLayer> {
        let mut seen = BTreeSet::new();
        let named = self.layers.iter().filter(|layer| layer.blob.is_some());
        named.filter(|layer| layer.blob.as_ref().is_some_and(|blob| seen.insert(blob.digest))).collect()
    }

    /// Leaves out every record with a layer whose blob is not among `present`, and every layer without a record.
    pub fn retain_present(&mut self, present: impl Fn(&Digest) -> bool) {
        let whole: Vec<bool> = (self.layers.iter())
            .map(|layer| layer.blob.as_ref().is_none_or(|blob| present(&blob.digest)))
            .collect();
        self.records.retain(|record| record.chain.iter().all(|place| whole[*place]));
        let mut places = BTreeMap::new();
        let mut kept = Vec::new();
        for record in &mut self.records {
            for place in &mut record.chain {
                *place = *places.entry(*place).or_insert_with(|| {
                    kept.push(self.layers[*place].clone());
                    kept.len() - 1
                });
            }
        }
        self.layers = kept;
    }
}
