//! `rbuild inspect` (D-047).

use crate::args::InspectArgs;
use crate::command::image::Shown;
use crate::command::{find, names_of, open};
use crate::output::print;
use anyhow::Result;
use rbuild_oci::Digest;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &InspectArgs) -> Result<ExitCode> {
    let store = open(root)?;
    let mut shown = Vec::new();
    for text in &args.image {
        let found = find(&store, text)?;
        let digest = found.image.descriptor.digest;
        let image = Shown::read(&store, &found.image.descriptor)?;
        shown.push(describe(&digest, &names_of(&store, &digest)?, &image, args.platform.as_deref())?);
    }
    print(&(serde_json::to_string_pretty(&shown)? + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// As docker with an image store of its own: the image for this machine, or for `platform`. An index is shown besides.
fn describe(digest: &Digest, names: &[String], image: &Shown, platform: Option<&str>) -> Result<Value> {
    let documents = image.choose(platform)?;
    let (manifest, config) = (&documents.manifest, &documents.config);
    let mut shown = json!({
        "Id": image.id,
        "RepoTags": names,
        "Digest": digest,
        "Created": config.created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "Config": serde_json::to_value(&config.config)?,
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Manifest": serde_json::to_value(manifest)?,
    });
    if let Some(index) = &image.index {
        shown["Platforms"] = json!(image.platforms());
        shown["Index"] = serde_json::to_value(index)?;
    }
    Ok(shown)
}
