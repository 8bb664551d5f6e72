//! ReservedStageName (E-006).

use super::{Finding, Rule};
use crate::ast::{Instruction, Stage};

/// `scratch` is the empty image and `context` the build context.
pub(crate) static RULE: Rule =
    Rule::new("ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names");

pub(super) fn check(stage: &Stage) -> Option<(&Instruction, Finding)> {
    let (name, word) = (stage.name.as_deref()?, stage.from.name.as_ref()?);
    matches!(name, "scratch" | "context").then(|| {
        let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
        (&stage.instruction, Finding::new(&RULE, message).at(word.span).help("choose another name"))
    })
}
