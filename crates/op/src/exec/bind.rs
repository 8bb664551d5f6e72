//! Parts of trees as sources of bind mounts.

use crate::bridge::blocking;
use crate::engine::{Engine, locked};
use crate::error::OpFailure;
use rbuild_copy::{CopyError, KeyEntry, KeyKind, SelectOptions, Selected, Selection};
use rbuild_oci::Digest;
use rbuild_snapshot::Recipe;
use rbuild_solver::{KeyDetail, OpError, StepContext};
use rbuild_store::LayerId;
use rbuild_tree::{LayerEntry, LayerEntryKind, Metadata, Tree, TreePath, resolve};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Name of the file or directory in the directory that is made of it: so its own mode and owner are kept, also below an
/// overlay.
pub(super) const NAME: &str = "source";

/// Filled when the first step of a build looks at that part.
pub(crate) type BoundCell = Arc<OnceCell<Arc<Bound>>>;

/// A file or directory of a tree, with all that is in it.
#[derive(Debug)]
pub(crate) struct Bound {
    selection: Selection,
    /// Of the directory itself; `None` for a file, which is among the selected.
    directory: Option<Metadata>,
    /// Of content, but for times.
    digest: Digest,
}

impl Bound {
    /// What `path` means in `tree`, symlinks followed inside the tree. Wildcards mean themselves.
    pub(super) fn select(tree: &dyn Tree, path: &str, options: &SelectOptions<'_>) -> Result<Self, OpError> {
        let at = TreePath::clamped(path).map_err(|error| OpFailure::MountSource(error.to_string()))?;
        let found = resolve(tree, &at, true)?;
        let failed = |error: CopyError| OpError::from(OpFailure::MountSource(error.to_string()));
        // What is missing is asked for as it is written, for the sake of the message.
        let literal = match &found.meta {
            Some(_) => escaped(&String::from_utf8_lossy(found.path.as_bytes())),
            None => escaped(path),
        };
        let selection = rbuild_copy::select(tree, &literal, options);
        let selection = selection.map_err(failed)?;
        let directory = found.meta.filter(Metadata::is_dir);
        let empty = selection.roots.iter().all(|root| root.entries.is_empty());
        if empty && directory.is_none() {
            return Err(OpFailure::MountSource(format!("\"{at}\": not found")).into());
        }
        let selected = rbuild_copy::selection_digest(std::slice::from_ref(&selection));
        let mode = directory.as_ref().map(|meta| (meta.mode, meta.uid, meta.gid));
        let digest = Digest::of(format!("rbuild.bound.v1\n{selected}\n{mode:?}"));
        Ok(Self { selection, directory, digest })
    }

    /// Of content, but for times.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    fn entries(&self) -> impl Iterator<Item = &Selected> {
        self.selection.roots.iter().flat_map(|root| &root.entries)
    }

    /// Names a directory with this content: times count here, since what runs on it may compare them with those of a
    /// cache mount.
    fn id(&self) -> LayerId {
        let mut text = format!("rbuild.bind.v1\n{}\n", self.digest);
        for meta in self.directory.iter().chain(self.entries().map(|entry| &entry.meta)) {
            text.push_str(&format!("{}.{}\n", meta.mtime.seconds, meta.mtime.nanos));
        }
        Digest::of(text)
    }

    /// Everything, as [`NAME`] in an otherwise empty directory.
    pub(super) fn recipe(&self) -> Result<Recipe, OpError> {
        let top = TreePath::root().join(NAME);
        let mut entries = Vec::new();
        if let Some(meta) = &self.directory {
            let kind = LayerEntryKind::Node { meta: meta.clone(), data: None, hard_link_to: None };
            entries.push(LayerEntry { path: top.clone(), kind });
        }
        for entry in self.entries() {
            let hard_link_to = entry.hard_link_to.as_ref().map(|to| top.join_path(to));
            let data = entry.data.clone().filter(|_| hard_link_to.is_none());
            let kind = LayerEntryKind::Node { meta: entry.meta.clone(), data, hard_link_to };
            entries.push(LayerEntry { path: top.join_path(&entry.dest), kind });
        }
        Ok(Recipe::new(entries)?)
    }
}

/// What the key of a step that mounts it is made of.
pub(super) fn detail(bound: &Arc<Bound>) -> KeyDetail {
    let listed = Arc::clone(bound);
    let write = move |out: &mut dyn Write| {
        let top = listed.directory.as_ref().map(top_entry);
        let roots = listed.selection.roots.iter();
        let entries =
            roots.flat_map(|root| root.entries.iter().map(|entry| rbuild_copy::key_entry(root, entry)));
        rbuild_copy::write_entries(top.into_iter().chain(entries), out)
    };
    KeyDetail { digest: bound.digest(), write: Arc::new(write) }
}

/// The directory itself.
fn top_entry(meta: &Metadata) -> KeyEntry {
    let (mode, uid, gid) = (meta.mode, meta.uid, meta.gid);
    KeyEntry {
        path: ".".into(),
        kind: KeyKind::Dir,
        mode,
        uid,
        gid,
        data: None,
        link: None,
        rdev: None,
        xattrs: None,
    }
}

/// The path as a pattern that matches nothing else.
fn escaped(path: &str) -> String {
    if !rbuild_context::glob::has_wildcards(path) && !path.contains('\\') {
        return path.to_owned();
    }
    let mut out = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Engine {
    /// A part of a local context, looked at once in a build: every step sees the same.
    pub(super) async fn bound_context(
        self: &Arc<Self>,
        name: &str,
        path: &str,
    ) -> Result<Arc<Bound>, OpError> {
        let key = (name.to_owned(), path.to_owned());
        let cell: BoundCell = Arc::clone(locked(&self.bound).entry(key).or_default());
        let bound = cell.get_or_try_init(|| async {
            let (engine, name, path) = (Arc::clone(self), name.to_owned(), path.to_owned());
            blocking(move || -> Result<Arc<Bound>, OpError> {
                let context = engine.settings.contexts.get(&name);
                let context = context.ok_or_else(|| format!("internal error: no build context `{name}`"))?;
                let excluded_by = |path: &TreePath| context.excluded_by(path);
                let options = SelectOptions {
                    ownership: match context.archive {
                        true => rbuild_copy::Ownership::Keep,
                        false => rbuild_copy::Ownership::Set(0, 0),
                    },
                    local: !context.archive,
                    excluded_by: Some(&excluded_by),
                    ..SelectOptions::default()
                };
                Ok(Arc::new(Bound::select(&*context.tree, &path, &options)?))
            })
            .await
        });
        bound.await.cloned()
    }

    /// The directory in the store that holds the bound file or directory as [`NAME`]. Its bytes are those of the digest:
    /// a context that changed since then is an error.
    pub(super) async fn bound_dir(&self, bound: &Arc<Bound>, step: &StepContext) -> Result<PathBuf, OpError> {
        let (id, bound, store) = (bound.id(), Arc::clone(bound), self.store.clone());
        let key = Digest::of([b"bind\n", &id.as_bytes()[..]].concat());
        let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
        blocking(move || -> Result<PathBuf, OpError> {
            if let Some(dir) = store.layer_dir(&id)? {
                return Ok(dir);
            }
            let ingest = store.new_layer_dir()?;
            rbuild_snapshot::materialize(&bound.recipe()?, &ingest.upper)?;
            Ok(store.commit_layer_dir(ingest, &id)?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_tree::MemTree;

    fn bound(tree: &MemTree, path: &str) -> Result<Bound, String> {
        Bound::select(tree, path, &SelectOptions::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_084_sources_resolve_inside_and_wildcards_mean_themselves() {
        let tree = MemTree::new()
            .file("dir/file", "x")
            .file("a*b", "star")
            .file("axb", "x")
            .symlink("up", "../../dir")
            .symlink("abs", "/dir/file")
            .symlink("gone", "/nowhere");
        for (path, expected) in [
            ("/dir", Ok("/source,/source/file")),
            ("/up", Ok("/source,/source/file")),
            ("/abs", Ok("/source")),
            ("/a*b", Ok("/source")),
            ("/dir/../dir/file", Ok("/source")),
            ("/gone", Err("not found")),
            ("/none", Err("not found")),
            ("/a?b", Err("not found")),
        ] {
            let names = bound(&tree, path).map(|bound| {
                let recipe = bound.recipe().unwrap();
                let names: Vec<String> =
                    recipe.entries().iter().map(|entry| entry.path.to_string()).collect();
                names.join(",")
            });
            match (names, expected) {
                (Ok(names), Ok(expected)) => assert_eq!(names, expected, "{path}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{path}: {error}"),
                (got, _) => panic!("{path}: {got:?}"),
            }
        }
        assert_ne!(bound(&tree, "/a*b").unwrap().digest(), bound(&tree, "/axb").unwrap().digest());
    }
}
