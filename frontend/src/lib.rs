//! The Dockerfile frontend: text → nodes → typed instructions → stages → operations.
//!
//! Nothing here does I/O and nothing fails: every function gives what it could read together with
//! [`Diagnostic`]s. See `ast.rs` for the types that the parsing half hands to the lowering half.

mod args;
pub mod ast;
pub mod check;
#[cfg(test)]
mod conformance;
pub mod csv;
pub mod diagnostic;
mod directive;
pub mod dump;
pub mod env;
mod epoch;
mod flag;
pub mod gitref;
pub mod heredoc;
pub mod instruction;
mod json;
mod line;
pub mod lint;
mod lower;
pub mod mount;
mod node;
pub mod number;
mod outline;
pub mod parser;
pub mod paths;
pub mod port;
pub mod quote;
mod remedy;
pub mod render;
mod scope;
pub mod shell;
pub mod source;
mod stage;
pub mod suggest;
mod syntax;

pub use diagnostic::{Diagnostic, Phase, Severity};
pub use epoch::{EpochSource, epoch_source};
pub use lint::syntax_warnings;
pub use lower::{
    ExcludedBy, IgnoreRule, IgnoreRules, ImageRequest, LowerOptions, Lowered, NamedContext, ResolveError,
    ResolvedImage, Resolver, examine, filename_of_url, image_requests, lower,
};
pub use outline::{Outline, OutlineArg, OutlineMount, Target, targets};
pub use parser::{parse, parse_onbuild};
pub use render::{render, render_colored};
pub use source::decode;
pub use syntax::{check_syntax, detect_syntax};
