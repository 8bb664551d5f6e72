//! The destination tree with what an instruction has changed so far.

use crate::CopyError;
use crate::error::io;
use rbuild_tree::{
    DataRef, FileKind, LayerEntry, LayerEntryKind, Metadata, Resolved, Tree, TreePath, resolve_with,
};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io as std_io;
use std::sync::Arc;

/// Marks nodes that are names of one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    /// They are one file in the source: the number of the root they come from and the first name there.
    Source(usize, Arc<TreePath>),
    /// An archive linked them in the destination: the place in [`View::linked`].
    Linked(usize),
}

/// An entry that the instruction writes.
#[derive(Debug)]
pub(crate) struct Node {
    path: TreePath,
    pub(crate) meta: Metadata,
    data: Option<DataRef>,
    group: Option<Group>,
    /// What the lower tree has here.
    lower: Option<Metadata>,
    /// A directory that shows nothing of the lower tree below itself.
    pub(crate) fresh: bool,
    removed: bool,
}

/// A tree with changes laid over it.
pub(crate) struct View<'a> {
    lower: Option<&'a dyn Tree>,
    nodes: Vec<Node>,
    index: HashMap<TreePath, usize>,
    /// Owner, mode and time of the files of [`Group::Linked`]: those that the last link gave them.
    linked: Vec<Metadata>,
}

/// What a path inside a directory can be found with, without asking the lower tree for each.
pub(crate) enum Children {
    /// Only what the instruction wrote.
    Fresh,
    /// The lower tree has these names.
    Names(HashSet<OsString>),
}

impl<'a> View<'a> {
    /// With no lower tree everything is new.
    pub(crate) fn new(lower: Option<&'a dyn Tree>) -> Self {
        Self { lower, nodes: Vec::new(), index: HashMap::new(), linked: Vec::new() }
    }

    pub(crate) fn node(&self, path: &TreePath) -> Option<&Node> {
        self.index.get(path).map(|i| &self.nodes[*i])
    }

    /// What is at `path` now.
    pub(crate) fn lstat(&self, path: &TreePath) -> std_io::Result<Option<Metadata>> {
        match self.node(path) {
            Some(node) => Ok(Some(node.meta.clone())),
            None => self.lower_lstat(path),
        }
    }

    /// What the lower tree shows at `path`.
    fn lower_lstat(&self, path: &TreePath) -> std_io::Result<Option<Metadata>> {
        if path.is_root() && self.lower.is_none() {
            return Ok(Some(Metadata::directory(rbuild_tree::Timestamp::default())));
        }
        if self.hidden(path) {
            return Ok(None);
        }
        self.lower.map_or(Ok(None), |lower| lower.lstat(path))
    }

    /// Whether something the instruction wrote on the way to `path` hides what the lower tree has there. The nearest
    /// one decides.
    fn hidden(&self, path: &TreePath) -> bool {
        let mut at = path.parent();
        while let Some(dir) = at {
            if let Some(node) = self.node(&dir) {
                return node.fresh || !node.meta.is_dir();
            }
            at = dir.parent();
        }
        false
    }

    pub(crate) fn resolve(&self, path: &TreePath) -> Result<Resolved, CopyError> {
        resolve_with(|path| self.lstat(path), path, true).map_err(io("resolve", path))
    }

    pub(crate) fn stat(&self, path: &TreePath) -> Result<Option<Metadata>, CopyError> {
        self.lstat(path).map_err(io("stat", path))
    }

    /// How to look for what is in the existing directory `dir`.
    pub(crate) fn children(&self, dir: &TreePath) -> Result<Children, CopyError> {
        let Some(lower) = self.lower else { return Ok(Children::Fresh) };
        if self.node(dir).is_some_and(|node| node.fresh) || self.node(dir).is_none() && self.hidden(dir) {
            return Ok(Children::Fresh);
        }
        let names = lower.read_dir(dir).map_err(io("read directory", dir))?;
        Ok(Children::Names(names.into_iter().collect()))
    }

    /// What is at `path`, a name in the directory that `children` is of.
    pub(crate) fn stat_child(
        &self,
        path: &TreePath,
        children: &Children,
    ) -> Result<Option<Metadata>, CopyError> {
        if let Some(node) = self.node(path) {
            return Ok(Some(node.meta.clone()));
        }
        match (children, path.file_name()) {
            (Children::Names(names), Some(name)) if names.contains(name) => {
                let lower = self.lower.map_or(Ok(None), |lower| lower.lstat(path));
                lower.map_err(io("stat", path))
            }
            _ => Ok(None),
        }
    }

    /// Writes an entry at `path`, where `existing` is now.
    pub(crate) fn put(
        &mut self,
        path: TreePath,
        meta: Metadata,
        data: Option<DataRef>,
        group: Option<Group>,
        existing: Option<Metadata>,
    ) {
        let was_dir = existing.as_ref().is_some_and(Metadata::is_dir);
        if let Some(i) = self.index.get(&path).copied() {
            let node = &mut self.nodes[i];
            if meta.is_dir() && !was_dir {
                node.fresh = true;
            }
            (node.meta, node.data, node.group) = (meta, data, group);
        } else {
            let fresh = meta.is_dir() && !was_dir;
            self.index.insert(path.clone(), self.nodes.len());
            let (lower, removed) = (existing, false);
            self.nodes.push(Node { path, meta, data, group, lower, fresh, removed });
        }
    }

    /// Makes `path`, where `existing` is now, another name of the file `target`, and gives that one file the owner, mode and
    /// time of `meta`; of a symlink only the owner. `Ok(false)` when `target` is no file.
    pub(crate) fn link(
        &mut self,
        path: TreePath,
        meta: &Metadata,
        target: &TreePath,
        existing: Option<Metadata>,
    ) -> Result<bool, CopyError> {
        let Some(found) = self.stat(target)?.filter(|found| !found.is_dir() && *target != path) else {
            return Ok(false);
        };
        let node = match self.index.get(target) {
            Some(node) => *node,
            None => {
                let data = match (found.kind, self.lower) {
                    (FileKind::Regular, Some(lower)) => {
                        Some(lower.data_ref(target, &found).map_err(io("read", target))?)
                    }
                    _ => None,
                };
                self.put(target.clone(), found.clone(), data, None, Some(found.clone()));
                self.nodes.len() - 1
            }
        };
        let shared = match found.kind {
            FileKind::Symlink => Metadata { uid: meta.uid, gid: meta.gid, ..found },
            _ => Metadata { uid: meta.uid, gid: meta.gid, mode: meta.mode, mtime: meta.mtime, ..found },
        };
        let group = match self.nodes[node].group {
            Some(Group::Linked(place)) => {
                self.linked[place] = shared.clone();
                place
            }
            _ => {
                self.linked.push(shared.clone());
                self.linked.len() - 1
            }
        };
        self.nodes[node].group = Some(Group::Linked(group));
        let data = self.nodes[node].data.clone();
        self.put(path, shared, data, Some(Group::Linked(group)), existing);
        Ok(true)
    }

    /// Forgets what was written below `path`, which stops being a directory.
    pub(crate) fn clear_below(&mut self, path: &TreePath) {
        for node in &mut self.nodes {
            if !node.removed && node.path != *path && node.path.starts_with(path) {
                node.removed = true;
                self.index.remove(&node.path);
            }
        }
    }

    /// The layer: what differs from the lower tree, with the directories that hold it, sorted.
    pub(crate) fn finish(self) -> Result<Vec<LayerEntry>, CopyError> {
        let mut seen: HashSet<TreePath> = HashSet::new();
        // Nearly in order already, so that sorting is cheap.
        let mut order: Vec<(TreePath, Option<usize>)> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            if node.removed || node.path.is_root() || seen.contains(&node.path) || self.unchanged(node)? {
                continue;
            }
            let start = order.len();
            let mut next = Some(node.path.clone());
            while let Some(path) = next.filter(|path| !path.is_root() && !seen.contains(path)) {
                next = path.parent();
                seen.insert(path.clone());
                let node = self.index.get(&path).copied();
                order.push((path, node));
            }
            order[start..].reverse();
        }
        order.sort_by(|a, b| a.0.cmp(&b.0));
        self.entries(order)
    }

    fn entries(mut self, order: Vec<(TreePath, Option<usize>)>) -> Result<Vec<LayerEntry>, CopyError> {
        let mut first_names: HashMap<Group, TreePath> = HashMap::new();
        let mut out = Vec::with_capacity(order.len());
        for (path, node) in order {
            let Some(node) = node.map(|i| &mut self.nodes[i]) else {
                let lower = self.lower.map_or(Ok(None), |lower| lower.lstat(&path));
                if let Some(meta) = lower.map_err(io("stat", &path))? {
                    out.push(LayerEntry { path, kind: plain(meta, None, None) });
                }
                continue;
            };
            let opaque = node.fresh && node.lower.as_ref().is_some_and(Metadata::is_dir);
            if let Some(Group::Linked(place)) = &node.group {
                let shared = &self.linked[*place];
                (node.meta.uid, node.meta.gid) = (shared.uid, shared.gid);
                (node.meta.mode, node.meta.mtime) = (shared.mode, shared.mtime);
            }
            let first = node.group.take().and_then(|group| match first_names.entry(group) {
                std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(path.clone());
                    None
                }
            });
            let data = node.data.take().filter(|_| first.is_none());
            out.push(LayerEntry { path: path.clone(), kind: plain(node.meta.clone(), data, first) });
            if opaque {
                out.push(LayerEntry { path, kind: LayerEntryKind::Opaque });
            }
        }
        Ok(out)
    }

    /// Whether the lower tree has the same entry: same type, mode, owner, size and time (a directory's time does not count), and
    /// the same bytes.
    fn unchanged(&self, node: &Node) -> Result<bool, CopyError> {
        // A file that an archive links to gets another name, which the layer can only give to what it holds.
        if matches!(node.group, Some(Group::Linked(_))) {
            return Ok(false);
        }
        let (Some(lower), Some(tree)) = (&node.lower, self.lower) else { return Ok(false) };
        let new = &node.meta;
        let same = new.kind == lower.kind
            && (new.mode, new.uid, new.gid, new.rdev) == (lower.mode, lower.uid, lower.gid, lower.rdev)
            && new.xattrs == lower.xattrs
            && (new.is_dir() && !node.fresh
                || (new.size, new.mtime, &new.link_target) == (lower.size, lower.mtime, &lower.link_target));
        if !same || new.kind != FileKind::Regular {
            return Ok(same && (!new.is_dir() || !node.fresh));
        }
        let digest = tree.digest(&node.path).map_err(io("digest", &node.path))?;
        Ok(node.data.as_ref().and_then(|data| data.digest) == Some(digest))
    }
}

fn plain(mut meta: Metadata, data: Option<DataRef>, hard_link_to: Option<TreePath>) -> LayerEntryKind {
    meta.hard_link = None;
    LayerEntryKind::Node { meta, data, hard_link_to }
}
