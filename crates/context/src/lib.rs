//! The build context: walking it, leaving out what .dockerignore says, and digests of its files.

mod filter;
mod local;

pub use filter::{Everything, Filter};
pub use local::LocalContext;
