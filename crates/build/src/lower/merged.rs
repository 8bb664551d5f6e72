//! What lowering says for several platforms, as one.

use rbuild_frontend::{Diagnostic, Lowered, Outline};
use rbuild_ir::{Definition, Op};

/// A Dockerfile lowered for each platform.
#[derive(Default)]
pub(super) struct Merged {
    /// In the order of the platforms; none if any of them has errors.
    pub(super) definitions: Vec<Definition>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) outline: Option<Outline>,
    pub(super) remote_ops: Vec<Op>,
}

impl Merged {
    pub(super) fn of(all: Vec<Lowered>) -> Self {
        let mut merged = Self::default();
        let several = all.len() > 1;
        let mut failed = false;
        for lowered in all {
            failed |= lowered.definition.is_none();
            merged.definitions.extend(lowered.definition);
            for diagnostic in lowered.diagnostics {
                if !several || !merged.diagnostics.contains(&diagnostic) {
                    merged.diagnostics.push(diagnostic);
                }
            }
            merged.outline = merged.outline.or(lowered.outline);
            for op in lowered.remote_ops {
                if !merged.remote_ops.contains(&op) {
                    merged.remote_ops.push(op);
                }
            }
        }
        if several {
            merged.diagnostics.sort_by_key(|diagnostic| (!diagnostic.is_error(), diagnostic.lines.start));
        }
        if failed {
            merged.definitions.clear();
        }
        merged
    }
}
