//! Dockerfiles of our own in testdata/dockerfile: `ok/NAME` has a `tree`, `err/NAME` has `diagnostics`.
//! `UPDATE_TESTDATA=1` writes what the parser says instead of comparing.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_frontend::dump::dump;
use rbuild_frontend::{Diagnostic, parse, render};

fn folders(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfile").join(kind);
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

#[expect(clippy::disallowed_methods, reason = "a switch for whoever changes the expectations")]
fn compare(path: &Path, got: &str, failures: &mut String) {
    if std::env::var_os("UPDATE_TESTDATA").is_some() {
        fs::write(path, got).unwrap();
        return;
    }
    let want = fs::read_to_string(path).unwrap_or_default();
    if got != want {
        let _ = writeln!(failures, "--- {}\n got:\n{got}\nwant:\n{want}", path.display());
    }
}

/// The directives, then every instruction with its lines.
fn tree(text: &[u8]) -> String {
    let (file, diagnostics) = parse(text);
    assert!(!diagnostics.iter().any(Diagnostic::is_error), "{diagnostics:?}");
    let mut tree = String::new();
    if let Some(syntax) = &file.directives.syntax {
        let _ = writeln!(tree, "syntax {}", syntax.value);
    }
    if let Some(check) = &file.directives.check {
        let _ = writeln!(tree, "check {}", check.value);
    }
    let _ = writeln!(tree, "escape {}", file.directives.escape);
    for (line, node) in dump(&file).lines().zip(&file.nodes) {
        for comment in &node.prev_comments {
            let _ = writeln!(tree, "      # {comment}");
        }
        let _ = writeln!(tree, "{:>2}-{:<2} {line}", node.lines.start, node.lines.end);
        for heredoc in &node.heredocs {
            let _ = writeln!(tree, "      << {heredoc:?}");
        }
    }
    for stage in &file.stages {
        let (name, from) = (stage.name.as_deref().unwrap_or("-"), &stage.from.image.value);
        let _ = writeln!(tree, "stage {name} from {from}: {} instructions", stage.commands.len());
    }
    tree
}

#[test]
fn trees() {
    let mut failures = String::new();
    for folder in folders("ok") {
        let got = tree(&fs::read(folder.join("Dockerfile")).unwrap());
        compare(&folder.join("tree"), &got, &mut failures);
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn diagnostics() {
    let mut failures = String::new();
    for folder in folders("err") {
        let text = fs::read_to_string(folder.join("Dockerfile")).unwrap();
        let (_, diagnostics) = parse(text.as_bytes());
        assert!(diagnostics.iter().any(Diagnostic::is_error), "{}", folder.display());
        let mut got = String::new();
        for diagnostic in &diagnostics {
            let _ = writeln!(got, "{}\n", render(diagnostic, "Dockerfile", &text));
        }
        compare(&folder.join("diagnostics"), &got, &mut failures);
    }
    assert!(failures.is_empty(), "{failures}");
}
