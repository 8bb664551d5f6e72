//! Which paths a source names.

use crate::CopyError;
use crate::error::{clamped, io};
use crate::hint::{ExcludedBy, not_found};
use rbuild_context::glob::{Glob, has_wildcards};
use rbuild_tree::{Tree, TreePath, resolve};
use std::os::unix::ffi::OsStrExt;

/// The paths that `source` names: itself when it has no wildcard, else what it matches, in order; whether it had one.
///
/// The part before the first wildcard follows symlinks; what a wildcard goes through does not. Go's `[…]` may also
/// match a `/`; here it is refused.
///
/// A wildcard may match nothing, but the directory that it is in must be there.
pub(crate) fn expand(
    tree: &dyn Tree,
    source: &str,
    excluded_by: Option<ExcludedBy<'_>>,
) -> Result<(Vec<TreePath>, bool), CopyError> {
    let path = clamped(source)?;
    let text = String::from_utf8_lossy(path.as_bytes());
    if !has_wildcards(&text) {
        return Ok((vec![literal(tree, path.clone(), &text)?], false));
    }
    let parts: Vec<&str> = text.split('/').collect();
    let fixed = parts.iter().take_while(|part| !has_wildcards(part)).count();
    let named = clamped(&parts[..fixed].join("/"))?;
    let start = resolve(tree, &named, true).map_err(io("resolve", &named))?;
    match &start.meta {
        Some(meta) if meta.is_dir() => {}
        Some(_) => return Ok((Vec::new(), true)),
        None => {
            return Err(CopyError::NotFound(Box::new(not_found(tree, &named, &start.path, excluded_by))));
        }
    }
    let globs: Result<Vec<_>, _> = parts[fixed..].iter().map(|part| Glob::new(part)).collect();
    let globs = globs.map_err(|_| CopyError::BadPattern { what: "source", pattern: source.to_owned() })?;
    let mut found = vec![start.path];
    for (level, glob) in globs.iter().enumerate() {
        found = matching(tree, &found, glob, level + 1 == globs.len())?;
    }
    Ok((found, true))
}

/// What `glob` matches in `dirs`; only directories unless it is the last one.
fn matching(tree: &dyn Tree, dirs: &[TreePath], glob: &Glob, last: bool) -> Result<Vec<TreePath>, CopyError> {
    let mut found = Vec::new();
    for dir in dirs {
        for name in tree.read_dir(dir).map_err(io("read directory", dir))? {
            if !glob.matches(name.as_bytes()) {
                continue;
            }
            let path = dir.join(&name);
            let meta = tree.lstat(&path).map_err(io("stat", &path))?;
            if meta.is_some_and(|meta| last || meta.is_dir()) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// A source without wildcards: what it says, or, if there is no such thing, what it says without its `\`.
fn literal(tree: &dyn Tree, path: TreePath, text: &str) -> Result<TreePath, CopyError> {
    if !text.contains('\\') || resolve(tree, &path, true).map_err(io("resolve", &path))?.meta.is_some() {
        return Ok(path);
    }
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    clamped(&plain)
}
