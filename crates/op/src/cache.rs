//! Results in the store, by key.

use crate::engine::Engine;
use crate::error::OpFailure;
use crate::layer::{Root, since_epoch};
use async_trait::async_trait;
use rbuild_cache::{Cached, Importer, RemoteRecord};
use rbuild_event::Reporter;
use rbuild_oci::Digest;
use rbuild_solver::{Beneath, CacheEntry, CacheStore, Elsewhere, KeyGuard, OpError};
use rbuild_store::{KeyLock, Record, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Earlier results of one operation that are compared by content; more are not worth the reading.
const CANDIDATES: u32 = 16;

/// How long another process may hold a key before the user is told.
const PATIENCE: Duration = Duration::from_secs(2);

/// The store, and the caches elsewhere behind it, as the solver sees them.
pub struct LayerCache {
    engine: Arc<Engine>,
    reporter: Reporter,
    importer: Arc<Importer>,
    /// Whether the user was told of layers with times of another SOURCE_DATE_EPOCH.
    told_of_epoch: AtomicBool,
}

impl LayerCache {
    /// The cache of an engine's store, and what `importer` imports.
    pub fn new(engine: Arc<Engine>, reporter: Reporter, importer: Arc<Importer>) -> Self {
        Self { engine, reporter, importer, told_of_epoch: AtomicBool::new(false) }
    }

    /// The result of a record, unless a layer of it is lost.
    fn root(&self, record: &Record) -> Result<Option<Root>, OpError> {
        self.engine.root_of_chain(&record.chain)
    }

    async fn stands_on(&self, root: &Root, parent: Beneath<'_, Root>) -> Result<bool, OpError> {
        let nothing = Root::new(Vec::new());
        let parent = match parent {
            Beneath::Anything => return Ok(true),
            Beneath::Nothing => &nothing,
            Beneath::Root(parent) => parent,
        };
        self.engine.same_content(&root.below_top(), parent, &self.engine.quiet_step()).await
    }

    /// Writes down a record of a cache elsewhere, so that the next build finds it here.
    fn keep(&self, cached: &Cached<'_>, root: Root) -> Result<(), OpError> {
        let RemoteRecord {
            key, operation, content_key, needs, name, created, cost_ms, config, preimage, ..
        } = cached.record;
        let chain: Vec<Digest> = root.layers.iter().map(|layer| layer.id).collect();
        let record = Record {
            key: *key,
            op_digest: *operation,
            content_key: *content_key,
            layer: chain.last().copied(),
            chain,
            content_id: None,
            config: config.clone(),
            created: *created,
            cost_ms: *cost_ms,
            last_used: 0,
            uses: 0,
        };
        let preimage = match preimage {
            Some(preimage) => preimage.clone(),
            None => serde_json::json!({ "name": name, "operation": null, "needs": needs }).to_string(),
        };
        self.remember_sources(cached)?;
        self.tell_of_epoch(cached);
        self.engine.keep_record(root, record, preimage)
    }

    /// The blobs can be had again without --cache-from.
    fn remember_sources(&self, cached: &Cached<'_>) -> Result<(), OpError> {
        let Some(repository) = &cached.repository else { return Ok(()) };
        let blobs = cached.layers.iter().filter_map(|layer| Some(layer.blob.as_ref()?.digest));
        Ok(self.engine.store.remember_blob_sources(&blobs.collect::<Vec<_>>(), repository)?)
    }

    /// DESIGN promise 3: real times of an imported layer are gone, it is reused as it is and reported.
    fn tell_of_epoch(&self, cached: &Cached<'_>) {
        let ours = self.engine.settings.epoch;
        let other = cached.layers.iter().any(|layer| layer.blob.is_some() && layer.epoch != ours);
        if other && !self.told_of_epoch.swap(true, Ordering::Relaxed) {
            let cache = cached.cache;
            let text = format!(
                "layers from {cache} were packed under another SOURCE_DATE_EPOCH: their file times stay as they are"
            );
            self.reporter.report(rbuild_event::Event::Warning { text });
        }
    }
}

#[async_trait]
impl CacheStore<Root> for LayerCache {
    fn lookup(&self, keys: &[Digest]) -> Result<Vec<Option<Root>>, OpError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.engine.store.records(keys)?;
        records.into_iter().map(|record| record.map_or(Ok(None), |record| self.root(&record))).collect()
    }

    fn knows_operation(&self, operation: &Digest) -> Result<bool, OpError> {
        Ok(self.engine.store.any_record_of_op(operation)?
            || self.importer.records_of_operation(operation).next().is_some())
    }

    async fn lookup_content(
        &self,
        operation: &Digest,
        inputs_digest: &Digest,
        parent: Beneath<'_, Root>,
    ) -> Result<Option<Root>, OpError> {
        let store = &self.engine.store;
        let candidates = store.records_of_op(operation, CANDIDATES)?;
        for candidate in candidates.into_iter().filter(|record| record.content_key == Some(*inputs_digest)) {
            // Whether its layers are still here is known only by asking for it by name.
            let Some(record) = store.record(&candidate.key)? else { continue };
            let Some(root) = self.root(&record)? else { continue };
            if self.stands_on(&root, parent).await? {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    async fn lookup_elsewhere(&self, keys: &[Digest]) -> Result<Vec<Option<Elsewhere<Root>>>, OpError> {
        self.importer.load().await;
        let found = |key| {
            self.importer.records(key).find_map(|cached| {
                let output = self.engine.imported_root(&cached)?;
                Some(Elsewhere { output, origin: cached.cache.into() })
            })
        };
        Ok(keys.iter().map(found).collect())
    }

    async fn lookup_content_elsewhere(
        &self,
        operation: &Digest,
        inputs_digest: &Digest,
        parent: Beneath<'_, Root>,
    ) -> Result<Option<Elsewhere<Root>>, OpError> {
        let candidates = self.importer.records_of_operation(operation);
        let candidates = candidates.filter(|cached| cached.record.content_key == Some(*inputs_digest));
        let candidates: Vec<Cached<'_>> = candidates.take(CANDIDATES as usize).collect();
        for cached in candidates {
            let Some(output) = self.engine.imported_root(&cached) else { continue };
            if self.stands_on(&output, parent).await? {
                self.remember_sources(&cached)?;
                return Ok(Some(Elsewhere { output, origin: cached.cache.into() }));
            }
        }
        Ok(None)
    }

    fn adopt(&self, key: &Digest) -> Result<(), OpError> {
        for cached in self.importer.records(key) {
            if let Some(root) = self.engine.imported_root(&cached) {
                return self.keep(&cached, root);
            }
        }
        Ok(())
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
