//! What the engine cannot do yet. Every refusal of lowering is made here: when a feature is built, its variant
//! goes and the compiler shows the place to finish.

use crate::ast::LineRange;
use crate::diagnostic::Diagnostic;

/// A feature of the language that is understood but not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// `RUN --device`.
    Device,
}

impl Unsupported {
    /// The refusal, with what to do instead.
    pub(crate) fn diagnostic(self, lines: LineRange) -> Diagnostic {
        let (what, help) = match self {
            Self::Device => (
                "RUN --device: giving CDI devices to steps",
                "remove the flag, or run the step with --security=insecure",
            ),
        };
        Diagnostic::error(format!("{what} is not supported yet"), lines).with_help(help)
    }
}
