//! From text to [`Dockerfile`].

use crate::ast::{Dockerfile, Instruction, InstructionKind, LineRange, Node, Stage};
use crate::diagnostic::{Diagnostic, Diagnostics, Phase};
use crate::instruction::type_instruction;
use crate::node::parse_nodes;
use crate::source::{MAX_FILE_SIZE, decode};

/// Reads a Dockerfile. Never fails: what could be read is in the first part, what could not is named in the
/// second. The first diagnostic of severity error is the one that BuildKit would stop at.
///
/// Bytes that are not UTF-8 become U+FFFD, and spans refer to that text; a warning says so.
pub fn parse(text: &[u8]) -> (Dockerfile, Vec<Diagnostic>) {
    if text.len() > MAX_FILE_SIZE {
        let message = format!("the Dockerfile is larger than {} MiB", MAX_FILE_SIZE >> 20);
        let error = Diagnostic::error(message, LineRange::default()).in_phase(Phase::Parse);
        return (Dockerfile::default(), vec![error.with_help("move data into files and COPY them")]);
    }
    if text.is_empty() {
        let error =
            Diagnostic::error("the Dockerfile cannot be empty", LineRange::default()).in_phase(Phase::Parse);
        return (Dockerfile::default(), vec![error.with_help("begin it with a FROM instruction")]);
    }
    let decoded = decode(text);
    let mut found = parse_nodes(&decoded);
    if decoded.as_bytes() != text {
        keep_bodies(&mut found.nodes, text, &decoded);
    }
    let mut stages = StageBuilder::default();
    for (index, node) in found.nodes.iter().enumerate() {
        stages.add(node, index);
    }
    let mut diagnostics = found.diagnostics;
    // BuildKit reads all nodes before it types the first one: its first error is the first of these.
    diagnostics.extend(stages.diagnostics.finish());
    diagnostics.sort_by_key(|diagnostic| (diagnostic.severity, sorting_phase(diagnostic.phase)));
    let warning = not_utf8(text);
    let file = Dockerfile {
        replaced_bytes: warning.is_some(),
        directives: found.directives,
        nodes: found.nodes,
        meta_args: stages.meta_args,
        stages: stages.stages,
    };
    diagnostics.extend(warning);
    (file, diagnostics)
}

/// Gives the bodies of heredocs their bytes: what `decode` changed stays within its line.
fn keep_bodies(nodes: &mut [Node], text: &[u8], decoded: &str) {
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let ends: Vec<usize> = decoded.match_indices('\n').map(|(at, _)| at).collect();
    for heredoc in nodes.iter_mut().flat_map(|node| &mut node.heredocs) {
        if heredoc.content.contains(char::REPLACEMENT_CHARACTER) {
            let first = ends.partition_point(|&end| end < heredoc.span.start);
            let count = heredoc.content.split_inclusive('\n').count();
            heredoc.raw = lines.get(first..first + count).map(<[_]>::concat);
        }
    }
}

/// Errors without a stage are found while typing, in file order.
fn sorting_phase(phase: Phase) -> u8 {
    u8::from(phase != Phase::Parse)
}

fn not_utf8(text: &[u8]) -> Option<Diagnostic> {
    let at = std::str::from_utf8(text).err()?.valid_up_to();
    let line = 1 + text[..at].iter().filter(|&&byte| byte == b'\n').count();
    let message = "the Dockerfile is not UTF-8: bytes that are none were replaced";
    let warning = Diagnostic::warning("InvalidUtf8", message, LineRange::new(line, line));
    Some(warning.with_help("save the file as UTF-8"))
}

/// Reads the text of one ONBUILD trigger (from a base image's config or [`crate::ast::OnBuild::expression`]).
/// Its spans and lines refer to `text`.
pub fn parse_onbuild(text: &str) -> Result<Instruction, Diagnostic> {
    let found = parse_nodes(text);
    if let Some(error) = found.diagnostics.into_iter().find(Diagnostic::is_error) {
        return Err(error);
    }
    match found.nodes.as_slice() {
        [node] => type_instruction(node, 0).map_err(|error| error.in_phase(Phase::Build)),
        _ => Err(Diagnostic::error("onbuild trigger should be a single expression", LineRange::default())),
    }
}

/// Types nodes and sorts them into stages.
#[derive(Default)]
struct StageBuilder {
    meta_args: Vec<Instruction>,
    stages: Vec<Stage>,
    diagnostics: Diagnostics,
    /// What follows a FROM that could not be read belongs nowhere and needs no further complaint; the same for
    /// what follows the first complaint about a missing FROM.
    orphans: bool,
}

impl StageBuilder {
    fn add(&mut self, node: &Node, index: usize) {
        let from = node.keyword.value.eq_ignore_ascii_case("from");
        match type_instruction(node, index) {
            Err(error) => {
                self.diagnostics.push(error);
                self.orphans |= from;
            }
            Ok(instruction) => self.place(instruction),
        }
    }

    fn place(&mut self, instruction: Instruction) {
        match &instruction.kind {
            InstructionKind::From(from) => {
                self.orphans = false;
                self.stages.push(Stage {
                    name: from.name.as_ref().map(|name| name.value.to_lowercase()),
                    from: from.clone(),
                    lines: instruction.lines,
                    instruction,
                    commands: Vec::new(),
                });
            }
            InstructionKind::Arg(_) if self.stages.is_empty() => self.meta_args.push(instruction),
            _ if self.orphans => {}
            _ => match self.stages.last_mut() {
                Some(stage) => {
                    stage.lines.end = instruction.lines.end;
                    stage.commands.push(instruction);
                }
                None => {
                    let error = Diagnostic::error("no build stage in current context", instruction.lines);
                    let error = error.with_span(instruction.keyword.span);
                    self.diagnostics.push(error.with_help("begin with FROM; only ARG may stand before it"));
                    self.orphans = true;
                }
            },
        }
    }
}
