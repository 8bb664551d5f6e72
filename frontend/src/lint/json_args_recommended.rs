//! JSONArgsRecommended (E-007).

use super::{Finding, Rule};
use crate::ast::{CommandLine, Word};

/// A shell as process 1 does not pass signals on.
pub(crate) static RULE: Rule = Rule::new(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);

/// `shell_set`: SHELL was used in the stage or its base, so the shell is wanted.
pub(crate) fn check(keyword: &Word, command: &CommandLine, shell_set: bool) -> Option<Finding> {
    (command.prepend_shell && !shell_set).then(|| {
        let keyword = keyword.as_str();
        let message = format!(
            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        );
        let text = command.args.first().map(Word::as_str).unwrap_or_default();
        let plain = !text.is_empty()
            && !text.contains(['$', '&', '|', ';', '<', '>', '*', '?', '\'', '"', '\\', '`', '(', '\n']);
        let json = text.starts_with('[') && text.trim_end().ends_with(']');
        let help = match plain {
            _ if json => {
                let fixed = text.trim_end().replace('\'', "\"");
                format!("this is no JSON, so a shell runs the text as it is: write strings in double quotes, {keyword} {fixed}")
            }
            true => {
                let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
                format!("write {keyword} [{}]", words.join(", "))
            }
            false => format!(
                "write {keyword} [\"program\", \"argument\"], or set SHELL if the shell is meant to run it"
            ),
        };
        let span = command.args.first().map(|word| word.span).unwrap_or_default();
        Finding::new(&RULE, message).at(span).help(help)
    })
}
