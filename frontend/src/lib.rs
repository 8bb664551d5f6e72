//! The Dockerfile frontend: text → nodes → typed instructions → stages → operations.
//!
//! Nothing here does I/O and nothing fails: every function gives what it could read together with
//! [`Diagnostic`]s. See `ast.rs` for the types that the parsing half hands to the lowering half.

pub mod ast;
pub mod diagnostic;
mod directive;
pub mod dump;
pub mod heredoc;
mod json;
mod line;
pub mod mount;
mod node;
pub mod parser;
pub mod source;

pub use diagnostic::{Diagnostic, Phase, Severity};
pub use directive::detect_syntax;
pub use parser::{parse, parse_onbuild};
