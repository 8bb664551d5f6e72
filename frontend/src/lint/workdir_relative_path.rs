//! WorkdirRelativePath (E-010).

use super::{Finding, Rule};
use crate::ast::Word;

/// The directory of the base image is nobody's promise.
pub(crate) static RULE: Rule = Rule::new(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);

/// For the first WORKDIR of a stage and the stages that it stands on. `path` is expanded.
pub(crate) fn check(word: &Word, path: &str) -> Option<Finding> {
    (!path.starts_with('/')).then(|| {
        let message =
            format!("Relative workdir \"{path}\" can have unexpected results if the base image changes");
        Finding::new(&RULE, message).at(word.span).help(format!("write WORKDIR /{path}"))
    })
}
