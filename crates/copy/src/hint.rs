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

/// Tells which rule leaves a path out that exists, such as `.dockerignore:3`; `None` when none does.
pub type ExcludedBy<'a> = &'a dyn Fn(&TreePath) -> Option<String>;

/// Explains as far as possible why `path`, which leads to `resolved`, is not in `tree`.
pub(crate) fn not_found(
    tree: &dyn Tree,
    path: &TreePath,
    resolved: &TreePath,
    excluded_by: Option<ExcludedBy<'_>>,
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

/// How many characters must be inserted, removed, replaced or swapped with the next, letter case aside; `None` when too
/// many for the length.
fn distance(a: &OsStr, b: &OsStr) -> Option<usize> {
    let letters = |name: &OsStr| -> Vec<char> { name.to_string_lossy().to_lowercase().chars().collect() };
    if a.len().max(b.len()) > MAX_NAME {
        return None;
    }
    let (a, b) = (letters(a), letters(b));
    let allowed = (a.len() / 3).clamp(1, MAX_DISTANCE);
    if a.len().abs_diff(b.len()) > allowed {
        return None;
    }
    let first: Vec<usize> = (0..=b.len()).collect();
    let (mut before, mut last) = (first.clone(), first);
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut best = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    Some(last[b.len()]).filter(|distance| *distance <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names() {
        for (a, b, want) in [
            ("nope", "one", None),
            ("dri", "dir", Some(1)),
            ("A.TXT", "a.txt", Some(0)),
            ("package.jsn", "package.json", Some(1)),
            ("pakcage.jsn", "package.json", Some(2)),
            ("x", "y", Some(1)),
            ("abc", "xyz", None),
            ("", "a", Some(1)),
        ] {
            assert_eq!(distance(OsStr::new(a), OsStr::new(b)), want, "{a} {b}");
        }
    }
}
