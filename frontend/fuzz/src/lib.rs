//! What must hold for any input. The fuzz targets call these, and so does the short run in tests/fuzz_short.rs.

use rbuild_context::Ignore;
use rbuild_context::ignore::read_rules;
use rbuild_frontend::ast::{Dockerfile, Node};
use rbuild_frontend::dump::{dump, nodes_json};
use rbuild_frontend::env::{Env, split_pair};
use rbuild_frontend::shell::{Lex, MAX_EXPANSION};
use rbuild_frontend::{
    Diagnostic, ImageRequest, LowerOptions, ResolveError, ResolvedImage, Resolver, examine, parse, render,
    syntax_warnings,
};
use rbuild_oci::{Digest, ImageConfig, Platform};
use rbuild_tree::TreePath;

/// Longer inputs only make a run slower.
const MAX_INPUT: usize = 64 << 10;

struct Images;

impl Resolver for Images {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"OnBuild":["ENV a=$b"]},
                       "rootfs":{"type":"layers","diff_ids":[]}}"#;
        match serde_json::from_str::<ImageConfig>(text) {
            Ok(config) => Ok(ResolvedImage { manifest: Digest::of(&request.reference), config }),
            Err(error) => Err(ResolveError { message: error.to_string() }),
        }
    }
}

/// A Dockerfile: places lie inside the text, an error or a definition comes out, and every report can be drawn.
pub fn parser(data: &[u8]) {
    let data = &data[..data.len().min(MAX_INPUT)];
    let text = rbuild_frontend::decode(data);
    let (file, mut found) = parse(data);
    check_tree(&file, &text);
    assert!(!dump(&file).contains('\0') || text.contains('\0'));
    assert_eq!(nodes_json(&file).as_array().map(Vec::len), Some(file.nodes.len()));
    let options = LowerOptions {
        build_platform: Platform::linux("amd64"),
        all_stages: data.len().is_multiple_of(2),
        ..LowerOptions::default()
    };
    if found.iter().any(Diagnostic::is_error) {
        let warnings = syntax_warnings(&file, &found, &options);
        assert!(!warnings.iter().any(Diagnostic::is_error));
        found.extend(warnings);
    } else {
        let lowered = examine(&file, &options, &Images);
        let failed = lowered.diagnostics.iter().any(Diagnostic::is_error);
        assert_eq!(lowered.definition.is_none(), failed);
        found.extend(lowered.diagnostics);
    }
    for diagnostic in &found {
        check_diagnostic(diagnostic, &text);
    }
}

fn check_tree(file: &Dockerfile, text: &str) {
    let mut last = 0;
    for node in &file.nodes {
        assert!(node.lines.start > last && node.lines.start <= node.lines.end, "{:?}", node.lines);
        last = node.lines.start;
        check_node(node, text);
    }
}

fn check_node(node: &Node, text: &str) {
    let words = node.args.iter().chain(&node.flags).chain([&node.keyword]);
    for span in words.map(|word| word.span).chain([node.span]) {
        assert!(span.is_empty() || text.get(span.range()).is_some(), "{span:?}");
    }
    if let Some(child) = &node.child {
        check_node(child, text);
    }
}

fn check_diagnostic(diagnostic: &Diagnostic, text: &str) {
    assert!(!diagnostic.message.is_empty());
    assert_ne!(diagnostic.help.as_deref(), Some(""));
    for span in &diagnostic.spans {
        assert!(text.get(span.range()).is_some(), "{diagnostic:?}");
    }
    assert!(render(diagnostic, "Dockerfile", text).contains("Dockerfile"));
}

/// Variables as `NAME=value` lines, then a word on the last line: the result is bounded, and repeats.
pub fn expansion(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(MAX_INPUT)]);
    let (variables, word) = text.rsplit_once('\n').unwrap_or(("", &text));
    let env: Env = variables.lines().map(split_pair).collect();
    for bits in 0..32u8 {
        let on = |bit: u8| bits & (1 << bit) != 0;
        let lex = Lex {
            escape: if on(0) { '`' } else { '\\' },
            raw_quotes: on(1),
            raw_escapes: on(2),
            skip_process_quotes: on(3),
            skip_unset_env: on(4),
        };
        let expansion = lex.process(word, &env);
        assert_eq!(expansion, lex.process(word, &env));
        let longest = env.iter().map(|(_, value)| value.len()).max().unwrap_or_default();
        if let Ok(expansion) = expansion {
            assert!(expansion.result.len() <= word.len() + MAX_EXPANSION + longest);
            assert!(expansion.matched.is_disjoint(&expansion.unmatched));
        }
    }
}

/// An ignore file: the rule that excludes a path is one of its own and no `!`.
pub fn dockerignore(data: &[u8]) {
    let data = &data[..data.len().min(MAX_INPUT)];
    let rules = read_rules(data);
    let Ok(ignore) = Ignore::parse(".dockerignore", data) else { return };
    assert_eq!(ignore.rules(), rules);
    for path in ["a", "a/b", "a/b/c.go", "src/main.rs", "ä/ö", ".git/config", "node_modules/x/y", "**", "a b"]
    {
        let Ok(path) = TreePath::clamped(path.as_bytes()) else { continue };
        if let Some(rule) = ignore.rule(&path) {
            assert!(rules.contains(rule) && !rule.pattern.starts_with('!'), "{rule:?}");
        }
    }
}
