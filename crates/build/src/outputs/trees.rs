//! Root filesystems, in a directory or a tar (D-025, D-026).

use super::{Finished, on_thread, to_file};
use crate::error::BuildError;
use crate::request::Destination;
use rbuild_export::ExportError;
use rbuild_layer::{Compression, PackOptions};
use rbuild_oci::Platform;
use rbuild_snapshot::ChainView;
use rbuild_solver::{OpError, StepContext};
use rbuild_tree::{LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// A tree to write.
struct Part {
    /// As in messages: `linux/arm64`.
    platform: String,
    /// Where it goes below the destination: `linux_arm64`, or nothing if trees are not split.
    dir: Option<String>,
    view: Arc<ChainView>,
}

/// All trees of the build.
async fn parts(
    build: &Finished<'_>,
    split: Option<bool>,
    step: &StepContext,
) -> Result<Vec<Part>, BuildError> {
    let split = split.unwrap_or(build.is_index);
    let mut parts = Vec::new();
    for (platform, root) in &build.trees {
        let view = build.engine.view(*root, step).await.map_err(BuildError::Export)?;
        let dir = split.then(|| directory(platform));
        parts.push(Part { platform: platform.to_string(), dir, view });
    }
    Ok(parts)
}

/// `linux_arm_v7`
fn directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// Writes the trees into a directory, which may hold something else already.
pub(super) async fn write_local(
    build: &Finished<'_>,
    dir: &Path,
    split: Option<bool>,
    step: &StepContext,
) -> Result<(), BuildError> {
    let parts = parts(build, split, step).await?;
    let created =
        |dir: &Path| std::fs::create_dir_all(dir).map_err(|source| failed("cannot create", dir, source));
    created(dir)?;
    let (dir, epoch) = (dir.to_owned(), build.epoch);
    let mut places = Vec::new();
    for part in parts {
        let place = part.dir.as_ref().map_or_else(|| dir.clone(), |name| dir.join(name));
        if part.dir.is_some() && place.is_symlink() {
            // As everywhere below the destination, a link is replaced and not followed.
            std::fs::remove_file(&place).map_err(|source| failed("cannot replace", &place, source))?;
        }
        created(&place)?;
        places.push((part, place));
    }
    on_thread(move || {
        let mut seen = Seen::default();
        for (part, _) in places.iter().filter(|(part, _)| part.dir.is_none() && places.len() > 1) {
            seen.add_all(part, &rbuild_snapshot::tree_entries(&*part.view)?)?;
        }
        for (part, place) in &places {
            rbuild_snapshot::export_tree(&*part.view, place, epoch)?;
            let time = epoch.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
            if let Some(time) = time.filter(|_| part.dir.is_some()) {
                std::fs::File::open(place)?.set_modified(UNIX_EPOCH + time)?;
            }
        }
        Ok(())
    })
    .await
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> BuildError {
    BuildError::Io { action, path: path.display().to_string(), source }
}

/// Writes the trees as one tar.
pub(super) async fn write_tar(
    build: &Finished<'_>,
    dest: &Destination,
    split: Option<bool>,
    step: &StepContext,
) -> Result<(), BuildError> {
    let parts = parts(build, split, step).await?;
    let epoch = build.epoch;
    let options = PackOptions { compression: Compression::None, epoch, ..PackOptions::default() };
    let dest = dest.clone();
    on_thread(move || {
        let mut entries = Vec::new();
        let mut seen = Seen::default();
        for part in &parts {
            let own = rbuild_snapshot::tree_entries(&*part.view)?;
            match &part.dir {
                Some(dir) => entries.extend(below(dir, own, epoch)?),
                None if parts.len() == 1 => entries = own,
                None => {
                    let is_new = seen.add_all(part, &own)?;
                    entries.extend(
                        own.into_iter().zip(is_new).filter(|(_, is_new)| *is_new).map(|(entry, _)| entry),
                    );
                }
            }
        }
        // An archive is in the order of paths, and requests are not.
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        to_file(&dest, |mut file| {
            rbuild_layer::pack_slice(&entries, &options, &mut file)?;
            Ok(file)
        })
    })
    .await
}

/// The entries in a directory of their own, which comes first.
fn below(dir: &str, entries: Vec<LayerEntry>, epoch: Option<i64>) -> Result<Vec<LayerEntry>, OpError> {
    let top = TreePath::clamped(dir)?;
    let meta = Metadata::directory(Timestamp { seconds: epoch.unwrap_or(0), nanos: 0 });
    let kind = LayerEntryKind::Node { meta, data: None, hard_link_to: None };
    let first = LayerEntry { path: top.clone(), kind };
    let moved = entries.into_iter().map(|mut entry| {
        entry.path = top.join_path(&entry.path);
        if let LayerEntryKind::Node { hard_link_to: Some(link), .. } = &mut entry.kind {
            *link = top.join_path(link);
        }
        entry
    });
    Ok(std::iter::once(first).chain(moved).collect())
}

/// What trees that share a directory have put there: whether it is a directory, and by whom.
#[derive(Default)]
struct Seen(HashMap<TreePath, (bool, String)>);

impl Seen {
    /// Whether each entry is the first at its path. Only directories may be in several trees.
    fn add_all(&mut self, part: &Part, entries: &[LayerEntry]) -> Result<Vec<bool>, OpError> {
        let mut is_new = Vec::with_capacity(entries.len());
        for entry in entries {
            let is_dir = matches!(
                &entry.kind,
                LayerEntryKind::Node { meta, .. } if meta.kind == rbuild_tree::FileKind::Directory
            );
            match self.0.get(&entry.path) {
                Some((true, _)) if is_dir => is_new.push(false),
                Some((_, first)) => {
                    let path = entry.path.as_path().to_owned();
                    let (first, second) = (first.clone(), part.platform.clone());
                    return Err(ExportError::Overwrite { path, first, second }.into());
                }
                None => {
                    self.0.insert(entry.path.clone(), (is_dir, part.platform.clone()));
                    is_new.push(true);
                }
            }
        }
        Ok(is_new)
    }
}
