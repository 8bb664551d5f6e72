//! What `fsck --deep` compares unpacked layers with.

use rbuild_oci::Digest;
use rbuild_snapshot::{ChainLayer, ChainView, DirLayer, content_digest, diff_upper};
use rbuild_store::{LayerCheck, LayerOnDisk};
use std::path::Path;
use std::sync::Arc;

/// Computes content digests of layers as builds do.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContentCheck;

impl LayerCheck for ContentCheck {
    fn content_digest(&self, layer: &LayerOnDisk<'_>) -> Result<Digest, String> {
        let open = |dir: &Path| DirLayer::open(dir).map_err(|error| error.to_string());
        let below: Result<Vec<ChainLayer>, String> =
            layer.below.iter().map(|dir| Ok(ChainLayer::Dir(Arc::new(open(dir)?)))).collect();
        let lower = ChainView::new(below?);
        let entries = diff_upper(&open(layer.dir)?, &lower).map_err(|error| error.to_string())?;
        content_digest(&entries).map_err(|error| error.to_string())
    }
}
