//! `-o type=oci`: an OCI image layout as a directory or a tar archive (B-027).

use crate::archive::Archive;
use crate::dest::{beside, copy_file, write_file};
use crate::error::{ExportError, IoContext, Result};
use crate::image::{Blobs, ExportImage};
use rbuild_oci::{Descriptor, Reference, Sha256Writer, media_type};
use rbuild_store::{MAX_INDEX, Store, StoreError, image_name};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Content of `oci-layout`.
pub(crate) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";

/// Writes the image as an OCI layout in a tar archive: blobs in the order of digests, `index.json`, `oci-layout`.
/// Returns `out`. Give it a `File` where there is one: blobs are then copied by the kernel.
pub fn write_oci_archive<W: Write>(store: &Store, image: &ExportImage, out: W) -> Result<W> {
    let blobs = image.blobs(store)?;
    let mut archive = Archive::new(out);
    archive.blobs(store, &blobs)?;
    archive.file("index.json", &index_json(image))?;
    archive.file("oci-layout", OCI_LAYOUT)?;
    archive.finish()
}

/// Writes the image as an OCI layout into the directory `dest`, which appears whole. One that is an OCI layout already
/// gets the image in addition: its entries with the same tag are replaced, everything else in it stays.
pub fn write_oci_layout_dir(store: &Store, image: &ExportImage, dest: &Path) -> Result<()> {
    let blobs = image.blobs(store)?;
    if dest.join("oci-layout").is_file() {
        return add_to_layout(store, image, &blobs, dest);
    }
    let is_empty = match fs::read_dir(dest) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(ExportError::io("open", dest, e)),
    };
    if !is_empty {
        return Err(ExportError::NotALayout { path: dest.to_owned() });
    }
    // `dest` may end in a slash or in `..`; what is renamed must have a name.
    let dest = &fs::canonicalize(dest).unwrap_or_else(|_| dest.components().collect());
    let temporary = beside(dest);
    let written = (|| {
        for dir in ["", "blobs", "blobs/sha256"] {
            let path = temporary.join(dir);
            fs::create_dir(&path).at("create", &path)?;
        }
        copy_blobs(store, &blobs, &temporary)?;
        for (name, bytes) in [("index.json", index_json(image).as_slice()), ("oci-layout", OCI_LAYOUT)] {
            let path = temporary.join(name);
            fs::write(&path, bytes).at("write", &path)?;
        }
        // Replaces an empty directory, and no other one.
        fs::rename(&temporary, dest).at("put in place", dest)
    })();
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

fn copy_blobs(store: &Store, blobs: &Blobs, layout: &Path) -> Result<()> {
    for descriptor in blobs.values() {
        let (digest, expected) = (descriptor.digest, descriptor.size);
        let path = layout.join("blobs/sha256").join(digest.hex());
        if is_blob(&path, descriptor) {
            continue;
        }
        let actual = copy_file(store.open_blob(&digest)?, expected, &path)?;
        if actual != expected {
            return Err(StoreError::SizeMismatch { digest, expected, actual }.into());
        }
    }
    Ok(())
}

/// Whether the file has the bytes of the descriptor.
fn is_blob(path: &Path, descriptor: &Descriptor) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    if !file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == descriptor.size) {
        return false;
    }
    let mut hasher = Sha256Writer::new(io::sink());
    io::copy(&mut file, &mut hasher).is_ok() && hasher.finish().1 == descriptor.digest
}

/// Blobs first, then `index.json` by rename; two exports into one layout take turns.
fn add_to_layout(store: &Store, image: &ExportImage, blobs: &Blobs, dest: &Path) -> Result<()> {
    let lock = File::open(dest).at("open", dest)?;
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
        .map_err(|e| ExportError::io("lock", dest, e.into()))?;
    let path = dest.join("blobs/sha256");
    fs::create_dir_all(&path).at("create", &path)?;
    copy_blobs(store, blobs, dest)?;
    let path = dest.join("index.json");
    let bytes = merge(&path, entries(image))?;
    write_file(&path, |mut file| file.write_all(&bytes).at("write", &path))
}

/// The `index.json` at `path` with these entries instead of those with the same tag.
fn merge(path: &Path, new: Vec<Value>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(MAX_INDEX).read_to_end(&mut bytes).at("read", path)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => bytes.extend_from_slice(&index_of(Vec::new())),
        Err(e) => return Err(ExportError::io("open", path, e)),
    }
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    let mut index: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let old = index.entry("manifests").or_insert_with(|| json!([]));
    let Some(list) = old.as_array_mut() else {
        return Err(damaged("`manifests` is not a list".into()).into());
    };
    let tag = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
    list.retain(|old| {
        let replaces = |new: &Value| match tag(new) {
            Some(name) => tag(old).as_ref() == Some(&name),
            None => tag(old).is_none() && old["digest"] == new["digest"],
        };
        !new.iter().any(replaces)
    });
    list.extend(new);
    Ok(to_json(&Value::Object(index)))
}

/// `index.json` with one entry per name.
pub(crate) fn index_json(image: &ExportImage) -> Vec<u8> {
    index_of(entries(image))
}

fn index_of(entries: Vec<Value>) -> Vec<u8> {
    to_json(&json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}))
}

fn entries(image: &ExportImage) -> Vec<Value> {
    if image.names.is_empty() {
        return vec![entry(image, None)];
    }
    image.names.iter().map(|name| entry(image, Some(name))).collect()
}

fn entry(image: &ExportImage, name: Option<&Reference>) -> Value {
    let mut descriptor = image.descriptor.clone();
    let annotations = &mut descriptor.annotations;
    // What the store calls it.
    annotations.remove(REF_NAME);
    if let Some(name) = name {
        annotations.insert(IMAGE_NAME.into(), image_name(name));
        if let Some(tag) = name.clone().with_default_tag().tag() {
            annotations.insert(REF_NAME.into(), tag.to_owned());
        }
    }
    if let Some(created) = &image.created {
        annotations.insert(CREATED.into(), created.clone());
    }
    serde_json::to_value(&descriptor).unwrap_or_default()
}

/// Compact JSON. A `Value` always serialises.
pub(crate) fn to_json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
