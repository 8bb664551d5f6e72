//! The build context: walking it, leaving out what .dockerignore says, and digests of its files.

mod filter;
pub mod glob;
pub mod ignore;
mod local;
mod memo;
mod order;
pub mod pattern;
mod stat_cache;

pub use filter::{Everything, Filter};
pub use ignore::{Ignore, IgnoreError};
pub use local::{LocalContext, Modes};
pub use pattern::{Matcher, PatternError};
pub use stat_cache::StatCache;
