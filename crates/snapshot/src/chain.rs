//! A chain of layers as one tree.

use crate::layer::{is_opaque, is_whiteout};
use crate::recipe::Slot;
use crate::{DirLayer, Recipe, hash_source, open_source};
use rayon::prelude::*;
use rbuild_oci::Digest;
use rbuild_tree::{
    DataRef, DataSource, FileKind, Metadata, PathError, Timestamp, Tree, TreePath, hash_file, is_absent,
    metadata_at, metadata_of_dir, open_regular, read_names, stat_at, walk_from,
};
use rustix::fs::{FileType, Mode, OFlags, openat};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

/// How many directory descriptors a view keeps open; the usual limit of a process is 1024.
const MAX_OPEN: usize = 256;
/// How many directories a view remembers.
const MAX_KNOWN: usize = 16_384;

/// One layer of a chain.
#[derive(Debug, Clone)]
pub enum ChainLayer {
    /// An overlayfs upper directory.
    Dir(Arc<DirLayer>),
    /// A layer that is not on disk as a directory.
    Recipe(Arc<Recipe>),
}

/// What overlayfs would show of a chain of layers, without mounting it.
///
/// Metadata comes from the topmost layer that has the path. Whiteouts, opaque directories and files over directories
/// hide what is below. Layers must not change while a view looks at them.
pub struct ChainView {
    /// Topmost first.
    layers: Vec<ChainLayer>,
    known: Mutex<Known>,
}

/// Directories already resolved; `None` for a path that is no directory.
#[derive(Default)]
struct Known {
    dirs: HashMap<TreePath, Option<Arc<Merged>>>,
    open: usize,
}

/// The layers that have something to say about what is in a directory, topmost first; never empty but for the root of
/// an empty chain.
struct Merged {
    parts: Vec<Part>,
}

struct Part {
    layer: usize,
    /// The directory in a [`ChainLayer::Dir`], opened for reading; never read itself, since its position is shared.
    fd: Option<Arc<OwnedFd>>,
}

/// Where an entry was found.
enum Found<'a> {
    Dir { layer: &'a DirLayer, parent: Arc<OwnedFd>, meta: Metadata },
    Recipe { recipe: &'a Recipe, index: usize, meta: Metadata },
}

/// What one layer says about a name in a directory.
enum Probe {
    Nothing,
    Hidden,
    Directory { fd: Option<Arc<OwnedFd>>, opaque: bool },
}

impl ChainView {
    /// A view of `layers`, base first.
    pub fn new(mut layers: Vec<ChainLayer>) -> Self {
        layers.reverse();
        Self { layers, known: Mutex::default() }
    }

    /// The layers, base first.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = &ChainLayer> {
        self.layers.iter().rev()
    }

    fn root(&self) -> Arc<Merged> {
        let parts = self.layers.iter().enumerate().map(|(layer, which)| Part {
            layer,
            fd: match which {
                ChainLayer::Dir(dir) => Some(Arc::clone(dir.tree().root())),
                ChainLayer::Recipe(_) => None,
            },
        });
        Arc::new(Merged { parts: parts.collect() })
    }

    fn known(&self, path: &TreePath) -> Option<Option<Arc<Merged>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).dirs.get(path).cloned()
    }

    fn remember(&self, path: &TreePath, merged: Option<&Arc<Merged>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = merged.map_or(0, |m| m.parts.iter().filter(|part| part.fd.is_some()).count());
        if known.open + opened > MAX_OPEN || known.dirs.len() >= MAX_KNOWN {
            *known = Known::default();
        }
        known.open += opened;
        known.dirs.insert(path.clone(), merged.cloned());
    }

    /// The layers of the directory `path`; `None` if there is no such directory.
    fn merged(&self, path: &TreePath) -> io::Result<Option<Arc<Merged>>> {
        if path.is_root() {
            return Ok(Some(self.root()));
        }
        // From the nearest directory that is known, downwards.
        let mut missing = vec![path.clone()];
        let mut current = loop {
            let next = missing.last().expect("begins with one and only grows");
            if let Some(known) = self.known(next) {
                missing.pop();
                break known;
            }
            match next.parent() {
                Some(parent) if !parent.is_root() => missing.push(parent),
                _ => break Some(self.root()),
            }
        };
        while let (Some(dir), Some(next)) = (&current, missing.pop()) {
            let merged = self.descend(dir, &next).map_err(|e| PathError::wrap("open", &next, e))?;
            self.remember(&next, merged.as_ref());
            current = merged;
        }
        Ok(current)
    }

    /// The layers of the directory `path` in `dir`.
    fn descend(&self, dir: &Merged, path: &TreePath) -> rustix::io::Result<Option<Arc<Merged>>> {
        let name = path.file_name().unwrap_or_default();
        let mut parts = Vec::new();
        for part in &dir.parts {
            match self.probe(part, path, name)? {
                Probe::Nothing => {}
                Probe::Hidden => break,
                Probe::Directory { fd, opaque } => {
                    parts.push(Part { layer: part.layer, fd });
                    if opaque {
                        break;
                    }
                }
            }
        }
        Ok((!parts.is_empty()).then(|| Arc::new(Merged { parts })))
    }

    fn probe(&self, part: &Part, path: &TreePath, name: &OsStr) -> rustix::io::Result<Probe> {
        match (&self.layers[part.layer], &part.fd) {
            (ChainLayer::Recipe(recipe), _) => Ok(match recipe.find(path) {
                None => Probe::Nothing,
                Some(Slot::Node { meta, opaque, .. }) if meta.is_dir() => {
                    Probe::Directory { fd: None, opaque }
                }
                Some(_) => Probe::Hidden,
            }),
            (ChainLayer::Dir(_), Some(parent)) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(parent, name, flags, Mode::empty()) {
                    Ok(fd) => {
                        let opaque = is_opaque(&fd)?;
                        Ok(Probe::Directory { fd: Some(Arc::new(fd)), opaque })
                    }
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NAMETOOLONG) => Ok(Probe::Nothing),
                    Err(error) if is_absent(error) => Ok(Probe::Hidden),
                    Err(error) => Err(error),
                }
            }
            (ChainLayer::Dir(_), None) => Ok(Probe::Nothing),
        }
    }

    /// The topmost layer's entry at `path`, which is not the root.
    fn find(&self, path: &TreePath) -> io::Result<Option<Found<'_>>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let Some(dir) = self.merged(&parent)? else { return Ok(None) };
        for part in &dir.parts {
            match (&self.layers[part.layer], &part.fd) {
                (ChainLayer::Recipe(recipe), _) => match recipe.find(path) {
                    None => {}
                    Some(Slot::Whiteout) => return Ok(None),
                    Some(Slot::Node { index, meta, .. }) => {
                        let meta = recipe.metadata(index, meta);
                        return Ok(Some(Found::Recipe { recipe, index, meta }));
                    }
                },
                (ChainLayer::Dir(layer), Some(fd)) => {
                    match stat_at(fd, name).and_then(|stat| metadata_at(&**fd, name, &stat)) {
                        Ok(meta) if is_whiteout(&meta) => return Ok(None),
                        Ok(meta) => {
                            return Ok(Some(Found::Dir { layer, parent: Arc::clone(fd), meta }));
                        }
                        Err(error) if is_absent(error) => {}
                        Err(error) => return Err(PathError::wrap("stat", path, error)),
                    }
                }
                (ChainLayer::Dir(_), None) => {}
            }
        }
        Ok(None)
    }

    fn require_file(&self, action: &'static str, path: &TreePath) -> io::Result<Found<'_>> {
        match self.find(path)? {
            Some(found) if found.meta().kind == FileKind::Regular => Ok(found),
            Some(_) => Err(PathError::wrap(action, path, io::Error::other("not a regular file"))),
            None if path.is_root() => Err(PathError::wrap(action, path, io::ErrorKind::IsADirectory)),
            None => Err(PathError::wrap(action, path, io::ErrorKind::NotFound)),
        }
    }

    fn digest_with(&self, path: &TreePath, buffer: &mut Vec<u8>) -> io::Result<Digest> {
        match self.require_file("read", path)? {
            Found::Dir { parent, .. } => Ok(hash_file(&*parent, &last(path), buffer, |_| ())
                .map_err(|e| PathError::wrap("read", path, e))?
                .digest),
            Found::Recipe { recipe, index, .. } => {
                let data = recipe.data(index).ok_or(io::ErrorKind::NotFound)?;
                match data.digest {
                    Some(digest) => Ok(digest),
                    None => hash_source(&data.source, path, buffer),
                }
            }
        }
    }

    fn names(
        &self,
        dir: &TreePath,
        part: &Part,
        names: &mut HashMap<OsString, bool>,
    ) -> rustix::io::Result<()> {
        if let (ChainLayer::Recipe(recipe), _) = (&self.layers[part.layer], ()) {
            for (name, slot) in recipe.children(dir) {
                names.entry(name.to_os_string()).or_insert(matches!(slot, Slot::Node { .. }));
            }
        } else if let Some(fd) = &part.fd {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let own = openat(fd, ".", flags, Mode::empty())?;
            for (name, kind) in read_names(own)? {
                let seen = match kind {
                    FileType::CharacterDevice | FileType::Unknown => {
                        let stat = stat_at(fd, &name)?;
                        FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
                            || stat.st_rdev != 0
                    }
                    _ => true,
                };
                names.entry(name).or_insert(seen);
            }
        }
        Ok(())
    }

    /// What is below `dir` when a single directory on disk has it all.
    fn walk_alone(&self, dir: &TreePath, merged: &Merged) -> io::Result<Option<Vec<(TreePath, Metadata)>>> {
        let [part] = &merged.parts[..] else { return Ok(None) };
        let ChainLayer::Dir(layer) = &self.layers[part.layer] else { return Ok(None) };
        let mut found = layer.tree().walk(dir)?;
        found.retain(|(_, meta)| !is_whiteout(meta));
        Ok(Some(found))
    }
}

impl Found<'_> {
    fn meta(&self) -> &Metadata {
        match self {
            Self::Dir { meta, .. } | Self::Recipe { meta, .. } => meta,
        }
    }
}

/// The last component as a path of its own.
fn last(path: &TreePath) -> TreePath {
    path.file_name().map_or_else(TreePath::root, |name| TreePath::root().join(name))
}

impl Tree for ChainView {
    fn lstat(&self, path: &TreePath) -> io::Result<Option<Metadata>> {
        if !path.is_root() {
            return Ok(self.find(path)?.map(|found| found.meta().clone()));
        }
        for layer in &self.layers {
            match layer {
                ChainLayer::Dir(dir) => return Ok(Some(metadata_of_dir(dir.tree().root())?)),
                ChainLayer::Recipe(recipe) => {
                    if let Some(Slot::Node { meta, .. }) = recipe.find(path) {
                        return Ok(Some(meta.clone()));
                    }
                }
            }
        }
        Ok(Some(Metadata::directory(Timestamp::default())))
    }

    fn read_dir(&self, path: &TreePath) -> io::Result<Vec<OsString>> {
        let Some(dir) = self.merged(path)? else {
            let kind = match self.find(path)? {
                Some(_) => io::ErrorKind::NotADirectory,
                None => io::ErrorKind::NotFound,
            };
            return Err(PathError::wrap("list", path, kind));
        };
        let mut names = HashMap::new();
        for part in &dir.parts {
            self.names(path, part, &mut names).map_err(|e| PathError::wrap("list", path, e))?;
        }
        let mut names: Vec<OsString> =
            names.into_iter().filter(|(_, seen)| *seen).map(|(name, _)| name).collect();
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        Ok(names)
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        match self.require_file("open", path)? {
            Found::Dir { parent, .. } => {
                let fd = open_regular(&*parent, &last(path)).map_err(|e| PathError::wrap("open", path, e))?;
                Ok(File::from(fd))
            }
            Found::Recipe { recipe, index, .. } => {
                open_source(&recipe.data(index).ok_or(io::ErrorKind::NotFound)?.source, path)
            }
        }
    }

    fn digest(&self, path: &TreePath) -> io::Result<Digest> {
        self.digest_with(path, &mut Vec::new())
    }

    fn data_source(&self, path: &TreePath) -> io::Result<DataSource> {
        match self.require_file("open", path)? {
            Found::Dir { layer, .. } => layer.tree().data_source(path),
            Found::Recipe { recipe, index, .. } => {
                Ok(recipe.data(index).ok_or(io::ErrorKind::NotFound)?.source.clone())
            }
        }
    }

    /// Without a digest for files of directory layers: those are our own store.
    fn data_ref(&self, path: &TreePath, _: &Metadata) -> io::Result<DataRef> {
        match self.require_file("open", path)? {
            Found::Dir { layer, meta, .. } => {
                Ok(DataRef { size: meta.size, digest: None, source: layer.tree().data_source(path)? })
            }
            Found::Recipe { recipe, index, .. } => {
                Ok(recipe.data(index).ok_or(io::ErrorKind::NotFound)?.clone())
            }
        }
    }

    fn walk(&self, start: &TreePath) -> io::Result<Vec<(TreePath, Metadata)>> {
        walk_from(self, start, |dir| match self.merged(dir)? {
            Some(merged) => self.walk_alone(dir, &merged),
            None => Ok(None),
        })
    }

    fn digests(&self, files: &[(TreePath, Metadata)]) -> io::Result<Vec<Digest>> {
        files.par_iter().map_init(Vec::new, |buffer, (path, _)| self.digest_with(path, buffer)).collect()
    }
}
