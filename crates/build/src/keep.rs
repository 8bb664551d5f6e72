//! What was built, as an image or an index of images: into the store, to registries, and under its names.

use crate::build::Build;
use crate::cache::{self, Steps};
use crate::error::BuildError;
use crate::image::{Documents, ImageLayer, documents, index};
use crate::outputs;
use crate::shadow::finish_layer;
use rbuild_oci::time::parse_rfc3339;
use rbuild_oci::{Descriptor, Digest};
use rbuild_op::Root;
use rbuild_solver::{OpError, StepContext};

/// Annotation of the descriptor in the store and in layouts (image-spec annotations.md).
const CREATED: &str = "org.opencontainers.image.created";

/// The documents of what was built; all of them are in the store.
pub(crate) struct Kept {
    /// Of each platform.
    pub(crate) images: Vec<Documents>,
    /// The bytes of the index, if one was asked for.
    pub(crate) index: Option<Vec<u8>>,
    /// Of the index, or of the only image, with the time it was made.
    pub(crate) descriptor: Descriptor,
    /// That time, RFC 3339: of an index, that of its newest image.
    pub(crate) created: Option<String>,
}

impl Kept {
    /// The config's digest, which is the image's id, unless this is an index.
    pub(crate) fn config(&self) -> Option<Digest> {
        self.images.first().filter(|_| self.index.is_none()).map(|image| image.config_digest)
    }
}

impl Build {
    /// Brings the images with all their blobs into the store, pushes them, and gives them their names last.
    pub(crate) async fn keep(
        &self,
        roots: &[Option<Root>],
        steps: &Steps,
        step: &StepContext,
    ) -> Result<Kept, BuildError> {
        let making =
            (0..roots.len()).map(|target| self.documents(target, roots[target].as_ref(), steps, step));
        let images = futures_util::future::try_join_all(making).await?;
        let kept = self.put(images)?;
        if let Some(pusher) = &self.pusher {
            pusher.push_image(&kept, step).await?;
        }
        if self.pusher.as_ref().is_some_and(|pusher| pusher.left_blobs_elsewhere()) {
            // A name of the store stands for a whole image; an older one must not pass for this.
            for name in &self.names {
                self.store.untag(name)?;
            }
            step.note(
                "the image is in the registry only: it has layers that are not here (--load fetches them)",
            );
        } else if !self.names.is_empty() {
            self.store.tag_all(&self.names, &kept.descriptor)?;
        } else if outputs::keeps_image(&self.request.outputs) {
            self.store.keep_unnamed(&kept.descriptor)?;
        }
        Ok(kept)
    }

    /// Packs what one platform's image consists of, and makes its documents.
    async fn documents(
        &self,
        target: usize,
        root: Option<&Root>,
        steps: &Steps,
        step: &StepContext,
    ) -> Result<Documents, BuildError> {
        let image = &self.targets[target];
        let layers = self.layers(root, step).await?;
        let inline = match root.filter(|_| cache::wants_inline(&self.request)) {
            Some(root) => {
                let (epoch, line) = (image.source_date_epoch, &steps.lines[target]);
                let value =
                    cache::inline_cache(steps, line, &self.engine, &self.store, root, &layers, epoch, step);
                Some(value.await.map_err(BuildError::Export)?)
            }
            None => None,
        };
        documents(image, &layers, inline).map_err(unwritable)
    }

    /// Puts the documents into the store.
    fn put(&self, images: Vec<Documents>) -> Result<Kept, BuildError> {
        for image in &images {
            self.store.put_blob(&image.config)?;
            self.store.put_blob(&image.manifest)?;
        }
        let created =
            images.iter().filter_map(|image| image.created.clone()).max_by_key(|text| parse_rfc3339(text));
        let (mut descriptor, index) = match &images[..] {
            [only] if !self.request.makes_index() => (only.descriptor.clone(), None),
            _ => index(&images).map(|(descriptor, bytes)| (descriptor, Some(bytes))).map_err(unwritable)?,
        };
        if let Some(index) = &index {
            self.store.put_blob(index)?;
        }
        if let Some(created) = &created {
            descriptor.annotations.insert(CREATED.to_owned(), created.clone());
        }
        Ok(Kept { images, index, descriptor, created })
    }

    /// Every layer of an image, packed.
    async fn layers(&self, root: Option<&Root>, step: &StepContext) -> Result<Vec<ImageLayer>, BuildError> {
        let Some(root) = root else { return Ok(Vec::new()) };
        let prefixes: Vec<Root> = (1..=root.layers().len()).map(|count| root.prefix(count)).collect();
        let packing = prefixes.iter().map(|prefix| async {
            let packed = finish_layer(&self.engine, self.pusher.as_deref(), prefix, step).await?;
            let created = prefix.layers().last().and_then(|layer| layer.created());
            Ok::<_, OpError>(ImageLayer { packed, created })
        });
        let layers = futures_util::future::try_join_all(packing).await;
        layers.map_err(|error| match &self.pusher {
            Some(pusher) => pusher.failed(error),
            None => BuildError::Export(error),
        })
    }
}

fn unwritable(error: serde_json::Error) -> BuildError {
    BuildError::Internal(format!("writing the image's documents: {error}"))
}
