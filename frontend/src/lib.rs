//! The Dockerfile frontend: text → nodes → typed instructions → stages → operations.
//!
//! Nothing here does I/O and nothing fails: every function gives what it could read together with
//! [`Diagnostic`]s. See `ast.rs` for the types that the parsing half hands to the lowering half.

pub mod ast;
pub mod diagnostic;
pub mod env;
pub mod mount;
pub mod parser;
pub mod quote;
pub mod shell;

pub use diagnostic::{Diagnostic, Severity};
pub use parser::{parse, parse_onbuild};
