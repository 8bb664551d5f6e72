//! Replays golden/frontend.json: what BuildKit's frontend makes of a thousand Dockerfiles without running anything.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use rbuild_frontend::{
    Diagnostic, ImageRequest, LowerOptions, ResolveError, ResolvedImage, Resolver, Severity, lower, parse,
    syntax_warnings,
};
use rbuild_ir::{Definition, Op, Vertex};
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn data(name: &str) -> Option<Value> {
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    match std::fs::read_to_string(root.join(name)) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            println!("skipped: {name}: {error}");
            None
        }
    }
}

/// Answers from frontend-bases.json as the recording did: by the official image's name, else busybox.
struct Bases(BTreeMap<String, ImageConfig>);

impl Resolver for Bases {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let name = request.reference.split('@').next().unwrap_or_default();
        let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
        if name.contains("/missing/") {
            return Err(ResolveError { message: format!("{}: not found", request.reference) });
        }
        let short = name.strip_prefix("docker.io/library/").unwrap_or_default();
        let config = self.0.get(short).unwrap_or(&self.0["busybox"]).clone();
        let pinned = request.reference.split_once('@').and_then(|(_, digest)| digest.parse().ok());
        Ok(ResolvedImage { manifest: pinned.unwrap_or_else(|| fake_digest(&request.reference)), config })
    }
}

/// The manifest of an unpinned image.
fn fake_digest(reference: &str) -> Digest {
    Digest::of(reference)
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    map.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn options(entry: &Value) -> LowerOptions {
    LowerOptions {
        build_args: pairs(&entry["build_args"]),
        target: entry["target"].as_str().filter(|t| !t.is_empty()).map(str::to_owned),
        build_platform: Platform::linux("amd64"),
        target_platform: entry["platform"]
            .as_str()
            .map(|text| text.parse::<Platform>().unwrap().normalized()),
        labels: pairs(&entry["labels"]),
        ..LowerOptions::default()
    }
}

/// The config as BuildKit's frontend gives it: new history behind the base's, no times of new entries.
fn config(definition: &Definition) -> Value {
    let image = &definition.image;
    let mut config = serde_json::to_value(&image.config).unwrap();
    let mut history = config["history"].as_array().cloned().unwrap_or_default();
    for entry in &image.history {
        let mut new = json!({"created_by": entry.created_by, "comment": entry.comment});
        if entry.vertex.is_none() {
            new["empty_layer"] = true.into();
        }
        history.push(new);
    }
    config["history"] = history.into();
    config
}

/// Empty and missing are the same.
fn normalized(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(k, v)| (k.clone(), normalized(v))).filter(|(k, v)| {
                let empty = v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty);
                let created = k == "created";
                !(empty
                    || created
                    || k != "config" && v.as_object().is_some_and(|m| m.is_empty()) && map.len() < 2)
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => items.iter().map(normalized).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

/// Names in order. Equal vertices count once, with the place of the first and the name of the last, as in BuildKit.
fn steps(vertices: &[Vertex]) -> Vec<String> {
    let mut places = HashMap::new();
    let mut names: Vec<&str> = Vec::new();
    for vertex in vertices {
        let mut name = vertex.name.as_str();
        if let Op::Image(image) = &vertex.op {
            name = name.strip_suffix(&format!("@{}", fake_digest(&image.reference))).unwrap_or(name);
        }
        let place = *places.entry(vertex.digest).or_insert(names.len());
        match names.get_mut(place) {
            Some(old) => *old = name,
            None => names.push(name),
        }
    }
    names.into_iter().map(str::to_owned).collect()
}

fn expected_steps(entry: &Value) -> Vec<String> {
    let all = entry["steps"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.filter(|step| !step.starts_with("[internal]") && !step.contains("] LINK "))
        .map(str::to_owned)
        .collect()
}

/// What BuildKit says about variables in `--from` and in `from=`; rbuild puts ARGs in scope in.
const FROM_VARIABLE: [&str; 2] = [
    "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a \
     workaround",
    "'from' doesn't support variable expansion, define alias stage instead",
];

/// What the edition of docker/dockerfile that is not for labs says about RUN --device.
const DEVICE_IN_LABS: &str = "device feature is only supported in Dockerfile frontend 1.14.0-labs or later";

/// What differed in one entry.
#[derive(Default)]
struct Differences {
    /// What, expected, got.
    list: Vec<(&'static str, String, String)>,
}

impl Differences {
    fn check(&mut self, what: &'static str, got: String, expected: String) {
        if got != expected {
            self.list.push((what, expected, got));
        }
    }

    fn of(&self, what: &str) -> Option<(&str, &str)> {
        let found = self.list.iter().find(|(name, _, _)| *name == what)?;
        Some((&found.1, &found.2))
    }

    /// Why rbuild differs on purpose, if that explains everything.
    fn reason(&self, entry: &Value) -> Option<&'static str> {
        let kinds: Vec<&str> = self.list.iter().map(|(what, _, _)| *what).collect();
        let error = entry["error"].as_str().unwrap_or_default();
        let ends = |refusal: &&str| error.ends_with(*refusal);
        if error == DEVICE_IN_LABS && kinds[..] == ["error"] {
            return Some("what docker/dockerfile has in its labs edition only is always there");
        }
        if FROM_VARIABLE.iter().any(ends) && kinds.iter().all(|kind| matches!(*kind, "error" | "warnings")) {
            return Some("an ARG in scope is put into --from");
        }
        match kinds[..] {
            ["warnings"] => {
                // Nothing that BuildKit does not say, and what is missing belongs to the FROM with the error.
                let (expected, got) = self.of("warnings")?;
                let (expected, got): (Vec<&str>, Vec<&str>) =
                    (expected.lines().collect(), got.lines().collect());
                let line = entry["error_lines"][0].as_u64()?;
                let style = |warning: &&str| {
                    got.contains(warning) || warning.split_whitespace().next() == Some(&*line.to_string())
                };
                (got.iter().all(|warning| warning.is_empty() || expected.contains(warning))
                    && expected.iter().all(style))
                .then_some("a FROM with an error gets no warning about its style")
            }
            ["error line"] => {
                let (expected, got) = self.of("error line")?;
                (got.parse::<u64>().ok()? < expected.parse().ok()?)
                    .then_some("of two equal errors the first is reported")
            }
            ["steps"] => {
                let (expected, got) = self.of("steps")?;
                let triggers = entry["dockerfile"].as_str()?.to_uppercase().contains("ONBUILD");
                (triggers && without_numbers(expected) == without_numbers(got))
                    .then_some("BuildKit numbers the steps of a stage with triggers wrongly")
            }
            _ => None,
        }
    }
}

/// Step names without `2/5]`.
fn without_numbers(steps: &str) -> String {
    let numbers = |word: &&str| {
        let (left, right) = word.trim_end_matches(']').split_once('/').unwrap_or(("x", "x"));
        !(left.trim_start_matches(['[', '"']).parse::<u32>().is_ok() && right.parse::<u32>().is_ok())
    };
    steps.split_whitespace().filter(numbers).collect::<Vec<_>>().join(" ")
}

/// Warnings as `line rule message`, sorted: BuildKit's order is that of its passes.
fn warnings(diagnostics: &[Diagnostic]) -> Vec<String> {
    let warnings = diagnostics.iter().filter(|diagnostic| !diagnostic.is_error());
    let mut warnings: Vec<String> = warnings
        .filter(|warning| warning.rule != Some("InvalidUtf8"))
        .map(|warning| format!("{} {} {}", warning.lines.start, warning.rule.unwrap(), warning.message))
        .collect();
    warnings.sort();
    warnings
}

fn expected_warnings(entry: &Value) -> Vec<String> {
    let all = entry["warnings"].as_array().into_iter().flatten();
    let mut all: Vec<String> = all
        .map(|warning| {
            let text = |key: &str| warning[key].as_str().unwrap_or_default();
            format!("{} {} {}", warning["line"], text("rule"), text("message"))
        })
        .collect();
    all.sort();
    all
}

fn replay(bases: &Bases, entry: &Value) -> Differences {
    let mut found = Differences::default();
    let text = entry["dockerfile"].as_str().unwrap();
    let (dockerfile, mut diagnostics) = parse(text.as_bytes());
    let mut definition = None;
    if !diagnostics.iter().any(|d| d.severity == Severity::Error) {
        let lowered = lower(&dockerfile, &options(entry), bases);
        definition = lowered.0;
        diagnostics.extend(lowered.1);
    } else {
        diagnostics.extend(syntax_warnings(&dockerfile, &diagnostics, &options(entry)));
    }
    let error = diagnostics.iter().find(|d| d.severity == Severity::Error);
    if !entry["nondeterministic"].as_object().is_some_and(|map| map.contains_key("warnings")) {
        found.check("warnings", warnings(&diagnostics).join("\n"), expected_warnings(entry).join("\n"));
    }
    match (entry["error"].as_str(), error, definition) {
        (Some(expected), Some(error), _) => {
            let alternatives = entry["nondeterministic"]["error"].as_array();
            let mut alternatives = alternatives.into_iter().flatten().filter_map(Value::as_str);
            let expected = alternatives.find(|other| *other == error.full_message()).unwrap_or(expected);
            found.check("error", error.full_message(), expected.to_owned());
            if let Some(first) = entry["error_lines"][0].as_u64() {
                found.check("error line", error.lines.start.to_string(), first.to_string());
            }
        }
        (Some(expected), None, _) => found.check("error", "none".into(), expected.to_owned()),
        (None, Some(error), _) => found.check("error", error.message.clone(), "none".into()),
        (None, None, Some(definition)) => {
            // Equal values may be written with their keys in another order.
            let (got, expected) = (normalized(&config(&definition)), normalized(&entry["config"]));
            if got != expected {
                found.check("config", got.to_string(), expected.to_string());
            }
            let (got, expected) = (steps(&definition.vertices), expected_steps(entry));
            found.check("steps", format!("{got:#?}"), format!("{expected:#?}"));
        }
        (None, None, None) => found.check("definition", "none".into(), "some".into()),
    }
    found
}

#[test]
fn frontend() {
    let (Some(entries), Some(bases)) = (data("golden/frontend.json"), data("golden/frontend-bases.json"))
    else {
        return;
    };
    let bases = Bases(serde_json::from_value(bases).unwrap());
    let entries = entries.as_array().unwrap();
    let (mut passed, mut skipped) = (0, 0);
    for entry in entries {
        let found = replay(&bases, entry);
        let name = entry["name"].as_str().unwrap();
        if found.list.is_empty() {
            passed += 1;
        } else if let Some(reason) = found.reason(entry) {
            skipped += 1;
            println!("skipped: {name}: differs on purpose: {reason}");
        } else {
            for (what, expected, got) in &found.list {
                println!("differs: {name}: {what}\n  expected {expected}\n  got      {got}");
            }
        }
    }
    let run = entries.len() - skipped;
    println!("golden/frontend.json: {run} run, {passed} passed, {skipped} skipped");
    assert!(run > 0 && passed * 100 >= run * 99, "golden/frontend.json: only {passed} of {run}");
    assert!(skipped * 100 <= entries.len() * 2, "golden/frontend.json: {skipped} entries are skipped");
}

/// Texts inside BuildKit's own tests: none may take the frontend down, and whole files are understood.
#[test]
fn integration_dockerfiles() {
    let Some(cases) = data("buildkit-integration-dockerfiles.json") else { return };
    let Some(bases) = data("golden/frontend-bases.json") else { return };
    let bases = Bases(serde_json::from_value(bases).unwrap());
    let (mut run, mut passed, mut skipped) = (0, 0, 0);
    for case in cases.as_array().unwrap() {
        let text = case["dockerfile"].as_str().unwrap();
        let name = format!("{}#{}", case["func"].as_str().unwrap(), case["index"]);
        let lowered = lower_text(text, &bases);
        // Format directives of Go were not put in.
        if text.contains("%s")
            || text.contains("%d")
            || text.contains("%q")
            || !text.to_uppercase().contains("FROM ")
        {
            skipped += 1;
            println!("skipped: {name}: a fragment");
            continue;
        }
        run += 1;
        match lowered {
            Ok(()) => passed += 1,
            Err(error) => println!("refused: {name}: {error}"),
        }
    }
    println!("buildkit-integration-dockerfiles.json: {run} run, {passed} lowered, {skipped} skipped");
    // The others are what BuildKit's tests expect to be refused.
    assert!(run > 0 && passed * 100 >= run * 80, "only {passed} of {run} are understood");
}

fn lower_text(text: &str, bases: &Bases) -> Result<(), String> {
    let (dockerfile, mut diagnostics) = parse(text.as_bytes());
    if !diagnostics.iter().any(Diagnostic::is_error) {
        let options = LowerOptions { build_platform: Platform::linux("amd64"), ..LowerOptions::default() };
        diagnostics.extend(lower(&dockerfile, &options, bases).1);
    }
    match diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        Some(error) => Err(error.full_message()),
        None => Ok(()),
    }
}
