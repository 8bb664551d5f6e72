//! Lists of files behind the digests in keys. One that is there is never written again.

use crate::limits::TOUCHED;
use crate::{History, make_dir};
use rbuild_copy::KeyEntry;
use rbuild_oci::Digest;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// zstd's fastest ordinary level: digests do not compress anyway.
const LEVEL: i32 = 1;
/// Longest list that is compared, in files.
const MAX_FILES: usize = 2_000_000;

impl History {
    fn listing_path(&self, digest: &Digest) -> PathBuf {
        self.listings_dir().join(digest.hex())
    }

    /// Whether the list is there; if so, it counts as used now.
    pub(crate) fn touch_listing(&self, digest: &Digest) -> bool {
        let path = self.listing_path(digest);
        let Ok(used) = std::fs::metadata(&path).and_then(|meta| meta.modified()) else { return false };
        if used.elapsed().is_ok_and(|age| age > TOUCHED / 2) {
            // Read-only history is history all the same.
            drop(
                File::options()
                    .append(true)
                    .open(&path)
                    .and_then(|file| file.set_modified(SystemTime::now())),
            );
        }
        true
    }

    /// Writes a list; it appears whole or not at all. Gives its size on disk.
    pub(crate) fn write_listing(
        &self,
        digest: &Digest,
        write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<u64> {
        make_dir(&self.listings_dir())?;
        let path = self.listing_path(digest);
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let written = (|| {
            let file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            let mut out = BufWriter::with_capacity(64 << 10, zstd::Encoder::new(file, LEVEL)?);
            write(&mut out)?;
            let file = out.into_inner().map_err(|error| error.into_error())?.finish()?;
            std::fs::rename(&partial, &path)?;
            Ok(file.metadata()?.len())
        })();
        if written.is_err() {
            drop(std::fs::remove_file(&partial));
        }
        written
    }

    /// The files behind a digest; `None` if the list is gone, damaged or too long to be compared.
    pub fn listing(&self, digest: &Digest) -> Option<Vec<KeyEntry>> {
        let file = File::open(self.listing_path(digest)).ok()?;
        let unpacked = zstd::Decoder::new(file).ok()?;
        rbuild_copy::read_listing(BufReader::with_capacity(64 << 10, unpacked), MAX_FILES).ok()
    }
}
