//! Layers that steps made elsewhere: from a cache's record to a root, and what happens when a blob is gone.

use crate::engine::{Engine, PackedLayer, locked};
use crate::error::OpFailure;
use crate::fetch::PulledLayer;
use crate::layer::{Layer, Root, from_epoch};
use rbuild_cache::{Cached, RemoteLayer};
use rbuild_layer::{Compression, UnpackError};
use rbuild_oci::Digest;
use rbuild_solver::{OpError, ResultLost, StepContext};
use rbuild_store::{LayerId, StoreError};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// Names an imported layer. Two steps may make the same bytes at different times, and an image's history tells these.
fn imported_id(diff_id: &Digest, (seconds, nanos): (i64, u32)) -> LayerId {
    Digest::of(format!("rbuild.imported-layer.v1\n{diff_id}\n{seconds}.{nanos}"))
}

impl Engine {
    pub(crate) fn is_lost(&self, id: &LayerId) -> bool {
        locked(&self.lost).contains(id)
    }

    /// The root of a record of a cache elsewhere; `None` if it stands on layers that are lost, or on a base image's that
    /// this build does not know.
    pub(crate) fn imported_root(&self, cached: &Cached<'_>) -> Option<Root> {
        let layers = cached.layers.iter().map(|layer| self.imported_layer(layer));
        Some(Root::new(layers.collect::<Option<Vec<_>>>()?))
    }

    /// [`Engine::imported_root`], for exporting it again.
    pub fn root_of_imported(&self, cached: &Cached<'_>) -> Option<Root> {
        self.imported_root(cached)
    }

    /// The result of a record of the store, unless a layer of it is lost.
    pub fn root_of_record(&self, record: &rbuild_store::Record) -> Result<Option<Root>, OpError> {
        self.root_of_chain(&record.chain)
    }

    fn imported_layer(&self, layer: &RemoteLayer) -> Option<Arc<Layer>> {
        let (Some(blob), Some(created)) = (&layer.blob, layer.created) else {
            return self.known_layer(&layer.diff_id);
        };
        let id = imported_id(&layer.diff_id, created);
        if self.is_lost(&id) {
            return None;
        }
        let pulled = PulledLayer { descriptor: blob.clone(), diff_id: layer.diff_id };
        let made = Layer::imported(id, pulled.clone(), from_epoch(created.0, created.1), layer.content);
        let known = self.intern(made);
        // The store may have told of it without saying where its blob is.
        known.pulled.get_or_init(|| pulled);
        if layer.epoch.is_some() {
            locked(&self.epochs).insert(id, layer.epoch);
        }
        Some(known)
    }

    /// SOURCE_DATE_EPOCH that the layer's blob was packed under.
    pub(crate) fn epoch_of(&self, layer: &Layer) -> Option<i64> {
        if !layer.is_pulled() {
            return self.settings.epoch;
        }
        if let Some(known) = locked(&self.epochs).get(&layer.id) {
            return *known;
        }
        // Unknown is as good as none: it decides nothing.
        let forms = self.store.packed_known(&layer.id).unwrap_or_default();
        forms
            .into_iter()
            .find(|form| form.blob == layer.pulled.get().map_or(form.diff_id, |p| p.descriptor.digest))?
            .epoch
    }

    /// An error of fetching a layer's blob. A layer that a step made elsewhere can be made again here.
    pub(crate) fn lost_if_unavailable(
        &self,
        layer: &Layer,
        error: OpError,
        cancel: &CancellationToken,
    ) -> OpError {
        let ours = error.is::<StoreError>() || error.is::<std::io::Error>();
        if !layer.is_imported() || ours || cancel.is_cancelled() {
            return error;
        }
        self.lose(layer, &error)
    }

    /// An error of unpacking a layer's blob.
    pub(crate) fn lost_if_damaged(&self, layer: &Layer, error: OpError) -> OpError {
        let wrong = matches!(error.downcast_ref(), Some(OpFailure::WrongDiffId { .. }));
        let broken = error.downcast_ref::<UnpackError>();
        let broken = broken.is_some_and(|error| !matches!(error, UnpackError::Io { .. }));
        if layer.is_imported() && (wrong || broken) { self.lose(layer, &error) } else { error }
    }

    /// Whether a blob of this digest was missing or damaged where it should have been.
    pub fn was_lost(&self, blob: &Digest) -> bool {
        locked(&self.lost_blobs).contains(blob)
    }

    fn lose(&self, layer: &Layer, error: &OpError) -> OpError {
        locked(&self.lost).insert(layer.id);
        if let Some(pulled) = layer.pulled.get() {
            locked(&self.lost_blobs).insert(pulled.descriptor.digest);
        }
        let lost = matches!(error.downcast_ref(), Some(OpFailure::LayerLost(_)));
        let what = if lost { format!("layer {} is nowhere any more", layer.id) } else { error.to_string() };
        ResultLost(what).into()
    }

    /// The root's topmost layer as a blob for a cache: with `wanted`, if that is given and the layer is not packed yet in
    /// any other way (or whatever there is, under `force`). What came as a blob stays that blob.
    pub async fn pack_for_cache(
        self: &Arc<Self>,
        root: &Root,
        wanted: Option<Compression>,
        force: bool,
        step: &StepContext,
    ) -> Result<PackedLayer, OpError> {
        let layer = root.layers.last().expect("asked of roots with a layer");
        let wanted = wanted.filter(|wanted| *wanted != self.settings.compression && !layer.is_pulled());
        let Some(wanted) = wanted else { return self.pack_top(root, step).await };
        if !force {
            if let Some(packed) = layer.packed.get() {
                return Ok(packed.clone());
            }
            let own =
                self.store.packed(&layer.id, &self.settings.compression.codec(), self.settings.epoch)?;
            if own.is_some() {
                return self.pack_top(root, step).await;
            }
        }
        self.pack_once(root, layer, wanted, step).await
    }

    /// Everything about the root's topmost layer that a cache keeps, but for its blob.
    pub async fn describe_for_cache(
        self: &Arc<Self>,
        root: &Root,
        packed: &PackedLayer,
        step: &StepContext,
    ) -> Result<RemoteLayer, OpError> {
        let layer = root.layers.last().expect("asked of roots with a layer");
        let Some(created) = layer.created else {
            return Ok(RemoteLayer {
                diff_id: packed.diff_id,
                blob: None,
                content: None,
                created: None,
                epoch: None,
            });
        };
        // Without it the layer is found by key only: no reason to do without the layer.
        let content = self.content_of_top(root, step).await.ok();
        Ok(RemoteLayer {
            diff_id: packed.diff_id,
            blob: Some(packed.descriptor.clone()),
            // What is not known is not told.
            content: content.filter(|content| *content != packed.diff_id),
            created: Some(crate::layer::since_epoch(created.max(SystemTime::UNIX_EPOCH))),
            epoch: self.epoch_of(layer),
        })
    }
}
