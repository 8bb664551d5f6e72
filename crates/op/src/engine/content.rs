//! What layers hold, whoever made them and when: two of the same content stand for each other in the cache.

use super::Engine;
use crate::bridge::blocking;
use crate::layer::{Root, since_epoch};
use rbuild_oci::Digest;
use rbuild_solver::{OpError, StepContext};
use rbuild_tree::{LayerEntry, LayerEntryKind, Timestamp};
use std::sync::Arc;

/// How far from the making of a layer a file's time may be to count as made by it, in seconds: longer than steps run.
const FRESH: u64 = 24 * 60 * 60;

impl Engine {
    /// Digest of the content of the root's topmost layer, but for times.
    pub(crate) async fn content_of_top(
        self: &Arc<Self>,
        root: &Root,
        step: &StepContext,
    ) -> Result<Digest, OpError> {
        let layer = root.layers.last().expect("asked of roots with a layer");
        let content = layer.content.get_or_try_init(|| async {
            if layer.is_pulled() && !layer.is_imported() {
                return Ok::<_, OpError>(layer.id);
            }
            let row = self.store.layer(&layer.id)?;
            if let Some(content) = row.as_ref().and_then(|row| row.content_digest) {
                return Ok(content);
            }
            if layer.is_imported() {
                // Not worth a download: it equals nothing but itself.
                return Ok(layer.pulled.get().map_or(layer.id, |pulled| pulled.diff_id));
            }
            let entries = self.entries_of_top(root, step).await?;
            let content = blocking(move || rbuild_snapshot::content_digest(entries.as_slice())).await?;
            if let Some(mut row) = row {
                row.content_digest = Some(content);
                self.store.put_layer(row)?;
            }
            Ok(content)
        });
        content.await.copied()
    }

    /// Digest of the content of all layers of a root, but for times.
    pub(crate) async fn chain_content(
        self: &Arc<Self>,
        root: &Root,
        step: &StepContext,
    ) -> Result<Digest, OpError> {
        let mut text = "rbuild.chain-content.v1\n".to_owned();
        for count in 1..=root.layers.len() {
            text.push_str(&format!("{}\n", self.content_of_top(&root.prefix(count), step).await?));
        }
        Ok(Digest::of(text))
    }

    /// Whether two roots hold the same files but for the times that running made, so that one can be taken for the other.
    /// Layers that both share are not looked at.
    pub(crate) async fn same_content(
        self: &Arc<Self>,
        one: &Root,
        other: &Root,
        step: &StepContext,
    ) -> Result<bool, OpError> {
        if one.layers.len() != other.layers.len() {
            return Ok(false);
        }
        for count in 1..=one.layers.len() {
            if one.layers[count - 1].id == other.layers[count - 1].id {
                continue;
            }
            let prefix = |root: &Root| Root::new(root.layers[..count].to_vec());
            if self.content_of_top(&prefix(one), step).await?
                != self.content_of_top(&prefix(other), step).await?
                || !self.same_times_of_top(&prefix(one), &prefix(other), step).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the topmost layers of two roots, equal in content, have the same times where these were given (`touch -d`,
    /// an archive's) and did not just come about: a step that only changes such a time changes the image.
    async fn same_times_of_top(
        self: &Arc<Self>,
        one: &Root,
        other: &Root,
        step: &StepContext,
    ) -> Result<bool, OpError> {
        let mut times = Vec::with_capacity(2);
        for root in [one, other] {
            let layer = root.layers.last().expect("asked of roots with a layer");
            let (false, Some(created)) = (layer.is_pulled(), layer.created()) else { return Ok(true) };
            let entries = self.entries_of_top(root, step).await?;
            times.push(given_times(entries.as_slice(), since_epoch(created).0));
        }
        Ok(times[0] == times[1])
    }
}

/// The times of a layer's entries in their order; `None` for one that came about as the layer was made, `created` seconds
/// since 1970.
fn given_times(entries: &[LayerEntry], created: i64) -> Vec<Option<Timestamp>> {
    let given = |entry: &LayerEntry| match &entry.kind {
        LayerEntryKind::Node { meta, .. } => {
            Some(meta.mtime).filter(|time| time.seconds.abs_diff(created) > FRESH)
        }
        _ => None,
    };
    entries.iter().map(given).collect()
}
