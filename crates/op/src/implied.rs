//! Base images whose layers leave out the entries of directories that a layer below has.
//!
//! Such a layer's directory form has these directories with mode 0755 and root as owner, and is shared by all images that
//! have the layer. Where the layers below say otherwise (`/tmp` is 1777), the image gets a directory form of its own, named by
//! the layer and what is different.

use crate::bridge::blocking;
use crate::engine::Engine;
use crate::layer::{Layer, Root};
use rbuild_oci::Digest;
use rbuild_snapshot::{ChainLayer, ChainView, DirLayer, Recipe};
use rbuild_solver::{OpError, StepContext};
use rbuild_tree::{Metadata, TreePath};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a layer's files are.
#[derive(Clone)]
pub(crate) enum Place {
    Dir(PathBuf),
    Recipe(Arc<Recipe>),
}

impl Place {
    pub(crate) fn open(self) -> Result<ChainLayer, OpError> {
        match self {
            Self::Dir(dir) => Ok(ChainLayer::Dir(Arc::new(DirLayer::open(dir)?))),
            Self::Recipe(recipe) => Ok(ChainLayer::Recipe(recipe)),
        }
    }

    pub(crate) fn dir(self) -> Result<PathBuf, OpError> {
        match self {
            Self::Dir(dir) => Ok(dir),
            Self::Recipe(_) => Err("internal error: a layer has no directory".into()),
        }
    }
}

/// The note beside a layer's directory: the paths that are only implied, each ended by NUL.
pub(crate) fn to_note(implied: &[TreePath]) -> Vec<u8> {
    implied.iter().flat_map(|path| path.as_bytes().iter().copied().chain([0])).collect()
}

fn from_note(note: &[u8]) -> Arc<[TreePath]> {
    let paths = note.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    paths.filter_map(|path| TreePath::clamped(path).ok()).collect()
}

impl Engine {
    /// The places of a root's layers, base first, each so that what it only implies keeps the metadata from below.
    pub(crate) async fn fitted(
        self: &Arc<Self>,
        root: &Root,
        mut places: Vec<Place>,
        step: &StepContext,
    ) -> Result<Vec<Place>, OpError> {
        for (at, layer) in root.layers.iter().enumerate().skip(1) {
            let Place::Dir(dir) = &places[at] else { continue };
            let implied = self.implied_of(layer).await?;
            if !implied.is_empty() {
                let dir = self.fit(layer, dir.clone(), implied, places[..at].to_vec(), step).await?;
                places[at] = Place::Dir(dir);
            }
        }
        Ok(places)
    }

    async fn implied_of(&self, layer: &Layer) -> Result<Arc<[TreePath]>, OpError> {
        if !layer.is_pulled() {
            return Ok(Arc::default());
        }
        let read = || async { Ok::<_, OpError>(from_note(&self.store.layer_note(&layer.id)?)) };
        layer.implied.get_or_try_init(read).await.cloned()
    }

    async fn fit(
        self: &Arc<Self>,
        layer: &Arc<Layer>,
        dir: PathBuf,
        implied: Arc<[TreePath]>,
        below: Vec<Place>,
        step: &StepContext,
    ) -> Result<PathBuf, OpError> {
        let shared = dir.clone();
        let changed = blocking(move || differences(&shared, &implied, below)).await?;
        if changed.is_empty() {
            return Ok(dir);
        }
        let id = variant(layer, &changed);
        let key = Digest::of([b"unpack\n", &id.as_bytes()[..]].concat());
        let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
        match self.store.layer_dir(&id)? {
            Some(dir) => Ok(dir),
            None => self.unpack_as(layer, id, changed, step).await,
        }
    }
}

/// Which implied directories have to become what.
fn differences(
    dir: &Path,
    implied: &[TreePath],
    below: Vec<Place>,
) -> Result<Vec<(TreePath, Metadata)>, OpError> {
    let below = below.into_iter().map(Place::open).collect::<Result<Vec<_>, OpError>>()?;
    Ok(rbuild_snapshot::implied_metadata(&DirLayer::open(dir)?, implied, &ChainView::new(below))?)
}

/// Names a layer with other metadata of some of its directories.
fn variant(layer: &Layer, directories: &[(TreePath, Metadata)]) -> Digest {
    let mut text = format!("rbuild.layer-variant.v1\n{}\n", layer.id).into_bytes();
    for (path, meta) in directories {
        let time = meta.mtime;
        let header = format!("{:o} {} {} {}.{} ", meta.mode, meta.uid, meta.gid, time.seconds, time.nanos);
        text.extend_from_slice(header.as_bytes());
        text.extend_from_slice(path.as_bytes());
        text.push(0);
    }
    Digest::of(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_gives_back_its_paths() {
        let path = |text: &str| TreePath::clamped(text).expect("no NUL");
        for paths in [vec![], vec![path("a")], vec![path("a/b"), path("line\nbreak"), path("\u{e4}")]] {
            assert_eq!(&from_note(&to_note(&paths))[..], paths);
        }
    }
}
