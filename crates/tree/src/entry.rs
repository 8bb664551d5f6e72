//! What an entry of a tree or of a layer is.

use crate::TreePath;
use rbuild_oci::Digest;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Extended attributes, name to value. Only those a layer can carry are ever collected.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A point in time with nanoseconds, as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; may be negative.
    pub seconds: i64,
    /// 0..1_000_000_000.
    pub nanos: u32,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket; never part of a layer.
    Socket,
}

/// Metadata of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Type of the file.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0..=0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes of a regular file, else 0.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Major and minor number of a device, else (0, 0).
    pub rdev: (u32, u32),
    /// Target of a symlink, else empty.
    pub link_target: Vec<u8>,
    /// (device, inode) when the entry is a file on disk with more than one name: equal pairs are hard links.
    pub hard_link: Option<(u64, u64)>,
    /// `security.capability` and such; empty for nearly all files.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// A directory with mode 0755 owned by root.
    pub fn directory(mtime: Timestamp) -> Self {
        Self {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime,
            rdev: (0, 0),
            link_target: Vec::new(),
            hard_link: None,
            xattrs: Xattrs::new(),
        }
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// Where the bytes of a regular file are.
#[derive(Debug, Clone)]
pub enum DataSource {
    /// In memory.
    Inline(Arc<[u8]>),
    /// Below a directory that is held open; `path` has no symlink in it.
    Below {
        /// The directory.
        root: Arc<OwnedFd>,
        /// The file below it.
        path: TreePath,
    },
    /// A file of our own store, by absolute path.
    Owned(PathBuf),
}

/// The bytes of a regular file: how many, which, and where.
#[derive(Debug, Clone)]
pub struct DataRef {
    /// Length in bytes.
    pub size: u64,
    /// Digest the bytes must have; whoever reads them checks it. `None` only for files of our own store.
    pub digest: Option<Digest>,
    /// Where to read them.
    pub source: DataSource,
}

/// One entry of a layer, in the order of [`TreePath`].
#[derive(Debug, Clone)]
pub struct LayerEntry {
    /// Where it goes.
    pub path: TreePath,
    /// What it is.
    pub kind: LayerEntryKind,
}

/// What an entry of a layer does.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all entries are nodes: a box would cost more than it saves"
)]
#[derive(Debug, Clone)]
pub enum LayerEntryKind {
    /// Adds or replaces a file of any type. `data` is `Some` exactly for regular files that are not hard links.
    Node {
        /// Its metadata.
        meta: Metadata,
        /// Its bytes.
        data: Option<DataRef>,
        /// An earlier entry of this layer that this is another name of.
        hard_link_to: Option<TreePath>,
    },
    /// Removes `path` from the layers below.
    Whiteout,
    /// `path` is a directory that hides everything below it in the lower layers (comes right after its node).
    Opaque,
}
