//! Records of steps: written when the store has the bytes of their layers.

use super::{Engine, PackedLayer, locked, pulled_form, store_row};
use crate::layer::{Layer, Root};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::{Batch, LayerId, LayerKind, Record};
use rbuild_tree::{LayerEntry, LayerEntryKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of a layer that is kept only so that its step need not be done again: a tenth of a second's writing.
pub const MAX_KEPT_BYTES: u64 = 32 << 20;

/// Most entries of such a layer.
pub const MAX_KEPT_FILES: usize = 500;

/// A record that waits until the store has the bytes of all its layers.
pub(super) struct PendingRecord {
    root: Root,
    record: Record,
    preimage: String,
}

impl Engine {
    /// Keeps a record, at once or as soon as the store has the bytes of all its layers.
    pub(crate) fn keep_record(&self, root: Root, record: Record, preimage: String) -> Result<(), OpError> {
        locked(&self.pending).push(PendingRecord { root, record, preimage });
        self.write_ready_records()
    }

    /// Brings the bytes of layers that only records want into the store, and writes those records. For builds that make
    /// no image: in others every layer of the image is packed anyway.
    ///
    /// Layers beyond [`MAX_KEPT_BYTES`] and [`MAX_KEPT_FILES`] are left where they are. To copy them would cost as much as
    /// the whole build did, and to describe them anew costs nearly nothing.
    ///
    /// # Errors
    /// The first layer that could not be kept, a source that changed meanwhile among others. Its records are not
    /// written; nothing else is lost.
    pub async fn own_recorded_layers(self: &Arc<Self>, step: &StepContext) -> Result<(), OpError> {
        let mut wanted: BTreeMap<LayerId, Arc<Layer>> = BTreeMap::new();
        for record in locked(&self.pending).iter() {
            let foreign = || record.root.layers.iter().filter(|layer| !layer.is_owned());
            if foreign().all(|layer| layer.recipe.as_ref().is_none_or(|recipe| is_small(recipe.entries()))) {
                wanted.extend(foreign().map(|layer| (layer.id, Arc::clone(layer))));
            }
        }
        let dirs = wanted.values().map(|layer| self.dir_of(layer, step));
        let results = futures_util::future::join_all(dirs).await;
        results.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }

    pub(super) fn now_owned(&self, layer: &Layer) -> Result<(), OpError> {
        layer.set_owned();
        self.write_ready_records()
    }

    /// Writes the records whose layers' bytes are all in the store.
    pub(super) fn write_ready_records(&self) -> Result<(), OpError> {
        let is_ready = |pending: &PendingRecord| pending.root.layers.iter().all(|layer| layer.is_owned());
        let ready: Vec<PendingRecord> = {
            let mut pending = locked(&self.pending);
            let (ready, waiting) = std::mem::take(&mut *pending).into_iter().partition(is_ready);
            *pending = waiting;
            ready
        };
        if ready.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for PendingRecord { root, record, preimage } in ready {
            for layer in root.layers.iter() {
                batch = match layer.pulled.get() {
                    Some(pulled) if layer.is_imported() => {
                        let packed =
                            PackedLayer { diff_id: pulled.diff_id, descriptor: pulled.descriptor.clone() };
                        let form = pulled_form(layer, &packed, self.epoch_of(layer));
                        batch.layer(store_row(layer, LayerKind::Pulled)).packed(form)
                    }
                    Some(_) => batch.layer(store_row(layer, LayerKind::Pulled)),
                    None if layer.recipe.is_some() => batch,
                    None if Some(layer.id) == record.layer => batch.layer(store_row(layer, LayerKind::Built)),
                    None => batch,
                };
            }
            batch = batch.record(record, preimage);
        }
        Ok(self.store.write(&batch)?)
    }
}

/// Whether a layer costs little to copy.
fn is_small(entries: &[LayerEntry]) -> bool {
    let bytes = entries.iter().map(|entry| match &entry.kind {
        LayerEntryKind::Node { data: Some(data), .. } => data.size,
        _ => 0,
    });
    entries.len() <= MAX_KEPT_FILES && bytes.fold(0, u64::saturating_add) <= MAX_KEPT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_tree::{DataRef, DataSource, FileKind, Metadata, Timestamp, TreePath};

    #[test]
    fn layers_that_are_kept_for_their_record_are_small() {
        let file = |size| {
            let meta =
                Metadata { kind: FileKind::Regular, size, ..Metadata::directory(Timestamp::default()) };
            let data = DataRef { size, digest: None, source: DataSource::Inline(Arc::from(&b""[..])) };
            let path = TreePath::clamped("f").expect("no NUL");
            LayerEntry { path, kind: LayerEntryKind::Node { meta, data: Some(data), hard_link_to: None } }
        };
        assert!(is_small(&[]) && is_small(&[file(MAX_KEPT_BYTES)]));
        assert!(!is_small(&[file(MAX_KEPT_BYTES), file(1)]) && !is_small(&[file(u64::MAX), file(9)]));
        assert!(is_small(&vec![file(1); MAX_KEPT_FILES]) && !is_small(&vec![file(1); MAX_KEPT_FILES + 1]));
    }
}
