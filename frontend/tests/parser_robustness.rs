//! Bad, huge and deep input: never a panic, never a place outside the text.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_frontend::ast::{Dockerfile, Heredoc, Instruction, InstructionKind, Node, Span, Word};
use rbuild_frontend::{Diagnostic, parse, parse_onbuild, render};

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.file_name().is_some_and(|name| name == "Dockerfile") {
            into.push(path);
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfile"), &mut paths);
    assert!(paths.len() >= 15);
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn check_span(span: Span, text: &str) {
    assert!(span.start <= span.end, "{span:?}");
    assert!(text.get(span.range()).is_some(), "{span:?} in {text:?}");
}

fn check_word(word: &Word, text: &str) {
    check_span(word.span, text);
}

fn check_node(node: &Node, text: &str) {
    check_span(node.span, text);
    // A keyword may be cut by a continuation: then the place has more in it than the word.
    let place = &text[node.keyword.span.range()];
    assert!(place == node.keyword.value || place.contains('\n'), "{place:?} for {:?}", node.keyword.value);
    node.flags.iter().chain(&node.args).for_each(|word| check_word(word, text));
    for Heredoc { span, content, .. } in &node.heredocs {
        assert_eq!(&text[span.range()], content);
    }
    if let Some(child) = &node.child {
        check_node(child, text);
    }
}

/// Everything that has a place has it inside the text, and every diagnostic can be drawn.
fn check(bytes: &[u8]) -> (Dockerfile, Vec<Diagnostic>) {
    let text = rbuild_frontend::decode(bytes);
    let (file, diagnostics) = parse(bytes);
    file.nodes.iter().for_each(|node| check_node(node, &text));
    for diagnostic in &diagnostics {
        diagnostic.spans.iter().for_each(|span| check_span(*span, &text));
        assert!(!render(diagnostic, "Dockerfile", &text).is_empty());
    }
    (file, diagnostics)
}

#[test]
fn every_prefix_and_suffix_of_the_corpus() {
    for text in corpus() {
        for at in 0..=text.len() {
            check(&text[..at]);
            check(&text[at..]);
        }
    }
}

#[test]
fn single_bytes_replaced() {
    for text in corpus() {
        for (index, replacement) in (0..text.len()).zip(b"\\\n\"'<$`[# \0\xff=-".iter().cycle()) {
            let mut changed = text.clone();
            changed[index] = *replacement;
            check(&changed);
        }
    }
}

#[test]
fn words_keep_their_places_through_continuations() {
    let text = "FROM busybox\nCOPY --from=a\\\nb x\\\n y \"z\" /d\n";
    let (file, _) = check(text.as_bytes());
    let copy = &file.nodes[1];
    let place = |word: &Word| text[word.span.range()].to_owned();
    assert_eq!(place(&copy.flags[0]), "--from=a\\\nb");
    assert_eq!(copy.args.iter().map(place).collect::<Vec<_>>(), ["x", "y", "\"z\"", "/d"]);
    let env = "FROM busybox\nENV A=b C=\"d e\"\n";
    let (file, _) = check(env.as_bytes());
    let InstructionKind::Env(pairs) = &file.stages[0].commands[0].kind else { panic!("not ENV") };
    assert_eq!(&env[pairs[1].key.span.range()], "C");
    assert_eq!(&env[pairs[1].value.span.range()], "\"d e\"");
    let json = "FROM busybox\nRUN [\"a\", \"\\u00e9\"]\n";
    let (file, _) = check(json.as_bytes());
    assert_eq!(&json[file.nodes[1].args[1].span.range()], "\"\\u00e9\"");
}

#[test]
fn long_continuation_and_large_file() {
    let long = format!("FROM busybox\nRUN a \\\n{}end\n", " b \\\n".repeat(20_000));
    let (file, diagnostics) = check(long.as_bytes());
    assert_eq!((file.nodes.len(), diagnostics.len()), (2, 0));
    assert_eq!(file.nodes[1].lines.end, 20_003);

    let instruction = format!("RUN {}\n", "x".repeat(1000));
    let large = format!("FROM busybox\n{}", instruction.repeat(10 * 1024));
    let (file, diagnostics) = parse(large.as_bytes());
    assert_eq!((file.stages[0].commands.len(), diagnostics.len()), (10 * 1024, 0));

    let flags = format!("FROM busybox\nRUN {} true\n", "--mount=type=tmpfs,target=/x \\\n".repeat(20_000));
    let (file, _) = parse(flags.as_bytes());
    let InstructionKind::Run(run) = &file.stages[0].commands[0].kind else { panic!("not RUN") };
    assert_eq!(run.mounts.len(), 20_000);
}

#[test]
fn deep_nesting_costs_no_stack() {
    let lines = |piece: &str| format!("{piece}\\\n").repeat(50_000);
    for text in [
        format!("FROM busybox\nONBUILD {} RUN x\n", lines("ONBUILD ")),
        format!("FROM busybox\nRUN {}\n", lines("[")),
        format!("FROM busybox\nRUN {} {}\n", lines("[{\"a\":"), lines("}]")),
        format!("FROM busybox\nRUN <<A {}\nA\n", lines("${a:-")),
        format!("FROM busybox\nRUN <<A {}\nA\n", lines("\"$")),
    ] {
        parse(text.as_bytes());
    }
}

#[test]
fn limits() {
    let (_, diagnostics) = check("x\n".repeat(5000).as_bytes());
    assert_eq!(diagnostics.len(), 101);
    assert_eq!(diagnostics[100].message, "4900 more errors are not shown");
    let (file, diagnostics) = parse("FROM x\n".repeat(100_001).as_bytes());
    assert_eq!(file.nodes.len(), 100_000);
    assert_eq!(diagnostics[0].message, "more than 100000 instructions");
    let (file, diagnostics) = parse(&vec![b'#'; (16 << 20) + 1]);
    assert_eq!((file, diagnostics.len()), (Dockerfile::default(), 1));
    let names: Vec<String> = (0..20_000).map(|n| format!("E{n}")).collect();
    let words: String = names.iter().map(|name| format!("<<{name} \\\n")).collect();
    let bodies: String = names.iter().map(|name| format!("{name}\n")).collect();
    let (file, _) = parse(format!("FROM x\nCOPY {words} /d/\n{bodies}").as_bytes());
    let InstructionKind::Copy(copy) = &file.stages[0].commands[0].kind else { panic!("not COPY") };
    assert_eq!(copy.paths.contents.len(), 20_000);
}

#[test]
fn line_limit() {
    let longest = format!("FROM busybox\nRUN {}\nCMD x\n", "x".repeat(65_531));
    let (file, diagnostics) = parse(longest.as_bytes());
    assert_eq!((file.nodes.len(), diagnostics.len()), (3, 0));
    let too_long = format!("FROM busybox\nRUN {}", "x".repeat(65_532));
    let (file, diagnostics) = check(too_long.as_bytes());
    assert_eq!(file.nodes.len(), 1);
    assert_eq!(diagnostics[0].message, "dockerfile line greater than max allowed size of 65535");
}

#[test]
fn bytes_that_are_no_utf8() {
    let (file, diagnostics) = check(b"# caf\xe9\nFROM busybox\nMAINTAINER Jos\xe9\n");
    assert_eq!(file.nodes[1].args[0].value, "Jos\u{fffd}");
    let rules: Vec<_> = diagnostics.iter().map(|warning| (warning.rule, warning.lines.start)).collect();
    assert_eq!(rules, [(Some("InvalidUtf8"), 1)]);
}

#[test]
fn onbuild_expressions_read_again() {
    let text = "FROM busybox\nonbuild  RUN a \\\n b\nONBUILD COPY --from=x <<E y /z\nbody\nE\n";
    let (file, _) = check(text.as_bytes());
    let expressions: Vec<_> = file.stages[0].commands.iter().map(onbuild).collect();
    assert_eq!(expressions, ["RUN a  b", "COPY --from=x <<E y /z\nbody\nE"]);
    let InstructionKind::Copy(copy) = parse_onbuild(&expressions[1]).unwrap().kind else {
        panic!("not COPY")
    };
    assert_eq!(copy.paths.contents[0].data, "body\n");
    assert_eq!((copy.paths.sources[0].as_str(), copy.paths.dest.as_str()), ("y", "/z"));
    for (text, message) in [
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("RUNN a", "unknown instruction: RUNN (did you mean RUN?)"),
        ("", "file with no instructions"),
    ] {
        assert_eq!(parse_onbuild(text).unwrap_err().full_message(), message);
    }
}

fn onbuild(instruction: &Instruction) -> String {
    let InstructionKind::OnBuild(onbuild) = &instruction.kind else { panic!("not ONBUILD") };
    onbuild.expression.clone()
}
