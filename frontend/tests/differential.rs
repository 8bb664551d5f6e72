//! The crate dockerfile-parser as an independent oracle: on the lines that it understands it has to find the same
//! keywords, images and arguments. It decides nothing: it is deprecated, knows the language of 2020 and overflows
//! the stack on long continuations.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use dockerfile_parser::{
    BreakableString, BreakableStringComponent, Dockerfile, Instruction, ShellOrExecExpr,
};
use rbuild_frontend::ast::Node;
use rbuild_frontend::{Diagnostic, parse};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Its grammar recurses once for each continued line and each character of some words.
const MAX_CONTINUED: usize = 60;
const MAX_TEXT: usize = 16 << 10;

/// Why a whole file is not compared.
type FileRule = (fn(&str) -> bool, &'static str);
const FILES: &[FileRule] = &[
    (
        |text| text.len() > MAX_TEXT || longest_continuation(text) > MAX_CONTINUED,
        "it would overflow the stack",
    ),
    (|text| text.contains("<<"), "it does not know heredocs"),
    (|text| has_escape_directive(text), "it does not know the escape directive"),
];

/// Where it reads an instruction differently, and why that is its fault.
type NodeRule = (fn(&Node) -> bool, &'static str);
const NODES: &[NodeRule] = &[
    (|node| is(node, "run") && !node.flags.is_empty(), "it takes flags of RUN for a part of the command"),
    (|node| is(node, "arg") && node.args.len() != 1, "it knows one name in an ARG"),
    (
        |node| {
            ["copy", "add"].iter().any(|name| is(node, name))
                && node.flags.iter().any(|flag| !flag.value.contains('='))
        },
        "it does not know flags without a value",
    ),
    (
        |node| is(node, "from") && node.original.contains('%'),
        "it takes the whole line for the image when that is no valid name",
    ),
    (|node| is(node, "arg") && node.original.contains("${"), "it knows no variable as the name of an ARG"),
    (
        |node| node.flags.iter().any(|flag| flag.value.ends_with('=')),
        "it takes a flag with an empty value for a path",
    ),
    (|node| node.json && is(node, "copy"), "it does not know the JSON form of COPY"),
    (|node| has_quote_or_escape(node), "it takes quotes and escapes off in its own way"),
];

fn is(node: &Node, keyword: &str) -> bool {
    node.keyword.value.eq_ignore_ascii_case(keyword)
}

fn has_quote_or_escape(node: &Node) -> bool {
    !is(node, "run") && node.original.contains(['"', '\'', '\\'])
}

fn longest_continuation(text: &str) -> usize {
    let mut longest = 0;
    let mut current = 0;
    for line in text.lines() {
        // Comments and blank lines do not end a continuation.
        let goes_on =
            line.trim_end().ends_with('\\') || line.trim().is_empty() || line.trim_start().starts_with('#');
        current = if goes_on { current + 1 } else { 0 };
        longest = longest.max(current);
    }
    longest
}

fn has_escape_directive(text: &str) -> bool {
    text.lines().take(3).any(|line| line.to_lowercase().replace(' ', "").starts_with("#escape="))
}

/// Without blanks and continuations, which the two treat differently.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '\\').collect()
}

fn joined(text: &BreakableString) -> String {
    let parts = text.components.iter().filter_map(|part| match part {
        BreakableStringComponent::String(part) => Some(part.content.as_str()),
        BreakableStringComponent::Comment(_) => None,
    });
    parts.collect()
}

/// Keyword and arguments in one form.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    keyword: String,
    flags: Vec<String>,
    args: Vec<String>,
}

fn expression(keyword: &str, expression: &ShellOrExecExpr) -> Read {
    let args = match expression {
        ShellOrExecExpr::Shell(text) => vec![squeezed(&joined(text))],
        ShellOrExecExpr::Exec(words) => words.elements.iter().map(|word| squeezed(&word.content)).collect(),
    };
    Read { keyword: keyword.into(), flags: Vec::new(), args }
}

fn theirs(instruction: &Instruction) -> Read {
    let read =
        |keyword: &str, flags: Vec<String>, args: Vec<String>| Read { keyword: keyword.into(), flags, args };
    match instruction {
        Instruction::From(from) => {
            let flags =
                from.flags.iter().map(|flag| format!("--{}={}", flag.name.content, flag.value.content));
            let names = std::iter::once(&from.image).chain(&from.alias);
            read("from", flags.collect(), names.map(|name| name.content.clone()).collect())
        }
        Instruction::Arg(arg) => {
            let value = arg.value.as_ref().map(|value| squeezed(&value.content));
            read("arg", Vec::new(), std::iter::once(arg.name.content.clone()).chain(value).collect())
        }
        Instruction::Label(label) => {
            let pairs = label
                .labels
                .iter()
                .flat_map(|label| [squeezed(&label.name.content), squeezed(&label.value.content)]);
            read("label", Vec::new(), pairs.collect())
        }
        Instruction::Env(env) => {
            let pairs =
                env.vars.iter().flat_map(|var| [squeezed(&var.key.content), squeezed(&joined(&var.value))]);
            read("env", Vec::new(), pairs.collect())
        }
        Instruction::Copy(copy) => {
            let flags =
                copy.flags.iter().map(|flag| format!("--{}={}", flag.name.content, flag.value.content));
            let paths = copy.sources.iter().chain([&copy.destination]);
            read("copy", flags.collect(), paths.map(|path| path.content.clone()).collect())
        }
        Instruction::Run(run) => expression("run", &run.expr),
        Instruction::Cmd(cmd) => expression("cmd", &cmd.expr),
        Instruction::Entrypoint(entrypoint) => expression("entrypoint", &entrypoint.expr),
        Instruction::Misc(misc) => {
            let keyword = misc.instruction.content.to_lowercase();
            read(&keyword, Vec::new(), vec![squeezed(&joined(&misc.arguments))])
        }
    }
}

fn ours(node: &Node) -> Read {
    let keyword = node.keyword.value.to_lowercase();
    let words = || node.args.iter().map(|word| word.value.clone());
    let flags = || node.flags.iter().map(|flag| flag.value.clone()).collect();
    let (flags, args) = match keyword.as_str() {
        "from" => {
            (flags(), words().enumerate().filter(|(index, _)| *index != 1).map(|(_, word)| word).collect())
        }
        "arg" => {
            let word = words().next().unwrap_or_default();
            let args = match word.split_once('=') {
                Some((name, value)) => vec![name.to_owned(), squeezed(value)],
                None => vec![word],
            };
            (Vec::new(), args)
        }
        "env" | "label" => {
            let pairs = node.args.chunks(3).flat_map(|triple| triple.iter().take(2));
            (Vec::new(), pairs.map(|word| squeezed(&word.value)).collect())
        }
        "copy" => (flags(), words().collect()),
        "run" | "cmd" | "entrypoint" => (Vec::new(), words().map(|word| squeezed(&word)).collect()),
        _ => {
            let rest = node.original.trim_start().get(keyword.len()..).unwrap_or_default();
            (Vec::new(), vec![squeezed(rest)])
        }
    };
    Read { keyword, flags, args }
}

#[derive(Default)]
struct Tally {
    files: usize,
    not_understood: usize,
    refused: usize,
    instructions: usize,
    explained: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

impl Tally {
    fn explain(&mut self, reason: &'static str) {
        *self.explained.entry(reason).or_default() += 1;
    }

    fn file(&mut self, name: &str, text: &str) {
        if let Some((_, reason)) = FILES.iter().find(|(applies, _)| applies(text)) {
            return self.explain(reason);
        }
        let (file, diagnostics) = parse(text.as_bytes());
        // Its errors are no judgement: it refuses much of the language.
        let Ok(other) = Dockerfile::parse(text) else {
            self.not_understood += 1;
            return;
        };
        if diagnostics.iter().any(Diagnostic::is_error) {
            // It checks neither flags nor counts of arguments.
            self.refused += 1;
            return;
        }
        self.files += 1;
        if other.instructions.len() != file.nodes.len() {
            match NODES.iter().find(|(applies, _)| file.nodes.iter().any(applies)) {
                Some((_, reason)) => self.explain(reason),
                None => self.failures.push(format!(
                    "{name}: {} instructions, the oracle has {}",
                    file.nodes.len(),
                    other.instructions.len()
                )),
            }
            return;
        }
        for (node, instruction) in file.nodes.iter().zip(&other.instructions) {
            self.instructions += 1;
            let (ours, theirs) = (ours(node), theirs(instruction));
            if ours == theirs {
                continue;
            }
            match NODES.iter().find(|(applies, _)| applies(node)) {
                Some((_, reason)) => self.explain(reason),
                None => {
                    self.failures
                        .push(format!("{name}:{}\n  ours   {ours:?}\n  theirs {theirs:?}", node.lines.start));
                }
            }
        }
    }
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, found),
            false if path.file_name().is_some_and(|name| name.to_string_lossy().contains("Dockerfile")) => {
                found.push(path)
            }
            false => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn conformance() -> PathBuf {
    std::env::var_os("RBUILD_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"), PathBuf::from)
}

#[test]
fn the_oracle_agrees() {
    let mut paths = Vec::new();
    files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata"), &mut paths);
    assert!(paths.len() >= 20, "{}", paths.len());
    files_below(&conformance(), &mut paths);
    paths.sort();
    let mut texts: Vec<(String, String)> = paths
        .iter()
        .filter_map(|path| Some((path.display().to_string(), fs::read_to_string(path).ok()?)))
        .collect();
    match fs::read_to_string(conformance().join("golden/dockerfile-parse.json")) {
        Ok(golden) => {
            let golden: Vec<Value> = serde_json::from_str(&golden).unwrap();
            let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
            texts.extend(golden.iter().map(|entry| (text(entry, "name"), text(entry, "dockerfile"))));
        }
        Err(error) => println!("skipped: the_oracle_agrees: golden/dockerfile-parse.json: {error}"),
    }
    // The oracle recurses: give it room, so that a file that is a little too long does not end the test.
    let work = move || {
        let mut tally = Tally::default();
        texts.iter().for_each(|(name, text)| tally.file(name, text));
        tally
    };
    let tally = std::thread::Builder::new().stack_size(256 << 20).spawn(work).unwrap().join().unwrap();
    println!(
        "{} files and {} instructions compared; {} files that the oracle does not understand, {} that we refuse",
        tally.files, tally.instructions, tally.not_understood, tally.refused
    );
    tally.explained.iter().for_each(|(reason, times)| println!("{times:5} times: {reason}"));
    assert!(
        tally.failures.is_empty(),
        "{} differences:\n{}",
        tally.failures.len(),
        tally.failures.join("\n")
    );
    assert!(tally.instructions > 0);
}
