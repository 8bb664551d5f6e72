//! Root filesystems out of layers.
//!
//! A layer is either an overlayfs *upper* directory ([`DirLayer`]: a whiteout is a character device 0:0, an opaque
//! directory has the xattr `trusted.overlay.opaque` = `y`) or a [`Recipe`]: sorted entries whose bytes are still
//! elsewhere. A chain of them, base first, is looked at as one tree through [`ChainView`], which sees what overlayfs
//! would show, without a mount.
//!
//! ```text
//! RUN:   upper ── diff_upper(upper, lower view) ──▶ entries ──▶ tar layer, content_digest
//! COPY:  entries ── Recipe ── materialize ──▶ directory that a later RUN mounts
//! ```

mod chain;
mod content;
mod diff;
mod error;
mod export;
mod implied;
mod layer;
mod recipe;
mod remove;
mod source;
mod write;

pub use chain::{ChainLayer, ChainView};
pub use content::content_digest;
pub use diff::diff_upper;
pub use error::SnapshotError;
pub use export::{export_tree, tree_entries};
pub use implied::{implied_metadata, set_directories};
pub use layer::DirLayer;
pub use recipe::Recipe;
pub use remove::remove_tree;
pub use source::{hash_source, open_source};
pub use write::materialize;

/// The extended attribute that makes a directory of an upper layer opaque, by the value `y`.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
