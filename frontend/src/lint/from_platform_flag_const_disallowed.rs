//! FromPlatformFlagConstDisallowed (E-018).

use super::{Finding, Rule};
use crate::ast::Word;
use crate::shell::Expansion;
use rbuild_oci::Platform;

/// A constant platform ties the file to one kind of machine.
pub(crate) static RULE: Rule = Rule::new(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
);

/// A stage whose name mentions the operating system or architecture means it.
pub(crate) fn check(word: &Word, expansion: &Expansion, stage: Option<&str>) -> Option<Finding> {
    if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
        return None;
    }
    let platform: Platform = expansion.result.parse().ok()?;
    let stage = stage.unwrap_or_default();
    (!stage.contains(&platform.os) && !stage.contains(&platform.architecture)).then(|| {
        let message = format!("FROM --platform flag should not use constant value \"{}\"", expansion.result);
        let help = format!(
            "remove the flag and build with --platform={}, or use $BUILDPLATFORM or $TARGETPLATFORM",
            expansion.result
        );
        Finding::new(&RULE, message).at(word.span).help(help)
    })
}
