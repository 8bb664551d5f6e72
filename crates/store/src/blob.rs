//! `blobs/sha256/`: content-addressed bytes.

use crate::error::{IoContext, Result};
use crate::fsutil::optional;
use crate::{Store, StoreError};
use rbuild_oci::Digest;
use sha2::Digest as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Small writes are gathered to this many bytes.
const BUFFER: usize = 64 << 10;

impl Store {
    /// Where the blob is, or would be. Its file may not exist.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is here. Under a lease a blob that was found is kept until the lease ends.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_size(digest)?.is_some())
    }

    /// Length of the blob in bytes; `None` if it is not here. Keeps the blob as [`Store::has_blob`] does.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let _gate = self.protect(&[*digest])?;
        let path = self.blob_path(digest);
        Ok(optional(fs::metadata(&path)).at("examine", &path)?.map(|meta| meta.len()))
    }

    /// Opens a blob. Its bytes were verified when they were put here; they are not verified again.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let _gate = self.protect(&[*digest])?;
        let path = self.blob_path(digest);
        optional(File::open(&path)).at("open", &path)?.ok_or(StoreError::NoBlob(*digest))
    }

    /// Reads a blob of at most `max` bytes into memory and verifies its digest.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file.metadata().at("examine", &path)?.len();
        if size > max {
            return Err(StoreError::TooLarge { digest: *digest, size, max });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(max).read_to_end(&mut bytes).at("read", &path)?;
        verify(*digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Reads a blob again and compares its digest (`fsck`). It is not kept by a lease.
    pub fn verify_blob(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let file = optional(File::open(&path)).at("open", &path)?.ok_or(StoreError::NoBlob(*digest))?;
        verify(*digest, digest_of(file).at("read", &path)?.0)
    }

    /// Whether a blob is here and whole at this moment.
    pub(crate) fn verified_now(&self, digest: &Digest) -> bool {
        self.verify_blob(digest).is_ok()
    }

    /// Starts a new blob, which is hashed while it is written.
    pub fn ingest(&self) -> Result<BlobWriter> {
        BlobWriter::new(self.clone(), Some(sha2::Sha256::new()))
    }

    /// Starts a new blob whose writer hashes by itself and ends with [`BlobWriter::commit_as`].
    pub fn ingest_unhashed(&self) -> Result<BlobWriter> {
        BlobWriter::new(self.clone(), None)
    }

    /// Puts a blob that is in memory. Nothing is written if it is here already.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<(Digest, u64)> {
        self.with_room(|| self.put_blob_once(bytes))
    }

    fn put_blob_once(&self, bytes: &[u8]) -> Result<(Digest, u64)> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        if self.blob_size(&digest)? == Some(size) {
            return Ok((digest, size));
        }
        let mut writer = self.ingest_unhashed()?;
        writer.write_all(bytes).at("write", &writer.path)?;
        writer.commit_as(digest, size)
    }
}

/// A blob that is being written. Dropping it removes what was written.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Option<sha2::Sha256>,
    written: u64,
}

impl BlobWriter {
    fn new(store: Store, hasher: Option<sha2::Sha256>) -> Result<Self> {
        store.keep_free(0);
        let (path, file) = store.with_room(|| {
            let path = store.inner.session.new_path("b")?;
            store.fault("blob create").at("create", &path)?;
            let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
            let file = file.at("create", &path)?;
            Ok((path, file))
        })?;
        Ok(Self { store, path, file: BufWriter::with_capacity(BUFFER, file), hasher, written: 0 })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Where the bytes are until they are committed, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the blob in its place under the digest of what was written, which must be the expected one with the
    /// expected length, if these are given. On error nothing is left.
    pub fn commit(mut self, expected: Option<(Digest, u64)>) -> Result<(Digest, u64)> {
        let digest = match self.hasher.take() {
            Some(hasher) => Digest::from_bytes(hasher.finalize().into()),
            None => {
                self.flush().at("write", &self.path)?;
                let file = File::open(&self.path).at("open", &self.path)?;
                digest_of(file).at("read", &self.path)?.0
            }
        };
        if let Some((wanted, size)) = expected {
            if size != self.written {
                return Err(StoreError::SizeMismatch {
                    digest: wanted,
                    expected: size,
                    actual: self.written,
                });
            }
            verify(wanted, digest)?;
        }
        self.place(digest)
    }

    /// Puts the blob in its place under a digest that the caller has computed from the very bytes it wrote here.
    pub fn commit_as(self, digest: Digest, size: u64) -> Result<(Digest, u64)> {
        if size != self.written {
            return Err(StoreError::SizeMismatch { digest, expected: size, actual: self.written });
        }
        self.place(digest)
    }

    fn place(mut self, digest: Digest) -> Result<(Digest, u64)> {
        let (store, target) = (self.store.clone(), self.store.blob_path(&digest));
        store.with_room(|| {
            self.file.flush().at("write", &self.path)?;
            let _gate = store.protect(&[digest])?;
            // A blob that is here already is replaced by the same bytes: so one that was cut short by a power loss is
            // healed by whoever makes it again.
            store
                .fault("blob place")
                .and_then(|()| fs::rename(&self.path, &target))
                .at("put in place", &target)
        })?;
        self.path = PathBuf::new();
        self.store.inner.gc.add_placed(self.written);
        self.store.sync_at_times();
        Ok((digest, self.written))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // What the buffer holds stays there if it cannot be written: so writing can be tried again.
        self.store.fault("blob write")?;
        let n = match self.file.write(buf) {
            Err(e) if self.store.makes_room_after(&e) => self.file.write(buf)?,
            written => written?,
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.file.flush() {
            Err(e) if self.store.makes_room_after(&e) => self.file.flush(),
            flushed => flushed,
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn verify(expected: Digest, actual: Digest) -> Result<()> {
    if expected == actual { Ok(()) } else { Err(StoreError::DigestMismatch { expected, actual }) }
}

fn digest_of(mut file: File) -> io::Result<(Digest, u64)> {
    let mut hasher = rbuild_oci::Sha256Writer::new(io::sink());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let (_, digest, size) = hasher.finish();
    Ok((digest, size))
}
