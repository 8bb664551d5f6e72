//! What a walk of a build context leaves out.

use rbuild_tree::TreePath;
use std::sync::Arc;

/// Decides, path by path, what of a tree is visible. The root itself is never asked about.
pub trait Filter: Send + Sync {
    /// Whether the entry at `path` is left out.
    fn excluded(&self, path: &TreePath) -> bool;

    /// Whether anything below the excluded directory `dir` could still be included. When `false` a walk need not
    /// descend; `true` promises nothing.
    fn may_include_below(&self, dir: &TreePath) -> bool;
}

/// The filter that leaves nothing out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everything;

impl Filter for Everything {
    fn excluded(&self, _: &TreePath) -> bool {
        false
    }

    fn may_include_below(&self, _: &TreePath) -> bool {
        true
    }
}

impl<F: Filter + ?Sized> Filter for Arc<F> {
    fn excluded(&self, path: &TreePath) -> bool {
        (**self).excluded(path)
    }

    fn may_include_below(&self, dir: &TreePath) -> bool {
        (**self).may_include_below(dir)
    }
}
