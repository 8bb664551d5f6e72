//! SecretsUsedInArgOrEnv (E-016).

use super::{Finding, Rule};
use crate::ast::Span;

/// Values of ARG and ENV can be read in the image's config and history.
pub(crate) static RULE: Rule = Rule::new(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
);

/// Words of a name that hint at a secret.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words of a name that say that it is none.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// `instruction`: ARG or ENV. `key` is expanded.
pub(crate) fn check(instruction: &str, key: &str, span: Span) -> Option<Finding> {
    let has =
        |words: &[&str]| key.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    (has(&SECRET) && !has(&HARMLESS)).then(|| {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{key}\")");
        let id = key.to_ascii_lowercase();
        let help = format!("give it to the step that needs it: RUN --mount=type=secret,id={id},env={key} …");
        Finding::new(&RULE, message).at(span).help(help)
    })
}
