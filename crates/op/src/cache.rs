//! Results in the store, by key.

use crate::engine::Engine;
use crate::error::OpFailure;
use crate::layer::{Root, since_epoch};
use async_trait::async_trait;
use rbuild_event::Reporter;
use rbuild_oci::Digest;
use rbuild_solver::{CacheEntry, CacheStore, KeyGuard, OpError};
use rbuild_store::{KeyLock, Record, Store, StoreError};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Earlier results of one operation that are compared by content; more are not worth the reading.
const CANDIDATES: u32 = 16;

/// How long another process may hold a key before the user is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// The store as the solver sees it.
pub struct LayerCache {
    engine: Arc<Engine>,
    reporter: Reporter,
}

impl LayerCache {
    /// The cache of an engine's store.
    pub fn new(engine: Arc<Engine>, reporter: Reporter) -> Self {
        Self { engine, reporter }
    }

    fn root(&self, record: &Record) -> Result<Root, OpError> {
        self.engine.root_of_chain(&record.chain)
    }
}

#[async_trait]
impl CacheStore<Root> for LayerCache {
    fn lookup(&self, keys: &[Digest]) -> Result<Vec<Option<Root>>, OpError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.engine.store.records(keys)?;
        records.into_iter().map(|record| record.map(|record| self.root(&record)).transpose()).collect()
    }

    fn knows_operation(&self, operation: &Digest) -> Result<bool, OpError> {
        Ok(self.engine.store.any_record_of_op(operation)?)
    }

    async fn lookup_content(
        &self,
        operation: &Digest,
        inputs_digest: &Digest,
        parent: Option<&Root>,
    ) -> Result<Option<Root>, OpError> {
        let store = &self.engine.store;
        let candidates = store.records_of_op(operation, CANDIDATES)?;
        for candidate in candidates.into_iter().filter(|record| record.content_key == Some(*inputs_digest)) {
            // Whether its layers are still here is known only by asking for it by name.
            let Some(record) = store.record(&candidate.key)? else { continue };
            let root = self.root(&record)?;
            let Some(parent) = parent else {
                return Ok(Some(root));
            };
            if self.engine.same_content(&root.below_top(), parent, &self.engine.quiet_step()).await? {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    fn commit(&self, entry: CacheEntry<'_, Root>) -> Result<(), OpError> {
        let chain: Vec<Digest> = entry.output.layers.iter().map(|layer| layer.id).collect();
        let record = Record {
            key: entry.key,
            op_digest: entry.operation.digest,
            content_key: entry.inputs_digest,
            layer: chain.last().copied(),
            chain,
            content_id: None,
            config: None,
            created: since_epoch(SystemTime::now()).0,
            cost_ms: u64::try_from(entry.cost.as_millis()).unwrap_or(u64::MAX),
            last_used: 0,
            uses: 0,
        };
        let preimage = serde_json::json!({
            "name": entry.name,
            "operation": entry.operation.preimage,
            "needs": entry.needs,
        });
        self.engine.keep_record(entry.output.clone(), record, preimage.to_string())
    }

    async fn lock(&self, key: &Digest, cancel: &CancellationToken) -> Result<KeyGuard, OpError> {
        let reporter = self.reporter.clone();
        let tell = move || {
            let text = "waiting for another rbuild that is at the same step".to_owned();
            reporter.report(rbuild_event::Event::Warning { text });
        };
        Ok(Box::new(lock_key(&self.engine.store, key, cancel, tell).await?))
    }
}

/// Takes the lock of a key, in this process and among all; `when_slow` is called once if that takes long.
pub(crate) async fn lock_key(
    store: &Store,
    key: &Digest,
    cancel: &CancellationToken,
    when_slow: impl FnOnce() + Send,
) -> Result<KeyLock, OpError> {
    if let Some(lock) = store.try_lock_key(key)? {
        return Ok(lock);
    }
    let (store, key, canceled) = (store.clone(), *key, cancel.clone());
    let waiting =
        tokio::task::spawn_blocking(move || store.lock_key_blocking(&key, &|| canceled.is_cancelled()));
    tokio::pin!(waiting);
    let joined = tokio::select! {
        joined = &mut waiting => joined,
        () = tokio::time::sleep(PATIENCE) => {
            when_slow();
            waiting.await
        }
    };
    match joined? {
        Err(StoreError::Cancelled) => Err(OpFailure::Canceled.into()),
        locked => Ok(locked?),
    }
}
