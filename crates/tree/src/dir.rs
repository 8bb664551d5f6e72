//! A tree that is a directory of the host.

use crate::content::hash_file;
use crate::walk::{All, Select, Walked, read_names, walk};
use crate::{DataSource, Metadata, PathError, StatId, Tree, TreePath};
use crate::{beneath, content};
use rayon::prelude::*;
use rbuild_oci::Digest;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// A directory of the host as a [`Tree`]: everything relative to one descriptor, no symlink followed, nothing outside
/// reachable, whatever anybody renames meanwhile.
///
/// Extended attributes: `security.capability` of regular files only. Walks and digests run on the current rayon pool.
#[derive(Debug, Clone)]
pub struct DirTree {
    root: Arc<OwnedFd>,
}

impl DirTree {
    /// Opens the directory `path` of the host. Symlinks in `path` itself are followed: it is the caller's word.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .map_err(|e| {
                io::Error::new(e.kind(), format!("cannot open directory {}: {e}", path.display()))
            })?;
        Ok(Self::from_fd(fd))
    }

    /// Takes a directory that is open for reading (not `O_PATH`).
    pub fn from_fd(root: impl Into<Arc<OwnedFd>>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// Opens a directory of the tree.
    pub fn open_dir(&self, path: &TreePath) -> io::Result<OwnedFd> {
        beneath::open_beneath(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|e| PathError::wrap("open", path, e))
    }

    /// Metadata of an entry and the state it is in.
    pub fn stat(&self, path: &TreePath) -> io::Result<Option<(Metadata, StatId)>> {
        let found = match path.parent() {
            None => rustix::fs::fstat(&self.root)
                .and_then(|stat| Ok((beneath::metadata_of_dir(&self.root)?, StatId::from(&stat)))),
            Some(parent) => self.stat_below(&parent, path.file_name().unwrap_or_default()),
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if beneath::is_absent(error) => Ok(None),
            Err(error) => Err(PathError::wrap("stat", path, error)),
        }
    }

    fn stat_below(&self, parent: &TreePath, name: &OsStr) -> rustix::io::Result<(Metadata, StatId)> {
        let held;
        let dir: BorrowedFd<'_> = if parent.is_root() {
            self.root.as_fd()
        } else {
            held =
                beneath::open_beneath(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            held.as_fd()
        };
        let stat = beneath::stat_at(dir, name)?;
        Ok((beneath::metadata_at(dir, name, &stat)?, StatId::from(&stat)))
    }

    /// [`Tree::walk`] of what `select` lets through, with the state of each entry.
    pub fn walk_select(&self, start: &TreePath, select: &dyn Select) -> io::Result<Vec<Walked>> {
        walk(self.root.as_fd(), start, select)
    }
}

impl Tree for DirTree {
    fn lstat(&self, path: &TreePath) -> io::Result<Option<Metadata>> {
        Ok(self.stat(path)?.map(|(meta, _)| meta))
    }

    fn read_dir(&self, path: &TreePath) -> io::Result<Vec<OsString>> {
        let names = read_names(self.open_dir(path)?).map_err(|e| PathError::wrap("list", path, e))?;
        let mut names: Vec<OsString> = names.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        content::open_regular(&self.root, path).map(File::from)
    }

    fn digest(&self, path: &TreePath) -> io::Result<Digest> {
        Ok(hash_file(&self.root, path, &mut Vec::new(), |_| ())?.digest)
    }

    fn data_source(&self, path: &TreePath) -> io::Result<DataSource> {
        Ok(DataSource::Below { root: Arc::clone(&self.root), path: path.clone() })
    }

    fn walk(&self, start: &TreePath) -> io::Result<Vec<(TreePath, Metadata)>> {
        Ok(self.walk_select(start, &All)?.into_iter().map(|w| (w.path, w.meta)).collect())
    }

    fn digests(&self, files: &[(TreePath, Metadata)]) -> io::Result<Vec<Digest>> {
        files
            .par_iter()
            .map_init(Vec::new, |buffer, (path, _)| Ok(hash_file(&self.root, path, buffer, |_| ())?.digest))
            .collect()
    }
}

#[cfg(test)]
mod tests;
