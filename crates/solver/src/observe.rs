//! Somebody who is told of keys and misses.

use crate::OperationKey;
use rbuild_event::{Miss, VertexId};
use rbuild_graph::Step;
use rbuild_oci::Digest;

/// A step when all keys are known and the cache has been asked for the first time.
#[derive(Debug, Clone, Copy)]
pub struct Keyed<'a> {
    /// The step's number in events.
    pub vertex: VertexId,
    /// The operation's own key.
    pub operation: &'a OperationKey,
    /// The definition key.
    pub key: &'a Digest,
    /// What the step's own result depends on: its parent, if it reads it, then its inputs.
    pub depends_on: &'a [Step],
    /// Whether results of this step are kept; a source's are not.
    pub cacheable: bool,
    /// Whether its cache is not read, because of --no-cache or --no-cache-filter.
    pub ignored: bool,
    /// Whether the cache had its result under the definition key.
    pub hit: bool,
    /// Whether somebody needs its result.
    pub needed: bool,
}

/// Finds out why a step is executed; called on a thread that may block.
pub type Explanation = Box<dyn FnOnce() -> Option<Miss> + Send>;

/// Told of every step of a build. None of this may wait for anything.
pub trait Observer: Send + Sync {
    /// The steps in the plan's order, before any is executed.
    fn keyed(&self, steps: &[Keyed<'_>]);

    /// A step is about to be executed; what it depends on has ended and was explained. Sources are always executed.
    fn missed(&self, step: Step) -> Option<Explanation>;
}
