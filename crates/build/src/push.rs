//! Pushing: each blob once to each repository, then configs, manifests and tags.

use crate::error::BuildError;
use crate::image::Documents;
use crate::images::Images;
use crate::keep::Kept;
use rbuild_event::Event;
use rbuild_oci::{Descriptor, Digest, Reference, media_type};
use rbuild_registry::PushOutcome;
use rbuild_registry::RegistryError;
use rbuild_solver::{OpError, StepContext};
use rbuild_store::Store;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

type Pushed = HashMap<(String, Digest), Arc<OnceCell<()>>>;

/// Pushes to the repositories of some names.
pub(crate) struct Pusher {
    images: Arc<Images>,
    store: Store,
    names: Vec<Reference>,
    pushed: Mutex<Pushed>,
    /// Whether blobs that the repositories can get without us need not be here.
    lazy: bool,
    /// Blobs that were pushed without being here.
    remote: Mutex<BTreeSet<Digest>>,
}

impl Pusher {
    /// `None` if there is nothing to push to.
    pub(crate) fn new(images: Arc<Images>, store: Store, names: Vec<Reference>, lazy: bool) -> Option<Self> {
        if names.is_empty() {
            return None;
        }
        let (pushed, remote) = (Mutex::default(), Mutex::default());
        Some(Self { images, store, names, pushed, lazy, remote })
    }

    /// Whether some of the image's blobs were pushed without being here.
    pub(crate) fn left_blobs_elsewhere(&self) -> bool {
        !self.remote.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether a blob that is not here, and that nothing else wants here, is in all repositories already or could be mounted
    /// there (C-006).
    pub(crate) async fn finds_elsewhere(
        &self,
        blob: &Descriptor,
        step: &StepContext,
    ) -> Result<bool, OpError> {
        if !self.lazy || self.store.has_blob(&blob.digest)? {
            return Ok(false);
        }
        for name in self.repositories() {
            let sources = self.mount_sources(name, blob)?;
            let found = tokio::select! {
                found = self.images.client().find_blob(name, blob, &sources) => found,
                () = step.cancel.cancelled() => return Err(rbuild_op::OpFailure::Canceled.into()),
            };
            // A failure is met again, and told, when the blob is pushed.
            let Ok(Some(outcome)) = found else { return Ok(false) };
            self.store.remember_blob_sources(&[blob.digest], &name.name())?;
            report_pushed(&outcome, blob, step);
        }
        self.remote.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest);
        Ok(true)
    }

    /// One name for each repository.
    fn repositories(&self) -> Vec<&Reference> {
        let mut found: Vec<&Reference> = Vec::new();
        for name in &self.names {
            if !found.iter().any(|known| known.name() == name.name()) {
                found.push(name);
            }
        }
        found
    }

    /// Makes sure that all repositories have the blob, which is in the store.
    pub(crate) async fn push_blob(&self, blob: &Descriptor, step: &StepContext) -> Result<(), OpError> {
        let pushes = self.repositories().into_iter().map(|name| self.push_to(name, blob, step));
        futures_util::future::try_join_all(pushes).await?;
        Ok(())
    }

    async fn push_to(&self, name: &Reference, blob: &Descriptor, step: &StepContext) -> Result<(), OpError> {
        let cell = {
            let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pushed.entry((name.name(), blob.digest)).or_default())
        };
        let push = || async {
            let sources = self.mount_sources(name, blob)?;
            let path = self.store.blob_path(&blob.digest);
            let pushing = self.images.client().push_blob(name, blob, &path, &sources);
            let outcome = tokio::select! {
                outcome = pushing => outcome.map_err(|source| FailedPush { name: name.to_string(), source: Box::new(source) })?,
                () = step.cancel.cancelled() => return Err(rbuild_op::OpFailure::Canceled.into()),
            };
            self.store.remember_blob_sources(&[blob.digest], &name.name())?;
            report_pushed(&outcome, blob, step);
            Ok::<(), OpError>(())
        };
        cell.get_or_try_init(push).await.copied()
    }

    /// Repositories of the same registry that have had this blob.
    fn mount_sources(&self, name: &Reference, blob: &Descriptor) -> Result<Vec<String>, OpError> {
        let prefix = format!("{}/", name.domain());
        let known = self.store.blob_sources(&blob.digest)?;
        let paths = known.iter().filter_map(|repository| repository.strip_prefix(&prefix));
        Ok(paths.filter(|path| *path != name.path()).map(str::to_owned).collect())
    }

    /// Pushes what is left: the configs, then the manifest under every name. The manifests of an index come before it, by
    /// digest.
    pub(crate) async fn push_image(&self, kept: &Kept, step: &StepContext) -> Result<(), BuildError> {
        for image in &kept.images {
            let size = image.config.len() as u64;
            let config = Descriptor::new(media_type::OCI_CONFIG, image.config_digest, size);
            self.push_blob(&config, step).await.map_err(|error| self.failed(error))?;
        }
        let (kind, manifest) = match (&kept.index, &kept.images[..]) {
            (Some(index), images) => {
                self.push_by_digest(images).await?;
                (media_type::OCI_INDEX, index)
            }
            (None, [only, ..]) => (media_type::OCI_MANIFEST, &only.manifest),
            (None, []) => return Ok(()),
        };
        for name in &self.names {
            self.push_manifest(name, kind, manifest).await?;
        }
        Ok(())
    }

    /// The manifests that an index names have no names of their own.
    async fn push_by_digest(&self, images: &[Documents]) -> Result<(), BuildError> {
        for name in self.repositories() {
            for image in images {
                let by_digest = name.clone().without_tag().with_digest(image.descriptor.digest);
                self.push_manifest(&by_digest, media_type::OCI_MANIFEST, &image.manifest).await?;
            }
        }
        Ok(())
    }

    async fn push_manifest(&self, name: &Reference, kind: &str, manifest: &[u8]) -> Result<(), BuildError> {
        let pushed = self.images.client().push_manifest(name, kind, manifest).await;
        let failed = |source| BuildError::Push { name: name.to_string(), source: Box::new(source) };
        pushed.map(drop).map_err(failed)
    }

    /// An error of packing or pushing a layer.
    pub(crate) fn failed(&self, error: OpError) -> BuildError {
        match error.downcast::<FailedPush>() {
            Ok(failed) => BuildError::Push { name: failed.name, source: failed.source },
            Err(error) => BuildError::Export(error),
        }
    }
}

fn report_pushed(outcome: &PushOutcome, blob: &Descriptor, step: &StepContext) {
    let what = match outcome {
        PushOutcome::Existed => "already exists",
        PushOutcome::Mounted { .. } => "mounted",
        PushOutcome::Uploaded => "pushed",
    };
    let (vertex, name) = (step.vertex, format!("{what} {}", blob.digest));
    let (current, total, done) = (blob.size, blob.size, true);
    step.reporter.report(Event::Status { vertex, name, current, total, done });
}

/// A blob that could not be pushed, and under which name it was to be.
#[derive(Debug, thiserror::Error)]
#[error("failed to push {name}: {source}")]
struct FailedPush {
    name: String,
    source: Box<RegistryError>,
}
