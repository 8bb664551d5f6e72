//! Replays what BuildKit's own parser returned for a thousand Dockerfiles and some smaller tables.
//!
//! The data is not in the repository; without it every test prints a `skipped:` line.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
#![allow(clippy::print_stdout, reason = "counts and skips are for whoever runs the tests")]

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_frontend::dump::{dump, nodes_json};
use rbuild_frontend::mount::MountSpec;
use rbuild_frontend::number::{parse_duration, ram_in_bytes};
use rbuild_frontend::port::{parse_expose_word, parse_signal};
use rbuild_frontend::suggest::suggest;
use rbuild_frontend::{Diagnostic, Phase, csv, parse};
use serde_json::{Value, json};

/// Entries of a file that must replay, in per cent.
const REQUIRED: usize = 99;

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn data(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or(beside, PathBuf::from);
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: {test}: no conformance data at {}", root.display());
    None
}

fn golden(test: &str, name: &str) -> Option<Vec<Value>> {
    let text = read(&data(test)?.join("golden").join(name))?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// The bytes of a file of the data; says that it is skipped if it is missing.
fn read(path: &Path) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// The folders below a folder of the data, sorted; says that it is skipped if it is missing.
fn folders(path: &Path) -> Option<Vec<PathBuf>> {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            all.sort();
            Some(all)
        }
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// Counts what was replayed and says what did not fit.
#[derive(Default)]
struct Score {
    run: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Score {
    fn check(&mut self, name: &str, what: &str, got: &Value, want: &Value) -> bool {
        if got != want {
            self.failures.push(format!("{name}: {what}\n   got {got}\n  want {want}"));
        }
        got == want
    }

    fn finish(self, file: &str) {
        let passed = self.run - self.failures.len().min(self.run);
        println!("{file}: {} run, {passed} passed, {} skipped", self.run, self.skipped);
        for failure in &self.failures {
            println!("- {failure}");
        }
        assert!(self.run > 0, "{file}: nothing was replayed");
        assert!(passed * 100 >= self.run * REQUIRED, "{file}: only {passed} of {} fit", self.run);
    }
}

fn error_lines(diagnostic: &Diagnostic) -> Value {
    (diagnostic.lines.start..=diagnostic.lines.end).collect()
}

fn first_error(diagnostics: &[Diagnostic]) -> Option<&Diagnostic> {
    diagnostics.iter().find(|diagnostic| diagnostic.is_error())
}

#[test]
fn dockerfile_parse() {
    let Some(entries) = golden("dockerfile_parse", "dockerfile-parse.json") else { return };
    let mut score = Score::default();
    for entry in &entries {
        score.run += 1;
        replay(entry, &mut score);
    }
    score.finish("golden/dockerfile-parse.json");
}

/// Compares one entry; stops at the first difference.
/// BuildKit says this while parsing; rbuild waits for the ARGs in scope.
const FROM_VARIABLE: &str = "'from' doesn't support variable expansion, define alias stage instead";

fn replay(entry: &Value, score: &mut Score) -> Option<()> {
    let name = entry["name"].as_str().unwrap();
    let text = entry["dockerfile"].as_str().unwrap();
    let (file, diagnostics) = parse(text.as_bytes());
    let error = first_error(&diagnostics);
    let parse_error = error.filter(|error| error.phase == Phase::Parse);
    let message = parse_error.map(Diagnostic::full_message);
    // BuildKit's frontend words it so before its parser sees the file.
    let message = match message {
        Some(message) if message == "the Dockerfile cannot be empty" => {
            Some("file with no instructions".to_owned())
        }
        message => message,
    };
    let mut check = |what: &str, got: Value, want: &Value| score.check(name, what, &got, want).then_some(());
    check("parse_error", json!(message), &entry["parse_error"])?;
    if let Some(error) = parse_error {
        return check("error_lines", error_lines(error), &entry["error_lines"]);
    }
    check("escape", json!(file.directives.escape), &entry["escape"])?;
    check("nodes", nodes_json(&file), &entry["nodes"])?;
    check("dump", json!(dump(&file)), &entry["dump"])?;
    let warned = file.nodes.iter().filter(|node| !node.empty_continuations.is_empty());
    let warnings: Vec<String> =
        warned.map(|node| format!("Empty continuation line found in: {}", node.original)).collect();
    check("warnings", json!(warnings), entry.get("warnings").unwrap_or(&json!([])))?;
    let allowed = entry["nondeterministic"]["instruction_error"].as_array();
    let message = json!(error.map(Diagnostic::full_message));
    if error.is_none()
        && entry["instruction_error"].as_str().is_some_and(|error| error.ends_with(FROM_VARIABLE))
    {
        return Some(());
    }
    match allowed {
        Some(allowed) if allowed.contains(&message) => {}
        _ => check("instruction_error", message, &entry["instruction_error"])?,
    }
    if let Some(error) = error {
        return check("instruction_error_lines", error_lines(error), &entry["instruction_error_lines"]);
    }
    let stages = file.stages.iter().map(|stage| {
        let platform = stage.from.platform.as_ref().map_or("", |word| word.as_str());
        json!([stage.name.as_deref().unwrap_or(""), stage.from.image.value, platform])
    });
    check(
        "stages",
        stages.collect(),
        entry.get("stages").filter(|stages| !stages.is_null()).unwrap_or(&json!([])),
    )
}

#[test]
fn parser_testfiles() {
    let Some(root) = data("parser_testfiles") else { return };
    let mut score = Score::default();
    let Some(all) = folders(&root.join("buildkit-parser/testfiles")) else { return };
    for folder in all {
        let files = (read(&folder.join("Dockerfile")), read(&folder.join("result")));
        let (Some(text), Some(want)) = files else {
            score.skipped += 1;
            continue;
        };
        let (file, diagnostics) = parse(&text);
        let want = String::from_utf8_lossy(&want);
        score.run += 1;
        let got = dump(&file) + "\n";
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if score.check(&name, "dump", &json!(got), &json!(want)) {
            let error = first_error(&diagnostics).filter(|error| error.phase == Phase::Parse);
            score.check(&name, "error", &json!(error.map(|error| &error.message)), &Value::Null);
        }
    }
    score.finish("buildkit-parser/testfiles");
}

#[test]
fn parser_testfiles_negative() {
    let Some(root) = data("parser_testfiles_negative") else { return };
    let mut score = Score::default();
    let Some(all) = folders(&root.join("buildkit-parser/testfiles-negative")) else { return };
    for folder in all {
        let Some(text) = read(&folder.join("Dockerfile")) else {
            score.skipped += 1;
            continue;
        };
        let (_, diagnostics) = parse(&text);
        let failed = first_error(&diagnostics).is_some_and(|error| error.phase == Phase::Parse);
        score.run += 1;
        score.check(&folder.display().to_string(), "fails", &json!(failed), &json!(true));
    }
    score.finish("buildkit-parser/testfiles-negative");
}

#[test]
fn parser_testfile_line() {
    let Some(root) = data("parser_testfile_line") else { return };
    let Some(text) = read(&root.join("buildkit-parser/testfile-line/Dockerfile")) else { return };
    let (file, _) = parse(&text);
    let lines: Vec<_> = file.nodes.iter().map(|node| (node.lines.start, node.lines.end)).collect();
    println!(
        "buildkit-parser/testfile-line: 1 run, {} passed, 0 skipped",
        usize::from(lines == [(5, 5), (11, 12), (17, 31)])
    );
    assert_eq!(lines, [(5, 5), (11, 12), (17, 31)]);
}

#[test]
fn run_mount() {
    let Some(entries) = golden("run_mount", "run-mount.json") else { return };
    let mut score = Score::default();
    for entry in &entries {
        score.run += 1;
        let input = entry["in"].as_str().unwrap();
        let early = MountSpec::check(input).err().map(|error| error.to_string());
        if !score.check(input, "parse_error", &json!(early), &entry["parse_error"]) || early.is_some() {
            continue;
        }
        let late = MountSpec::parse(input, |value| Ok(value.to_owned()));
        let error = late.as_ref().err().map(ToString::to_string);
        if score.check(input, "error", &json!(error), &entry["error"])
            && let Ok(spec) = late
        {
            score.check(input, "mount", &mount_json(&spec), &entry["mount"]);
        }
    }
    score.finish("golden/run-mount.json");
}

fn mount_json(spec: &MountSpec) -> Value {
    json!({
        "Type": spec.kind.as_str(),
        "From": spec.from,
        "Source": spec.source,
        "Target": spec.target,
        "ReadOnly": spec.read_only,
        "SizeLimit": spec.size_limit,
        "CacheID": spec.id,
        "CacheSharing": spec.sharing.map_or("", |sharing| sharing.as_str()),
        "Required": spec.required,
        "Env": spec.env,
        "Mode": spec.mode,
        "UID": spec.uid,
        "GID": spec.gid,
    })
}

/// Replays a table of input → value or error.
fn table(name: &str, input: &str, value: &str, function: impl Fn(&str) -> Result<Value, String>) {
    let Some(entries) = golden(name, name) else { return };
    let mut score = Score::default();
    for entry in &entries {
        score.run += 1;
        let text = entry[input].as_str().unwrap();
        match function(text) {
            Ok(got) if entry["error"].is_null() => score.check(text, value, &got, &entry[value]),
            got => score.check(text, "error", &json!(got.err()), &entry["error"]),
        };
    }
    score.finish(&format!("golden/{name}"));
}

#[test]
fn small_tables() {
    let values = |text: &str| csv::fields(text).map(|fields| json!(fields));
    table("csv-fields.json", "in", "fields", values);
    table("durations.json", "duration", "ns", |text| parse_duration(text).map(|value| json!(value)));
    table("ram-in-bytes.json", "size", "bytes", |text| ram_in_bytes(text).map(|value| json!(value)));
    table("expose.json", "in", "out", |text| parse_expose_word(text).map(|value| json!(value)));
    table("signals.json", "signal", "number", |text| parse_signal(text).map(|value| json!(value)));
}

#[test]
fn suggestions() {
    let Some(entries) = golden("suggestions", "suggest.json") else { return };
    let mut score = Score::default();
    for entry in &entries {
        score.run += 1;
        let value = entry["value"].as_str().unwrap();
        let options = entry["options"].as_array().unwrap().iter().map(|option| option.as_str().unwrap());
        let got = suggest(value, options, entry["case_sensitive"].as_bool().unwrap());
        score.check(value, "found", &json!(got.is_some()), &entry["found"]);
        score.check(value, "suggestion", &json!(got.unwrap_or_default()), &entry["suggestion"]);
    }
    score.finish("golden/suggest.json");
}

/// Errors of the whole frontend that parsing alone must find, and no others.
#[test]
fn frontend_errors() {
    let Some(entries) = golden("frontend_errors", "frontend.json") else { return };
    let mut score = Score::default();
    for entry in &entries {
        let name = entry["name"].as_str().unwrap();
        let want = entry["error"].as_str().unwrap_or_default();
        // Lowering reads these options and looks at variables of `from`.
        if want.starts_with("failed to parse check options") || want.ends_with(FROM_VARIABLE) {
            continue;
        }
        let (_, diagnostics) = parse(entry["dockerfile"].as_str().unwrap().as_bytes());
        let error = first_error(&diagnostics);
        if error.is_none() && !want.starts_with("dockerfile parse error") {
            continue;
        }
        score.run += 1;
        let got = json!(error.map(Diagnostic::full_message));
        let allowed = entry["nondeterministic"]["error"].as_array();
        if allowed.is_none_or(|allowed| !allowed.contains(&got)) {
            score.check(name, "error", &got, &entry["error"]);
        }
        if let Some(error) = error
            && entry["error_lines"].is_array()
        {
            score.check(name, "error_lines", &error_lines(error), &entry["error_lines"]);
        }
    }
    score.finish("golden/frontend.json (errors of parsing)");
}
