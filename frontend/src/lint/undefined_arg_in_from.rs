//! UndefinedArgInFrom (E-009).

use super::{Finding, Rule};
use crate::ast::Word;
use crate::source::MAX_DIAGNOSTICS;
use crate::suggest::suggest;
use std::collections::BTreeSet;

/// FROM sees only the ARGs before the first FROM and the platform arguments.
pub(crate) static RULE: Rule =
    Rule::new("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs");

/// `known`: names of global ARGs, with or without a value, and of platform arguments.
pub(crate) fn check(word: &Word, unmatched: &BTreeSet<String>, known: &BTreeSet<String>) -> Vec<Finding> {
    // One word may refer to any number of names; nobody reads about all of them.
    let unknown = unmatched.iter().filter(|name| !known.contains(*name)).take(MAX_DIAGNOSTICS);
    unknown
        .map(|name| {
            let message = format!("FROM argument '{name}' is not declared");
            let (message, help) = match suggest(name, known.iter().map(String::as_str), true) {
                Some(near) => (format!("{message} (did you mean {near}?)"), format!("write ${near}")),
                None => (message, format!("put ARG {name}=default before the first FROM")),
            };
            Finding::new(&RULE, message).at(word.span).help(help)
        })
        .collect()
}
