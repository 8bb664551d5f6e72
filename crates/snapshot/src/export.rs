//! A whole tree as entries, and into a directory of the user.

use crate::SnapshotError;
use crate::write::{Style, write_entries};
use rayon::prelude::*;
use rbuild_tree::{FileKind, LayerEntry, LayerEntryKind, Timestamp, Tree, TreePath};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// Everything in `view`, for an archive of the whole file system (`-o type=tar`): nodes only, without the root and
/// sockets; further names of a file are hard links to the first one in path order.
pub fn tree_entries(view: &dyn Tree) -> io::Result<Vec<LayerEntry>> {
    let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
    let mut walked = Vec::new();
    for (path, meta) in view.walk(&TreePath::root())? {
        if meta.kind == FileKind::Socket {
            continue;
        }
        let hard_link_to = meta.hard_link.and_then(|inode| first_names.get(&inode).cloned());
        if let (Some(inode), None) = (meta.hard_link, &hard_link_to) {
            first_names.insert(inode, path.clone());
        }
        walked.push((path, meta, hard_link_to));
    }
    walked
        .into_par_iter()
        .map(|(path, meta, hard_link_to)| {
            let data = match meta.kind == FileKind::Regular && hard_link_to.is_none() {
                true => Some(view.data_ref(&path, &meta)?),
                false => None,
            };
            Ok(LayerEntry { path, kind: LayerEntryKind::Node { meta, data, hard_link_to } })
        })
        .collect()
}

/// Writes everything in `view` into the directory `dest`, which exists (`-o type=local`). Files belong to the caller;
/// modes, times, symlinks, hard links and devices are kept. What is in `dest` under the same names is replaced, what
/// is there besides stays, and no symlink in `dest` is followed: one in the place of a directory is replaced by it.
///
/// Times later than `epoch` (seconds since 1970) become `epoch`, as they do in an archive (D-025).
pub fn export_tree(view: &dyn Tree, dest: impl AsRef<Path>, epoch: Option<i64>) -> Result<(), SnapshotError> {
    let mut entries = tree_entries(view)?;
    if let Some(seconds) = epoch {
        let latest = Timestamp { seconds, nanos: 0 };
        for entry in &mut entries {
            if let LayerEntryKind::Node { meta, .. } = &mut entry.kind {
                meta.mtime = meta.mtime.min(latest);
            }
        }
    }
    write_entries(&entries, dest.as_ref(), Style::Export)
}
