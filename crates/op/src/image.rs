//! FROM an image: a root of layers that are fetched and unpacked when somebody needs their files.

use crate::engine::Engine;
use crate::layer::Root;
use async_trait::async_trait;
use rbuild_ir::ImageOp;
use rbuild_oci::Digest;
use rbuild_solver::{Inputs, Op, OpError, OperationKey, StepContext};
use std::sync::Arc;

pub(crate) struct ImageStep {
    engine: Arc<Engine>,
    op: ImageOp,
}

impl ImageStep {
    pub(crate) fn new(engine: Arc<Engine>, op: ImageOp) -> Self {
        Self { engine, op }
    }
}

#[async_trait]
impl Op for ImageStep {
    type Output = Root;

    async fn operation_key(&self, _: &StepContext) -> Result<OperationKey, OpError> {
        Ok(OperationKey::of(serde_json::to_value(rbuild_ir::Op::Image(self.op.clone()))?))
    }

    /// An image is what its manifest says; there is nothing to keep.
    fn cacheable(&self) -> bool {
        false
    }

    async fn inputs_digest(&self, _: &Inputs<Root>) -> Result<Option<Digest>, OpError> {
        Ok(None)
    }

    async fn execute(&self, _: &StepContext, _: &Inputs<Root>) -> Result<Root, OpError> {
        let root = self.engine.image_root(&self.op.manifest);
        root.ok_or_else(|| format!("internal error: image {} was not resolved", self.op.reference).into())
    }
}
