//! Reading images out of OCI layouts in directories (image-spec, image-layout.md).

use crate::request::LayoutImage;
use rbuild_oci::{Descriptor, Digest, Index, Reference};
use std::io::Read;
use std::path::{Path, PathBuf};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Largest index, manifest or config that is read.
const MAX_DOCUMENT: u64 = 4 << 20;

/// An OCI layout.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout in `dir`, which is not looked at yet.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The image that is meant: by digest, by tag, or the only one (else `latest`).
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn find(&self, image: Option<&LayoutImage>) -> Result<Descriptor, String> {
        let path = self.dir.join("index.json");
        let bytes =
            read_bounded(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| format!("`{}` is no image index: {error}", path.display()))?;
        let tag = match image {
            Some(LayoutImage::Digest(digest)) => return self.by_digest(&index, digest),
            Some(LayoutImage::Tag(tag)) => tag,
            None if index.manifests.len() == 1 => return Ok(index.manifests[0].clone()),
            None => "latest",
        };
        let found = index.manifests.iter().find(|descriptor| is_named(descriptor, tag));
        found.cloned().ok_or_else(|| {
            let names = index.manifests.iter().filter_map(|entry| entry.annotations.get(REF_NAME));
            let names: Vec<&str> = names.map(String::as_str).collect();
            format!("there is no image `{tag}` in `{}` (it has: {})", self.dir.display(), names.join(", "))
        })
    }

    fn by_digest(&self, index: &Index, digest: &Digest) -> Result<Descriptor, String> {
        if let Some(listed) = index.manifests.iter().find(|entry| entry.digest == *digest) {
            return Ok(listed.clone());
        }
        // A manifest of an index is not listed itself; its own bytes say what it is.
        let missing = || format!("there is no image {digest} in `{}`", self.dir.display());
        let bytes = read_bounded(&self.blob_path(digest)).map_err(|_| missing())?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| missing())?;
        let media_type = value["mediaType"].as_str().unwrap_or(rbuild_oci::media_type::OCI_MANIFEST);
        Ok(Descriptor::new(media_type, *digest, bytes.len() as u64))
    }

    /// Where a blob is, if it is there.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// A small blob, verified.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
        let path = self.blob_path(&descriptor.digest);
        let bytes =
            read_bounded(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        let found = Digest::of(&bytes);
        if found != descriptor.digest || bytes.len() as u64 != descriptor.size {
            return Err(format!("`{}` is damaged: its digest is {found}", path.display()));
        }
        Ok(bytes)
    }
}

fn is_named(descriptor: &Descriptor, tag: &str) -> bool {
    let name = |key: &str| descriptor.annotations.get(key).map(String::as_str);
    let full = |text: &str| text.parse::<Reference>().ok().map(|name| name.with_default_tag().to_string());
    name(REF_NAME) == Some(tag)
        || name(IMAGE_NAME) == Some(tag)
        || full(tag).is_some_and(|full| name(REF_NAME) == Some(&full) || name(IMAGE_NAME) == Some(&full))
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is larger than 4 MiB"));
    }
    Ok(bytes)
}
