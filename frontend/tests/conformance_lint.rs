//! Replays lint/buildkit-lint-cases.json: what BuildKit's own tests of its checks expect.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use rbuild_context::Ignore;
use rbuild_context::ignore::read_rules;
use rbuild_frontend::lint::rule;
use rbuild_frontend::{
    Diagnostic, IgnoreRule, IgnoreRules, ImageRequest, LowerOptions, ResolveError, ResolvedImage, Resolver,
    lower, parse, syntax_warnings,
};
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn cases() -> Vec<Value> {
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    match std::fs::read_to_string(root.join("lint/buildkit-lint-cases.json")) {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(error) => {
            println!("skipped: conformance_lint: {error}");
            Vec::new()
        }
    }
}

/// Every image is a busybox.
struct Busybox;

impl Resolver for Busybox {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let config: ImageConfig = serde_json::from_value(json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of("layer")]},
        }))
        .unwrap();
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config })
    }
}

fn ignore_rules(content: &str) -> IgnoreRules {
    let ignore = Ignore::parse(".dockerignore", content.as_bytes()).unwrap();
    let rules = read_rules(content.as_bytes());
    let shown =
        rules.iter().map(|rule| IgnoreRule { line: rule.line, pattern: rule.pattern.clone() }).collect();
    let excluded_by = move |path: &str| {
        let path = rbuild_tree::TreePath::clamped(path.as_bytes()).ok()?;
        let rule = ignore.rule(&path)?;
        rules.iter().position(|known| known == rule)
    };
    IgnoreRules { file: ".dockerignore".into(), rules: shown, excluded_by: Arc::new(excluded_by) }
}

fn options(case: &Value, all_stages: bool) -> LowerOptions {
    let attrs = case["frontend_attrs"].as_object().into_iter().flatten();
    let build_args = attrs.filter_map(|(key, value)| {
        Some((key.strip_prefix("build-arg:")?.to_owned(), value.as_str()?.to_owned()))
    });
    LowerOptions {
        build_args: build_args.collect(),
        build_platform: Platform::linux("amd64"),
        ignore: case["dockerignore"].as_str().map(ignore_rules),
        all_stages,
        ..LowerOptions::default()
    }
}

/// Warnings and the first error.
fn checked(case: &Value, all_stages: bool) -> (Vec<Value>, Option<Diagnostic>) {
    let options = options(case, all_stages);
    let (file, mut diagnostics) = parse(case["dockerfile"].as_str().unwrap().as_bytes());
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => diagnostics.extend(syntax_warnings(&file, &diagnostics, &options)),
        false => diagnostics.extend(lower(&file, &options, &Busybox).1),
    }
    let warnings = diagnostics.iter().filter(|diagnostic| !diagnostic.is_error());
    let warnings = warnings.map(|warning| {
        let rule = rule(warning.rule.unwrap()).unwrap();
        let mut value = json!({
            "RuleName": rule.name,
            "Description": rule.description,
            "Detail": warning.message,
            "Line": warning.lines.start,
            "Level": 1,
        });
        if let Some(url) = rule.url() {
            value["URL"] = url.into();
        }
        value
    });
    let warnings = sorted(warnings.collect());
    (warnings, diagnostics.into_iter().find(Diagnostic::is_error))
}

/// By line; BuildKit's own order is that of its passes.
fn sorted(mut warnings: Vec<Value>) -> Vec<Value> {
    warnings.sort_by_key(|warning| {
        (warning["Line"].as_u64(), warning["RuleName"].to_string(), warning["Detail"].to_string())
    });
    warnings
}

fn expected(case: &Value, key: &str) -> Vec<Value> {
    // Keys in one order, so that values compare equal.
    sorted(case[key].as_array().cloned().unwrap_or_default())
}

/// The data has no warnings for these, because BuildKit's test computes them; golden/frontend.json has what BuildKit
/// says about the same files.
const WRONGLY_EMPTY: [&str; 1] = ["testMultipleInstructionsDisallowed"];

/// The data has lines for the check request at which the file has other instructions (ENV is on line 5, not 3).
const WRONG_LINES: [&str; 1] = ["testLegacyKeyValueFormat#2"];

#[test]
fn lint_cases() {
    let cases = cases();
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    for case in &cases {
        let function = case["func"].as_str().unwrap();
        let name = format!("{function}#{}", case["index"]);
        if !case["unresolved"].is_null() || WRONGLY_EMPTY.contains(&function) {
            skipped += 1;
            println!("skipped: {name}: the case is incomplete");
            continue;
        }
        let unreached = if case["unmarshal_warnings"].is_null() { "warnings" } else { "unmarshal_warnings" };
        let mut ok = true;
        for (all_stages, key) in [(false, "warnings"), (true, unreached)] {
            if all_stages && WRONG_LINES.contains(&&*name) {
                println!("skipped: {name}: the data has wrong lines for the check request");
                continue;
            }
            let (warnings, error) = checked(case, all_stages);
            let error = error.map(|error| error.full_message());
            let wanted = case["build_err"].as_str().map(str::to_owned);
            if warnings != expected(case, key) || error != wanted {
                ok = false;
                let expected = Value::Array(expected(case, key));
                failures.push(format!("{name} (all stages: {all_stages})\n  expected {wanted:?} {expected:#}\n  got      {error:?} {:#}", Value::Array(warnings)));
            }
        }
        passed += usize::from(ok);
    }
    failures.iter().for_each(|failure| println!("{failure}"));
    let run = cases.len() - skipped;
    println!("lint/buildkit-lint-cases.json: {run} run, {passed} passed, {skipped} skipped");
    assert!(passed * 100 >= run * 99, "{} cases differ", failures.len());
}
