//! What is remembered about directories until everything is in them.

use crate::{TarEntry, UnpackError};
use rbuild_tree::{Timestamp, TreePath, Xattrs};
use std::collections::BTreeMap;

/// Most bytes in the names and attributes of all directories of a layer, which are held until the end.
pub const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

/// What a directory gets when everything is in it; until then it has mode 0700.
pub(super) struct DirMeta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: Xattrs,
    pub(super) implied: bool,
}

/// The directories made so far.
#[derive(Default)]
pub(super) struct Dirs {
    pub(super) by_path: BTreeMap<TreePath, DirMeta>,
    /// Roughly what they take in memory; names that were forgotten still count.
    bytes: u64,
}

impl Dirs {
    pub(super) fn insert(
        &mut self,
        entry: &TreePath,
        real: &TreePath,
        meta: DirMeta,
    ) -> Result<(), UnpackError> {
        let xattrs: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.bytes += (real.as_bytes().len() + xattrs) as u64;
        if self.bytes > MAX_DIRECTORY_BYTES {
            let what = "bytes in directory names and attributes";
            return Err(UnpackError::Limit { path: entry.clone(), what, limit: MAX_DIRECTORY_BYTES });
        }
        self.by_path.insert(real.clone(), meta);
        Ok(())
    }

    /// Forgets a directory and what is below it.
    pub(super) fn forget(&mut self, top: &TreePath) {
        let below = self.by_path.range(top.clone()..).map(|(path, _)| path);
        let gone: Vec<_> = below.take_while(|path| path.strip_prefix(top).is_some()).cloned().collect();
        for path in gone {
            self.by_path.remove(&path);
        }
    }
}

impl DirMeta {
    pub(super) fn of(entry: &TarEntry) -> Self {
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
            implied: false,
        }
    }

    pub(super) fn implied() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Xattrs::new(),
            implied: true,
        }
    }
}
