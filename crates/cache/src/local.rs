//! An OCI image layout in a directory (image-spec, image-layout.md).

use crate::backend::{Backend, Found, Progress};
use crate::error::CacheError;
use async_trait::async_trait;
use rbuild_oci::{Descriptor, Digest, Sha256Writer, media_type};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Longest `index.json` or manifest that is read, in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;
/// Bytes copied at a time.
const PIECE: usize = 256 << 10;

/// Numbers the temporary files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Blobs and a manifest in a directory.
#[derive(Debug)]
pub struct LocalBackend {
    dir: PathBuf,
    name: String,
    tag: String,
    digest: Option<Digest>,
    reset: bool,
}

impl LocalBackend {
    /// The layout in `dir`, which may not exist yet; `digest` comes before `tag` when reading. With `reset`, blobs that no
    /// manifest of the layout names any more are removed whenever the manifest is put.
    pub fn new(dir: &Path, tag: &str, digest: Option<Digest>, reset: bool) -> Self {
        let name = format!("local:{}", dir.display());
        Self { dir: dir.to_owned(), name, tag: tag.to_owned(), digest, reset }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// `index.json` as it is, so that entries of others stay as they are.
    fn index(&self) -> Result<Option<Value>, CacheError> {
        let path = self.dir.join("index.json");
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("read", path)(error)),
        };
        let index: Value = serde_json::from_slice(&bytes)
            .map_err(|error| CacheError::Damaged(format!("index.json is damaged: {error}")))?;
        Ok(Some(index))
    }

    fn entry(&self) -> Result<Option<Descriptor>, CacheError> {
        let Some(index) = self.index()? else { return Ok(None) };
        let entries = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
        let mut entries = entries.iter().filter_map(Descriptor::deserialize_from);
        Ok(match self.digest {
            Some(digest) => entries.find(|entry| entry.digest == digest),
            None => entries.find(|entry| entry.annotations.get(REF_NAME) == Some(&self.tag)),
        })
    }

    fn prepare(&self) -> Result<(), CacheError> {
        let blobs = self.dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(CacheError::io("create", &blobs))?;
        let layout = self.dir.join("oci-layout");
        if !layout.exists() {
            self.place(&layout, |file| file.write_all(b"{\"imageLayoutVersion\":\"1.0.0\"}"))?;
        }
        Ok(())
    }

    /// Writes a file beside its place and renames it there.
    fn place(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<(), CacheError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!(".tmp-{}-{number}", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| write(&mut file));
        let placed = written.and_then(|()| fs::rename(&temporary, path));
        placed.map_err(|error| {
            // Whatever is left of it; the error matters more.
            let _ = fs::remove_file(&temporary);
            CacheError::io("write", path)(error)
        })
    }

    /// Locks the directory against other writers until the file is dropped.
    fn lock(&self) -> Result<File, CacheError> {
        let dir = File::open(&self.dir).map_err(CacheError::io("open", &self.dir))?;
        let locked = rustix::io::retry_on_intr(|| flock(&dir, FlockOperation::LockExclusive));
        locked.map_err(|error| CacheError::io("lock", &self.dir)(error.into()))?;
        Ok(dir)
    }

    fn set_entry(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let _lock = self.lock()?;
        let mut index = self.index()?.filter(Value::is_object).unwrap_or_else(
            || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
        );
        let mut entry = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        entry.annotations.insert(REF_NAME.to_owned(), self.tag.clone());
        let entry = serde_json::to_value(&entry).map_err(|error| CacheError::Damaged(error.to_string()))?;
        let mut entries = index["manifests"].as_array().cloned().unwrap_or_default();
        let is_same_tag = |entry: &Value| entry["annotations"][REF_NAME].as_str() == Some(&self.tag);
        entries.retain(|entry| !is_same_tag(entry));
        entries.push(entry);
        index["manifests"] = Value::Array(entries);
        let text = serde_json::to_vec(&index).map_err(|error| CacheError::Damaged(error.to_string()))?;
        self.place(&self.dir.join("index.json"), |file| file.write_all(&text))?;
        if self.reset {
            self.sweep(&index)?;
        }
        Ok(())
    }

    /// Removes blobs that nothing in `index` leads to. A document that cannot be read keeps everything.
    fn sweep(&self, index: &Value) -> Result<(), CacheError> {
        let mut used = BTreeSet::new();
        let mut pending = vec![index.clone()];
        while let Some(document) = pending.pop() {
            let listed = ["manifests", "layers"].into_iter().filter_map(|key| document[key].as_array());
            for entry in listed.flatten().chain(document.get("config")) {
                let Some(descriptor) = Descriptor::deserialize_from(entry) else { return Ok(()) };
                let is_document = media_type::is_index(&descriptor.media_type)
                    || media_type::is_manifest(&descriptor.media_type);
                if used.insert(descriptor.digest) && is_document {
                    let Ok(bytes) = read_bounded(&self.blob_path(&descriptor.digest)) else { return Ok(()) };
                    let Ok(document) = serde_json::from_slice(&bytes) else { return Ok(()) };
                    pending.push(document);
                }
            }
        }
        let blobs = self.dir.join("blobs/sha256");
        for entry in fs::read_dir(&blobs).map_err(CacheError::io("list", &blobs))? {
            let path = entry.map_err(CacheError::io("list", &blobs))?.path();
            let digest = path.file_name().and_then(|name| Digest::from_hex(name.to_str()?));
            if digest.is_some_and(|digest| !used.contains(&digest)) {
                fs::remove_file(&path).map_err(CacheError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn copy(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn Write + Send),
        progress: Progress<'_>,
    ) -> Result<(), CacheError> {
        let path = self.blob_path(&blob.digest);
        let mut file = File::open(&path).map_err(CacheError::io("open", &path))?.take(blob.size + 1);
        let mut sink = Sha256Writer::new(sink);
        let mut buffer = vec![0; PIECE];
        let mut copied = 0;
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CacheError::io("read", &path)(error)),
            };
            sink.write_all(&buffer[..count]).map_err(CacheError::io("copy", &path))?;
            copied += count as u64;
            progress(copied);
        }
        let (_, digest, size) = sink.finish();
        if digest != blob.digest || size != blob.size {
            let found = if digest == blob.digest { format!("{size} bytes") } else { digest.to_string() };
            return Err(CacheError::WrongBlob { name: self.name.clone(), expected: blob.digest, found });
        }
        Ok(())
    }
}

/// Reading one entry of an index without failing for the others.
trait Lenient: Sized {
    fn deserialize_from(value: &Value) -> Option<Self>;
}

impl Lenient for Descriptor {
    fn deserialize_from(value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is larger than 16 MiB"));
    }
    Ok(bytes)
}

#[async_trait]
impl Backend for LocalBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn repository(&self) -> Option<String> {
        None
    }

    async fn manifest(&self) -> Result<Option<(Descriptor, Vec<u8>)>, CacheError> {
        let Some(entry) = self.entry()? else { return Ok(None) };
        let bytes = self.manifest_by_digest(&entry).await?;
        Ok(Some((entry, bytes)))
    }

    async fn manifest_by_digest(&self, manifest: &Descriptor) -> Result<Vec<u8>, CacheError> {
        crate::backend::read(self, manifest, MAX_DOCUMENT).await
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn Write + Send),
        progress: Progress<'_>,
    ) -> Result<(), CacheError> {
        self.copy(blob, sink, progress)
    }

    async fn find(&self, blob: &Descriptor, _: &[String]) -> Result<Found, CacheError> {
        let meta = fs::metadata(self.blob_path(&blob.digest));
        let whole = meta.is_ok_and(|meta| meta.is_file() && meta.len() == blob.size);
        Ok(if whole { Found::Present } else { Found::Missing })
    }

    async fn put(&self, blob: &Descriptor, source: &Path) -> Result<(), CacheError> {
        self.prepare()?;
        let mut from = File::open(source).map_err(CacheError::io("open", source))?;
        self.place(&self.blob_path(&blob.digest), |file| std::io::copy(&mut from, file).map(drop))
    }

    async fn put_bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), CacheError> {
        self.prepare()?;
        self.place(&self.blob_path(&blob.digest), |file| file.write_all(bytes))
    }

    async fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let blob = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        self.put_bytes(&blob, bytes).await?;
        self.set_entry(media_type, bytes)
    }
}
