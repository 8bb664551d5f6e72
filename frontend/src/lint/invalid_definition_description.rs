//! InvalidDefinitionDescription (E-020).

use super::{Finding, Rule};
use crate::ast::{Instruction, InstructionKind};

/// `--call=outline` and `--call=targets` show comments of this form. Experimental.
pub(crate) static RULE: Rule = Rule::new(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. \
     If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
)
.experimental();

pub(super) fn check(instruction: &Instruction) -> Option<Finding> {
    let (keyword, names): (&str, Vec<String>) = match &instruction.kind {
        InstructionKind::Arg(arg) => ("ARG", arg.pairs.iter().map(|pair| pair.name.value.clone()).collect()),
        InstructionKind::From(from) => {
            ("FROM", from.name.iter().map(|name| name.value.to_lowercase()).collect())
        }
        _ => return None,
    };
    let first = instruction.prev_comments.last()?.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.iter().any(|name| name == first) {
        return None;
    }
    let example = if let [only] = &names[..] { only } else { "<arg_key>" };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    Some(Finding::new(&RULE, message).help("put an empty comment (`#`) between if it is no description"))
}
