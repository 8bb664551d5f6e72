//! The operations: one file each, and the engine they share.
//!
//! ```text
//! solver ── Op ──▶ exec · copy · mkdir · image · http · git ──▶ Engine ──▶ store, snapshot, layer, runtime
//!        ── CacheStore ──▶ cache                     │
//!                                                    └─ Root: the layers of a root filesystem, base first
//! ```
//!
//! A [`Layer`] may be in the store as a directory, in the store as a blob, still in a registry, or only a recipe whose
//! bytes are in a build context. The engine brings it into the form that somebody needs, once, and a cache record is
//! written only when all its layers' bytes belong to the store.

mod archive;
mod bridge;
mod cache;
mod copy;
mod device;
mod engine;
mod error;
mod exec;
mod fetch;
mod flat;
mod git;
mod http;
mod image;
mod implied;
mod imported;
mod layer;
mod logs;
mod mkdir;
mod remote;
mod secret;
mod ssh;

pub use cache::LayerCache;
pub use device::{DeviceError, Devices};
pub use engine::{Engine, EngineSettings, LocalSource, MAX_KEPT_BYTES, MAX_KEPT_FILES, PackedLayer};
pub use error::{ForeignProgram, OpFailure};
pub use exec::CacheMountSource;
pub use fetch::{BlobFetcher, PulledLayer};
pub use layer::{Layer, Root};
pub use remote::{HttpFile, PinnedFile, Pins, Remote, Resolving, git_pin_name};
pub use secret::{Confidential, MAX_SECRET_BYTES, Secret};
pub use ssh::{MAX_KEY_BYTES, SshAgent, SshKey, SshKeyError};

use rbuild_ir::Vertex;
use rbuild_solver::Op;
use std::sync::Arc;

/// The operation of a vertex.
pub fn operation(engine: &Arc<Engine>, vertex: &Vertex) -> Arc<dyn Op<Output = Root>> {
    let engine = Arc::clone(engine);
    match &vertex.op {
        rbuild_ir::Op::Image(op) => Arc::new(image::ImageStep::new(engine, op.clone())),
        rbuild_ir::Op::Exec(op) => Arc::new(exec::ExecStep::new(engine, op.clone(), vertex.stage.clone())),
        rbuild_ir::Op::Copy(op) => Arc::new(copy::CopyStep::new(engine, op.clone())),
        rbuild_ir::Op::Http(op) => Arc::new(http::HttpStep::new(engine, op.clone())),
        rbuild_ir::Op::Git(op) => Arc::new(git::GitStep::new(engine, op.clone())),
        rbuild_ir::Op::Mkdir(op) => Arc::new(mkdir::MkdirStep::new(engine, op.clone())),
    }
}
