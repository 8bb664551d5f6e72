//! What is known about a source that does not exist.

use crate::error::NotFound;
use rbuild_tree::{Tree, TreePath};
use std::ffi::OsStr;

/// Most similar names that are offered.
const MAX_SIMILAR: usize = 3;

/// Names further apart than this many edits are not similar.
const MAX_DISTANCE: usize = 2;

/// Names longer than this are not compared.
const MAX_NAME: usize = 128;

/// Explains as far as possible why `path`, which leads to `resolved`, is not in `tree`.
pub(crate) fn not_found(
    tree: &dyn Tree,
    path: &TreePath,
    resolved: &TreePath,
    excluded_by: Option<&dyn Fn(&TreePath) -> Option<String>>,
) -> NotFound {
    let excluded = excluded_by.and_then(|hook| hook(resolved).or_else(|| hook(path)));
    NotFound {
        path: path.clone(),
        leads_to: (path != resolved).then(|| resolved.clone()),
        excluded_by: excluded,
        similar: similar(tree, resolved),
    }
}

/// Existing entries like the first component of `path` that does not exist.
fn similar(tree: &dyn Tree, path: &TreePath) -> Vec<TreePath> {
    let mut missing = path.clone();
    while let Some(parent) = missing.parent() {
        if matches!(tree.lstat(&parent), Ok(Some(meta)) if meta.is_dir()) {
            break;
        }
        missing = parent;
    }
    let (Some(parent), Some(name)) = (missing.parent(), missing.file_name()) else { return Vec::new() };
    let Some(rest) = path.strip_prefix(&missing) else { return Vec::new() };
    let names = tree.read_dir(&parent).unwrap_or_default();
    let mut found: Vec<_> =
        names.into_iter().filter_map(|other| Some((distance(name, &other)?, other))).collect();
    found.sort();
    let paths = found.into_iter().map(|(_, name)| parent.join(name).join_path(&rest));
    paths.filter(|path| matches!(tree.lstat(path), Ok(Some(_)))).take(MAX_SIMILAR).collect()
}

/// How many characters must be inserted, removed or replaced, letter case aside; `None` when too many for the length.
fn distance(a: &OsStr, b: &OsStr) -> Option<usize> {
    if a.len() > MAX_NAME || b.len() > MAX_NAME || a.len().abs_diff(b.len()) > 4 * MAX_DISTANCE {
        return None;
    }
    let letters = |name: &OsStr| -> Vec<char> { name.to_string_lossy().to_lowercase().chars().collect() };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    let distance = row[b.len()];
    (distance <= MAX_DISTANCE && distance < a.len().max(1)).then_some(distance)
}
