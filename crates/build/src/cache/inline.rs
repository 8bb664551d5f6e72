//! Records in the image's own config (C-029).

use crate::cache::{CacheTarget, Steps};
use crate::image::ImageLayer;
use crate::request::BuildRequest;
use rbuild_cache::{Contents, INLINE_KEY, Importer, inline_value};
use rbuild_ir::ImageResult;
use rbuild_op::{Engine, Root};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::Store;
use std::collections::BTreeSet;
use std::sync::Arc;

/// `BUILDKIT_INLINE_CACHE`, a build argument.
const BUILD_ARG: &str = "BUILDKIT_INLINE_CACHE";

/// Whether the image is to have its cache in its config.
pub(crate) fn wants_inline(request: &BuildRequest) -> bool {
    let by_arg = request
        .build_args
        .iter()
        .any(|(name, value)| name == BUILD_ARG && matches!(&*value.to_ascii_lowercase(), "1" | "true" | "t"));
    by_arg || request.cache_to.iter().any(|export| export.target == CacheTarget::Inline)
}

/// The base's inline cache says nothing of this image.
pub(crate) fn drop_inherited(image: &mut ImageResult) {
    image.config.other.remove(INLINE_KEY);
}

/// The value of [`INLINE_KEY`] for the image whose root and packed layers these are, made by the steps of `line`.
#[allow(clippy::too_many_arguments, reason = "each is another room's")]
pub(crate) async fn inline_cache(
    steps: &Steps,
    line: &BTreeSet<usize>,
    engine: &Arc<Engine>,
    store: &Store,
    root: &Root,
    packed: &[ImageLayer],
    epoch: Option<i64>,
    step: &StepContext,
) -> Result<String, OpError> {
    let none = Importer::new(Vec::new(), Vec::new(), rbuild_event::Reporter::silent());
    let mut contents = Contents::default();
    for (count, layer) in packed.iter().enumerate() {
        let mut layer = engine.describe_for_cache(&root.prefix(count + 1), &layer.packed, step).await?;
        if let (Some(created), Some(epoch)) = (&mut layer.created, epoch)
            && created.0 >= epoch
        {
            *created = (epoch, 0);
        }
        contents.layers.push(layer);
    }
    let described = steps.describe(|step| line.contains(&step), engine, store, &none).await?;
    for mut described in described {
        let record = &mut described.record;
        // What was built on another layer than the image has is not said of this image.
        let Some(top) = described.root.layers().last() else { continue };
        let place = root.layers().iter().position(|layer| layer.id() == top.id());
        let Some(place) = place else { continue };
        let is_prefix = described.root.layers().iter().zip(root.layers()).all(|(a, b)| a.id() == b.id());
        if record.reads_parent && !(is_prefix && described.root.layers().len() == place + 1) {
            continue;
        }
        record.chain = vec![place];
        contents.records.push(record.clone());
    }
    Ok(inline_value(&contents)?)
}
