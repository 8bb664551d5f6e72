//! `-o type=docker`: an archive for `docker load` (B-027).

use crate::archive::Archive;
use crate::error::Result;
use crate::image::ExportImage;
use crate::oci_layout::{OCI_LAYOUT, index_json, to_json};
use rbuild_oci::{Descriptor, Reference};
use rbuild_store::{Store, image_name};
use serde_json::json;
use std::io::Write;

/// Writes a single-platform image as an OCI layout in a tar archive, with the `manifest.json` that Docker reads. Returns
/// `out`. Give it a `File` where there is one: blobs are then copied by the kernel.
pub fn write_docker_archive<W: Write>(store: &Store, image: &ExportImage, out: W) -> Result<W> {
    let manifest = image.manifest(store)?;
    let blobs = image.blobs(store)?;
    let path = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest.hex());
    let document = json!([{
        "Config": path(&manifest.config),
        "RepoTags": image.names.iter().map(familiar_name).collect::<Vec<_>>(),
        "Layers": manifest.layers.iter().map(path).collect::<Vec<_>>(),
    }]);
    let mut archive = Archive::new(out);
    archive.blobs(store, &blobs)?;
    archive.file("index.json", &index_json(image))?;
    archive.file("manifest.json", &to_json(&document))?;
    archive.file("oci-layout", OCI_LAYOUT)?;
    archive.finish()
}

/// The name as Docker shows it: `app:1.0` for `docker.io/library/app:1.0`.
fn familiar_name(name: &Reference) -> String {
    let full = image_name(name);
    let rest = full.strip_prefix("docker.io/").unwrap_or(&full);
    match rest.strip_prefix("library/") {
        Some(short) if rest.len() < full.len() && !short.contains('/') => short.to_owned(),
        _ => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_docker_shows() {
        let cases = [
            ("app:1.0", "app:1.0"),
            ("app", "app:latest"),
            ("me/app:1", "me/app:1"),
            ("localhost:5000/library/app:1", "localhost:5000/library/app:1"),
            ("docker.io/library/a/b:1", "library/a/b:1"),
        ];
        for (name, familiar) in cases {
            assert_eq!(familiar_name(&name.parse().unwrap()), familiar);
        }
    }
}
