//! StageNameCasing (E-001).

use super::{Finding, Rule};
use crate::ast::FromInstruction;

/// Stage names are compared in lower case; one with capitals only looks different.
pub(crate) static RULE: Rule =
    Rule::new("StageNameCasing", "stage-name-casing", "Stage names should be lowercase");

pub(super) fn check(from: &FromInstruction) -> Option<Finding> {
    let name = from.name.as_ref()?;
    let lower = name.value.to_lowercase();
    (lower != name.value).then(|| {
        Finding::new(&RULE, format!("Stage name '{}' should be lowercase", name.value))
            .at(name.span)
            .help(format!("write {lower}"))
    })
}
