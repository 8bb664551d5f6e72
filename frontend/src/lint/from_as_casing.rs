//! FromAsCasing (E-002).

use super::{Finding, Rule, is_lower, is_upper};
use crate::ast::{FromInstruction, Word};

/// `FROM … as` and `from … AS` read badly.
pub(crate) static RULE: Rule = Rule::new(
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword",
);

/// A FROM of mixed case is ConsistentInstructionCasing's business.
pub(super) fn check(keyword: &Word, from: &FromInstruction) -> Option<Finding> {
    let written = from.as_keyword.as_ref()?;
    let wanted = match keyword.as_str() {
        from if is_lower(from) => written.value.to_lowercase(),
        from if is_upper(from) => written.value.to_uppercase(),
        _ => return None,
    };
    (written.value != wanted).then(|| {
        let message = format!("'{}' and '{}' keywords' casing do not match", written.value, keyword.value);
        Finding::new(&RULE, message).at(written.span).help(format!("write {wanted}"))
    })
}
