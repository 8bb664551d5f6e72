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

/// Where rbuild differs on purpose: name of the entry and why.
const DELIBERATE: &[(&str, &str)] = &[
    ("buildah-bud/multi-stage-builds/Dockerfile.arg_in_copy", "an ARG in scope is put into --from"),
    ("buildah-bud/arg-scope/Containerfile.copy-from-arg", "an ARG in scope is put into --from"),
    (
        "buildah-bud/arg-scope/Containerfile.stage-overrides-header-copy-from",
        "an ARG in scope is put into --from",
    ),
    ("buildah-bud/copy-from-stage-scoped-arg/Containerfile", "an ARG in scope is put into --from"),
    (
        "buildah-bud/copy-from-stage-scoped-arg/Containerfile.multi-copy-arg-override",
        "an ARG in scope is put into --from",
    ),
    (
        "buildkit-integration/testOnBuildInheritedStageWithFrom#0",
        "BuildKit numbers the steps of `src` wrongly",
    ),
    ("buildkit-integration/testWorkdirCopyIgnoreRelative#0", "of two equal errors the first is reported"),
    (
        "buildah-bud/save-stages/Dockerfile.arg-build-stages-and-chained-build-stages",
        "a FROM with an error gets no warning about its style",
    ),
    (
        "imagebuilder/dockerclient/testdata/Dockerfile.target",
        "a FROM with an error gets no warning about its style",
    ),
];

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

#[derive(Default)]
struct Tally {
    passed: usize,
    refused: usize,
    deliberate: usize,
    failed: Vec<String>,
}

impl Tally {
    fn check(&mut self, name: &str, what: &str, got: &str, expected: &str) -> bool {
        if got != expected {
            self.failed.push(format!("{name}: {what}\n  expected {expected}\n  got      {got}"));
        }
        got == expected
    }
}

fn replay(tally: &mut Tally, bases: &Bases, entry: &Value) {
    let name = entry["name"].as_str().unwrap();
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
    if error.is_some_and(|error| error.message.contains("not supported yet")) {
        tally.refused += 1;
        println!("refused: {name}: {}", error.unwrap().message);
        return;
    }
    let (got, expected) = (warnings(&diagnostics).join("\n  "), expected_warnings(entry));
    let alternatives = entry["nondeterministic"].as_object().is_some_and(|map| map.contains_key("warnings"));
    let warned = alternatives || tally.check(name, "warnings", &got, &expected.join("\n  "));
    let ok = warned
        & match (entry["error"].as_str(), error, definition) {
            (Some(expected), Some(error), _) => {
                let alternatives = entry["nondeterministic"]["error"].as_array();
                let expected = alternatives
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .find(|other| *other == error.full_message())
                    .unwrap_or(expected);
                let mut ok = tally.check(name, "error", &error.full_message(), expected);
                if let Some(first) = entry["error_lines"][0].as_u64() {
                    ok &= tally.check(name, "error line", &error.lines.start.to_string(), &first.to_string());
                }
                ok
            }
            (Some(expected), None, _) => tally.check(name, "error", "none", expected),
            (None, Some(error), _) => tally.check(name, "error", &error.message, "none"),
            (None, None, Some(definition)) => {
                let got = normalized(&config(&definition));
                let ok = got == normalized(&entry["config"])
                    || tally.check(
                        name,
                        "config",
                        &got.to_string(),
                        &normalized(&entry["config"]).to_string(),
                    );
                ok & tally.check(
                    name,
                    "steps",
                    &format!("{:#?}", steps(&definition.vertices)),
                    &format!("{:#?}", expected_steps(entry)),
                )
            }
            (None, None, None) => tally.check(name, "definition", "none", "some"),
        };
    match DELIBERATE.iter().find(|(differs, _)| *differs == name) {
        Some((_, reason)) if !ok => {
            tally.failed.retain(|failure| !failure.starts_with(&format!("{name}: ")));
            tally.deliberate += 1;
            println!("differs on purpose: {name}: {reason}");
        }
        Some(_) => tally.failed.push(format!("{name}: does not differ any more")),
        None => tally.passed += usize::from(ok),
    }
}

#[test]
fn frontend() {
    let (Some(entries), Some(bases)) = (data("golden/frontend.json"), data("golden/frontend-bases.json"))
    else {
        return;
    };
    let bases = Bases(serde_json::from_value(bases).unwrap());
    let entries = entries.as_array().unwrap();
    let mut tally = Tally::default();
    for entry in entries {
        replay(&mut tally, &bases, entry);
    }
    for failure in &tally.failed {
        println!("{failure}");
    }
    let compared = entries.len() - tally.refused - tally.deliberate;
    println!(
        "frontend.json: {} run, {} passed, {} refused as not supported yet, {} differ on purpose",
        entries.len(),
        tally.passed,
        tally.refused,
        tally.deliberate
    );
    assert!(tally.failed.is_empty() && tally.passed == compared, "{} of {compared}", tally.passed);
}
