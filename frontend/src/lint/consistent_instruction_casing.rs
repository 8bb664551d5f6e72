//! ConsistentInstructionCasing (E-004).

use super::{Finding, Rule, is_lower, is_upper};
use crate::ast::{Dockerfile, Instruction};

/// One file, one case.
pub(crate) static RULE: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);

/// Global ARGs neither count nor are reported, as in BuildKit.
fn instructions(dockerfile: &Dockerfile) -> impl Iterator<Item = &Instruction> {
    dockerfile.stages.iter().flat_map(|stage| std::iter::once(&stage.instruction).chain(&stage.commands))
}

pub(super) fn check(dockerfile: &Dockerfile) -> impl Iterator<Item = (&Instruction, Finding)> {
    let count = |case: fn(&str) -> bool| {
        instructions(dockerfile).filter(|instruction| case(instruction.keyword.as_str())).count()
    };
    let lower = count(is_lower) > count(is_upper);
    instructions(dockerfile).filter_map(move |instruction| {
        let keyword = &instruction.keyword;
        let (wanted, case) = match lower {
            true => (keyword.value.to_lowercase(), "lowercase"),
            false => (keyword.value.to_uppercase(), "uppercase"),
        };
        let message =
            || format!("Command '{}' should match the case of the command majority ({case})", keyword.value);
        let finding = || Finding::new(&RULE, message()).at(keyword.span).help(format!("write {wanted}"));
        (keyword.value != wanted).then(|| (instruction, finding()))
    })
}
