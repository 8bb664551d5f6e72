//! RedundantTargetPlatform (E-015).

use super::{Finding, Rule};
use crate::ast::Word;
use crate::shell::Expansion;

/// The target platform is what FROM uses anyway.
pub(crate) static RULE: Rule = Rule::new(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);

/// `target`: the value of TARGETPLATFORM.
pub(crate) fn check(word: &Word, expansion: &Expansion, target: Option<&str>) -> Option<Finding> {
    let only = expansion.matched.len() == 1 && expansion.unmatched.is_empty();
    let redundant =
        only && expansion.matched.contains("TARGETPLATFORM") && target == Some(&*expansion.result);
    redundant.then(|| {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            word.as_str()
        );
        Finding::new(&RULE, message).at(word.span).help("remove the flag")
    })
}
