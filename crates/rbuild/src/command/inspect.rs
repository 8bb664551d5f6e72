//! `rbuild inspect` (D-047).

use crate::args::InspectArgs;
use crate::command::{Documents, documents, find, names_of, open};
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
        let documents = documents(&store, &digest)?;
        shown.push(describe(&digest, &names_of(&store, &digest)?, &documents)?);
    }
    print(&(serde_json::to_string_pretty(&shown)? + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(digest: &Digest, names: &[String], documents: &Documents) -> Result<Value> {
    let (manifest, config) = (&documents.manifest, &documents.config);
    Ok(json!({
        "Id": manifest.config.digest,
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
    }))
}
