//! Following symlinks inside a tree.

use crate::{FileKind, Metadata, Tree, TreePath};
use std::collections::VecDeque;
use std::io;

/// Most symlinks one resolution follows; more is `ELOOP`.
pub const MAX_LINKS: usize = 255;

/// Most components one resolution may still have before it; more is `ENAMETOOLONG`. Bounds what a chain of links that
/// each expand to many components can ask for.
pub const MAX_COMPONENTS: usize = 16_384;

/// What a path means once its symlinks are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without any symlink in it, except the last component when it was not to be followed.
    pub path: TreePath,
    /// What is there; `None` when nothing is.
    pub meta: Option<Metadata>,
}

/// Follows the symlinks in `path` inside `tree`: absolute ones start at the root and `..` stops there, so that the
/// result never lies outside. A link in the last component is followed only with `follow_last`.
///
/// What does not exist is kept as it is written, so that a destination which is yet to be made resolves through its
/// existing parents; `meta` is then `None`. More than [`MAX_LINKS`] links give `ELOOP`.
pub fn resolve(tree: &dyn Tree, path: &TreePath, follow_last: bool) -> io::Result<Resolved> {
    resolve_with(|path| tree.lstat(path), path, follow_last)
}

/// Whether a resolution failed because symlinks lead in a circle, or through too many of them.
pub fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// [`resolve`] over anything that can tell what is at a path, for instance a tree with changes laid over it.
pub fn resolve_with(
    mut lstat: impl FnMut(&TreePath) -> io::Result<Option<Metadata>>,
    path: &TreePath,
    follow_last: bool,
) -> io::Result<Resolved> {
    let mut pending: VecDeque<Vec<u8>> = split(path.as_bytes()).collect();
    let mut at = TreePath::root();
    let mut meta = None;
    let mut links = 0;
    while let Some(component) = pending.pop_front() {
        if component == b".." {
            at = at.parent().unwrap_or_default();
            meta = None;
            continue;
        }
        let next = at.join_path(&TreePath::clamped(&component).map_err(io::Error::other)?);
        let found = lstat(&next)?;
        match found {
            Some(link) if link.kind == FileKind::Symlink && (follow_last || !pending.is_empty()) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                if link.link_target.starts_with(b"/") {
                    at = TreePath::root();
                }
                let target: Vec<_> = split(&link.link_target).collect();
                if pending.len() + target.len() > MAX_COMPONENTS {
                    return Err(rustix::io::Errno::NAMETOOLONG.into());
                }
                for part in target.into_iter().rev() {
                    pending.push_front(part);
                }
                meta = None;
            }
            found => {
                at = next;
                meta = found;
            }
        }
    }
    if meta.is_none() {
        meta = lstat(&at)?;
    }
    Ok(Resolved { path: at, meta })
}

/// The components of a path or link target, without empty ones and `.`.
fn split(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemTree;

    fn tree() -> MemTree {
        MemTree::new()
            .file("real/file", "x")
            .dir("real/sub")
            .symlink("abs", "/real")
            .symlink("rel", "real/sub")
            .symlink("up", "../../../../real")
            .symlink("real/back", "..")
            .symlink("chain", "abs/back/rel")
            .symlink("loop", "loop")
            .symlink("dangling", "real/missing/deep")
            .symlink("tofile", "abs/file")
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        for (given, follow, want, exists) in [
            ("abs/file", true, "/real/file", true),
            ("abs", false, "/abs", true),
            ("abs", true, "/real", true),
            ("rel/../file", true, "/file", false), // TreePath is lexical: `rel/..` is gone before resolution
            ("up/file", true, "/real/file", true),
            ("real/back/rel", true, "/real/sub", true),
            ("chain", true, "/real/sub", true),
            ("dangling", true, "/real/missing/deep", false),
            ("dangling/more", true, "/real/missing/deep/more", false),
            ("abs/new/dir", true, "/real/new/dir", false),
            ("tofile/below", true, "/real/file/below", false),
            ("", true, "/", true),
            ("real/back", true, "/", true),
        ] {
            let path = TreePath::clamped(given).unwrap();
            let got = resolve(&tree(), &path, follow).unwrap();
            assert_eq!((got.path.to_string().as_str(), got.meta.is_some()), (want, exists), "{given}");
        }
    }

    #[test]
    fn a_loop_is_an_error() {
        let error = resolve(&tree(), &TreePath::clamped("loop/x").unwrap(), true).unwrap_err();
        assert!(is_loop(&error) && !is_loop(&io::ErrorKind::NotFound.into()));
        assert!(resolve(&tree(), &TreePath::clamped("loop").unwrap(), false).unwrap().meta.is_some());
    }
}
