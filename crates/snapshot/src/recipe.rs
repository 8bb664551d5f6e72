//! A layer as a list of what to do.

use crate::SnapshotError;
use rbuild_tree::{DataRef, FileKind, LayerEntry, LayerEntryKind, Metadata, TreePath};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Recipes get pretended device numbers from the top end, so that their hard links equal nothing on disk.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(u64::MAX);

/// A checked layer of entries sorted by path.
///
/// Each path has one entry, except that an `Opaque` follows its directory's node. The parents of every entry are
/// entries too (B-016); the root may be.
#[derive(Debug)]
pub struct Recipe {
    entries: Vec<LayerEntry>,
    /// Pretended device of the hard links.
    device: u64,
    /// For each entry with several names the index of the first one.
    linked: HashMap<usize, usize>,
}

/// What a recipe says about one path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot<'a> {
    Whiteout,
    Node { index: usize, meta: &'a Metadata, opaque: bool },
}

impl Recipe {
    /// Sorts and checks `entries`.
    ///
    /// # Errors
    /// [`SnapshotError::InvalidRecipe`] names the first entry that is not as described above.
    pub fn new(mut entries: Vec<LayerEntry>) -> Result<Self, SnapshotError> {
        let is_opaque = |entry: &LayerEntry| matches!(entry.kind, LayerEntryKind::Opaque);
        entries.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| is_opaque(a).cmp(&is_opaque(b))));
        let device = NEXT_DEVICE.fetch_sub(1, Ordering::Relaxed);
        let mut recipe = Self { entries, device, linked: HashMap::new() };
        let mut open: Vec<&TreePath> = Vec::new();
        for (index, entry) in recipe.entries.iter().enumerate() {
            let previous = index.checked_sub(1).map(|i| &recipe.entries[i]);
            recipe
                .check(entry, previous, &mut open)
                .map_err(|reason| SnapshotError::InvalidRecipe { path: entry.path.clone(), reason })?;
        }
        recipe.link()?;
        Ok(recipe)
    }

    /// Checks one entry against the one before it and the directories it may be in.
    fn check<'a>(
        &self,
        entry: &'a LayerEntry,
        previous: Option<&LayerEntry>,
        open: &mut Vec<&'a TreePath>,
    ) -> Result<(), &'static str> {
        let same_path = previous.is_some_and(|p| p.path == entry.path);
        match &entry.kind {
            LayerEntryKind::Opaque => {
                let node = previous.filter(|p| p.path == entry.path).map(|p| &p.kind);
                return match node {
                    Some(LayerEntryKind::Node { meta, .. }) if meta.is_dir() => Ok(()),
                    _ => Err("an opaque marker without its directory"),
                };
            }
            _ if same_path => return Err("it is there twice"),
            LayerEntryKind::Whiteout if entry.path.is_root() => return Err("the root cannot be removed"),
            LayerEntryKind::Whiteout => {}
            LayerEntryKind::Node { meta, data, hard_link_to } => {
                let bytes_here = meta.kind == FileKind::Regular && hard_link_to.is_none();
                if data.is_some() != bytes_here {
                    return Err("only a regular file that is no hard link has data");
                }
                if meta.kind == FileKind::Socket {
                    return Err("a socket cannot be in a layer");
                }
                if hard_link_to.is_some() && meta.is_dir() {
                    return Err("a directory cannot be a hard link");
                }
                if entry.path.is_root() && !meta.is_dir() {
                    return Err("the root must be a directory");
                }
            }
        }
        if let Some(parent) = entry.path.parent() {
            while open.last().is_some_and(|dir| parent.strip_prefix(dir).is_none()) {
                open.pop();
            }
            if !parent.is_root() && open.last() != Some(&&parent) {
                return Err("its parent directory is not an entry of this layer");
            }
        }
        if matches!(&entry.kind, LayerEntryKind::Node { meta, .. } if meta.is_dir()) && !entry.path.is_root()
        {
            open.push(&entry.path);
        }
        Ok(())
    }

    fn link(&mut self) -> Result<(), SnapshotError> {
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let LayerEntryKind::Node { hard_link_to: Some(target), meta, .. } = &entry.kind else { continue };
            let first = self.find(target).and_then(|slot| match slot {
                Slot::Node { index: first, meta: target, .. }
                    if first < index && target.kind == meta.kind =>
                {
                    Some(first)
                }
                _ => None,
            });
            let first = first.map(|first| *self.linked.get(&first).unwrap_or(&first));
            let Some(first) = first else {
                let (path, reason) = (entry.path.clone(), "the target of the hard link is no earlier file");
                return Err(SnapshotError::InvalidRecipe { path, reason });
            };
            self.linked.insert(first, first);
            self.linked.insert(index, first);
        }
        Ok(())
    }

    /// The entries in order.
    pub fn entries(&self) -> &[LayerEntry] {
        &self.entries
    }

    /// The entries in order.
    pub fn into_entries(self) -> Vec<LayerEntry> {
        self.entries
    }

    pub(crate) fn find(&self, path: &TreePath) -> Option<Slot<'_>> {
        let index = self.entries.binary_search_by(|e| e.path.cmp(path)).ok()?;
        // Of a directory and its opaque marker the search may find either.
        let index = match &self.entries[index].kind {
            LayerEntryKind::Opaque => index - 1,
            _ => index,
        };
        Some(self.slot(index))
    }

    fn slot(&self, index: usize) -> Slot<'_> {
        match &self.entries[index].kind {
            LayerEntryKind::Node { meta, .. } => {
                let next = self.entries.get(index + 1);
                let opaque = meta.is_dir()
                    && next.is_some_and(|e| {
                        matches!(e.kind, LayerEntryKind::Opaque) && e.path == self.entries[index].path
                    });
                Slot::Node { index, meta, opaque }
            }
            _ => Slot::Whiteout,
        }
    }

    /// What is directly in the directory `dir`, in order.
    pub(crate) fn children<'a>(&'a self, dir: &TreePath) -> Vec<(&'a OsStr, Slot<'a>)> {
        let mut index = self.entries.partition_point(|e| e.path <= *dir);
        let mut children = Vec::new();
        while let Some(entry) = self.entries.get(index) {
            if entry.path.strip_prefix(dir).is_none() {
                break;
            }
            if let Some(name) = entry.path.file_name() {
                children.push((name, self.slot(index)));
            }
            // Most children hold nothing: look ahead one step before searching for the end of the subtree.
            let below = |e: &LayerEntry| e.path.strip_prefix(&entry.path).is_some();
            index += 1;
            if self.entries.get(index).is_some_and(below) {
                index += self.entries[index..].partition_point(below);
            }
        }
        children
    }

    /// Metadata as a view shows it: with hard links that hold inside this recipe.
    pub(crate) fn metadata(&self, index: usize, meta: &Metadata) -> Metadata {
        let mut meta = meta.clone();
        meta.hard_link = self.linked.get(&index).map(|first| (self.device, *first as u64));
        if let Some(data) = self.data(index) {
            meta.size = data.size;
        }
        meta
    }

    /// The bytes of the regular file at `index`, through hard links.
    pub(crate) fn data(&self, index: usize) -> Option<&DataRef> {
        let index = self.linked.get(&index).copied().unwrap_or(index);
        match &self.entries[index].kind {
            LayerEntryKind::Node { data, .. } => data.as_ref(),
            _ => None,
        }
    }
}
