//! Permissions that steps need and the user has to grant: refused before anything is executed, cached or not.

use crate::dockerfile::Inputs;
use crate::error::BuildError;
use crate::request::Entitlement;
use rbuild_frontend::Diagnostic;
use rbuild_frontend::ast::{LineRange, Span};
use rbuild_ir::{ExecOp, NetworkMode, Op, SecurityMode, Vertex};
use std::collections::BTreeSet;
use std::ops::Range;

/// Refuses steps that need what was not granted.
pub(crate) fn check(
    vertices: &[Vertex],
    granted: &BTreeSet<Entitlement>,
    inputs: &Inputs,
) -> Result<(), BuildError> {
    let text = rbuild_frontend::decode(&inputs.text);
    let mut refusals = Vec::new();
    for vertex in vertices {
        let Op::Exec(exec) = &vertex.op else { continue };
        for (flag, entitlement, name) in needed(exec) {
            if !granted.contains(&entitlement) {
                let lines = LineRange::new(
                    vertex.lines.start as usize,
                    vertex.lines.end.saturating_sub(1).max(vertex.lines.start) as usize,
                );
                let message = format!("{name} is not allowed: RUN {flag} needs it");
                let refusal = Diagnostic::error(message, lines)
                    .with_span(find(flag, &text, &vertex.lines))
                    .with_help(format!("grant it with --allow {name} if you trust what the step does"));
                refusals.push(rbuild_frontend::render(&refusal, &inputs.name, &text));
            }
        }
    }
    // Several platforms have the same lines.
    let mut seen = BTreeSet::new();
    refusals.retain(|refusal| seen.insert(refusal.clone()));
    if refusals.is_empty() { Ok(()) } else { Err(BuildError::Dockerfile(refusals.join("\n"))) }
}

fn needed(exec: &ExecOp) -> impl Iterator<Item = (&'static str, Entitlement, &'static str)> {
    let host = (exec.network == NetworkMode::Host).then_some((
        "--network=host",
        Entitlement::NetworkHost,
        "network.host",
    ));
    let insecure = (exec.security == SecurityMode::Insecure).then_some((
        "--security=insecure",
        Entitlement::SecurityInsecure,
        "security.insecure",
    ));
    host.into_iter().chain(insecure)
}

/// Where the flag stands in the lines; empty where it came from the command line or a variable.
pub(crate) fn find(flag: &str, text: &str, lines: &Range<u32>) -> Span {
    let mut offset = 0;
    for (number, line) in (1u32..).zip(text.split_inclusive('\n')) {
        if lines.contains(&number)
            && let Some(at) = line.find(flag)
        {
            return Span::new(offset + at, offset + at + flag.len());
        }
        offset += line.len();
    }
    Span::default()
}
