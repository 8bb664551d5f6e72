//! Build checks (features E): one file for each rule, which turns facts into a [`Finding`]; the [`Linter`] files findings
//! as warnings unless a `check=` says otherwise.
//!
//! Rules about the text run over the tree ([`syntax_warnings`]); rules that need variables, base images or ignore
//! files are asked during lowering.

pub(crate) mod consistent_instruction_casing;
pub(crate) mod copy_ignored_file;
pub(crate) mod duplicate_stage_name;
pub(crate) mod expose_invalid_format;
pub(crate) mod expose_proto_casing;
pub(crate) mod from_as_casing;
pub(crate) mod from_platform_flag_const_disallowed;
pub(crate) mod invalid_base_image_platform;
pub(crate) mod invalid_default_arg_in_from;
pub(crate) mod invalid_definition_description;
pub(crate) mod json_args_recommended;
pub(crate) mod legacy_key_value_format;
pub(crate) mod maintainer_deprecated;
pub(crate) mod multiple_instructions_disallowed;
pub(crate) mod no_empty_continuation;
pub(crate) mod redundant_target_platform;
pub(crate) mod reserved_stage_name;
pub(crate) mod secrets_used_in_arg_or_env;
pub(crate) mod stage_name_casing;
pub(crate) mod undefined_arg_in_from;
pub(crate) mod undefined_var;
pub(crate) mod workdir_relative_path;

use crate::ast::{Dockerfile, Instruction, InstructionKind, LineRange, Span};
use crate::check::CheckOptions;
use crate::diagnostic::{Diagnostic, Diagnostics, Phase};
use crate::lower::LowerOptions;
use std::collections::BTreeSet;

/// Build argument that replaces the file's `# check=`.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// How the error begins that `check=error=true` makes of warnings; the names of their rules follow.
pub const VIOLATION: &str = "lint violation found for rules: ";

/// A kind of finding, under BuildKit's name for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// `StageNameCasing`
    pub name: &'static str,
    slug: &'static str,
    /// What it is about, in BuildKit's words.
    pub description: &'static str,
    /// Reported only when `experimental=` asks for it.
    pub experimental: bool,
}

impl Rule {
    const fn new(name: &'static str, slug: &'static str, description: &'static str) -> Self {
        Self { name, slug, description, experimental: false }
    }

    const fn experimental(self) -> Self {
        Self { experimental: true, ..self }
    }

    /// The page that explains the rule; not every rule has one.
    pub fn url(&self) -> Option<String> {
        (!self.slug.is_empty()).then(|| format!("https://docs.docker.com/go/dockerfile/rule/{}/", self.slug))
    }
}

/// All rules, in the order of the specification.
pub(crate) static RULES: [&Rule; 22] = [
    &stage_name_casing::RULE,
    &from_as_casing::RULE,
    &no_empty_continuation::RULE,
    &consistent_instruction_casing::RULE,
    &duplicate_stage_name::RULE,
    &reserved_stage_name::RULE,
    &json_args_recommended::RULE,
    &maintainer_deprecated::RULE,
    &undefined_arg_in_from::RULE,
    &workdir_relative_path::RULE,
    &undefined_var::RULE,
    &multiple_instructions_disallowed::RULE,
    &legacy_key_value_format::RULE,
    &invalid_base_image_platform::RULE,
    &redundant_target_platform::RULE,
    &secrets_used_in_arg_or_env::RULE,
    &invalid_default_arg_in_from::RULE,
    &from_platform_flag_const_disallowed::RULE,
    &copy_ignored_file::RULE,
    &invalid_definition_description::RULE,
    &expose_proto_casing::RULE,
    &expose_invalid_format::RULE,
];

/// The rule of a name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.into_iter().find(|rule| rule.name == name)
}

/// What a rule has to say; where is known to whoever asked it, unless it says so itself.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    rule: &'static Rule,
    message: String,
    span: Span,
    lines: Option<LineRange>,
    help: String,
}

impl Finding {
    fn new(rule: &'static Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), span: Span::default(), lines: None, help: String::new() }
    }

    /// The words at fault.
    pub(crate) fn at(self, span: Span) -> Self {
        Self { span, ..self }
    }

    /// Other lines than those of the instruction.
    fn on(self, lines: LineRange) -> Self {
        Self { lines: Some(lines), ..self }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

fn is_lower(word: &str) -> bool {
    word.to_lowercase() == word
}

fn is_upper(word: &str) -> bool {
    word.to_uppercase() == word
}

/// Collects findings that are wanted.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    options: CheckOptions,
    found: Diagnostics,
    /// Rules that reported something.
    rules: BTreeSet<&'static str>,
}

impl Linter {
    /// Options come from the build argument, else from the file. The error is BuildKit's.
    pub(crate) fn new(dockerfile: &Dockerfile, options: &LowerOptions) -> Result<Self, Diagnostic> {
        let directive = dockerfile.directives.check.as_ref();
        let given = options.build_arg(CHECK_ARG);
        let text = given.or(directive.map(|word| word.as_str())).unwrap_or_default();
        let options = CheckOptions::parse(text).map_err(|reason| {
            let span = directive.filter(|_| given.is_none()).map(|word| word.span).unwrap_or_default();
            Diagnostic::error(format!("failed to parse check options: {reason}"), LineRange::default())
                .with_span(span)
                .with_help("write check=skip=Rule,Rule;error=true;experimental=Rule, or `all` for the rules")
        })?;
        Ok(Self { options, ..Self::default() })
    }

    /// Files a finding about an instruction.
    pub(crate) fn report(&mut self, finding: Finding, instruction: &Instruction) {
        self.report_at(finding, instruction.lines, instruction.span, &[&instruction.prev_comments]);
    }

    /// Files a finding about lines; `comments` stand above the instructions that it concerns.
    pub(crate) fn report_at(
        &mut self,
        finding: Finding,
        lines: LineRange,
        span: Span,
        comments: &[&[String]],
    ) {
        let rule = finding.rule;
        let own: Vec<CheckOptions> =
            comments.iter().map(|comments| CheckOptions::of_comments(comments)).collect();
        let all = || own.iter().chain([&self.options]);
        let asked_for = !rule.experimental || all().any(|options| options.experimental.contains(rule.name));
        if !asked_for || all().any(|options| options.skip.contains(rule.name)) {
            return;
        }
        let place = match (finding.span.is_empty(), finding.lines) {
            (false, _) => finding.span,
            (true, None) => span,
            (true, Some(_)) => Span::default(),
        };
        let warning = Diagnostic::warning(rule.name, finding.message, finding.lines.unwrap_or(lines));
        self.found.push(warning.with_span(place).with_help(finding.help));
        self.rules.insert(rule.name);
    }

    /// `check=error=true` makes an error of any warning (BuildKit's text).
    pub(crate) fn violation(&self) -> Option<Diagnostic> {
        (self.options.error && !self.rules.is_empty()).then(|| {
            let rules: Vec<&str> = self.rules.iter().copied().collect();
            let message = format!("{VIOLATION}{}", rules.join(", "));
            Diagnostic::error(message, LineRange::default())
                .with_help("`check=error=true` makes errors of warnings: see those above")
        })
    }

    /// The warnings by line.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found.finish();
        found.sort_by_key(|warning| warning.lines.start);
        found
    }

    /// Rules about single instructions as they were written, for those that begin before line `end`.
    fn instructions(&mut self, dockerfile: &Dockerfile, end: usize) {
        for node in &dockerfile.nodes {
            if let Some(finding) = no_empty_continuation::check(node) {
                self.report_at(finding, node.lines, node.span, &[&node.prev_comments]);
            }
        }
        let stages = dockerfile.stages.iter();
        let instructions =
            stages.flat_map(|stage| std::iter::once(&stage.instruction).chain(&stage.commands));
        for instruction in dockerfile.meta_args.iter().chain(instructions) {
            if instruction.lines.start >= end {
                continue;
            }
            if let InstructionKind::From(from) = &instruction.kind {
                let findings =
                    [stage_name_casing::check(from), from_as_casing::check(&instruction.keyword, from)];
                findings.into_iter().flatten().for_each(|finding| self.report(finding, instruction));
            }
            if let InstructionKind::Maintainer(who) = &instruction.kind {
                self.report(maintainer_deprecated::check(who), instruction);
            }
            if let Some(finding) = invalid_definition_description::check(instruction) {
                self.report(finding, instruction);
            }
        }
    }

    /// Rules about the text of a file without errors.
    pub(crate) fn syntax(&mut self, dockerfile: &Dockerfile) {
        self.instructions(dockerfile, usize::MAX);
        for (instruction, finding) in dockerfile.stages.iter().filter_map(reserved_stage_name::check) {
            self.report(finding, instruction);
        }
        for (instruction, finding) in duplicate_stage_name::check(dockerfile) {
            self.report(finding, instruction);
        }
        for (instruction, finding) in consistent_instruction_casing::check(dockerfile) {
            self.report(finding, instruction);
        }
    }
}

/// The warnings that belong to a file that could not be parsed (E-023): about what stands before the first error. `errors`
/// is what [`crate::parse`] gave. Files without errors get their warnings from [`crate::lower`].
pub fn syntax_warnings(
    dockerfile: &Dockerfile,
    errors: &[Diagnostic],
    options: &LowerOptions,
) -> Vec<Diagnostic> {
    let mut errors = errors.iter().filter(|diagnostic| diagnostic.is_error());
    let (Ok(mut linter), Some(first)) = (Linter::new(dockerfile, options), errors.next()) else {
        return Vec::new();
    };
    if first.phase != Phase::Parse {
        linter.instructions(dockerfile, first.lines.start);
    }
    linter.finish()
}

#[cfg(test)]
mod tests;
