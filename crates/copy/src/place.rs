//! What selected entries become in a destination tree.

mod archive;

use crate::CopyError;
use crate::chmod::Chmod;
use crate::error::clamped;
use crate::selection::{Root, RootKind, Selected, Selection};
use crate::view::{Children, Group, View};
use rbuild_tree::{DataRef, FileKind, LayerEntry, Metadata, Timestamp, Tree, TreePath};
use std::collections::HashSet;
use std::sync::Arc;

/// How selections are placed.
#[derive(Debug, Clone, Default)]
pub struct PlaceOptions {
    /// `--chown` with its names looked up: owner of everything that is written, created parents included. `None` keeps
    /// the owners of the selection; created parents then belong to root.
    pub chown: Option<(u32, u32)>,
    /// `--chmod`, for created parents only: the selection has it already.
    pub chmod: Option<Chmod>,
    /// `--link`: the destination tree is never looked at. With --chmod BuildKit copies without it; whoever
    /// calls decides that.
    pub link: bool,
    /// Modification time of directories that have to be made.
    pub created_time: Timestamp,
}

/// Copies `selections`, one after the other, to `dest` in `tree`: the layer that this makes, sorted, each path once, with every
/// directory on the way.
///
/// `dest` is absolute; ending in `/` or `/.` it names a directory. Symlinks on the way to it and in it are followed inside the
/// tree. A later source sees what an earlier one wrote. Entries that the tree already has, with the same metadata, time and
/// bytes, are left out. An empty selection makes nothing, not even `dest`.
pub fn place(
    selections: &[Selection],
    dest: &str,
    tree: &dyn Tree,
    options: &PlaceOptions,
) -> Result<Vec<LayerEntry>, CopyError> {
    let mut placer = Placer::new((!options.link).then_some(tree), options);
    for (number, root) in selections.iter().flat_map(|selection| &selection.roots).enumerate() {
        placer.number = number;
        match root.kind {
            RootKind::Archive => placer.archive(root, dest)?,
            RootKind::File { .. } | RootKind::Directory => placer.root(root, dest)?,
        }
    }
    placer.view.finish()
}

/// The layer that makes the directory `path` and its parents, mode 0755, where they are missing: empty when it exists.
/// Without `owner` they are root's.
pub fn mkdir_entries(
    tree: &dyn Tree,
    path: &str,
    owner: Option<(u32, u32)>,
    time: Timestamp,
) -> Result<Vec<LayerEntry>, CopyError> {
    let options = PlaceOptions { chown: owner, created_time: time, ..PlaceOptions::default() };
    let mut placer = Placer::new(Some(tree), &options);
    let found = placer.view.resolve(&clamped(path)?)?;
    placer.make_dirs(&found.path)?;
    placer.view.finish()
}

struct Placer<'a> {
    view: View<'a>,
    options: &'a PlaceOptions,
    /// Which root is being placed.
    number: usize,
}

/// A directory of the source and what it is in the destination.
struct Dir {
    dest: TreePath,
    children: Children,
}

impl<'a> Placer<'a> {
    fn new(lower: Option<&'a dyn Tree>, options: &'a PlaceOptions) -> Self {
        Self { view: View::new(lower), options, number: 0 }
    }

    /// Makes `path` and its parents where they are missing. `path` has no symlink in it.
    fn make_dirs(&mut self, path: &TreePath) -> Result<(), CopyError> {
        self.make_dirs_with(path, Chmod::parent_mode(self.options.chmod.as_ref()))
    }

    /// [`Self::make_dirs`] whatever --chmod says.
    fn make_dirs_with(&mut self, path: &TreePath, mode: u32) -> Result<(), CopyError> {
        // What a directory with the set-group-ID bit hands down to those made in it, as mkdir(2) has it.
        let (mut group, mut set_gid) = (0, 0);
        for dir in path.ancestors().chain([path.clone()]) {
            match self.view.stat(&dir)? {
                Some(meta) if meta.is_dir() => {
                    set_gid = meta.mode & 0o2000;
                    group = if set_gid == 0 { 0 } else { meta.gid };
                }
                Some(_) => return Err(CopyError::ParentNotDirectory(dir)),
                None => {
                    let (uid, gid) = self.options.chown.unwrap_or((0, group));
                    let mode = mode | set_gid;
                    let meta = Metadata { mode, uid, gid, ..Metadata::directory(self.options.created_time) };
                    group = gid;
                    self.view.put(dir, meta, None, None, None);
                }
            }
        }
        Ok(())
    }

    /// The path that `dest` means, its directory made. Only the directory itself is made when `dest` ends in `/` or `/.`.
    fn destination(&mut self, dest: &str) -> Result<TreePath, CopyError> {
        let (parent, last) = dest.rsplit_once('/').unwrap_or(("", dest));
        let ensure = if matches!(last, "" | ".") { dest } else { parent };
        let ensure = self.view.resolve(&clamped(ensure)?)?;
        self.make_dirs(&ensure.path)?;
        Ok(self.view.resolve(&clamped(dest)?)?.path)
    }

    fn root(&mut self, root: &Root, dest: &str) -> Result<(), CopyError> {
        let mut target = self.destination(dest)?;
        let existing = self.view.stat(&target)?;
        match &root.kind {
            RootKind::File { name } => {
                if existing.is_some_and(|meta| meta.is_dir()) {
                    target = target.join(name);
                }
                self.make_dirs(&target.parent().unwrap_or_default())?;
            }
            RootKind::Directory | RootKind::Archive => {
                match existing {
                    Some(meta) if !meta.is_dir() => return Err(CopyError::DirectoryOverFile(target)),
                    Some(_) => {}
                    None => self.make_dirs(&target)?,
                }
                // Only its time is the source's, also when it was there.
                if let Some(meta) = self.view.stat(&target)? {
                    let timed = Metadata { mtime: root.mtime, ..meta.clone() };
                    self.view.put(target.clone(), timed, None, None, Some(meta));
                }
            }
        }
        self.entries(root, &target)
    }

    /// Writes the entries of `root` to and below `target`.
    fn entries(&mut self, root: &Root, target: &TreePath) -> Result<(), CopyError> {
        let linked = linked(root);
        let mut dirs: Vec<Dir> = Vec::new();
        for entry in &root.entries {
            let path = target.join_path(&entry.dest);
            let existing = if entry.dest.is_root() {
                self.view.stat(&path)?
            } else {
                while dirs.last().is_some_and(|dir| !path.starts_with(&dir.dest)) {
                    dirs.pop();
                }
                if dirs.is_empty() {
                    dirs.push(Dir { dest: target.clone(), children: self.view.children(target)? });
                }
                // Every directory comes before what it holds, so that the last one is the parent.
                match dirs.last() {
                    Some(dir) => self.view.stat_child(&path, &dir.children)?,
                    None => self.view.stat(&path)?,
                }
            };
            if entry.meta.is_dir() {
                self.directory(entry, path.clone(), existing)?;
                dirs.push(Dir { children: self.view.children(&path)?, dest: path });
            } else {
                if existing.as_ref().is_some_and(Metadata::is_dir) {
                    return Err(CopyError::FileOverDirectory(path));
                }
                let group = self.group(entry, &linked);
                let mut meta = self.owned(&entry.meta);
                if meta.kind == FileKind::BlockDevice {
                    // BuildKit's copy clears the bits of a socket from the type, which leaves this of a block device.
                    meta.kind = FileKind::CharDevice;
                }
                self.view.put(path, meta, self.data(entry), group, existing);
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        entry: &Selected,
        path: TreePath,
        existing: Option<Metadata>,
    ) -> Result<(), CopyError> {
        let mut meta = self.owned(&entry.meta);
        match &existing {
            Some(old) if !old.is_dir() => return Err(CopyError::DirectoryOverFile(path)),
            Some(old) if entry.implied => meta = Metadata { mode: meta.mode, ..old.clone() },
            Some(_) | None => {}
        }
        self.view.put(path, meta, None, None, existing);
        Ok(())
    }

    /// `meta` with the owner of --chown.
    fn owned(&self, meta: &Metadata) -> Metadata {
        let (uid, gid) = self.options.chown.unwrap_or((meta.uid, meta.gid));
        Metadata { uid, gid, ..meta.clone() }
    }

    fn data(&self, entry: &Selected) -> Option<DataRef> {
        entry.data.clone()
    }

    fn group(&self, entry: &Selected, linked: &HashSet<&TreePath>) -> Option<Group> {
        let first = entry.hard_link_to.as_ref().or_else(|| linked.get(&entry.dest).copied())?;
        Some(Group::Source(self.number, Arc::new(first.clone())))
    }
}

/// The entries that others are hard links to.
fn linked(root: &Root) -> HashSet<&TreePath> {
    root.entries.iter().filter_map(|entry| entry.hard_link_to.as_ref()).collect()
}
