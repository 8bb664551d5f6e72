//! What the solver asks of a place that keeps results.

use crate::{OpError, OperationKey};
use async_trait::async_trait;
use rbuild_oci::Digest;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Held while a step of one key runs; dropping it lets the next one in.
pub type KeyGuard = Box<dyn Send + Sync>;

/// A result to keep.
#[derive(Debug)]
pub struct CacheEntry<'a, T> {
    /// The definition key.
    pub key: Digest,
    /// The operation's own key.
    pub operation: &'a OperationKey,
    /// See [`crate::Op::inputs_digest`].
    pub inputs_digest: Option<Digest>,
    /// Whether `output` stands on a parent that it depends on.
    pub reads_parent: bool,
    /// The definition keys of parent and inputs, for explanations.
    pub needs: &'a [Digest],
    /// As shown.
    pub name: &'a str,
    /// The result.
    pub output: &'a T,
    /// How long it took to make.
    pub cost: Duration,
}

/// A result that some other cache has.
#[derive(Debug, Clone)]
pub struct Elsewhere<T> {
    /// The result.
    pub output: T,
    /// Which cache, as shown.
    pub origin: Arc<str>,
}

/// What an earlier result has to stand on, to be that of a step.
#[derive(Debug)]
pub enum Beneath<'a, T> {
    /// Whatever it is: the operation does not read its parent.
    Anything,
    /// The empty root.
    Nothing,
    /// A root of the same content as this one.
    Root(&'a T),
}

impl<T> Clone for Beneath<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Beneath<'_, T> {}

/// Keeps results by key. Reading and writing must be quick: one transaction, no network.
#[async_trait]
pub trait CacheStore<T: Sync>: Send + Sync {
    /// Results under definition keys, in the order asked; only such that can be used as they are.
    fn lookup(&self, keys: &[Digest]) -> Result<Vec<Option<T>>, OpError>;

    /// Whether any result of this operation is kept, on whatever inputs. A cold build stops here.
    fn knows_operation(&self, operation: &Digest) -> Result<bool, OpError>;

    /// A result of the same operation on equal contents: the same inputs digest, and a parent of equal content.
    async fn lookup_content(
        &self,
        operation: &Digest,
        inputs_digest: &Digest,
        parent: Beneath<'_, T>,
    ) -> Result<Option<T>, OpError>;

    /// Results that caches elsewhere have under definition keys, in the order asked. May use the network: asked once, and
    /// only if something that is needed is not here. Failures of such a cache are misses.
    async fn lookup_elsewhere(&self, keys: &[Digest]) -> Result<Vec<Option<Elsewhere<T>>>, OpError> {
        Ok(keys.iter().map(|_| None).collect())
    }

    /// As [`CacheStore::lookup_content`], in the caches that [`CacheStore::lookup_elsewhere`] asks.
    async fn lookup_content_elsewhere(
        &self,
        operation: &Digest,
        inputs_digest: &Digest,
        parent: Beneath<'_, T>,
    ) -> Result<Option<Elsewhere<T>>, OpError> {
        let _ = (operation, inputs_digest, parent);
        Ok(None)
    }

    /// Keeps the result of [`CacheStore::lookup_elsewhere`] under this key as if it had been made here.
    fn adopt(&self, key: &Digest) -> Result<(), OpError> {
        let _ = key;
        Ok(())
    }

    /// Keeps a result.
    fn commit(&self, entry: CacheEntry<'_, T>) -> Result<(), OpError>;

    /// Waits until no other step of this key runs, in this process or another.
    async fn lock(&self, key: &Digest, cancel: &CancellationToken) -> Result<KeyGuard, OpError>;
}
