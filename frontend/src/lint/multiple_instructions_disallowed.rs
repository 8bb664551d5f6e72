//! MultipleInstructionsDisallowed (E-012).

use super::{Finding, Rule};
use crate::ast::LineRange;

/// The earlier ones have no effect.
pub(crate) static RULE: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);

/// Reported at the earlier instruction: it is the one that is in vain.
pub(crate) fn check(keyword: &str, earlier: LineRange, later: LineRange) -> Finding {
    let message = format!(
        "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
    );
    let help = match later == earlier {
        true => "remove it".to_owned(),
        false => format!("remove it: line {} replaces it", later.start),
    };
    Finding::new(&RULE, message).on(earlier).help(help)
}
