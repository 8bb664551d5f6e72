//! From text to [`Dockerfile`].

use crate::ast::{Dockerfile, Instruction, LineRange};
use crate::diagnostic::Diagnostic;
use crate::node::parse_nodes;

/// Reads a Dockerfile. Never fails: what could be read is in the first part, what could not is named in the
/// second. The first diagnostic of severity error is the one that BuildKit would stop at.
pub fn parse(text: &[u8]) -> (Dockerfile, Vec<Diagnostic>) {
    let text = String::from_utf8_lossy(text);
    let nodes = parse_nodes(&text);
    (
        Dockerfile { directives: nodes.directives, nodes: nodes.nodes, ..Dockerfile::default() },
        nodes.diagnostics,
    )
}

/// Reads the text of one ONBUILD trigger (from a base image's config or [`crate::ast::OnBuild::expression`]),
/// with `\` as the escape character. Its spans refer to `text`.
pub fn parse_onbuild(text: &str) -> Result<Instruction, Diagnostic> {
    let _ = text;
    Err(Diagnostic::error("not read yet", LineRange::default()))
}
