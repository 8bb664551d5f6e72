//! COPY and ADD: which entries of the source trees are meant, and what they become in the destination.
//!
//! Two phases, both without side effects:
//! 1. [`select`] (and [`select_inline`], [`select_archive`]) finds what a source means, with the metadata it will be
//!    written with. [`selection_digest`] of it is the content part of the instruction's cache key, [`key_entries`] the same for
//!    people.
//! 2. [`place`] puts selections into a destination tree and gives the layer that makes the difference.
//!
//! Rules and numbers: section A12 of the specification and C-011 to C-013.

mod chmod;
mod error;
mod explain;
mod hint;
mod listing;
mod owner;
mod place;
mod select;
mod selection;
mod view;
mod wildcard;

pub use chmod::{Change, Chmod, Op};
pub use error::{CopyError, NotFound};
pub use explain::{KeyChange, KeyChangeKind, key_changes};
pub use hint::ExcludedBy;
pub use listing::{read_listing, write_entries, write_listing};
pub use owner::{MAX_USER_FILE_BYTES, OwnerSpec, resolve_owner};
pub use place::{PlaceOptions, mkdir_entries, place};
pub use select::{Ownership, SelectOptions, exclude_matcher, select, select_archive, select_inline};
pub use selection::{
    KeyEntry, KeyKind, Root, RootKind, Selected, Selection, key_entries, key_entry, selection_digest,
};

#[cfg(test)]
mod tests;
