//! The build context: walking it, leaving out what .dockerignore says, and digests of its files.

mod filter;
mod local;
mod memo;
mod order;
mod stat_cache;

pub use filter::{Everything, Filter};
pub use local::LocalContext;
pub use stat_cache::StatCache;
