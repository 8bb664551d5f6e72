//! The Dockerfile frontend: text → nodes → typed instructions → stages → operations.
//!
//! Nothing here does I/O and nothing fails: every function gives what it could read together with
//! [`Diagnostic`]s. See `ast.rs` for the types that the parsing half hands to the lowering half.

pub mod ast;
pub mod check;
pub mod csv;
pub mod diagnostic;
mod directive;
pub mod dump;
mod flag;
pub mod heredoc;
pub mod instruction;
mod json;
mod line;
pub mod mount;
mod node;
pub mod number;
pub mod parser;
pub mod port;
pub mod render;
pub mod source;
pub mod suggest;

pub use diagnostic::{Diagnostic, Phase, Severity};
pub use directive::detect_syntax;
pub use parser::{parse, parse_onbuild};
pub use render::{render, render_colored};
