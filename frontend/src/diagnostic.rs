//! What is wrong, or could be better, and where.

use crate::ast::{LineRange, Span};
use crate::source::MAX_DIAGNOSTICS;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// The build goes on.
    Warning,
}

/// Which step of reading found it. BuildKit words the same error differently by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Cutting the text into nodes.
    Parse,
    /// Typing an instruction.
    Instruction,
    /// Whatever comes later.
    Build,
}

/// One finding about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Where it was found.
    pub phase: Phase,
    /// The lint's name (`NoEmptyContinuation`), `None` for errors.
    pub rule: Option<&'static str>,
    /// BuildKit's text, without file name and line number.
    pub message: String,
    /// The lines at fault; `0..=0` when there is no line.
    pub lines: LineRange,
    /// The words at fault, most important first; may be empty, then the whole lines are meant.
    pub spans: Vec<Span>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error on some lines, with a remedy if one is known for this message.
    pub fn error(message: impl Into<String>, lines: LineRange) -> Self {
        let message = message.into();
        Diagnostic {
            help: crate::remedy::of(&message).map(str::to_owned),
            severity: Severity::Error,
            phase: Phase::Build,
            rule: None,
            message,
            lines,
            spans: Vec::new(),
        }
    }

    /// A warning of a lint rule.
    pub fn warning(rule: &'static str, message: impl Into<String>, lines: LineRange) -> Self {
        Diagnostic { severity: Severity::Warning, rule: Some(rule), ..Diagnostic::error(message, lines) }
    }

    /// True when the build cannot go on.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Says where it was found.
    pub fn in_phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// The message as BuildKit prints it: errors of typing an instruction name their line.
    pub fn full_message(&self) -> String {
        match self.phase {
            Phase::Instruction => {
                format!("dockerfile parse error on line {}: {}", self.lines.start, self.message)
            }
            Phase::Parse | Phase::Build => self.message.clone(),
        }
    }

    /// Adds a place; places without text are left out.
    pub fn with_span(mut self, span: Span) -> Self {
        if !span.is_empty() {
            self.spans.push(span);
        }
        self
    }

    /// Adds a remedy.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Collects diagnostics, of each severity no more than [`MAX_DIAGNOSTICS`], and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let count = if diagnostic.is_error() { &mut self.errors } else { &mut self.warnings };
        *count += 1;
        if *count <= MAX_DIAGNOSTICS {
            self.list.push(diagnostic);
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// What was collected; if some were left out, the last one says so.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        let more = self.errors.saturating_sub(MAX_DIAGNOSTICS);
        if more > 0 {
            let phase = self.list.last().map_or(Phase::Build, |last| last.phase);
            let message = format!("{more} more errors are not shown");
            self.list.push(Diagnostic::error(message, LineRange::default()).in_phase(phase));
        }
        self.list
    }
}
