//! LegacyKeyValueFormat (E-013).

use super::{Finding, Rule};
use crate::ast::KeyValue;

/// `ENV a b=c` sets `a` to `b=c`: rarely what was meant.
pub(crate) static RULE: Rule = Rule::new(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
);

pub(crate) fn check(keyword: &str, pair: &KeyValue) -> Option<Finding> {
    pair.no_delim.then(|| {
        let message = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        let (key, value) = (pair.key.as_str(), pair.value.as_str());
        let quoted = match value.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'') {
            true if !value.contains(['"', '\\']) => format!("\"{value}\""),
            _ => value.to_owned(),
        };
        // What looks like a second pair is in fact a part of the first one's value.
        let swallowed = value.split_whitespace().find(|word| {
            word.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            })
        });
        let help = match swallowed {
            Some(word) => format!(
                "this sets {key} to everything behind it, `{word}` included: write {keyword} {key}=… {word}"
            ),
            None => format!("write {keyword} {key}={quoted}"),
        };
        Finding::new(&RULE, message).at(pair.key.span).help(help)
    })
}
