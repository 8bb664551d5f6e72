//! Chains of more layers than overlayfs takes: the lowest become one directory.

use crate::bridge::blocking;
use crate::engine::Engine;
use crate::implied::Place;
use crate::layer::{Layer, row_of_new_dir};
use rbuild_oci::Digest;
use rbuild_snapshot::{ChainView, Recipe, tree_entries};
use rbuild_solver::{OpError, StepContext};
use std::path::PathBuf;
use std::sync::Arc;

/// Longest chain that is mounted as it is; overlayfs takes 500 directories.
const MAX_DIRS: usize = 450;
/// The lowest layers are put together by multiples of so many, so that all steps of a chain share what was made.
const BLOCK: usize = 400;

/// How many of the lowest layers have to become one.
fn flattened(layers: usize) -> usize {
    if layers <= MAX_DIRS { 0 } else { layers / BLOCK * BLOCK }
}

impl Engine {
    /// The directories of a chain's layers, few enough to be mounted. What the lowest layers make together is kept in the
    /// store, named by their directories.
    pub(crate) async fn mountable(
        self: &Arc<Self>,
        layers: &[Arc<Layer>],
        dirs: Vec<PathBuf>,
        step: &StepContext,
    ) -> Result<Vec<PathBuf>, OpError> {
        let count = flattened(dirs.len());
        if count == 0 {
            return Ok(dirs);
        }
        let id = name(&dirs[..count]);
        let flat = match self.store.layer_dir(&id)? {
            Some(dir) => dir,
            None => {
                let key = Digest::of([b"unpack\n", &id.as_bytes()[..]].concat());
                let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
                match self.store.layer_dir(&id)? {
                    Some(dir) => dir,
                    None => {
                        step.note(format!("the lowest {count} of {} layers are put together", layers.len()));
                        self.flatten(id, dirs[..count].to_vec()).await?
                    }
                }
            }
        };
        Ok(std::iter::once(flat).chain(dirs.into_iter().skip(count)).collect())
    }

    async fn flatten(&self, id: Digest, dirs: Vec<PathBuf>) -> Result<PathBuf, OpError> {
        let store = self.store.clone();
        blocking(move || -> Result<PathBuf, OpError> {
            let places =
                dirs.into_iter().map(|dir| Place::Dir(dir).open()).collect::<Result<Vec<_>, OpError>>()?;
            let recipe = Recipe::new(tree_entries(&ChainView::new(places))?)?;
            let ingest = store.new_layer_dir()?;
            rbuild_snapshot::materialize(&recipe, &ingest.upper)?;
            let dir = store.commit_layer_dir(ingest, &id)?;
            store.put_layer(row_of_new_dir(id))?;
            Ok(dir)
        })
        .await
    }
}

/// Names what some directories of the store make together. A directory's name says which layer it is, with which metadata
/// of implied directories.
fn name(dirs: &[PathBuf]) -> Digest {
    let mut text = b"rbuild.flat.v1\n".to_vec();
    for dir in dirs {
        text.extend_from_slice(dir.as_os_str().as_encoded_bytes());
        text.push(0);
    }
    Digest::of(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_stay_below_the_limit_and_share_what_is_below() {
        for layers in 0..5000 {
            let count = flattened(layers);
            let dirs = layers - count + usize::from(count > 0);
            assert!(count <= layers && dirs <= MAX_DIRS, "{layers}: {dirs}");
        }
        assert_eq!([450, 451, 799, 800, 1199].map(flattened), [0, 400, 400, 800, 800]);
    }

    #[test]
    fn names_differ_by_what_is_in_them_and_its_order() {
        let name = |dirs: &[&str]| name(&dirs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_ne!(name(&["/a", "/b"]), name(&["/b", "/a"]));
        assert_ne!(name(&["/a", "/b"]), name(&["/a"]));
        assert_eq!(name(&["/a", "/b"]), name(&["/a", "/b"]));
    }
}
