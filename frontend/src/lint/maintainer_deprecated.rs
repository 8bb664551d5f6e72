//! MaintainerDeprecated (E-008).

use super::{Finding, Rule};
use crate::ast::Word;

/// A label says the same, and can be found.
pub(crate) static RULE: Rule = Rule::new(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);

pub(super) fn check(who: &Word) -> Finding {
    let help =
        format!("write LABEL org.opencontainers.image.authors={}", crate::quote::go_quote(who.as_str()));
    Finding::new(&RULE, "Maintainer instruction is deprecated in favor of using label").help(help)
}
