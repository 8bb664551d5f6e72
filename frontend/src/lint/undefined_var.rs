//! UndefinedVar (E-011).

use super::{Finding, Rule};
use crate::ast::Span;

/// An unset variable expands to nothing.
pub(crate) static RULE: Rule =
    Rule::new("UndefinedVar", "undefined-var", "Variables should be defined before their use");

/// Where else a variable of the name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    Nowhere,
    /// An ARG before the first FROM.
    GlobalArg,
    /// One of the platform arguments.
    Predefined,
}

/// `near`: a known name that is almost the same.
pub(crate) fn check(name: &str, near: Option<String>, elsewhere: Elsewhere, span: Span) -> Finding {
    let suggestion = near.as_ref().map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
    let message = format!("Usage of undefined variable '${name}'{suggestion}");
    let help = match (elsewhere, near) {
        (Elsewhere::GlobalArg, _) => format!(
            "ARG {name} is declared before FROM and not in this stage: put `ARG {name}` below FROM to use it here"
        ),
        (Elsewhere::Predefined, _) => {
            format!("put `ARG {name}` below FROM: it is predefined, but not in a stage")
        }
        (Elsewhere::Nowhere, Some(near)) => format!("write ${near}"),
        (Elsewhere::Nowhere, None) => {
            format!("set it with ENV {name}=… or declare it with ARG {name} before this line")
        }
    };
    Finding::new(&RULE, message).at(span).help(help)
}
