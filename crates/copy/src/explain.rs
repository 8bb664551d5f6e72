//! Why the content key of a COPY differs from an earlier one.

use crate::selection::KeyEntry;
use std::collections::BTreeMap;
use std::fmt;

/// One difference between two keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Path of the entry, as in [`KeyEntry`].
    pub path: String,
    /// What is different.
    pub kind: KeyChangeKind,
}

/// What is different about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another type.
    Type,
    /// Its bytes are others.
    Content,
    /// Its permission bits changed from the first to the second.
    Mode(u32, u32),
    /// Its owner changed from the first (user, group) to the second.
    Owner((u32, u32), (u32, u32)),
    /// It links to something else, or is no longer, or newly, a hard link.
    Link,
    /// It is another device.
    Device,
    /// Its extended attributes are others.
    Xattrs,
}

impl fmt::Display for KeyChange {
    /// `+new`, `-gone`, `src/a content`, `src/b mode 644→755`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.kind {
            KeyChangeKind::Added => write!(f, "+{path}"),
            KeyChangeKind::Removed => write!(f, "-{path}"),
            KeyChangeKind::Type => write!(f, "{path} type"),
            KeyChangeKind::Content => write!(f, "{path} content"),
            KeyChangeKind::Mode(old, new) => write!(f, "{path} mode {old:o}→{new:o}"),
            KeyChangeKind::Owner(old, new) => {
                write!(f, "{path} owner {}:{}→{}:{}", old.0, old.1, new.0, new.1)
            }
            KeyChangeKind::Link => write!(f, "{path} link"),
            KeyChangeKind::Device => write!(f, "{path} device"),
            KeyChangeKind::Xattrs => write!(f, "{path} xattrs"),
        }
    }
}

/// The first `limit` differences from `old` to `new`, in the order of paths; an entry has one for each property that differs.
/// Entries of the same path (in several sources) are compared in their order.
pub fn key_changes(old: &[KeyEntry], new: &[KeyEntry], limit: usize) -> Vec<KeyChange> {
    // Mostly two long lists are the same but for a few entries.
    let first = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[first..], &new[first..]);
    let last = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - last], &new[..new.len() - last]);
    let mut paths: BTreeMap<&str, (Vec<&KeyEntry>, Vec<&KeyEntry>)> = BTreeMap::new();
    for entry in old {
        paths.entry(&entry.path).or_default().0.push(entry);
    }
    for entry in new {
        paths.entry(&entry.path).or_default().1.push(entry);
    }
    let changes = paths.into_iter().flat_map(|(path, (old, new))| {
        let pairs = (0..old.len().max(new.len())).map(move |i| (old.get(i).copied(), new.get(i).copied()));
        let kinds = pairs.flat_map(|pair| match pair {
            (Some(old), Some(new)) => differences(old, new),
            (None, _) => vec![KeyChangeKind::Added],
            (_, None) => vec![KeyChangeKind::Removed],
        });
        kinds.map(move |kind| KeyChange { path: path.to_owned(), kind })
    });
    changes.take(limit).collect()
}

fn differences(old: &KeyEntry, new: &KeyEntry) -> Vec<KeyChangeKind> {
    if old.kind != new.kind {
        return vec![KeyChangeKind::Type];
    }
    let owners = ((old.uid, old.gid), (new.uid, new.gid));
    let all = [
        (old.data != new.data, KeyChangeKind::Content),
        (old.mode != new.mode, KeyChangeKind::Mode(old.mode, new.mode)),
        (owners.0 != owners.1, KeyChangeKind::Owner(owners.0, owners.1)),
        (old.link != new.link, KeyChangeKind::Link),
        (old.rdev != new.rdev, KeyChangeKind::Device),
        (old.xattrs != new.xattrs, KeyChangeKind::Xattrs),
    ];
    all.into_iter().filter(|(differs, _)| *differs).map(|(_, kind)| kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::context_of;
    use crate::{key_entries, selection_digest};
    use rbuild_tree::MemTree;

    #[test]
    fn changes_are_named() {
        let old = MemTree::new().file("a", "1").file("b", "2").file("c", "3").file("e", "").file("l", "");
        let new =
            MemTree::new().file("a", "x").file("b", "2").mode(0o755).file("d", "3").dir("e").file("l", "");
        let key = |tree: &MemTree| key_entries(&[context_of(tree, ".")]);
        let shown = |limit| -> Vec<String> {
            key_changes(&key(&old), &key(&new), limit).iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(9), ["a content", "b mode 644→755", "-c", "+d", "e type"]);
        assert_eq!(shown(2).len(), 2);
        assert!(key_changes(&key(&old), &key(&old), 9).is_empty());
        assert_ne!(selection_digest(&[context_of(&old, ".")]), selection_digest(&[context_of(&new, ".")]));
    }
}
