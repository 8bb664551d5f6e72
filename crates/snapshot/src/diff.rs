//! What an upper directory changes in the tree below it.

use crate::DirLayer;
use crate::layer::{is_opaque, is_whiteout};
use rayon::prelude::*;
use rbuild_tree::{
    All, DataRef, FileKind, LayerEntry, LayerEntryKind, Metadata, PathError, Tree, TreePath, Walked,
};
use std::collections::HashMap;
use std::io::{self, Read};

/// What is to be done with an entry of the upper directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Same as below: only part of the layer as the parent of something that is not.
    Same,
    Node,
    /// A directory that also hides what is below.
    Opaque,
    Whiteout,
    /// Not part of any layer.
    Nothing,
}

/// A directory on the way to the entry being looked at.
struct Open<'a> {
    path: &'a TreePath,
    index: usize,
    /// Whether the tree below still shows through in this directory.
    merged: bool,
}

/// The entries of the layer that `upper` is over the tree `lower`, as B-016 and B-017 want them: what was changed or
/// added with all its parents, and whiteouts for what was removed. An entry that was copied up but is as before
/// (containerd's rule: same mode, owner, device and capability; unless a directory, same size and modification time,
/// or content where times have no nanoseconds) is left out, also where a new name was linked to it: that is a file of its
/// own then, as in BuildKit's layers. Sockets are skipped. The root is never an entry.
///
/// File data stays in `upper`, referred to without digest.
pub fn diff_upper(upper: &DirLayer, lower: &dyn Tree) -> io::Result<Vec<LayerEntry>> {
    let walked = upper.tree().walk_select(&TreePath::root(), &All)?;
    let mut changes = changes(upper, lower, &walked)?;
    keep_parents(&walked, &mut changes);
    entries(upper, walked, &changes)
}

/// Compares each entry with what is below.
fn changes(upper: &DirLayer, lower: &dyn Tree, walked: &[Walked]) -> io::Result<Vec<Change>> {
    let mut merged_parent = vec![true; walked.len()];
    let mut opaque = vec![false; walked.len()];
    let mut open: Vec<Open<'_>> = Vec::new();
    // Directories first, in order: below one that is new or opaque nothing has to be looked up.
    for (index, entry) in walked.iter().enumerate() {
        while open.last().is_some_and(|dir| entry.path.strip_prefix(dir.path).is_none()) {
            open.pop();
        }
        let merged = open.last().is_none_or(|dir| dir.merged);
        debug_assert!(open.last().is_none_or(|dir| dir.index < index));
        merged_parent[index] = merged;
        if entry.meta.is_dir() {
            let dir = upper.tree().open_dir(&entry.path)?;
            opaque[index] = is_opaque(dir).map_err(|e| PathError::wrap("read", &entry.path, e))?;
            let shows = merged && !opaque[index] && lower.lstat(&entry.path)?.is_some_and(|m| m.is_dir());
            open.push(Open { path: &entry.path, index, merged: shows });
        }
    }
    walked
        .par_iter()
        // What a typical RUN leaves is compared sooner than a second thread wakes up.
        .with_min_len(64)
        .enumerate()
        .map(|(index, entry)| {
            let below = match merged_parent[index] {
                true => lower.lstat(&entry.path)?,
                false => None,
            };
            change(upper, lower, entry, below, opaque[index])
        })
        .collect()
}

fn change(
    upper: &DirLayer,
    lower: &dyn Tree,
    entry: &Walked,
    below: Option<Metadata>,
    opaque: bool,
) -> io::Result<Change> {
    let Walked { path, meta, .. } = entry;
    // What cannot be in a layer still hides what was there.
    if is_whiteout(meta) || meta.kind == FileKind::Socket {
        return Ok(if below.is_some() { Change::Whiteout } else { Change::Nothing });
    }
    let Some(below) = below else { return Ok(Change::Node) };
    if opaque && below.is_dir() {
        return Ok(Change::Opaque);
    }
    Ok(match same(upper, lower, path, meta, &below)? {
        true => Change::Same,
        false => Change::Node,
    })
}

fn same(upper: &DirLayer, lower: &dyn Tree, path: &TreePath, a: &Metadata, b: &Metadata) -> io::Result<bool> {
    let inode = |m: &Metadata| (m.kind, m.mode, m.uid, m.gid, m.rdev);
    if inode(a) != inode(b) || a.xattrs != b.xattrs {
        return Ok(false);
    }
    if a.is_dir() {
        return Ok(true);
    }
    if a.size != b.size || a.mtime != b.mtime || a.link_target != b.link_target {
        return Ok(false);
    }
    // Times without nanoseconds come from an archive: they prove nothing.
    if a.kind == FileKind::Regular && a.mtime.nanos == 0 && a.size > 0 {
        return same_bytes(&mut upper.tree().open(path)?, &mut lower.open(path)?)
            .map_err(|e| PathError::wrap("compare", path, e));
    }
    Ok(true)
}

fn same_bytes(a: &mut impl Read, b: &mut impl Read) -> io::Result<bool> {
    const CHUNK: usize = 64 * 1024;
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let n = fill(a, &mut left)?;
        if n != fill(b, &mut right)? || left[..n] != right[..n] {
            return Ok(false);
        }
        if n < CHUNK {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the end.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Emits the parents of all that is emitted.
fn keep_parents(walked: &[Walked], changes: &mut [Change]) {
    let mut needed: Option<TreePath> = None;
    // Backwards, a directory comes right after what it holds.
    for (entry, change) in walked.iter().zip(changes).rev() {
        if *change == Change::Same && needed.as_ref() == Some(&entry.path) {
            *change = Change::Node;
        }
        match *change {
            Change::Node | Change::Opaque | Change::Whiteout => needed = entry.path.parent(),
            // A directory that was passed by does not end the need of one further up.
            Change::Same | Change::Nothing => {}
        }
    }
}

fn entries(upper: &DirLayer, walked: Vec<Walked>, changes: &[Change]) -> io::Result<Vec<LayerEntry>> {
    let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
    let mut out = Vec::new();
    for (Walked { path, meta, .. }, change) in walked.into_iter().zip(changes) {
        match change {
            Change::Same | Change::Nothing => continue,
            Change::Whiteout => {
                out.push(LayerEntry { path, kind: LayerEntryKind::Whiteout });
                continue;
            }
            Change::Node | Change::Opaque => {}
        }
        let hard_link_to = meta.hard_link.and_then(|inode| first_names.get(&inode).cloned());
        if let (Some(inode), None) = (meta.hard_link, &hard_link_to) {
            first_names.insert(inode, path.clone());
        }
        let data = match meta.kind == FileKind::Regular && hard_link_to.is_none() {
            true => Some(DataRef { size: meta.size, digest: None, source: upper.tree().data_source(&path)? }),
            false => None,
        };
        let opaque = (*change == Change::Opaque).then(|| path.clone());
        out.push(LayerEntry { path, kind: LayerEntryKind::Node { meta, data, hard_link_to } });
        if let Some(path) = opaque {
            out.push(LayerEntry { path, kind: LayerEntryKind::Opaque });
        }
    }
    Ok(out)
}
