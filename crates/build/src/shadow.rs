//! Work in the shadow: layers of the target are packed, and pushed, while later steps run.

use crate::push::Pusher;
use rbuild_op::{Engine, PackedLayer, Root};
use rbuild_solver::{OpError, StepContext};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Packs layers as they come.
pub(crate) struct Shadow {
    engine: Arc<Engine>,
    pusher: Option<Arc<Pusher>>,
    runtime: tokio::runtime::Handle,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Shadow {
    /// Must be made inside a tokio runtime.
    pub(crate) fn new(engine: Arc<Engine>, pusher: Option<Arc<Pusher>>) -> Self {
        Self { engine, pusher, runtime: tokio::runtime::Handle::current(), tasks: Mutex::default() }
    }

    /// Starts with the topmost layer of `root`. Errors are left to [`finish_layer`], which meets them again.
    pub(crate) fn layer_made(self: &Arc<Self>, root: &Root, step: StepContext) {
        let (shadow, root) = (Arc::clone(self), root.clone());
        let task = self.runtime.spawn(async move {
            drop(finish_layer(&shadow.engine, shadow.pusher.as_deref(), &root, &step).await);
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn settle(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has nothing more to do; its work is done again by whoever needs it.
            drop(task.await);
        }
    }
}

/// Packs the topmost layer of `root`, brings its blob into the store, and pushes it. Each is done once. A blob of a base
/// image or a cache that the repositories have, or can mount, is not fetched if nothing else wants it here.
pub(crate) async fn finish_layer(
    engine: &Arc<Engine>,
    pusher: Option<&Pusher>,
    root: &Root,
    step: &StepContext,
) -> Result<PackedLayer, OpError> {
    let packed = engine.pack_top(root, step).await?;
    let layer = root.layers().last().expect("asked of roots with a layer");
    if layer.is_pulled() {
        if let Some(pusher) = pusher
            && pusher.finds_elsewhere(&packed.descriptor, step).await?
        {
            return Ok(packed);
        }
        engine.ensure_blob(layer, step).await?;
    }
    if let Some(pusher) = pusher {
        pusher.push_blob(&packed.descriptor, step).await?;
    }
    Ok(packed)
}
