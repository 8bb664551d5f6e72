//! What files take on disk.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Counts allocated blocks as du(1) does: holes are free, directories have blocks of their own, and a file with several
/// links is counted where one meter meets it first.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seen: HashSet<(u64, u64)>,
}

impl Meter {
    /// The blocks of one file or directory, in bytes; not of what is in it.
    pub(crate) fn one(&mut self, meta: &Metadata) -> u64 {
        if !meta.is_dir() && meta.nlink() > 1 && !self.seen.insert((meta.dev(), meta.ino())) {
            return 0;
        }
        meta.blocks() * 512
    }

    /// Everything at and below `path`. What vanishes meanwhile or cannot be read is not counted.
    pub(crate) fn tree(&mut self, path: &Path) -> u64 {
        let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
        let mut total = self.one(&meta);
        let mut pending = Vec::new();
        if meta.is_dir() {
            pending.push(path.to_owned());
        }
        while let Some(dir) = pending.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                total += self.one(&meta);
                if meta.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        total
    }
}
