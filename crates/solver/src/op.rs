//! What the solver asks of an operation.

use crate::{OpError, OperationKey};
use async_trait::async_trait;
use rbuild_event::{Event, Reporter, VertexId};
use rbuild_oci::Digest;
use tokio_util::sync::CancellationToken;

/// The results that a step stands on and reads.
#[derive(Debug, Clone)]
pub struct Inputs<T> {
    /// The root the step changes; `None` is the empty root.
    pub parent: Option<T>,
    /// Further roots, in the vertex's order.
    pub inputs: Vec<T>,
}

/// What a running step may use.
#[derive(Debug, Clone)]
pub struct StepContext {
    /// The step's number in events.
    pub vertex: VertexId,
    /// Where to report.
    pub reporter: Reporter,
    /// Cancelled when another step failed or the user stopped the build: give up soon and leave nothing behind.
    pub cancel: CancellationToken,
}

impl StepContext {
    /// Reports a remark under this step.
    pub fn note(&self, text: impl Into<String>) {
        self.reporter.report(Event::Note { vertex: self.vertex, text: text.into() });
    }
}

/// What a result must be able to do.
pub trait Output: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Output for T {}

/// One vertex's operation.
#[async_trait]
pub trait Op: Send + Sync {
    /// What a step results in.
    type Output: Output;

    /// Everything that decides the output except parent and inputs, the content of local contexts included.
    async fn operation_key(&self, step: &StepContext) -> Result<OperationKey, OpError>;

    /// Whether the output depends on the parent. If not (`COPY --link`), the result is made apart and put on top of the
    /// parent by [`Op::stack`].
    fn reads_parent(&self) -> bool {
        true
    }

    /// Whether results are worth keeping; an image source only looks up what others hold.
    fn cacheable(&self) -> bool {
        true
    }

    /// Digest of the parts of the *inputs* (not the parent) that this operation reads; `None` if it cannot say.
    async fn inputs_digest(&self, inputs: &Inputs<Self::Output>) -> Result<Option<Digest>, OpError>;

    /// Does the work.
    async fn execute(
        &self,
        step: &StepContext,
        inputs: &Inputs<Self::Output>,
    ) -> Result<Self::Output, OpError>;

    /// Puts the output of an operation that does not read its parent on top of that parent.
    fn stack(&self, parent: Option<&Self::Output>, own: Self::Output) -> Self::Output {
        let _ = parent;
        own
    }
}
