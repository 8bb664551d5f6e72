//! ADD of a git repository: a root that holds its files.

use crate::engine::Engine;
use crate::layer::{Layer, Root};
use crate::remote::{Commit, preimage};
use async_trait::async_trait;
use rbuild_ir::GitOp;
use rbuild_oci::Digest;
use rbuild_solver::{Inputs, Op, OpError, OperationKey, StepContext};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OnceCell;

pub(crate) struct GitStep {
    engine: Arc<Engine>,
    op: GitOp,
    commit: OnceCell<Commit>,
}

impl GitStep {
    pub(crate) fn new(engine: Arc<Engine>, op: GitOp) -> Self {
        Self { engine, op, commit: OnceCell::new() }
    }

    async fn commit(&self, step: &StepContext) -> Result<&Commit, OpError> {
        self.commit.get_or_try_init(|| self.engine.settings.remote.commit(&self.op, step)).await
    }
}

#[async_trait]
impl Op for GitStep {
    type Output = Root;

    /// The commit decides: the remote is asked for it unless its whole id is given.
    async fn operation_key(&self, step: &StepContext) -> Result<OperationKey, OpError> {
        Ok(OperationKey::of(preimage(&self.op, self.commit(step).await?)))
    }

    /// The checkout is a layer of the store that is named after what decides it.
    fn cacheable(&self) -> bool {
        false
    }

    async fn inputs_digest(&self, _: &Inputs<Root>) -> Result<Option<Digest>, OpError> {
        Ok(None)
    }

    async fn execute(&self, step: &StepContext, _: &Inputs<Root>) -> Result<Root, OpError> {
        let commit = self.commit(step).await?;
        let (id, dir) = self.engine.settings.remote.checkout(&self.op, commit, step).await?;
        let layer = Layer::executed(id, SystemTime::now(), dir);
        Ok(Root::new(vec![self.engine.intern(layer)]))
    }
}
