//! The build context in a directory of the host.

use crate::memo::Memo;
use crate::stat_cache::{Known, is_bare, is_settled};
use crate::{Filter, StatCache};
use rayon::prelude::*;
use rbuild_oci::Digest;
use rbuild_tree::{
    DataSource, DirTree, FileKind, Metadata, PathError, Select, StatId, Tree, TreePath, Visit, Walked,
    hash_file,
};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which modes a context's files have (`--context-modes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Modes {
    /// As they are on disk.
    #[default]
    Keep,
    /// Those that git would give them, so that a checkout's umask reaches neither keys nor images: regular files 0644 or, if
    /// their owner may execute them, 0755, and directories 0755. All else keeps its mode.
    Git,
}

impl Modes {
    fn apply(self, meta: &mut Metadata) {
        if self == Modes::Git && matches!(meta.kind, FileKind::Regular | FileKind::Directory) {
            meta.mode = if meta.is_dir() || meta.mode & 0o100 != 0 { 0o755 } else { 0o644 };
        }
    }
}

/// A local build context as a [`Tree`]: what .dockerignore excludes does not exist in it.
///
/// A directory that is excluded itself exists exactly when something below it is included again.
pub struct LocalContext {
    tree: DirTree,
    filter: Option<Arc<dyn Filter>>,
    cache: Option<StatCache>,
    memo: Mutex<Memo>,
    reset_owner: bool,
    modes: Modes,
}

impl LocalContext {
    /// Opens the directory `dir`. Without a `cache` every digest is of bytes read now (`--no-stat-cache`).
    pub fn open(
        dir: impl AsRef<Path>,
        filter: Option<Arc<dyn Filter>>,
        cache: Option<StatCache>,
    ) -> io::Result<Self> {
        Ok(Self {
            tree: DirTree::open(dir)?,
            filter,
            cache,
            memo: Mutex::default(),
            reset_owner: false,
            modes: Modes::Keep,
        })
    }

    /// Writes the digests found since the context was opened to the stat cache; `false` if there was nothing new.
    /// An error costs the next build time and nothing else.
    pub fn save_stat_cache(&self) -> io::Result<bool> {
        let Some(cache) = &self.cache else { return Ok(false) };
        let memo = self.memo();
        let mut hint = 0;
        cache.save(|path| memo.find(&mut hint, path).is_some())
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn walk_visible(&self, start: &TreePath) -> io::Result<Vec<Walked>> {
        let walked = self.tree.walk_select(start, &Selected(self))?;
        if self.cache.is_some() {
            self.memo().add(start, &walked);
        }
        Ok(walked)
    }

    /// The digest of a file, hashed now; remembered if that is safe.
    fn hash(&self, path: &TreePath, buffer: &mut Vec<u8>) -> io::Result<Digest> {
        let (mut settled, mut bare) = (false, false);
        let hashed = hash_file(self.tree.root(), path, buffer, |file| {
            if self.cache.is_some() {
                (settled, bare) = (is_settled(file), is_bare(file));
            }
        })?;
        if let (true, Some(cache)) = (settled, &self.cache) {
            cache.put(path, Known { stat: hashed.stat, digest: hashed.digest, bare });
        }
        Ok(hashed.digest)
    }

    /// The digest of a file that is in the state `stat`, from the cache or hashed now.
    fn digest_in_state(&self, path: &TreePath, stat: &StatId, buffer: &mut Vec<u8>) -> io::Result<Digest> {
        let known = self.cache.as_ref().and_then(|cache| cache.get(&mut 0, path, stat));
        known.map_or_else(|| self.hash(path, buffer), Ok)
    }

    /// What is known of the digests without touching the files, by the states that walks found them in.
    fn look_up(&self, files: &[(TreePath, Metadata)]) -> Vec<Lookup> {
        let Some(cache) = &self.cache else { return vec![Lookup::Hash; files.len()] };
        let memo = self.memo();
        let (mut seen, mut record) = (0, 0);
        let look_up = |(path, meta): &(TreePath, Metadata)| match memo.find(&mut seen, path.as_bytes()) {
            Some(stat) if (stat.size, stat.mtime) == (meta.size, meta.mtime) => {
                cache.get(&mut record, path, &stat).map_or(Lookup::Hash, Lookup::Known)
            }
            _ => Lookup::Unseen,
        };
        files.iter().map(look_up).collect()
    }

    /// Whether every entry is shown as owned by 0:0, as COPY and ADD from a local context want it.
    pub fn reset_owner(mut self, reset: bool) -> Self {
        self.reset_owner = reset;
        self
    }

    /// Which modes its files and directories are shown with.
    pub fn modes(mut self, modes: Modes) -> Self {
        self.modes = modes;
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
        self.modes.apply(&mut meta);
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

/// What is known of a file's digest before the file is touched.
#[derive(Debug, Clone, Copy)]
enum Lookup {
    Known(Digest),
    /// Its state is known, but no digest for it.
    Hash,
    /// No walk has met it in the state asked about.
    Unseen,
}

struct Selected<'a>(&'a LocalContext);

impl Select for Selected<'_> {
    fn select(&self, path: &TreePath, is_dir: bool) -> Visit {
        self.0.visit(path, is_dir)
    }

    fn is_bare(&self, path: &TreePath, state: &StatId) -> bool {
        self.0.cache.as_ref().is_some_and(|cache| cache.is_bare(path, state))
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
        let (_, stat) = self.require("read", path, FileKind::Regular)?;
        self.digest_in_state(path, &stat, &mut Vec::new())
    }

    /// Asks nothing of the file system: callers have seen the file, and whoever reads the bytes checks them. With 50,000
    /// files, another look at each costs more than all the rest of a build that has nothing to do.
    fn data_source(&self, path: &TreePath) -> io::Result<DataSource> {
        if self.filter.as_ref().is_some_and(|filter| filter.excluded(path)) {
            return Err(PathError::wrap("open", path, io::ErrorKind::NotFound));
        }
        self.tree.data_source(path)
    }

    fn walk(&self, start: &TreePath) -> io::Result<Vec<(TreePath, Metadata)>> {
        self.require("list", start, FileKind::Directory)?;
        let walked = self.walk_visible(start)?;
        Ok(walked.into_iter().map(|Walked { path, meta, .. }| (path, self.shown(meta))).collect())
    }

    fn digests(&self, files: &[(TreePath, Metadata)]) -> io::Result<Vec<Digest>> {
        let lookups = self.look_up(files);
        let known = |lookup: &Lookup| match lookup {
            Lookup::Known(digest) => Some(*digest),
            Lookup::Hash | Lookup::Unseen => None,
        };
        // The usual case, without waking the pool.
        if let Some(all) = lookups.iter().map(known).collect() {
            return Ok(all);
        }
        let digest = |buffer: &mut Vec<u8>, (lookup, (path, _)): (Lookup, &(TreePath, Metadata))| match lookup
        {
            Lookup::Known(digest) => Ok(digest),
            Lookup::Hash => self.hash(path, buffer),
            Lookup::Unseen => match self.tree.stat(path)? {
                Some((_, stat)) => self.digest_in_state(path, &stat, buffer),
                None => Err(PathError::wrap("read", path, io::ErrorKind::NotFound)),
            },
        };
        lookups.into_par_iter().zip(files).map_init(Vec::new, digest).collect()
    }
}
