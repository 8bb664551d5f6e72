//! A tree in memory.

use crate::{DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, Tree, TreePath, Xattrs};
use rbuild_oci::Digest;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::Bound;
use std::sync::Arc;

/// A [`Tree`] that lives in memory: for tests, and for the few files an instruction carries in itself.
///
/// Built by chaining; paths are clamped to the root, missing parents appear as directories with mode 0755. New entries
/// belong to root, with mode 0644 (directories 0755, symlinks 0777) and a modification time of 0; [`MemTree::with`]
/// changes that.
///
/// # Panics
/// The builder methods panic on a path with a NUL byte.
#[derive(Clone)]
pub struct MemTree {
    nodes: BTreeMap<TreePath, Node>,
    last: TreePath,
    links: u64,
}

#[derive(Debug, Clone)]
struct Node {
    meta: Metadata,
    data: Arc<[u8]>,
}

impl fmt::Debug for MemTree {
    /// The paths, with types and modes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(path, node): (&TreePath, &Node)| match node.meta.kind {
            FileKind::Symlink => format!("{path} -> {}", String::from_utf8_lossy(&node.meta.link_target)),
            kind => format!("{path} {kind:?} {:o}", node.meta.mode),
        };
        f.debug_list().entries(self.nodes.iter().map(shown)).finish()
    }
}

impl Default for MemTree {
    fn default() -> Self {
        Self::new()
    }
}

fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::clamped(text).expect("the path of a tree in memory has no NUL byte")
}

fn meta(kind: FileKind, mode: u32) -> Metadata {
    Metadata { kind, mode, ..Metadata::directory(Timestamp::default()) }
}

impl MemTree {
    /// A tree with nothing but its root directory.
    pub fn new() -> Self {
        let root = Node { meta: meta(FileKind::Directory, 0o755), data: Arc::new([]) };
        Self { nodes: [(TreePath::root(), root)].into(), last: TreePath::root(), links: 0 }
    }

    fn put(mut self, at: TreePath, meta: Metadata, data: &[u8]) -> Self {
        self.insert(at, meta, Arc::from(data));
        self
    }

    fn insert(&mut self, at: TreePath, mut meta: Metadata, data: Arc<[u8]>) {
        for parent in at.ancestors() {
            let directory = || Node { meta: self::meta(FileKind::Directory, 0o755), data: Arc::new([]) };
            self.nodes.entry(parent).or_insert_with(directory);
        }
        if meta.kind == FileKind::Regular {
            meta.size = data.len() as u64;
        }
        self.last.clone_from(&at);
        self.nodes.insert(at, Node { meta, data });
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, at: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        self.put(path(at), meta(FileKind::Regular, 0o644), data.as_ref())
    }

    /// Adds a directory; one that is there already becomes the entry that [`MemTree::with`] changes.
    #[must_use]
    pub fn dir(mut self, at: impl AsRef<[u8]>) -> Self {
        let at = path(at);
        if self.nodes.get(&at).is_some_and(|node| node.meta.is_dir()) {
            self.last = at;
            return self;
        }
        self.put(at, meta(FileKind::Directory, 0o755), &[])
    }

    /// Adds a symlink.
    #[must_use]
    pub fn symlink(self, at: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut link = meta(FileKind::Symlink, 0o777);
        link.link_target = target.as_ref().to_vec();
        self.put(path(at), link, &[])
    }

    /// Adds a socket, named pipe or device without data.
    #[must_use]
    pub fn special(self, at: impl AsRef<[u8]>, kind: FileKind, rdev: (u32, u32)) -> Self {
        let mut special = meta(kind, 0o644);
        special.rdev = rdev;
        self.put(path(at), special, &[])
    }

    /// Adds another name of the existing file `of`.
    ///
    /// # Panics
    /// When there is no entry `of`.
    #[must_use]
    pub fn hard_link(mut self, at: impl AsRef<[u8]>, of: impl AsRef<[u8]>) -> Self {
        let of = path(of);
        self.links += 1;
        let next = self.links;
        let node = self.nodes.get_mut(&of).expect("the file that is linked to exists");
        node.meta.hard_link.get_or_insert((0, next));
        let node = node.clone();
        self.insert(path(at), node.meta, node.data);
        self
    }

    /// Changes the metadata of the entry that was added last.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Metadata)) -> Self {
        if let Some(node) = self.nodes.get_mut(&self.last) {
            change(&mut node.meta);
        }
        self
    }

    /// Sets the mode of the entry that was added last.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        self.with(|meta| meta.mode = mode)
    }

    /// Sets owner and group of the entry that was added last.
    #[must_use]
    pub fn owner(self, uid: u32, gid: u32) -> Self {
        self.with(|meta| (meta.uid, meta.gid) = (uid, gid))
    }

    /// Sets the modification time of the entry that was added last, in seconds.
    #[must_use]
    pub fn mtime(self, seconds: i64) -> Self {
        self.with(|meta| meta.mtime = Timestamp { seconds, nanos: 0 })
    }

    /// Sets the extended attributes of the entry that was added last.
    #[must_use]
    pub fn xattrs(self, xattrs: Xattrs) -> Self {
        self.with(|meta| meta.xattrs = xattrs)
    }

    /// Lays a layer over this tree. Bytes that are not inline become empty.
    pub fn apply(&mut self, layer: &[LayerEntry]) {
        for entry in layer {
            match &entry.kind {
                LayerEntryKind::Whiteout => self.remove_below(&entry.path, true),
                LayerEntryKind::Opaque => {
                    let below = |path: &TreePath| {
                        path.strip_prefix(&entry.path).is_some()
                            && !layer
                                .iter()
                                .any(|e| &e.path == path && !matches!(e.kind, LayerEntryKind::Whiteout))
                    };
                    self.nodes.retain(|path, _| !below(path));
                }
                LayerEntryKind::Node { meta, data, hard_link_to } => {
                    if !meta.is_dir() {
                        self.remove_below(&entry.path, false);
                    }
                    let inline = |source: &DataSource| match source {
                        DataSource::Inline(bytes) => bytes.clone(),
                        DataSource::Below { .. } | DataSource::Owned(_) => Arc::new([]),
                    };
                    let linked =
                        hard_link_to.as_ref().and_then(|to| self.nodes.get(to)).map(|n| n.data.clone());
                    let data = linked.or_else(|| data.as_ref().map(|d| inline(&d.source)));
                    self.insert(entry.path.clone(), meta.clone(), data.unwrap_or_else(|| Arc::new([])));
                }
            }
        }
    }

    fn remove_below(&mut self, at: &TreePath, itself: bool) {
        let below: Vec<TreePath> = self.below(at).map(|(_, path, _)| path.clone()).collect();
        for path in &below {
            self.nodes.remove(path);
        }
        if itself {
            self.nodes.remove(at);
        }
    }

    fn node(&self, at: &TreePath) -> io::Result<&Node> {
        self.nodes.get(at).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, at.to_string()))
    }

    fn regular(&self, at: &TreePath) -> io::Result<&Node> {
        let node = self.node(at)?;
        if node.meta.kind != FileKind::Regular {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{at} is not a regular file")));
        }
        Ok(node)
    }

    fn below<'a>(&'a self, at: &'a TreePath) -> impl Iterator<Item = (TreePath, &'a TreePath, &'a Node)> {
        // The order of paths puts everything below a directory right behind it.
        let after = (Bound::Excluded(at), Bound::Unbounded);
        self.nodes
            .range::<TreePath, _>(after)
            .map_while(|(path, node)| Some((path.strip_prefix(at)?, path, node)))
    }
}

impl Tree for MemTree {
    fn lstat(&self, path: &TreePath) -> io::Result<Option<Metadata>> {
        Ok(self.nodes.get(path).map(|node| node.meta.clone()))
    }

    fn read_dir(&self, path: &TreePath) -> io::Result<Vec<OsString>> {
        if !self.node(path)?.meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, path.to_string()));
        }
        let direct = self.below(path).filter(|(rest, ..)| rest.components().count() == 1);
        let mut names: Vec<OsString> = direct.map(|(rest, ..)| rest.into_os_string()).collect();
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        let node = self.regular(path)?;
        let fd = rustix::fs::memfd_create("rbuild", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = File::from(fd);
        file.write_all(&node.data)?;
        file.rewind()?;
        Ok(file)
    }

    fn digest(&self, path: &TreePath) -> io::Result<Digest> {
        Ok(Digest::of(&self.regular(path)?.data))
    }

    fn data_source(&self, path: &TreePath) -> io::Result<DataSource> {
        Ok(DataSource::Inline(self.regular(path)?.data.clone()))
    }

    fn walk(&self, start: &TreePath) -> io::Result<Vec<(TreePath, Metadata)>> {
        Ok(self.below(start).map(|(_, path, node)| (path.clone(), node.meta.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_built_tree_answers_as_a_tree() {
        let tree = MemTree::new()
            .file("a/b/c", "hello")
            .mode(0o600)
            .symlink("a/l", "b")
            .hard_link("a-d", "a/b/c")
            .special("a/s", FileKind::Socket, (0, 0));
        assert_eq!(tree.read_dir(&TreePath::root()).unwrap(), ["a", "a-d"]);
        assert_eq!(tree.read_dir(&path("a")).unwrap(), ["b", "l", "s"]);
        let (one, two) =
            (tree.lstat(&path("a-d")).unwrap().unwrap(), tree.lstat(&path("a/b/c")).unwrap().unwrap());
        assert_eq!((one.size, one.mode, one.hard_link.is_some()), (5, 0o600, true));
        assert_eq!(one, two);
        let mut text = String::new();
        tree.open(&path("a/b/c")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(tree.digest(&path("a-d")).unwrap(), Digest::of("hello"));
        let walked: Vec<_> =
            tree.walk(&TreePath::root()).unwrap().into_iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(walked, ["/a", "/a/b", "/a/b/c", "/a/l", "/a/s", "/a-d"]);
        assert!(tree.open(&path("a")).is_err() && tree.read_dir(&path("nope")).is_err());
    }

    #[test]
    fn a_layer_is_laid_over_a_tree() {
        let mut tree = MemTree::new().file("d/old", "1").file("gone", "2").file("o/x", "3");
        let node = |meta: Metadata| LayerEntryKind::Node { meta, data: None, hard_link_to: None };
        tree.apply(&[
            LayerEntry { path: path("d"), kind: node(meta(FileKind::Symlink, 0o777)) },
            LayerEntry { path: path("gone"), kind: LayerEntryKind::Whiteout },
            LayerEntry { path: path("o"), kind: node(meta(FileKind::Directory, 0o700)) },
            LayerEntry { path: path("o"), kind: LayerEntryKind::Opaque },
        ]);
        let walked: Vec<_> =
            tree.walk(&TreePath::root()).unwrap().into_iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(walked, ["/d", "/o"]);
    }
}
