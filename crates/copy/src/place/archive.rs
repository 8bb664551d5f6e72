//! Unpacked archives.

use super::{Placer, linked};
use crate::CopyError;
use crate::error::{clamped, io};
use crate::selection::{Root, Selected};
use rbuild_tree::{Metadata, Resolved, TreePath, is_loop, resolve_with};
use std::collections::HashMap;

impl Placer<'_> {
    /// Puts the contents of an archive into the directory `dest`. What is in the way of an entry is replaced; directories
    /// the archive only implies go through symlinks, which lead nowhere outside `dest`.
    pub(super) fn archive(&mut self, root: &Root, dest: &str) -> Result<(), CopyError> {
        let base = self.view.resolve(&clamped(dest)?)?.path;
        self.make_dirs(&base)?;
        let linked = linked(root);
        let mut dirs: HashMap<TreePath, TreePath> = HashMap::from([(TreePath::root(), base.clone())]);
        for entry in &root.entries {
            let (Some(parent), Some(name)) = (entry.dest.parent(), entry.dest.file_name()) else { continue };
            // Every directory comes before what it holds.
            let Some(parent) = dirs.get(&parent) else { continue };
            let path = parent.join(name);
            let existing = self.view.stat(&path)?;
            if entry.meta.is_dir() {
                let path = self.archived_directory(entry, path, existing, &base)?;
                dirs.insert(entry.dest.clone(), path);
                continue;
            }
            if existing.as_ref().is_some_and(Metadata::is_dir) {
                self.view.clear_below(&path);
            }
            let group = self.group(entry, &linked);
            self.view.put(path, self.owned(&entry.meta), self.data(entry), group, existing);
        }
        Ok(())
    }

    /// Makes or updates a directory; gives where it is.
    fn archived_directory(
        &mut self,
        entry: &Selected,
        path: TreePath,
        existing: Option<Metadata>,
        base: &TreePath,
    ) -> Result<TreePath, CopyError> {
        if entry.implied && existing.is_some() {
            match self.resolve_below(base, &path)? {
                Some(Resolved { path, meta: Some(meta) }) if meta.is_dir() => return Ok(path),
                Some(_) | None => {}
            }
        }
        let mut meta = self.owned(&entry.meta);
        if entry.implied {
            meta.mtime = self.options.created_time;
        }
        self.view.put(path.clone(), meta, None, None, existing);
        Ok(path)
    }

    /// Follows `path`, which is below `base`, with `base` as root; `None` when that never ends.
    fn resolve_below(&self, base: &TreePath, path: &TreePath) -> Result<Option<Resolved>, CopyError> {
        let below = path.strip_prefix(base).unwrap_or_default();
        match resolve_with(|path| self.view.lstat(&base.join_path(path)), &below, true) {
            Ok(found) => Ok(Some(Resolved { path: base.join_path(&found.path), meta: found.meta })),
            Err(error) if is_loop(&error) => Ok(None),
            Err(error) => Err(io("resolve", path)(error)),
        }
    }
}
