//! Tables over trees in memory. The numbers are those of the specification.

mod archive;
mod chmod;
mod context;
mod key;
mod place;
mod properties;
mod select;

use crate::*;
use rbuild_tree::{
    DataSource, FileKind, LayerEntry, LayerEntryKind, MemTree, Timestamp, Tree, TreePath, Xattrs,
};

pub(crate) const NOW: Timestamp = Timestamp { seconds: 1000, nanos: 0 };

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::clamped(text).unwrap()
}

/// Selects like COPY from a build context: owner 0:0.
pub(crate) fn context_of(tree: &MemTree, source: &str) -> Selection {
    let options = SelectOptions { ownership: Ownership::Set(0, 0), local: true, ..SelectOptions::default() };
    select(tree, source, &options).unwrap()
}

/// What a selection copies, one line each: path and, for files, what they are.
pub(crate) fn listed(selection: &Selection) -> Vec<String> {
    let entries = selection.roots.iter().flat_map(|root| &root.entries);
    entries.map(|entry| format!("{}{}", entry.dest, if entry.implied { " implied" } else { "" })).collect()
}

pub(crate) fn options() -> PlaceOptions {
    PlaceOptions { created_time: NOW, ..PlaceOptions::default() }
}

/// Copies `sources` to `dest` and checks that the layer is well formed.
pub(crate) fn copy(
    source: &MemTree,
    sources: &[&str],
    dest: &str,
    tree: &MemTree,
    options: &PlaceOptions,
) -> Result<Vec<LayerEntry>, CopyError> {
    let selections: Vec<_> = sources.iter().map(|one| context_of(source, one)).collect();
    let layer = place(&selections, dest, tree, options)?;
    check_layer(&layer, (!options.link).then_some(tree));
    Ok(layer)
}

/// Sorted, each path once, every directory before what it holds, hard links after what they link to.
pub(crate) fn check_layer(layer: &[LayerEntry], lower: Option<&MemTree>) {
    let nodes: Vec<_> = layer.iter().filter(|e| matches!(e.kind, LayerEntryKind::Node { .. })).collect();
    assert!(nodes.windows(2).all(|pair| pair[0].path < pair[1].path), "{}", shown(layer).join("\n"));
    let mut seen = std::collections::BTreeMap::new();
    for entry in layer {
        if let LayerEntryKind::Node { meta, data, hard_link_to } = &entry.kind {
            assert!(!entry.path.is_root() && meta.hard_link.is_none());
            for parent in entry.path.ancestors() {
                assert_eq!(seen.get(&parent), Some(&FileKind::Directory), "{parent} of {}", entry.path);
            }
            let regular = meta.kind == FileKind::Regular;
            assert_eq!(data.is_some(), regular && hard_link_to.is_none(), "{}", entry.path);
            if let Some(first) = hard_link_to {
                assert_eq!(seen.get(first), Some(&meta.kind));
            }
            seen.insert(entry.path.clone(), meta.kind);
        }
    }
    if let Some(lower) = lower {
        lower.clone().apply(layer);
    }
}

/// One line for each entry: type, mode, owner, time, path and content.
pub(crate) fn shown(layer: &[LayerEntry]) -> Vec<String> {
    layer.iter().map(show).collect()
}

fn show(entry: &LayerEntry) -> String {
    let LayerEntryKind::Node { meta, data, hard_link_to } = &entry.kind else {
        let what = if matches!(entry.kind, LayerEntryKind::Opaque) { "opaque" } else { "whiteout" };
        return format!("{what} {}", entry.path);
    };
    let kind = match meta.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Socket => 's',
    };
    let rest = match (data, hard_link_to) {
        (_, Some(first)) => format!(" == {first}"),
        (Some(data), _) => match &data.source {
            DataSource::Inline(bytes) => format!(" {:?}", String::from_utf8_lossy(bytes)),
            _ => String::new(),
        },
        _ if meta.kind == FileKind::Symlink => format!(" -> {}", String::from_utf8_lossy(&meta.link_target)),
        _ => String::new(),
    };
    let Timestamp { seconds, .. } = meta.mtime;
    format!("{kind}{:o} {}:{} {seconds} {}{rest}", meta.mode, meta.uid, meta.gid, entry.path)
}

/// The paths of a tree after a layer.
pub(crate) fn after(tree: &MemTree, layer: &[LayerEntry]) -> MemTree {
    let mut tree = tree.clone();
    tree.apply(layer);
    tree
}

pub(crate) fn paths(tree: &dyn Tree) -> Vec<String> {
    tree.walk(&TreePath::root()).unwrap().into_iter().map(|(path, _)| path.to_string()).collect()
}

///
#[test]
fn workdir_makes_what_is_missing() {
    let tree = MemTree::new().dir("srv").mode(0o700).owner(5, 5).symlink("link", "/srv").file("file", "");
    let made = mkdir_entries(&tree, "/link/a/b", Some((7, 8)), NOW).unwrap();
    assert_eq!(shown(&made), ["d700 5:5 0 /srv", "d755 7:8 1000 /srv/a", "d755 7:8 1000 /srv/a/b"]);
    for existing in ["/", "/srv", "/link", "link/"] {
        assert!(mkdir_entries(&tree, existing, Some((7, 8)), NOW).unwrap().is_empty(), "{existing}");
    }
    let made = mkdir_entries(&tree, "/a", None, NOW).unwrap();
    assert_eq!(shown(&made), ["d755 0:0 1000 /a"]);
    let error = mkdir_entries(&tree, "/file/x", None, NOW).unwrap_err();
    assert_eq!(error.to_string(), "mkdir /file: not a directory");
}
