//! `snapshots/<hex>/sum`: what an unpacked layer consists of, written when it is put in place.
//!
//! One line, `rbuild.sum.v1 BYTES ENTRIES DIGEST`. It spares measuring the layer again, and tells a layer that a power
//! loss has cut short from a whole one: the digest is over every entry's path, type and size, and the length of the note. File systems that order
//! data before metadata (ext4 data=ordered, XFS, btrfs) lose the size of a file together with its data.

use crate::fsutil::{optional, replace_file};
use crate::meter::Meter;
use rbuild_oci::{Digest, Sha256Writer};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const MAGIC: &str = "rbuild.sum.v1";

/// Longest file that is read as a sum; a whole one is much shorter.
const MAX_LENGTH: u64 = 256;

/// What a directory tree consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Bytes on disk, the layer's own directories and this file included.
    pub(crate) bytes: u64,
    entries: u64,
    digest: Digest,
}

impl Sum {
    /// Walks the unpacked layer at `snapshot` (the directory that has `fs` in it).
    pub(crate) fn measure(snapshot: &Path) -> io::Result<Self> {
        let mut meter = Meter::default();
        let mut bytes = meter.one(&fs::symlink_metadata(snapshot)?);
        let mut entries = 0;
        let mut hasher = Sha256Writer::new(io::sink());
        if let Some(note) = optional(fs::symlink_metadata(snapshot.join("note")))? {
            bytes += meter.one(&note);
            writeln!(hasher, "note {}", note.len())?;
        }
        let top = snapshot.join("fs");
        bytes += meter.one(&fs::symlink_metadata(&top)?);
        let mut pending = vec![PathBuf::new()];
        while let Some(dir) = pending.pop() {
            let mut children = fs::read_dir(top.join(&dir))?.collect::<io::Result<Vec<_>>>()?;
            children.sort_unstable_by_key(fs::DirEntry::file_name);
            for child in children {
                let meta = child.metadata()?;
                let path = dir.join(child.file_name());
                bytes += meter.one(&meta);
                entries += 1;
                hasher.write_all(path.as_os_str().as_bytes())?;
                let size = if meta.is_dir() { 0 } else { meta.len() };
                writeln!(hasher, "\0{:o} {size}", meta.mode() & 0o170_000)?;
                if meta.is_dir() {
                    pending.push(path);
                }
            }
        }
        let (_, digest, _) = hasher.finish();
        Ok(Self { bytes, entries, digest })
    }

    /// The sum that was written beside a layer; `None` if there is none that can be read.
    pub(crate) fn read(snapshot: &Path) -> Option<Self> {
        let path = snapshot.join("sum");
        let meta = fs::symlink_metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > MAX_LENGTH {
            return None;
        }
        let text = fs::read_to_string(&path).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        if words.next() != Some(MAGIC) {
            return None;
        }
        let bytes = words.next()?.parse().ok()?;
        let entries = words.next()?.parse().ok()?;
        let digest = Digest::from_hex(words.next()?)?;
        words.next().is_none().then_some(Self { bytes, entries, digest })
    }

    /// Writes the sum beside the layer.
    pub(crate) fn write(&mut self, snapshot: &Path) -> io::Result<()> {
        let path = snapshot.join("sum");
        // The file itself takes a block, which the text says before there is one.
        self.bytes += fs::symlink_metadata(snapshot)?.blksize();
        let text = format!("{MAGIC} {} {} {}\n", self.bytes, self.entries, self.digest.hex());
        replace_file(&snapshot.join("sum.new"), &path, text.as_bytes())
    }

    /// Whether the trees have the same entries; what they take on disk may differ.
    pub(crate) fn same_entries(&self, other: &Self) -> bool {
        (self.entries, self.digest) == (other.entries, other.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_tells_trees_apart() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path();
        fs::create_dir_all(snapshot.join("fs/sub")).unwrap();
        fs::write(snapshot.join("fs/a"), vec![1; 10_000]).unwrap();
        fs::write(snapshot.join("fs/sub/b"), "text").unwrap();
        assert_eq!(Sum::read(snapshot), None);
        let mut sum = Sum::measure(snapshot).unwrap();
        sum.write(snapshot).unwrap();
        assert_eq!(Sum::read(snapshot), Some(sum));
        let real = Meter::default().tree(snapshot);
        assert!(sum.bytes.abs_diff(real) <= 4096, "with its own file: {} {real}", sum.bytes);
        let again = || Sum::measure(snapshot).unwrap();
        assert!(again().same_entries(&sum));
        fs::File::options().write(true).open(snapshot.join("fs/a")).unwrap().set_len(4096).unwrap();
        assert!(!again().same_entries(&sum), "cut short");
        fs::write(snapshot.join("fs/a"), vec![1; 10_000]).unwrap();
        assert!(again().same_entries(&sum));
        fs::remove_file(snapshot.join("fs/sub/b")).unwrap();
        assert!(!again().same_entries(&sum), "an entry less");
        fs::create_dir(snapshot.join("fs/sub/b")).unwrap();
        assert!(!again().same_entries(&sum), "another type");
        for text in ["", "rbuild.sum.v1 1 2\n", "other 1 2 x\n", "rbuild.sum.v1 1 2 3"] {
            fs::write(snapshot.join("sum"), text).unwrap();
            assert_eq!(Sum::read(snapshot), None, "{text:?}");
        }
    }
}
