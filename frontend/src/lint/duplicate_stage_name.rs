//! DuplicateStageName (E-005).

use super::{Finding, Rule};
use crate::ast::{Dockerfile, Instruction};
use std::collections::HashMap;

/// Later instructions that use the name mean the last stage that has it.
pub(crate) static RULE: Rule =
    Rule::new("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique");

pub(super) fn check(dockerfile: &Dockerfile) -> Vec<(&Instruction, Finding)> {
    let mut seen = HashMap::new();
    let mut found = Vec::new();
    for stage in &dockerfile.stages {
        let (Some(name), Some(word)) = (&stage.name, &stage.from.name) else { continue };
        if let Some(line) = seen.insert(name, stage.instruction.lines.start) {
            let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
            let help =
                format!("line {line} has a stage of this name; only the last one can be referred to by it");
            found.push((&stage.instruction, Finding::new(&RULE, message).at(word.span).help(help)));
        }
    }
    found
}
