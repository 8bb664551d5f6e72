//! WORKDIR's directory.

use crate::bridge::blocking;
use crate::engine::Engine;
use crate::error::OpFailure;
use crate::layer::{Layer, Root, since_epoch};
use async_trait::async_trait;
use rbuild_copy::OwnerSpec;
use rbuild_ir::MkdirOp;
use rbuild_oci::Digest;
use rbuild_snapshot::Recipe;
use rbuild_solver::{Inputs, Op, OpError, OperationKey, StepContext};
use rbuild_tree::Timestamp;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) struct MkdirStep {
    engine: Arc<Engine>,
    op: MkdirOp,
}

impl MkdirStep {
    pub(crate) fn new(engine: Arc<Engine>, op: MkdirOp) -> Self {
        Self { engine, op }
    }
}

#[async_trait]
impl Op for MkdirStep {
    type Output = Root;

    async fn operation_key(&self, _: &StepContext) -> Result<OperationKey, OpError> {
        Ok(OperationKey::of(serde_json::to_value(rbuild_ir::Op::Mkdir(self.op.clone()))?))
    }

    async fn inputs_digest(&self, _: &Inputs<Root>) -> Result<Option<Digest>, OpError> {
        Ok(Some(Digest::of("")))
    }

    async fn execute(&self, step: &StepContext, inputs: &Inputs<Root>) -> Result<Root, OpError> {
        let has_names = OwnerSpec::parse(&self.op.user).has_names();
        if has_names && inputs.parent.is_none() {
            return Err(OpFailure::NameInEmptyRoot(format!("USER {}", self.op.user)).into());
        }
        let now = SystemTime::now();
        let view = self.engine.view(inputs.parent.as_ref(), step).await?;
        let op = self.op.clone();
        let recipe = blocking(move || -> Result<Recipe, OpError> {
            let named = Some(&op.user).filter(|user| !user.is_empty());
            let owner = named.map(|user| rbuild_copy::resolve_owner(&*view, user)).transpose()?;
            let (seconds, nanos) = since_epoch(now);
            let time =
                op.epoch.map_or(Timestamp { seconds, nanos }, |seconds| Timestamp { seconds, nanos: 0 });
            Ok(Recipe::new(rbuild_copy::mkdir_entries(&*view, &op.path, owner, time)?)?)
        });
        let layer = Layer::described(self.engine.new_layer_id(), now, recipe.await?);
        let layer = self.engine.intern(layer);
        Ok(inputs.parent.clone().unwrap_or_default().with(layer))
    }
}
