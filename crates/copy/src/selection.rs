//! What was selected, and its digest.

use rbuild_oci::{Digest, Sha256Writer};
use rbuild_tree::{DataRef, FileKind, Metadata, Timestamp, TreePath};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

/// What one source of a COPY or ADD means.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// One for a literal source, one for each match of a wildcard, in order; none when a wildcard matches nothing.
    pub roots: Vec<Root>,
}

/// One file or directory that was named or matched.
#[derive(Debug, Clone)]
pub struct Root {
    /// How it is placed.
    pub kind: RootKind,
    /// Modification time of the source directory, for a destination that is made for its contents.
    pub mtime: Timestamp,
    /// What is copied, in [`TreePath`] order of `dest`, each path once, a directory before what it holds; of an archive
    /// what it says, in its order.
    pub entries: Vec<Selected>,
}

/// How a [`Root`] is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKind {
    /// Anything but a directory: becomes the destination, or `name` below it when it is a directory. Has one entry, whose `dest`
    /// is the root, or none when it is a socket.
    File {
        /// Base name as it was named, whatever symlinks lead to.
        name: OsString,
    },
    /// A directory, whose contents come into the destination.
    Directory,
    /// The contents of an archive, which replace what is in their way.
    Archive,
}

/// One entry to be copied.
#[derive(Debug, Clone)]
pub struct Selected {
    /// Where it goes, below the destination.
    pub dest: TreePath,
    /// Where it is in the source tree.
    pub source: TreePath,
    /// Metadata as it will be written: with the owner and mode that --chown and --chmod give it.
    pub meta: Metadata,
    /// The bytes of a regular file.
    pub data: Option<DataRef>,
    /// `dest` of an earlier entry of the same root that this is a hard link to; in an archive it may also be a file of the
    /// destination.
    pub hard_link_to: Option<TreePath>,
    /// A directory that is copied only because of what it holds. Its metadata does not change the owner and time of a
    /// directory that exists in the destination.
    pub implied: bool,
}

/// The type of a selected entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

impl From<FileKind> for KeyKind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::Regular => Self::File,
            FileKind::Directory => Self::Dir,
            FileKind::Symlink => Self::Symlink,
            FileKind::CharDevice => Self::Char,
            FileKind::BlockDevice => Self::Block,
            FileKind::Fifo => Self::Fifo,
            FileKind::Socket => Self::Socket,
        }
    }
}

/// What one entry adds to the content key of a COPY (C-011), for explaining why it missed. Bytes that are not UTF-8 are
/// shown as U+FFFD; [`selection_digest`] is exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Where it goes below the destination; the base name of a single file.
    pub path: String,
    /// Its type.
    pub kind: KeyKind,
    /// Resulting permission bits.
    pub mode: u32,
    /// Resulting owner.
    pub uid: u32,
    /// Resulting group.
    pub gid: u32,
    /// Digest of a regular file's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Digest>,
    /// Target of a symlink, or entry that this is a hard link to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Device numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdev: Option<(u32, u32)>,
    /// Digest of the extended attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<Digest>,
}

/// The structured form of [`selection_digest`].
pub fn key_entries(selections: &[Selection]) -> Vec<KeyEntry> {
    let roots = selections.iter().flat_map(|selection| &selection.roots);
    roots.flat_map(|root| root.entries.iter().map(|entry| key_entry(root, entry))).collect()
}

/// The structured form of one entry of the digest.
pub fn key_entry(root: &Root, entry: &Selected) -> KeyEntry {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let meta = &entry.meta;
    let xattrs = (!meta.xattrs.is_empty()).then(|| {
        let mut out = Encoder::new();
        out.xattrs(meta);
        out.finish()
    });
    KeyEntry {
        path: match &root.kind {
            RootKind::File { name } => lossy(name.as_bytes()),
            RootKind::Directory | RootKind::Archive => lossy(entry.dest.as_bytes()),
        },
        kind: meta.kind.into(),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        data: entry.data.as_ref().and_then(|data| data.digest),
        link: match (&entry.hard_link_to, meta.kind) {
            (Some(to), _) => Some(lossy(to.as_bytes())),
            (None, FileKind::Symlink) => Some(lossy(&meta.link_target)),
            (None, _) => None,
        },
        rdev: (meta.rdev != (0, 0)).then_some(meta.rdev),
        xattrs,
    }
}

/// The content part of the key of a COPY or ADD (C-011): of every entry its path, type, resulting mode and owner, link target,
/// device numbers, extended attributes and data digest; never a time. A single file adds its base name.
pub fn selection_digest(selections: &[Selection]) -> Digest {
    let mut out = Encoder::new();
    for selection in selections {
        out.number(selection.roots.len() as u64);
        for root in &selection.roots {
            match &root.kind {
                RootKind::File { name } => {
                    out.number(0);
                    out.bytes(name.as_bytes());
                }
                RootKind::Directory => out.number(1),
                RootKind::Archive => out.number(2),
            }
            out.number(root.entries.len() as u64);
            for entry in &root.entries {
                out.entry(entry);
            }
        }
    }
    out.finish()
}

/// Writes fields one after the other so that no two sequences of fields give the same bytes.
struct Encoder(BufWriter<Sha256Writer<io::Sink>>);

/// Bytes that are hashed at once.
const CHUNK: usize = 64 << 10;

impl Encoder {
    fn new() -> Self {
        let mut out = Self(BufWriter::with_capacity(CHUNK, Sha256Writer::new(io::sink())));
        out.bytes(b"rbuild copy selection 1");
        out
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("a hash takes every byte");
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    fn xattrs(&mut self, meta: &Metadata) {
        self.number(meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn entry(&mut self, entry: &Selected) {
        // Every field of the metadata is either written or named as left out.
        let Metadata { kind, mode, uid, gid, size: _, mtime: _, rdev, link_target, hard_link: _, xattrs: _ } =
            &entry.meta;
        self.bytes(entry.dest.as_bytes());
        let kind = KeyKind::from(*kind) as u8;
        let digest = entry.data.as_ref().and_then(|data| data.digest);
        let linked = entry.hard_link_to.is_some();
        self.raw(&[kind, u8::from(digest.is_some()), u8::from(linked), u8::from(entry.implied)]);
        for number in [*mode, *uid, *gid, rdev.0, rdev.1] {
            self.raw(&number.to_le_bytes());
        }
        self.bytes(link_target);
        if let Some(digest) = digest {
            self.raw(digest.as_bytes());
        }
        if let Some(to) = &entry.hard_link_to {
            self.bytes(to.as_bytes());
        }
        self.xattrs(&entry.meta);
    }

    fn finish(self) -> Digest {
        let hash = self.0.into_inner().map_err(|error| error.into_error()).expect("a hash takes every byte");
        hash.finish().1
    }
}
