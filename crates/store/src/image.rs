//! `index.json`: the images by name.

use crate::error::{IoContext, Result};
use crate::fsutil::{lock_path, optional, replace_file};
use crate::ingest::Session;
use crate::{MAX_DOCUMENT, MAX_INDEX, Store, StoreError};
use rbuild_oci::{Descriptor, Digest, Manifest, Reference, media_type};
use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Annotation of a descriptor that carries the image's name (image-spec annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Annotation of the entry of an image that was built without a name: [`Store::prune`] removes it.
const UNNAMED: &str = "io.rbuild.unnamed";

/// An entry of `index.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The full normalised name (`docker.io/library/app:1.0`); what another tool wrote, if it did; `None` without one.
    pub name: Option<String>,
    /// Manifest or index, with the annotations of the entry.
    pub descriptor: Descriptor,
}

/// How an image was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedBy {
    /// By its name, or its repository and digest.
    Name,
    /// By (a prefix of) its id: the digest of its manifest or of its config.
    Id,
}

/// Result of [`Store::find_image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The image; the first one in `index.json`, where several names have the same id.
    pub image: Image,
    /// What of it matched.
    pub by: MatchedBy,
}

/// The name under which a reference is kept: full, with `:latest` if it has neither tag nor digest; a digest beside a
/// tag is left out.
pub fn image_name(reference: &Reference) -> String {
    match (reference.tag(), reference.digest()) {
        (Some(tag), _) => format!("{}:{tag}", reference.name()),
        (None, Some(digest)) => format!("{}@{digest}", reference.name()),
        (None, None) => format!("{}:latest", reference.name()),
    }
}

/// Writes an empty `index.json` if there is none.
pub(crate) fn create_index(root: &Path, session: &Session) -> Result<()> {
    let index = Index::lock(root)?;
    if index.path.exists() {
        return Ok(());
    }
    // One that is lost is not one without images.
    match Index::read_from(&root.join("index.json.previous")) {
        Ok(previous) => Index { path: index.path.clone(), ..previous }.write(session),
        Err(_) => index.write(session),
    }
}

impl Store {
    /// Gives the image a name, which is taken from the image that had it. The descriptor's annotations are kept, such
    /// as `org.opencontainers.image.created`. Its blob must be here. Nothing is written if nothing changes.
    pub fn tag(&self, name: &Reference, descriptor: &Descriptor) -> Result<()> {
        self.tag_all(std::slice::from_ref(name), descriptor)
    }

    /// [`Store::tag`] with several names, in one change.
    pub fn tag_all(&self, names: &[Reference], descriptor: &Descriptor) -> Result<()> {
        self.with_room(|| self.tag_all_once(names, descriptor))
    }

    fn tag_all_once(&self, names: &[Reference], descriptor: &Descriptor) -> Result<()> {
        let _gate = self.protect(&[descriptor.digest])?;
        if !self.blob_path(&descriptor.digest).exists() {
            return Err(StoreError::NoBlob(descriptor.digest));
        }
        let mut entries = Vec::new();
        for name in names {
            let mut named = descriptor.clone();
            named.annotations.insert(REF_NAME.into(), image_name(name));
            let entry = serde_json::to_value(&named).map_err(|e| self.index_damaged(e.to_string()))?;
            entries.push((image_name(name), entry));
        }
        // Without the lock first: an unchanged rebuild writes nothing and waits for nobody.
        if Index::read(self.root())?.has_all(&entries) {
            return Ok(());
        }
        let mut index = Index::lock(self.root())?;
        self.fault("document write").at("write", &index.path)?;
        for (name, entry) in entries {
            index.set(&name, entry);
        }
        index.retain(|entry| !is_unnamed(entry) || !is_image(entry, &descriptor.digest));
        index.write(&self.inner.session)
    }

    /// Lists an image that has no name, until it gets one or is pruned. Its blob must be here. Nothing is written if the
    /// image is listed already, under a name or not.
    pub fn keep_unnamed(&self, descriptor: &Descriptor) -> Result<()> {
        let _gate = self.protect(&[descriptor.digest])?;
        if !self.blob_path(&descriptor.digest).exists() {
            return Err(StoreError::NoBlob(descriptor.digest));
        }
        if Index::read(self.root())?.has_image(&descriptor.digest) {
            return Ok(());
        }
        let mut unnamed = descriptor.clone();
        unnamed.annotations.insert(UNNAMED.into(), "true".into());
        let entry = serde_json::to_value(&unnamed).map_err(|e| self.index_damaged(e.to_string()))?;
        let mut index = Index::lock(self.root())?;
        if !index.has_image(&descriptor.digest) {
            index.push(entry);
            index.write(&self.inner.session)?;
        }
        Ok(())
    }

    /// Removes the entries of an image that have no name. `false` if there was none.
    pub fn remove_unnamed(&self, digest: &Digest) -> Result<bool> {
        let mut index = Index::lock(self.root())?;
        let removed = index.retain(|entry| name_of(entry).is_some() || !is_image(entry, digest));
        if removed {
            index.write(&self.inner.session)?;
        }
        Ok(removed)
    }

    /// Takes a name away. `false` if no image had it. The image's blobs stay until they are pruned.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        self.untag_name(&image_name(name))
    }

    /// [`Store::untag`] by the text of the name as in [`Image::name`], which another tool may have chosen.
    pub fn untag_name(&self, name: &str) -> Result<bool> {
        let mut index = Index::lock(self.root())?;
        let removed = index.remove(name);
        if removed {
            index.write(&self.inner.session)?;
        }
        Ok(removed)
    }

    /// Removes these entries, compared as a whole.
    pub(crate) fn remove_index_entries(&self, gone: &[Value]) -> Result<()> {
        let mut index = Index::lock(self.root())?;
        index.retain(|entry| !gone.contains(entry));
        index.write(&self.inner.session)
    }

    /// Puts `index.json.previous` in the place of an `index.json` that is gone, or else an empty one; whether there was a
    /// previous one.
    pub(crate) fn restore_index_json(&self) -> Result<bool> {
        let (path, previous) = (self.root().join("index.json"), self.root().join("index.json.previous"));
        let lock = self.root().join("locks/index.json");
        let _lock = lock_path(&lock, FlockOperation::LockExclusive).at("lock", &lock)?;
        let restored = Index::read_from(&previous).is_ok_and(|index| !index.entries().is_empty());
        let index = if restored { Index::read_from(&previous)? } else { Index::read_from(&path)? };
        Index { path, ..index }.write(&self.inner.session)?;
        Ok(restored)
    }

    /// All images, in the order of `index.json`. Entries of other tools that are not understood (another digest
    /// algorithm) are left out here, and left alone in the file.
    pub fn images(&self) -> Result<Vec<Image>> {
        Ok(Index::read(self.root())?.images())
    }

    /// Finds an image as docker does (D-053): by `name[:tag]`, `name@digest`, or a unique prefix of its id with or
    /// without `sha256:`. An id is the digest of the manifest (or index), or that of its config.
    pub fn find_image(&self, text: &str) -> Result<Option<FoundImage>> {
        let images = self.images()?;
        if let Some(image) = by_name(&images, text) {
            return Ok(Some(FoundImage { image: image.clone(), by: MatchedBy::Name }));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(hex) {
            return Ok(None);
        }
        let mut matches = BTreeSet::new();
        let mut first = None;
        for image in &images {
            let manifest = image.descriptor.digest;
            if manifest.hex().starts_with(prefix)
                || self.config_digest(&image.descriptor).is_some_and(|id| id.hex().starts_with(prefix))
            {
                matches.insert(manifest);
                first.get_or_insert(image);
            }
        }
        match matches.len() {
            0 | 1 => Ok(first.map(|image| FoundImage { image: image.clone(), by: MatchedBy::Id })),
            count => Err(StoreError::AmbiguousImage { prefix: text.to_owned(), count }),
        }
    }

    /// The config's digest of a single-platform image whose manifest is here and readable.
    fn config_digest(&self, descriptor: &Descriptor) -> Option<Digest> {
        if !media_type::is_manifest(&descriptor.media_type) {
            return None;
        }
        let bytes = self.read_blob(&descriptor.digest, MAX_DOCUMENT).ok()?;
        Some(serde_json::from_slice::<Manifest>(&bytes).ok()?.config.digest)
    }

    fn index_damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { path: self.root().join("index.json"), reason }
    }
}

fn by_name<'a>(images: &'a [Image], text: &str) -> Option<&'a Image> {
    if let Some(exact) = images.iter().find(|image| image.name.as_deref() == Some(text)) {
        return Some(exact);
    }
    let reference: Reference = text.parse().ok()?;
    if let Some(digest) = reference.digest() {
        let repository = reference.name();
        return images.iter().find(|image| {
            let name: Option<Reference> = image.name.as_deref().and_then(|name| name.parse().ok());
            image.descriptor.digest == digest && name.is_some_and(|name| name.name() == repository)
        });
    }
    let name = image_name(&reference);
    images.iter().find(|image| image.name.as_deref() == Some(&name))
}

/// `index.json` as it was read, with everything in it that is not ours.
pub(crate) struct Index {
    path: PathBuf,
    document: Map<String, Value>,
    _lock: Option<File>,
}

impl Index {
    /// Reads it; a missing one is empty.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        Self::read_from(&root.join("index.json"))
    }

    fn read_from(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let damaged = |reason: String| StoreError::Damaged { path: path.clone(), reason };
        let mut bytes = Vec::new();
        if let Some(file) = optional(File::open(&path)).at("open", &path)? {
            file.take(MAX_INDEX + 1).read_to_end(&mut bytes).at("read", &path)?;
            if bytes.len() as u64 > MAX_INDEX {
                return Err(damaged(format!("it is longer than {MAX_INDEX} bytes")));
            }
        } else {
            bytes.extend_from_slice(b"{}");
        }
        let mut document: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if document.is_empty() {
            document.insert("schemaVersion".into(), json!(2));
            document.insert("mediaType".into(), json!(media_type::OCI_INDEX));
        }
        let manifests = document.entry("manifests").or_insert_with(|| json!([]));
        if manifests.is_null() {
            *manifests = json!([]);
        }
        if !manifests.is_array() {
            return Err(damaged("`manifests` is not a list".into()));
        }
        Ok(Self { path, document, _lock: None })
    }

    /// Reads it to change it: other processes wait until this is dropped.
    pub(crate) fn lock(root: &Path) -> Result<Self> {
        let path = root.join("locks/index.json");
        let lock = lock_path(&path, FlockOperation::LockExclusive).at("lock", &path)?;
        Ok(Self { _lock: lock, ..Self::read(root)? })
    }

    pub(crate) fn write(&self, session: &Session) -> Result<()> {
        let bytes = serde_json::to_vec(&self.document)
            .map_err(|e| StoreError::Damaged { path: self.path.clone(), reason: e.to_string() })?;
        crate::durable::keep_previous(&self.path, &session.new_path("j")?);
        replace_file(&session.new_path("j")?, &self.path, &bytes).at("write", &self.path)
    }

    pub(crate) fn entries(&self) -> &[Value] {
        self.document.get("manifests").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn has_all(&self, wanted: &[(String, Value)]) -> bool {
        wanted.iter().all(|(name, entry)| {
            let mut same_name = self.entries().iter().filter(|e| name_of(e) == Some(name));
            same_name.next() == Some(entry) && same_name.next().is_none()
        })
    }

    /// Replaces the entry of that name in its place, or adds it at the end.
    fn set(&mut self, name: &str, entry: Value) {
        let Some(entries) = self.document.get_mut("manifests").and_then(Value::as_array_mut) else { return };
        let place = entries.iter().position(|e| name_of(e) == Some(name));
        entries.retain({
            let mut index = 0;
            move |e| {
                index += 1;
                Some(index - 1) == place || name_of(e) != Some(name)
            }
        });
        match place {
            Some(place) => entries[place] = entry,
            None => entries.push(entry),
        }
    }

    fn remove(&mut self, name: &str) -> bool {
        self.retain(|entry| name_of(entry) != Some(name))
    }

    /// Keeps the entries that are wanted; whether any was not.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        let Some(entries) = self.document.get_mut("manifests").and_then(Value::as_array_mut) else {
            return false;
        };
        let before = entries.len();
        entries.retain(wanted);
        entries.len() != before
    }

    fn push(&mut self, entry: Value) {
        if let Some(entries) = self.document.get_mut("manifests").and_then(Value::as_array_mut) {
            entries.push(entry);
        }
    }

    fn has_image(&self, digest: &Digest) -> bool {
        self.entries().iter().any(|entry| is_image(entry, digest))
    }

    fn images(&self) -> Vec<Image> {
        let known = self.entries().iter().filter_map(|entry| {
            let descriptor: Descriptor = serde_json::from_value(entry.clone()).ok()?;
            Some(Image { name: name_of(entry).map(str::to_owned), descriptor })
        });
        known.collect()
    }
}

pub(crate) fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn is_image(entry: &Value, digest: &Digest) -> bool {
    entry.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok()) == Some(*digest)
}

/// Whether a build has put the entry there for want of a name.
pub(crate) fn is_unnamed(entry: &Value) -> bool {
    name_of(entry).is_none() && entry.get("annotations").is_some_and(|all| all.get(UNNAMED).is_some())
}
