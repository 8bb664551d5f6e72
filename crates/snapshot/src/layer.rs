//! A layer that is an overlayfs upper directory.

use crate::OPAQUE_XATTR;
use rbuild_tree::{DirTree, FileKind, Metadata};
use rustix::fs::fgetxattr;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// An overlayfs upper directory that nobody writes to any more.
#[derive(Debug, Clone)]
pub struct DirLayer {
    tree: DirTree,
}

impl DirLayer {
    /// Opens the directory `path`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { tree: DirTree::open(path)? })
    }

    /// The directory as it is on disk, whiteouts and all.
    pub fn tree(&self) -> &DirTree {
        &self.tree
    }
}

impl From<DirTree> for DirLayer {
    fn from(tree: DirTree) -> Self {
        Self { tree }
    }
}

/// Whether an entry of an upper directory is a whiteout.
pub(crate) fn is_whiteout(meta: &Metadata) -> bool {
    meta.kind == FileKind::CharDevice && meta.rdev == (0, 0)
}

/// Whether an open directory of an upper layer hides what the layers below have in it.
pub(crate) fn is_opaque(dir: impl AsFd) -> rustix::io::Result<bool> {
    let mut value = [0; 8];
    match fgetxattr(dir, OPAQUE_XATTR, &mut value) {
        Ok(len) => Ok(value[..len] == *b"y"),
        // ERANGE: longer than any value overlayfs writes. EPERM: `trusted.*` of another user namespace.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}
