//! Checks that need what only lowering knows: variables, base images, earlier instructions of the stage.

use super::Lowering;
use super::state::{Seen, State};
use crate::ast::{Instruction, InstructionKind, Span};
use crate::lint::undefined_var::Elsewhere;
use crate::lint::{
    Finding, invalid_base_image_platform, json_args_recommended, multiple_instructions_disallowed,
    undefined_var,
};
use crate::stage::Command;
use rbuild_oci::{ImageConfig, Platform};

impl Lowering<'_, '_> {
    /// Rules about CMD, ENTRYPOINT and HEALTHCHECK.
    pub(super) fn check_single(&mut self, state: &mut State, command: &Command<'_>) {
        let instruction: &Instruction = &command.instruction;
        let (slot, line) = match &instruction.kind {
            InstructionKind::Cmd(line) => (&mut state.seen[0], Some(line)),
            InstructionKind::Entrypoint(line) => (&mut state.seen[1], Some(line)),
            InstructionKind::Healthcheck(_) => (&mut state.seen[2], None),
            _ => return,
        };
        let this = Seen { lines: instruction.lines, comments: instruction.prev_comments.clone() };
        if let Some(earlier) = slot.replace(this) {
            let keyword = instruction.keyword.as_str();
            let finding = multiple_instructions_disallowed::check(keyword, earlier.lines, instruction.lines);
            let comments: [&[String]; 2] = [&instruction.prev_comments, &earlier.comments];
            self.linter.report_at(finding, earlier.lines, Span::default(), &comments);
        }
        let shell_set = state.config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        let finding =
            line.and_then(|line| json_args_recommended::check(&instruction.keyword, line, shell_set));
        state.findings.extend(finding);
    }

    /// Files what an instruction left in the state.
    pub(super) fn report_findings(&mut self, state: &mut State, command: &Command<'_>) {
        let instruction: &Instruction = &command.instruction;
        let unset = std::mem::take(&mut state.unset).into_iter().map(|unset| {
            let elsewhere =
                match (self.plan.is_global_arg(&unset.name), self.plan.known.contains(&unset.name)) {
                    (true, _) => Elsewhere::GlobalArg,
                    (false, true) => Elsewhere::Predefined,
                    (false, false) => Elsewhere::Nowhere,
                };
            undefined_var::check(&unset.name, unset.near, elsewhere, unset.span)
        });
        let findings: Vec<Finding> = unset.chain(std::mem::take(&mut state.findings)).collect();
        for finding in findings {
            match command.on_build {
                false => self.linter.report(finding, instruction),
                // Places of a trigger refer to its own text.
                true => self.linter.report_at(
                    finding.at(Span::default()),
                    instruction.lines,
                    Span::default(),
                    &[],
                ),
            }
        }
    }

    /// InvalidBaseImagePlatform.
    pub(super) fn check_image_platform(&mut self, node: usize, expected: &Platform, config: &ImageConfig) {
        let actual = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os_version: None,
        };
        let node = &self.plan.nodes[node];
        if let Some(finding) = invalid_base_image_platform::check(&node.base_name, expected, &actual) {
            self.linter.report_at(finding, node.lines, node.span, &[node.comments]);
        }
    }
}
