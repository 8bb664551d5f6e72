//! NoEmptyContinuation (E-003).

use super::{Finding, Rule};
use crate::ast::{LineRange, Node};

/// Blank lines between continued ones were always skipped, but may not be forever.
pub(crate) static RULE: Rule = Rule::new(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
);

/// Reported at the last line of the instruction without its heredocs, as BuildKit does.
pub(super) fn check(node: &Node) -> Option<Finding> {
    let first = node.empty_continuations.first()?;
    let bodies: usize = node.heredocs.iter().map(|heredoc| heredoc.content.matches('\n').count() + 1).sum();
    let last = node.lines.end.saturating_sub(bodies);
    let help = match node.empty_continuations.len() {
        1 => format!("remove the blank line {first}, or put `#` in it"),
        more => format!("remove the {more} blank lines from line {first} on, or put `#` in them"),
    };
    Some(Finding::new(&RULE, "Empty continuation line").on(LineRange::new(last, last)).help(help))
}
