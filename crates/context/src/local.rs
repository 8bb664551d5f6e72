//! The build context in a directory of the host.

use crate::Filter;
use rbuild_oci::Digest;
use rbuild_tree::{
    DataSource, DirTree, FileKind, Metadata, PathError, Select, StatId, Tree, TreePath, Visit, Walked,
};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A local build context as a [`Tree`]: what .dockerignore excludes does not exist in it.
///
/// A directory that is excluded itself exists exactly when something below it is included again.
pub struct LocalContext {
    tree: DirTree,
    filter: Option<Arc<dyn Filter>>,
    reset_owner: bool,
}

impl LocalContext {
    /// Opens the directory `dir`.
    pub fn open(dir: impl AsRef<Path>, filter: Option<Arc<dyn Filter>>) -> io::Result<Self> {
        Ok(Self { tree: DirTree::open(dir)?, filter, reset_owner: false })
    }

    /// Whether every entry is shown as owned by 0:0, as COPY and ADD from a local context want it.
    pub fn reset_owner(mut self, reset: bool) -> Self {
        self.reset_owner = reset;
        self
    }

    /// The whole directory, without filter and with real owners: for reading the Dockerfile and .dockerignore, which
    /// may be excluded from the context.
    pub fn unfiltered(&self) -> &DirTree {
        &self.tree
    }

    fn visit(&self, path: &TreePath, is_dir: bool) -> Visit {
        match &self.filter {
            Some(filter) if filter.excluded(path) => match is_dir && filter.may_include_below(path) {
                true => Visit::IfNotEmpty,
                false => Visit::Skip,
            },
            _ => Visit::Include,
        }
    }

    /// Whether an entry that is on disk is part of the context.
    fn visible(&self, path: &TreePath, is_dir: bool) -> io::Result<bool> {
        Ok(match path.is_root() {
            true => true,
            false => match self.visit(path, is_dir) {
                Visit::Include => true,
                Visit::Skip => false,
                Visit::IfNotEmpty => !self.tree.walk_select(path, &Selected(self))?.is_empty(),
            },
        })
    }

    fn shown(&self, mut meta: Metadata) -> Metadata {
        if self.reset_owner {
            (meta.uid, meta.gid) = (0, 0);
        }
        meta
    }

    /// An entry that is part of the context, with the state it is in.
    fn stat(&self, path: &TreePath) -> io::Result<Option<(Metadata, StatId)>> {
        let Some((meta, stat)) = self.tree.stat(path)? else { return Ok(None) };
        Ok(self.visible(path, meta.is_dir())?.then(|| (self.shown(meta), stat)))
    }

    fn require(
        &self,
        action: &'static str,
        path: &TreePath,
        kind: FileKind,
    ) -> io::Result<(Metadata, StatId)> {
        match self.stat(path)? {
            Some(found) if found.0.kind == kind => Ok(found),
            Some(_) if kind == FileKind::Directory => {
                Err(PathError::wrap(action, path, io::ErrorKind::NotADirectory))
            }
            Some(_) => Err(PathError::wrap(action, path, io::Error::other("not a regular file"))),
            None => Err(PathError::wrap(action, path, io::ErrorKind::NotFound)),
        }
    }
}

struct Selected<'a>(&'a LocalContext);

impl Select for Selected<'_> {
    fn select(&self, path: &TreePath, is_dir: bool) -> Visit {
        self.0.visit(path, is_dir)
    }
}

impl Tree for LocalContext {
    fn lstat(&self, path: &TreePath) -> io::Result<Option<Metadata>> {
        Ok(self.stat(path)?.map(|(meta, _)| meta))
    }

    fn read_dir(&self, path: &TreePath) -> io::Result<Vec<OsString>> {
        self.require("list", path, FileKind::Directory)?;
        let mut names = self.tree.read_dir(path)?;
        if self.filter.is_some() {
            let mut seen = Vec::with_capacity(names.len());
            for name in names {
                if self.stat(&path.join(&name))?.is_some() {
                    seen.push(name);
                }
            }
            names = seen;
        }
        Ok(names)
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        self.require("open", path, FileKind::Regular)?;
        self.tree.open(path)
    }

    fn digest(&self, path: &TreePath) -> io::Result<Digest> {
        self.require("read", path, FileKind::Regular)?;
        self.tree.digest(path)
    }

    fn data_source(&self, path: &TreePath) -> io::Result<DataSource> {
        self.require("open", path, FileKind::Regular)?;
        self.tree.data_source(path)
    }

    fn walk(&self, start: &TreePath) -> io::Result<Vec<(TreePath, Metadata)>> {
        self.require("list", start, FileKind::Directory)?;
        let walked = self.tree.walk_select(start, &Selected(self))?;
        Ok(walked.into_iter().map(|Walked { path, meta, .. }| (path, self.shown(meta))).collect())
    }

    fn digests(&self, files: &[(TreePath, Metadata)]) -> io::Result<Vec<Digest>> {
        self.tree.digests(files)
    }
}
