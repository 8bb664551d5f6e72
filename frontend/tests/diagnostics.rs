//! Mistakes that people really make, and what they are told: testdata/diagnostics/NAME/{Dockerfile,report}. A file
//! `dockerignore` is the context's ignore file. `UPDATE_TESTDATA=1` writes the reports.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rbuild_context::Ignore;
use rbuild_frontend::{
    Diagnostic, IgnoreRule, IgnoreRules, ImageRequest, LowerOptions, ResolveError, ResolvedImage, Resolver,
    check_syntax, lower, parse, render, syntax_warnings,
};
use rbuild_oci::{Digest, ImageConfig, Platform};
use rbuild_tree::TreePath;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Images that exist.
const IMAGES: [&str; 4] = ["debian:12", "golang:1.23", "node:22", "ubuntu:latest"];

struct Registry;

impl Resolver for Registry {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let name = request.reference.trim_start_matches("docker.io/library/");
        if !IMAGES.contains(&name) {
            return Err(ResolveError { message: format!("{}: not found", request.reference) });
        }
        let config = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: ImageConfig = serde_json::from_str(config).unwrap();
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config })
    }
}

fn ignore_rules(content: &[u8]) -> IgnoreRules {
    let ignore = Ignore::parse(".dockerignore", content).unwrap();
    let rules = ignore.rules().iter();
    let rules = rules.map(|rule| IgnoreRule { line: rule.line, pattern: rule.pattern.clone() }).collect();
    let excluded_by = move |path: &str| {
        let rule = ignore.rule(&TreePath::clamped(path.as_bytes()).ok()?)?;
        ignore.rules().iter().position(|known| known == rule)
    };
    IgnoreRules { file: ".dockerignore".into(), rules, excluded_by: Arc::new(excluded_by) }
}

fn report(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
    let options = LowerOptions {
        build_platform: Platform::linux("amd64"),
        ignore: fs::read(dir.join("dockerignore")).ok().map(|content| ignore_rules(&content)),
        ..LowerOptions::default()
    };
    if let Some(refusal) = check_syntax(text.as_bytes(), None) {
        return format!("{}\n\n", render(&refusal, "Dockerfile", &text));
    }
    let (file, mut found) = parse(text.as_bytes());
    match found.iter().any(Diagnostic::is_error) {
        true => found.extend(syntax_warnings(&file, &found, &options)),
        false => found.extend(lower(&file, &options, &Registry).1),
    }
    found.iter().map(|diagnostic| format!("{}\n\n", render(diagnostic, "Dockerfile", &text))).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for whoever changes the expectations")]
fn reports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/diagnostics");
    let mut dirs: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert!(dirs.len() >= 10);
    let update = std::env::var_os("UPDATE_TESTDATA").is_some();
    let mut failures = String::new();
    for dir in dirs {
        let (got, path) = (report(&dir), dir.join("report"));
        if update {
            fs::write(&path, &got).unwrap();
        }
        let want = fs::read_to_string(&path).unwrap_or_default();
        if got != want {
            failures.push_str(&format!("--- {}\n got:\n{got}\nwant:\n{want}\n", path.display()));
        }
        // Whoever reads it wants to know where it is and what to do.
        assert!(got.contains("Dockerfile:") && got.contains("= help: "), "{}:\n{got}", dir.display());
    }
    assert!(failures.is_empty(), "{failures}");
}
