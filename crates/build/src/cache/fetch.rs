//! Fetching blobs: those of base images from where the images are, all others from the imported caches.

use crate::images::{Images, transfer_progress};
use async_trait::async_trait;
use rbuild_cache::{Backend, Importer};
use rbuild_oci::Descriptor;
use rbuild_op::{BlobFetcher, OpFailure};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::Store;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// All that blobs can be had from.
pub(crate) struct Fetcher {
    images: Arc<Images>,
    importer: Arc<Importer>,
    store: Store,
    /// Caches that nobody answers for any more: every further blob would wait for them again.
    dead: Mutex<HashSet<String>>,
}

impl Fetcher {
    pub(crate) fn new(images: Arc<Images>, importer: Arc<Importer>, store: Store) -> Self {
        Self { images, importer, store, dead: Mutex::default() }
    }

    fn is_dead(&self, name: &str) -> bool {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    async fn ask_cache(
        &self,
        backend: &dyn Backend,
        blob: &Descriptor,
        step: &StepContext,
    ) -> Result<(), OpError> {
        let mut writer = self.store.ingest_unhashed()?;
        let mut progress = transfer_progress(blob, step);
        let fetched = tokio::select! {
            fetched = backend.fetch(blob, &mut writer, &mut progress) => fetched,
            () = step.cancel.cancelled() => return Err(OpFailure::Canceled.into()),
        };
        if let Err(error) = fetched {
            if error.is_unreachable() {
                self.dead.lock().unwrap_or_else(PoisonError::into_inner).insert(backend.name().to_owned());
            }
            return Err(error.into());
        }
        writer.commit_as(blob.digest, blob.size)?;
        Ok(())
    }

    /// From the first cache that gives it; `None` if none should have it.
    async fn ask_caches(&self, blob: &Descriptor, step: &StepContext) -> Option<Result<(), OpError>> {
        let mut failed = None;
        for backend in self.importer.sources(&blob.digest) {
            if self.is_dead(backend.name()) {
                failed.get_or_insert_with(|| Err(format!("{} does not answer", backend.name()).into()));
                continue;
            }
            match self.ask_cache(&*backend, blob, step).await {
                Ok(()) => return Some(Ok(())),
                Err(error) if step.cancel.is_cancelled() => return Some(Err(error)),
                Err(error) => failed = Some(Err(error)),
            }
        }
        failed
    }
}

#[async_trait]
impl BlobFetcher for Fetcher {
    async fn fetch(&self, blob: &Descriptor, step: &StepContext) -> Result<(), OpError> {
        if self.images.knows(blob) {
            return match self.images.fetch(blob, step).await {
                Err(error) => self.ask_caches(blob, step).await.unwrap_or(Err(error)),
                fetched => fetched,
            };
        }
        match self.ask_caches(blob, step).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(error),
            None => self.images.fetch(blob, step).await,
        }
    }
}
