//! Layers and roots while a build runs.

use crate::engine::PackedLayer;
use crate::fetch::PulledLayer;
use rbuild_oci::Digest;
use rbuild_snapshot::{ChainView, Recipe};
use rbuild_store::{LayerId, LayerKind};
use rbuild_tree::TreePath;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::OnceCell;

/// One layer. There is one value of it in a build, so that each form is made once.
#[derive(Debug)]
pub struct Layer {
    /// Its name in the store.
    pub(crate) id: LayerId,
    /// When it was made; `None` for a layer of a base image.
    pub(crate) created: Option<SystemTime>,
    /// The blob of a base image, or of a cache elsewhere, that it is.
    pub(crate) pulled: OnceLock<PulledLayer>,
    /// Its entries, while they are all there is or the shortest way to them.
    pub(crate) recipe: Option<Arc<Recipe>>,
    /// Its overlay directory in the store.
    pub(crate) dir: OnceCell<PathBuf>,
    /// Directories in there that its archive has no entry for.
    pub(crate) implied: OnceCell<Arc<[TreePath]>>,
    /// Digest of its content but for times.
    pub(crate) content: OnceCell<Digest>,
    /// Its packed form under this build's settings.
    pub(crate) packed: OnceCell<PackedLayer>,
    /// Whether the store has its bytes, in whatever form.
    owned: AtomicBool,
}

impl Layer {
    fn new(id: LayerId, created: Option<SystemTime>, recipe: Option<Arc<Recipe>>, owned: bool) -> Self {
        Self {
            id,
            created,
            pulled: OnceLock::new(),
            recipe,
            dir: OnceCell::new(),
            implied: OnceCell::new(),
            content: OnceCell::new(),
            packed: OnceCell::new(),
            owned: AtomicBool::new(owned),
        }
    }

    /// A layer that the store knows.
    pub(crate) fn stored(id: LayerId, created: Option<SystemTime>) -> Self {
        Self::new(id, created, None, true)
    }

    /// A layer of a base image.
    pub(crate) fn pulled(layer: PulledLayer) -> Self {
        let made = Self::new(layer.diff_id, None, None, true);
        made.pulled.get_or_init(|| layer);
        made
    }

    /// A layer that a step made elsewhere; its blob is in a cache.
    pub(crate) fn imported(
        id: LayerId,
        layer: PulledLayer,
        created: SystemTime,
        content: Option<Digest>,
    ) -> Self {
        let made = Self::new(id, Some(created), None, true);
        made.pulled.get_or_init(|| layer);
        Self { content: OnceCell::new_with(content), ..made }
    }

    /// A layer that a RUN just made in `dir`.
    pub(crate) fn executed(id: LayerId, created: SystemTime, dir: PathBuf) -> Self {
        let made = Self::new(id, Some(created), None, true);
        Self { dir: OnceCell::new_with(Some(dir)), ..made }
    }

    /// A layer that is only described so far.
    pub(crate) fn described(id: LayerId, created: SystemTime, recipe: Recipe) -> Self {
        Self::new(id, Some(created), Some(Arc::new(recipe)), false)
    }

    /// Its name in the store.
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// When it was made; `None` for a layer of a base image.
    pub fn created(&self) -> Option<SystemTime> {
        self.created
    }

    /// Whether it is a blob of a base image or of a cache elsewhere, which need not be here.
    pub fn is_pulled(&self) -> bool {
        self.pulled.get().is_some()
    }

    /// Whether a step made it elsewhere: it may be gone when it is wanted, and can be made again.
    pub fn is_imported(&self) -> bool {
        self.created.is_some() && self.is_pulled()
    }

    /// Whether the store has its bytes.
    pub(crate) fn is_owned(&self) -> bool {
        self.owned.load(Ordering::Acquire)
    }

    /// Its bytes are in the store now.
    pub(crate) fn set_owned(&self) {
        self.owned.store(true, Ordering::Release);
    }
}

/// A root filesystem: its layers, the base first. Cheap to clone.
#[derive(Clone, Default)]
pub struct Root {
    pub(crate) layers: Arc<[Arc<Layer>]>,
    pub(crate) view: Arc<OnceCell<Arc<ChainView>>>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.layers.iter().map(|layer| layer.id)).finish()
    }
}

impl Root {
    /// A root of these layers.
    pub(crate) fn new(layers: impl Into<Arc<[Arc<Layer>]>>) -> Self {
        Self { layers: layers.into(), view: Arc::default() }
    }

    /// The layers, the base first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// This root with one more layer on top.
    pub(crate) fn with(&self, layer: Arc<Layer>) -> Self {
        Self::new(self.layers.iter().cloned().chain([layer]).collect::<Vec<_>>())
    }

    /// The root of the first `count` layers.
    pub fn prefix(&self, count: usize) -> Self {
        if count == self.layers.len() { self.clone() } else { Self::new(self.layers[..count].to_vec()) }
    }

    /// The root of the topmost layer alone.
    pub fn top(&self) -> Self {
        Self::new(self.layers.last().cloned().into_iter().collect::<Vec<_>>())
    }

    /// The root that the topmost layer was put on.
    pub(crate) fn below_top(&self) -> Self {
        self.prefix(self.layers.len().saturating_sub(1))
    }
}

/// Seconds and nanoseconds since the epoch; a clock before 1970 is the epoch.
pub(crate) fn since_epoch(time: SystemTime) -> (i64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// The store's row of a layer that has just been written into a directory of the store.
pub(crate) fn row_of_new_dir(id: LayerId) -> rbuild_store::Layer {
    let (created, created_nanos) = since_epoch(SystemTime::now());
    rbuild_store::Layer {
        id,
        kind: LayerKind::Written,
        content_digest: None,
        created,
        created_nanos,
        bytes: 0,
        has_dir: true,
    }
}

/// The inverse of [`since_epoch`].
pub(crate) fn from_epoch(seconds: i64, nanos: u32) -> SystemTime {
    UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or_default(), nanos)
}
