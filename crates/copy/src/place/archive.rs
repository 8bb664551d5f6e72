//! Unpacked archives: what `tar -x` would do in the destination, in the order of the archive.

use super::Placer;
use crate::CopyError;
use crate::error::{clamped, io};
use crate::selection::{Root, Selected};
use rbuild_tree::{FileKind, Metadata, Resolved, TreePath, resolve_with};

/// The parent used last: its name in the archive and where that is.
type Last = Option<(TreePath, TreePath)>;

impl Placer<'_> {
    /// Puts the contents of an archive into the directory `dest`, entry by entry. What is in the way of an entry is
    /// replaced, a symlink too, but directories merge. Symlinks in the middle of a name are followed; they lead nowhere outside
    /// `dest`. A hard link's target is looked for in the destination.
    pub(super) fn archive(&mut self, root: &Root, dest: &str) -> Result<(), CopyError> {
        let base = self.view.resolve(&clamped(dest)?)?.path;
        self.make_dirs_with(&base, 0o755)?;
        let mut last = None;
        for entry in &root.entries {
            self.archived(entry, &base, &mut last)?;
        }
        Ok(())
    }

    fn archived(&mut self, entry: &Selected, base: &TreePath, last: &mut Last) -> Result<(), CopyError> {
        let (Some(parent), Some(name)) = (entry.dest.parent(), entry.dest.file_name()) else { return Ok(()) };
        let path = match last {
            Some((known, real)) if *known == parent => real.join(name),
            _ => {
                let real = self.resolve_below(base, &parent)?.path;
                self.make_implied(base, &real)?;
                let path = real.join(name);
                *last = Some((parent, real));
                path
            }
        };
        let existing = self.view.stat(&path)?;
        if entry.meta.is_dir() {
            if existing.as_ref().is_some_and(|meta| !meta.is_dir()) {
                // It may have been part of the way to the parent used last.
                *last = None;
            }
            // The destination itself is not the archive's to change.
            if path != *base {
                self.view.put(path, self.owned(&entry.meta), None, None, existing);
            }
            return Ok(());
        }
        if existing.as_ref().is_some_and(|meta| matches!(meta.kind, FileKind::Directory | FileKind::Symlink))
        {
            // It may have been part of the way to the parent used last.
            *last = None;
        }
        if existing.as_ref().is_some_and(Metadata::is_dir) {
            self.view.clear_below(&path);
        }
        let Some(target) = &entry.hard_link_to else {
            self.view.put(path, self.owned(&entry.meta), self.data(entry), None, existing);
            return Ok(());
        };
        let target = self.link_target(base, target)?;
        match self.view.link(path.clone(), &self.owned(&entry.meta), &target, existing)? {
            true => Ok(()),
            false => Err(CopyError::LinkTarget { path, target }),
        }
    }

    /// Where a hard link's target is; a symlink there is itself the target.
    fn link_target(&self, base: &TreePath, target: &TreePath) -> Result<TreePath, CopyError> {
        match (target.parent(), target.file_name()) {
            (Some(parent), Some(name)) => Ok(self.resolve_below(base, &parent)?.path.join(name)),
            _ => Ok(base.clone()),
        }
    }

    /// Makes the directories from `base` down to `path` that are missing: mode 0755 and root's, whatever --chown says.
    fn make_implied(&mut self, base: &TreePath, path: &TreePath) -> Result<(), CopyError> {
        for dir in path.ancestors().chain([path.clone()]).filter(|dir| dir.starts_with(base)) {
            match self.view.stat(&dir)? {
                Some(meta) if meta.is_dir() => {}
                Some(_) => return Err(CopyError::ParentNotDirectory(dir)),
                None => {
                    let meta = Metadata::directory(self.options.created_time);
                    self.view.put(dir, meta, None, None, None);
                }
            }
        }
        Ok(())
    }

    /// Follows `path`, which is relative to `base`, with `base` as root.
    fn resolve_below(&self, base: &TreePath, path: &TreePath) -> Result<Resolved, CopyError> {
        match resolve_with(|path| self.view.lstat(&base.join_path(path)), path, true) {
            Ok(found) => Ok(Resolved { path: base.join_path(&found.path), meta: found.meta }),
            Err(error) => Err(io("resolve", &base.join_path(path))(error)),
        }
    }
}
