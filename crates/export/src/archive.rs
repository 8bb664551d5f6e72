//! A tar archive of documents and blobs that depends on nothing but these.

use crate::error::{ExportError, IoContext, Result};
use crate::image::Blobs;
use rbuild_store::{Store, StoreError};
use std::io::{self, Read, Write};

/// Length of a tar block in bytes.
const BLOCK: u64 = 512;

/// Writes entries with the time 0, owned by root.
pub(crate) struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// `blobs/`, `blobs/sha256/` and every blob in the order of digests.
    pub(crate) fn blobs(&mut self, store: &Store, blobs: &Blobs) -> Result<()> {
        for directory in ["blobs/", "blobs/sha256/"] {
            self.header(tar::EntryType::Directory, directory, 0)?;
        }
        for descriptor in blobs.values() {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            let file = store.open_blob(&digest)?;
            self.header(tar::EntryType::Regular, &format!("blobs/sha256/{}", digest.hex()), expected)?;
            // From file to file the kernel copies. It cannot be told which side failed: the store's is read-only.
            let actual = io::copy(&mut file.take(expected), &mut self.out).map_err(ExportError::Stream)?;
            if actual != expected {
                return Err(StoreError::SizeMismatch { digest, expected, actual }.into());
            }
            self.pad(expected)?;
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.header(tar::EntryType::Regular, name, bytes.len() as u64)?;
        self.out.write_all(bytes).map_err(ExportError::Stream)?;
        self.pad(bytes.len() as u64)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK as usize]).map_err(ExportError::Stream)?;
        self.out.flush().map_err(ExportError::Stream)?;
        Ok(self.out)
    }

    fn header(&mut self, kind: tar::EntryType, name: &str, size: u64) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).at("archive", name)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ExportError::Stream)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0);
        self.out.write_all(&[0; BLOCK as usize][..padding]).map_err(ExportError::Stream)
    }
}
