//! The build context: walking it, leaving out what .dockerignore says, and digests of its files.

mod filter;

pub use filter::{Everything, Filter};
