//! CopyIgnoredFile (E-019).

use super::{Finding, Rule};
use crate::ast::Span;
use crate::lower::IgnoreRules;
use crate::paths;

/// The file will not be found.
pub(crate) static RULE: Rule = Rule::new(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
);

/// `source`: a path of the main context, expanded.
pub(crate) fn check(rules: &IgnoreRules, is_add: bool, source: &str, span: Span) -> Option<Finding> {
    let path = paths::clean(source);
    let rule = rules.excludes(&path)?;
    let verb = if is_add { "Add" } else { "Copy" };
    let message = format!("Attempting to {verb} file \"{path}\" that is excluded by .dockerignore");
    let help = format!(
        "excluded by `{}` on line {} of {}: change that pattern",
        rule.pattern, rule.line, rules.file
    );
    Some(Finding::new(&RULE, message).at(span).help(help))
}
