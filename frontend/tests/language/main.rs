//! The statements of the specification, clause by clause: each test carries the number of its statement.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod args;
mod commands;
mod config;
mod directives;
mod expansion;
mod history;
mod lines;
mod pairs;
mod stages;

use rbuild_frontend::{
    Diagnostic, ImageRequest, LowerOptions, NamedContext, ResolveError, ResolvedImage, Resolver, lower, parse,
};
use rbuild_ir::{Definition, ExecOp, Op};
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde_json::{Value, json};
use std::cell::RefCell;

/// PATH of an image that sets none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A registry: `rich` has a bit of everything, `bare` has no Env, `arm` is for another platform, `trigger` has ONBUILD,
/// `missing…` is not there, all others have a PATH and a CMD. Remembers what it was asked for.
#[derive(Default)]
struct Registry {
    asked: RefCell<Vec<(String, String)>>,
}

impl Resolver for Registry {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        self.asked.borrow_mut().push((request.reference.clone(), request.platform.format_all()));
        let name =
            request.reference.trim_start_matches("docker.io/library/").split([':', '@']).next().unwrap();
        let config = match name {
            name if name.starts_with("missing") || name == "busybx" => {
                return Err(ResolveError { message: format!("{}: not found", request.reference) });
            }
            "bare" => json!({}),
            "rich" => json!({
                "User": "app:app", "ExposedPorts": {"1/tcp": {}}, "Env": ["A=base", "PATH=/bin"], "Entrypoint": ["e"],
                "Cmd": ["c"], "Volumes": {"/v": {}}, "WorkingDir": "/base", "Labels": {"base": "1", "both": "base"},
                "StopSignal": "SIGINT", "ArgsEscaped": true, "Healthcheck": {"Test": ["NONE"]}, "Shell": ["bash", "-c"],
            }),
            "trigger" => json!({"Env": ["PATH=/bin"], "OnBuild": ["ENV FROM=trigger"]}),
            _ => json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}),
        };
        let architecture = if name == "arm" { "arm64" } else { &request.platform.architecture };
        let config: ImageConfig = serde_json::from_value(json!({
            "architecture": architecture,
            "os": "linux",
            "author": "base author",
            "created": "2024-01-01T00:00:00Z",
            "moby.unknown": {"kept": false},
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest::of("layer")]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "ADD base /"}],
        }))
        .unwrap();
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config })
    }
}

/// A lowered file.
struct Built {
    definition: Definition,
    warnings: Vec<Diagnostic>,
    asked: Vec<(String, String)>,
}

impl Built {
    /// The whole document without history.
    fn document(&self) -> Value {
        serde_json::to_value(&self.definition.image.config).unwrap()
    }

    /// The part `config` of the document.
    fn config(&self) -> Value {
        self.document()["config"].clone()
    }

    /// New history entries; `- ` marks those without a layer.
    fn history(&self) -> Vec<String> {
        let entries = self.definition.image.history.iter();
        entries
            .map(|entry| format!("{}{}", if entry.vertex.is_none() { "- " } else { "" }, entry.created_by))
            .collect()
    }

    /// The names of the steps.
    fn steps(&self) -> Vec<&str> {
        self.definition.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
    }

    /// The last RUN.
    fn exec(&self) -> &ExecOp {
        let mut ops = self.definition.vertices.iter().rev().map(|vertex| &vertex.op);
        ops.find_map(|op| if let Op::Exec(exec) = op { Some(exec) } else { None }).unwrap()
    }

    /// A variable in the last RUN's environment.
    fn run_env(&self, name: &str) -> Option<&str> {
        self.exec().env.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `Config.Env`.
    fn env(&self) -> Vec<String> {
        serde_json::from_value(self.config()["Env"].clone()).unwrap()
    }

    fn label(&self, name: &str) -> Value {
        self.config()["Labels"][name].clone()
    }

    /// The rules of the warnings with their lines.
    fn rules(&self) -> Vec<(&str, usize)> {
        self.warnings.iter().map(|warning| (warning.rule.unwrap(), warning.lines.start)).collect()
    }
}

fn options() -> LowerOptions {
    LowerOptions { build_platform: Platform::linux("amd64"), ..LowerOptions::default() }
}

fn with_args(args: &[(&str, &str)]) -> LowerOptions {
    let build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    LowerOptions { build_args: build_args.collect(), ..options() }
}

fn for_platform(platform: &str) -> LowerOptions {
    LowerOptions { target_platform: Some(platform.parse::<Platform>().unwrap().normalized()), ..options() }
}

fn with_contexts(contexts: &[(&str, NamedContext)]) -> LowerOptions {
    let contexts = contexts.iter().map(|(name, context)| ((*name).to_owned(), context.clone()));
    LowerOptions { contexts: contexts.collect(), ..options() }
}

fn try_build(text: &str, options: &LowerOptions) -> Result<Built, Diagnostic> {
    try_build_bytes(text.as_bytes(), options)
}

fn try_build_bytes(text: &[u8], options: &LowerOptions) -> Result<Built, Diagnostic> {
    let (file, mut diagnostics) = parse(text);
    let registry = Registry::default();
    let mut definition = None;
    if !diagnostics.iter().any(Diagnostic::is_error) {
        let (made, more) = lower(&file, options, &registry);
        definition = made;
        diagnostics.extend(more);
    }
    match diagnostics.iter().position(Diagnostic::is_error) {
        Some(error) => Err(diagnostics.swap_remove(error)),
        None => Ok(Built {
            definition: definition.unwrap(),
            warnings: diagnostics,
            asked: registry.asked.into_inner(),
        }),
    }
}

#[track_caller]
fn build_with(text: &str, options: &LowerOptions) -> Built {
    try_build(text, options).unwrap_or_else(|error| panic!("{}\n{text}", error.message))
}

#[track_caller]
fn build(text: &str) -> Built {
    build_with(text, &options())
}

/// A stage on scratch with these lines.
#[track_caller]
fn scratch(lines: &str) -> Built {
    build(&format!("FROM scratch\n{lines}\n"))
}

/// The message that a file is refused with.
#[track_caller]
fn refused_with(text: &str, options: &LowerOptions) -> String {
    match try_build(text, options) {
        Ok(_) => panic!("built:\n{text}"),
        Err(error) => error.message,
    }
}

#[track_caller]
fn refused(text: &str) -> String {
    refused_with(text, &options())
}

/// The value of an argument or variable at the end of a stage.
#[track_caller]
fn value_of(head: &str, word: &str) -> String {
    build(&format!("{head}\nLABEL value={word}\n")).label("value").as_str().unwrap().to_owned()
}
