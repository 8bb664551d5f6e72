use super::compile::{Kind, to_go};
use super::*;
use crate::glob::Glob;
use crate::ignore::read_rules;
use proptest::prelude::*;
use serde_json::Value;
use std::path::PathBuf;

/// Reads a file of the conformance data, or says that it is skipped.
fn conformance(file: &str) -> Option<Value> {
    #[expect(clippy::disallowed_methods, reason = "a test is told by the environment where the data is")]
    let root = std::env::var_os("RBUILD_CONFORMANCE").map(PathBuf::from);
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance");
    match std::fs::read(root.unwrap_or_else(|| beside.into()).join(file)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(error) => {
            println!("skipped: {file}: {error}");
            None
        }
    }
}

/// Prints what was replayed and fails below 99 %.
fn report(file: &str, results: &[(String, bool)]) {
    let passed = results.iter().filter(|(_, passed)| *passed).count();
    println!("{file}: {} run, {passed} passed, 0 skipped", results.len());
    for (name, _) in results.iter().filter(|(_, passed)| !passed) {
        println!("  differs: {name}");
    }
    assert!(!results.is_empty() && passed * 100 >= results.len() * 99);
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// A-130, A-131
#[test]
fn replay_golden_patternmatcher() {
    let Some(data) = conformance("golden/patternmatcher.json") else { return };
    let check = |entry: &Value| match (Matcher::new(strings(&entry["patterns"])), &entry["error"]) {
        (Err(error), Value::String(want)) => error.to_string() == *want,
        (Ok(matcher), Value::Null) => {
            let paths = entry["matches"].as_object().unwrap();
            matcher.has_exclusions() == entry["has_exclusions"]
                && paths.iter().all(|(path, want)| matcher.matches(path) == *want)
        }
        _ => false,
    };
    let results: Vec<_> =
        data.as_array().unwrap().iter().map(|e| (e["patterns"].to_string(), check(e))).collect();
    report("golden/patternmatcher.json", &results);
}

#[test]
fn replay_upstream_tables() {
    let Some(data) = conformance("patternmatcher/upstream-tables.json") else { return };
    let mut results = Vec::new();
    for table in ["single", "multi", "match_one", "compile"] {
        for entry in data[table].as_array().unwrap() {
            let passed = if table == "compile" {
                let (kind, go) = to_go(entry["pattern"].as_str().unwrap());
                let want = match entry["type"].as_str().unwrap() {
                    "exactMatch" => Kind::Exact,
                    "prefixMatch" => Kind::Prefix,
                    "suffixMatch" => Kind::Suffix,
                    _ => Kind::Expression,
                };
                kind == want && (kind != Kind::Expression || format!("^{go}$") == entry["regexp"])
            } else {
                let one = [entry["pattern"].as_str().unwrap_or_default()];
                let patterns = if table == "multi" { strings(&entry["patterns"]) } else { one.to_vec() };
                match Matcher::new(patterns) {
                    Ok(matcher) => {
                        entry["bad_pattern"] != true
                            && matcher.matches(entry["path"].as_str().unwrap()) == entry["match"]
                    }
                    Err(_) => entry["bad_pattern"] == true,
                }
            };
            results.push((format!("{table} {entry}"), passed));
        }
    }
    report("patternmatcher/upstream-tables.json", &results);
}

/// A-098
#[test]
fn replay_golden_filepath_match() {
    let Some(data) = conformance("golden/filepath-match.json") else { return };
    let check = |entry: &Value| match Glob::new(entry["pattern"].as_str().unwrap()) {
        Ok(glob) => {
            entry["error"].is_null() && glob.matches(entry["name"].as_str().unwrap()) == entry["match"]
        }
        Err(error) => entry["error"] == error.to_string(),
    };
    let results: Vec<_> = data.as_array().unwrap().iter().map(|e| (e.to_string(), check(e))).collect();
    report("golden/filepath-match.json", &results);
}

/// A-129
#[test]
fn replay_golden_dockerignore_read() {
    let Some(data) = conformance("golden/dockerignore-read.json") else { return };
    let check = |entry: &Value| {
        let rules = read_rules(entry["content"].as_str().unwrap().as_bytes());
        rules.iter().map(|rule| rule.pattern.as_str()).collect::<Vec<_>>() == strings(&entry["patterns"])
    };
    let results: Vec<_> = data.as_array().unwrap().iter().map(|e| (e.to_string(), check(e))).collect();
    report("golden/dockerignore-read.json", &results);
}

/// A-131, and what the translation to an expression does to unusual patterns.
#[test]
fn unusual_patterns() {
    for (pattern, path, want) in [
        ("**/foo", "foo", true),
        ("foo/**", "foo", false),
        ("foo/**", "foo/x", true),
        (".", "a", false),
        ("/", "a", false),
        ("[[]x", "[x", true),
        ("[a&&b]", "&", true),
        (r"\d", "7", true),
        (r"a\.b", "a.b", true),
        ("a^", "a^", true),
        ("a^*", "a^b", false),
        ("x*y", "x\ny", true),
    ] {
        assert_eq!(Matcher::new([pattern]).unwrap().matches(path), want, "{pattern} {path}");
    }
    assert!(Matcher::new(["[b-a]"]).is_err() && Matcher::new([r"\Qx"]).is_err());
    assert!(Matcher::new(["caf*"]).unwrap().matches(b"caf\xe9"));
    assert!(matches!(
        Matcher::new(["x".repeat(MAX_PATTERN_BYTES + 1)]),
        Err(PatternError::TooLarge { index: 0 })
    ));
}

#[test]
fn clean_is_filepath_clean() {
    for (given, want) in [
        ("", "."),
        ("a//b/./c/..", "a/b"),
        ("../a", "../a"),
        ("/../a", "/a"),
        ("a/../..", ".."),
        ("/", "/"),
        ("../../x/..", "../.."),
        ("a/..", "."),
    ] {
        assert_eq!(clean(given), want, "{given}");
    }
}

proptest! {
    /// Any text is compiled or refused, and the shortcut over all patterns changes no answer.
    #[test]
    fn the_combined_expression_agrees(
        patterns in prop::collection::vec("!?[ab*?/.\\[\\]^\\\\-]{1,8}", 1..5),
        path in "[ab.]{1,3}(/[ab.]{1,3}){0,3}",
    ) {
        if let Ok(mut matcher) = Matcher::new(&patterns) {
            let fast = matcher.decided_by(&path);
            matcher.any = None;
            prop_assert_eq!(fast, matcher.decided_by(&path));
        }
    }

    /// What is below a directory that need not be entered is excluded, each path of it.
    #[test]
    fn pruning_loses_nothing(
        patterns in prop::collection::vec("!?(\\*\\*/?)?[ab*?]{1,2}(/[ab*?]{1,2}){0,2}(/\\*\\*)?", 1..5),
        dir in "[ab]{1,2}(/[ab]{1,2}){0,2}",
        below in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        if let Ok(matcher) = Matcher::new(&patterns) {
            let path = format!("{dir}/{below}");
            if matcher.matches(&dir) && !matcher.may_miss_below(&dir) {
                prop_assert!(matcher.matches(&path), "{:?} {}", patterns, path);
            }
            if !matcher.may_match_below(&dir) {
                prop_assert!(!matcher.matches(&path), "{:?} {}", patterns, path);
            }
        }
    }

    #[test]
    fn no_input_panics(patterns in prop::collection::vec(".{0,20}", 0..4), path in prop::collection::vec(any::<u8>(), 0..20)) {
        if let Ok(matcher) = Matcher::new(&patterns) {
            matcher.matches(&path);
            matcher.may_miss_below(&path);
        }
    }
}
