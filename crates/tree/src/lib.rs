//! File trees: what an entry is, how a tree is looked at, and safe fd-relative access to one on disk.
//!
//! Everything that reads or writes below a root that somebody else controls (a build context, an image's root
//! filesystem, an archive) goes through this room: paths are [`TreePath`]s, symlinks are resolved inside the root,
//! and no path string is ever joined and handed to the kernel (DESIGN promise 6).

mod beneath;
mod content;
mod dir;
mod entry;
mod mem;
mod path;
mod resolve;
mod walk;

pub use beneath::{
    CAPABILITY, PathError, StatId, is_absent, metadata_at, metadata_of_dir, open_beneath, stat_at,
};
pub use content::{ChangedWhileRead, Hashed, hash_file, open_regular};
pub use dir::DirTree;
pub use entry::{DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, Xattrs};
pub use mem::MemTree;
pub use path::{InvalidPath, TreePath};
pub use resolve::{MAX_COMPONENTS, MAX_LINKS, Resolved, is_loop, resolve, resolve_with};
pub use walk::{All, Select, Visit, Walked, kind_at, read_names};

use rbuild_oci::Digest;
use std::ffi::OsString;
use std::fs::File;
use std::io;

/// A read-only tree of files.
///
/// No method follows a symlink, neither in the last component nor before it: a path whose parent is not a directory
/// does not exist. See [`resolve`] for following links inside the tree.
pub trait Tree: Send + Sync {
    /// Metadata of the entry, or `None` when there is none. The root (`TreePath::root()`) always exists.
    fn lstat(&self, path: &TreePath) -> io::Result<Option<Metadata>>;

    /// The names in a directory, sorted bytewise.
    fn read_dir(&self, path: &TreePath) -> io::Result<Vec<OsString>>;

    /// Opens a regular file for reading.
    fn open(&self, path: &TreePath) -> io::Result<File>;

    /// The digest of a regular file's bytes. Implementations may answer from a cache that obeys DESIGN promise 1.
    fn digest(&self, path: &TreePath) -> io::Result<Digest>;

    /// Where the bytes of a regular file can be read later, for a recipe.
    fn data_source(&self, path: &TreePath) -> io::Result<DataSource>;

    /// Every entry below `start` (without `start` itself) with its metadata, in [`TreePath`] order. Symlinks are not
    /// followed. Implementations on disk override this with a parallel walk.
    fn walk(&self, start: &TreePath) -> io::Result<Vec<(TreePath, Metadata)>> {
        walk_from(self, start, |_| Ok(None))
    }

    /// Size, digest and place of a regular file's bytes, for a recipe. Implementations whose files cannot change (our
    /// own store) may leave the digest out instead of reading them all for it.
    fn data_ref(&self, path: &TreePath, metadata: &Metadata) -> io::Result<DataRef> {
        let digest = self.digest(path)?;
        Ok(DataRef { size: metadata.size, digest: Some(digest), source: self.data_source(path)? })
    }

    /// [`Tree::digest`] of many regular files at once, in the order given. Implementations on disk hash in parallel and
    /// use `metadata` to answer from a cache without another `lstat`.
    fn digests(&self, files: &[(TreePath, Metadata)]) -> io::Result<Vec<Digest>> {
        files.iter().map(|(path, _)| self.digest(path)).collect()
    }
}

/// [`Tree::walk`] directory by directory. `whole` may answer for a directory with all that is below it.
pub fn walk_from<T: Tree + ?Sized>(
    tree: &T,
    start: &TreePath,
    mut whole: impl FnMut(&TreePath) -> io::Result<Option<Vec<(TreePath, Metadata)>>>,
) -> io::Result<Vec<(TreePath, Metadata)>> {
    let mut found = Vec::new();
    let mut pending = vec![start.clone()];
    while let Some(dir) = pending.pop() {
        if let Some(all) = whole(&dir)? {
            found.extend(all);
            continue;
        }
        for name in tree.read_dir(&dir)? {
            let path = dir.join(&name);
            let Some(meta) = tree.lstat(&path)? else { continue };
            if meta.is_dir() {
                pending.push(path.clone());
            }
            found.push((path, meta));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
