//! Snapshots of whole definitions (testdata/lower), literal digests, and what a snapshot cannot show.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rbuild_frontend::{
    Diagnostic, ImageRequest, LowerOptions, NamedContext, ResolveError, ResolvedImage, Resolver,
    image_requests, lower, parse,
};
use rbuild_ir::{CopySource, Definition, Op, Source};
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

/// Knows every image that isn't called `missing/…`, and remembers what it was asked.
#[derive(Default)]
struct Images {
    asked: RefCell<Vec<String>>,
}

impl Resolver for Images {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        self.asked.borrow_mut().push(request.reference.clone());
        if request.reference.contains("/missing/") {
            return Err(ResolveError { message: format!("{}: not found", request.reference) });
        }
        let mut config = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
        if request.reference.contains("/onbuild") {
            config["OnBuild"] = json!(["RUN from image"]);
        }
        if request.reference.contains("/full") {
            config["WorkingDir"] = "/base".into();
            config["Labels"] = json!({"base": "1"});
        }
        let config: ImageConfig = serde_json::from_value(json!({
            "architecture": request.platform.architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "moby.unknown": {"kept": true},
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest::of("layer")]},
            "history": [{"created_by": "ADD base /"}],
        }))
        .unwrap();
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config })
    }
}

fn options() -> LowerOptions {
    LowerOptions { build_platform: Platform::linux("amd64"), ..LowerOptions::default() }
}

fn lowered(text: &str, options: &LowerOptions) -> Result<Definition, Vec<Diagnostic>> {
    let (file, mut diagnostics) = parse(text.as_bytes());
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let (definition, more) = lower(&file, options, &Images::default());
    diagnostics.extend(more);
    definition.ok_or(diagnostics)
}

fn error(text: &str, options: &LowerOptions) -> (String, usize) {
    let diagnostics = lowered(text, options).unwrap_err();
    let error = diagnostics.iter().find(|diagnostic| diagnostic.is_error()).unwrap();
    (error.message.clone(), error.lines.start)
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/lower")
}

fn read_options(dir: &Path) -> LowerOptions {
    let mut options = options();
    let Ok(text) = fs::read_to_string(dir.join("options.json")) else { return options };
    let given: Value = serde_json::from_str(&text).unwrap();
    let pairs = |key: &str| -> Vec<(String, String)> {
        let map = given[key].as_object().into_iter().flatten();
        map.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    options.build_args = pairs("build_args");
    options.labels = pairs("labels");
    options.extra_hosts = pairs("extra_hosts");
    options.contexts = pairs("contexts")
        .into_iter()
        .map(|(name, what)| match what.as_str() {
            "local" => (name, NamedContext::Local),
            _ => (name, NamedContext::Image(what)),
        })
        .collect();
    options.hostname = given["hostname"].as_str().map(str::to_owned);
    options.target_platform = given["platform"].as_str().map(|text| text.parse().unwrap());
    options.multi_platform = given["multi_platform"].as_bool().unwrap_or(false);
    options.ulimits = given["ulimits"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|limit| limit.as_str().unwrap().to_owned())
        .collect();
    options
}

#[test]
fn snapshots() {
    let mut names: Vec<_> = fs::read_dir(testdata()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 9);
    for dir in names {
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        let definition = lowered(&text, &read_options(&dir)).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&dir);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_json_snapshot!("definition", definition));
    }
}

/// A change of these digests makes every cache miss once: it has to be meant, and the version in
/// `Vertex::new` has to change with it.
#[test]
fn digests_are_stable() {
    let text = "FROM debian\nWORKDIR /w\nCOPY --chown=1:2 a b /c/\nRUN --mount=type=cache,target=/k make\n";
    let definition = lowered(text, &options()).unwrap();
    let digests: Vec<String> = definition.vertices.iter().map(|vertex| vertex.digest.to_string()).collect();
    assert_eq!(
        digests,
        [
            "sha256:749b0e125ea63e29fddae197735d996c202c7f567b5268f497646ae11a2023fb",
            "sha256:d25a3e39d47f128bda37b15af116c6bd18e36d4069eb2aeb4f9183ff2d7cb99e",
            "sha256:2f83c5a8098891111583f29152d46927a7827a5ec7ed75297f09768f0c96c89a",
            "sha256:a08caffae76e76febcd4b2bce346081d03c88f5a32a9b1f5a16f190c06fdd485",
        ]
    );
}

#[test]
fn names_hosts_and_proxies_are_not_in_the_digest() {
    let text = "FROM debian\nRUN make\n";
    let root = |options: &LowerOptions| lowered(text, options).unwrap().image.root;
    let plain = root(&options());
    let proxy = LowerOptions { build_args: vec![("HTTP_PROXY".into(), "http://p".into())], ..options() };
    assert_eq!(root(&proxy), plain);
    let hosts = |address: &str| LowerOptions { extra_hosts: vec![("h".into(), address.into())], ..options() };
    assert_eq!(root(&hosts("10.0.0.1")), root(&hosts("10.0.0.2")));
    assert_ne!(root(&hosts("10.0.0.1")), plain);
    let moved = lowered("# comment\nFROM debian AS other\nRUN make\n", &options()).unwrap();
    assert_eq!(moved.image.root, plain);
}

#[test]
fn only_what_the_target_needs_is_asked_for() {
    let text = "FROM missing/a AS unused\nRUN x\nFROM debian AS b\nFROM alpine\nCOPY --from=b / /\n\
                RUN --mount=from=tools:2,target=/t x\n";
    let (file, _) = parse(text.as_bytes());
    let images = Images::default();
    assert!(lower(&file, &options(), &images).0.is_some());
    let expected = ["docker.io/library/debian:latest", "docker.io/library/alpine:latest"];
    let expected = [&expected[..], &["docker.io/library/tools:2"]].concat();
    assert_eq!(*images.asked.borrow(), expected);
    let requests: Vec<String> =
        image_requests(&file, &options()).into_iter().map(|request| request.reference).collect();
    assert_eq!(requests, expected);
}

#[test]
fn vertices_come_after_what_they_need() {
    let text = fs::read_to_string(testdata().join("multistage/Dockerfile")).unwrap();
    let definition = lowered(&text, &options()).unwrap();
    let mut seen = Vec::new();
    for vertex in &definition.vertices {
        assert!(vertex.parent.iter().chain(&vertex.inputs).all(|digest| seen.contains(digest)));
        seen.push(vertex.digest);
    }
    assert_eq!(definition.image.root, seen.last().copied());
}

#[test]
fn errors_name_their_line() {
    let with_target = LowerOptions { target: Some("bild".into()), ..options() };
    for (text, options, message, line) in [
        (
            "FROM a AS build\n",
            &with_target,
            "target stage \"bild\" could not be found (did you mean build?)",
            0,
        ),
        (
            "FROM missing/busybox\n",
            &options(),
            "missing/busybox: docker.io/missing/busybox:latest: not found",
            1,
        ),
        (
            "FROM a AS x\nCOPY --from=y / /\nFROM a AS y\nCOPY --from=x / /\n",
            &options(),
            "circular dependency detected on stage: x",
            4,
        ),
        (
            "FROM a AS x\nCOPY --from=y / /\nFROM a AS y\nFROM x\n",
            &options(),
            "cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
            2,
        ),
        ("FROM a\nRUN []\n", &options(), "arguments are required", 2),
        ("FROM a\nCOPY --from=7 a b\n", &options(), "invalid stage index 7", 2),
        ("FROM a\nCOPY https://x/y /\n", &options(), "source can't be a URL for COPY", 2),
        ("ARG SOURCE_DATE_EPOCH=soon\nFROM a\n", &options(), "invalid SOURCE_DATE_EPOCH: soon", 1),
    ] {
        assert_eq!(error(text, options), (message.to_owned(), line), "{text}");
    }
}

/// Issue 3, 6: an extension where BuildKit refuses.
#[test]
fn args_in_scope_are_put_into_from() {
    let refused = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                   scope as a workaround";
    let mount_refused = "'from' doesn't support variable expansion, define alias stage instead";
    let head = "ARG G=one\nFROM debian AS one\nRUN 1\nFROM debian AS two\nRUN 2\n";
    let given = LowerOptions { build_args: vec![("X".into(), "two".into())], ..options() };
    let root =
        |tail: &str, options: &LowerOptions| lowered(&format!("{head}{tail}"), options).map(|d| d.image.root);
    for (tail, options, same) in [
        (
            "FROM debian\nARG G\nCOPY --from=$G /a /\n",
            &options(),
            "FROM debian\nARG G\nCOPY --from=one /a /\n",
        ),
        (
            "FROM debian\nARG X=one\nCOPY --from=${X} /a /\n",
            &given,
            "FROM debian\nARG X\nCOPY --from=two /a /\n",
        ),
        (
            "FROM debian\nARG N=1\nCOPY --from=$N /a /\n",
            &options(),
            "FROM debian\nARG N=1\nCOPY --from=two /a /\n",
        ),
        (
            "FROM debian AS b\nARG X=two\nFROM b\nRUN --mount=from=$X,target=/m x\n",
            &options(),
            "FROM debian AS b\nARG X=two\nFROM b\nRUN --mount=from=two,target=/m x\n",
        ),
    ] {
        let digest = root(tail, options);
        assert!(digest.is_ok() && digest == root(same, options), "{tail}: {digest:?}");
    }
    for (tail, message) in [
        ("FROM debian\nCOPY --from=$G /a /\n", refused),
        ("FROM debian\nENV X=one\nCOPY --from=$X /a /\n", refused),
        ("FROM debian\nARG X=one\nENV X=two\nCOPY --from=$X /a /\n", refused),
        ("FROM debian\nARG X=$PATH\nCOPY --from=$X /a /\n", refused),
        ("FROM debian\nCOPY --from=$X /a /\nARG X=one\n", refused),
        ("FROM debian\nRUN --mount=from=$X,target=/m x\n", mount_refused),
    ] {
        assert_eq!(error(&format!("{head}{tail}"), &options()).0, message, "{tail}");
    }
}

/// Places in a trigger's own text are none in the file.
#[test]
fn errors_of_triggers_are_shown_at_from() {
    let text = "FROM debian AS base\nONBUILD COPPPY somewhere\nFROM base\n";
    let diagnostics = lowered(text, &options()).unwrap_err();
    let error = diagnostics.iter().find(|diagnostic| diagnostic.is_error()).unwrap();
    assert_eq!((error.lines.start, &text[error.spans[0].range()]), (3, "base"));
    assert!(error.help.as_deref().unwrap().ends_with("COPPPY somewhere"));
}

/// Looking through many ARGs for many instructions ends in an error, not in a long wait.
#[test]
fn many_variables_in_from() {
    let mut text = String::from("FROM debian AS x\nFROM debian\nARG X=x\n");
    (0..3000).for_each(|i| text.push_str(&format!("ARG A{i}=1\n")));
    assert!(lowered(&format!("{text}COPY --from=$X / /\n"), &options()).is_ok());
    (0..3000).for_each(|_| text.push_str("COPY --from=$X / /\n"));
    let diagnostics = lowered(&text, &options()).unwrap_err();
    let help = diagnostics.iter().find_map(|diagnostic| diagnostic.help.as_deref()).unwrap();
    assert!(help.contains("too many ARGs"), "{help}");
}

///
#[test]
fn a_094_devices_are_in_the_step() {
    let text = "FROM debian\nRUN --device=a.b/c=d,required --device=a.b/e x\n";
    let definition = lowered(text, &options()).unwrap();
    let devices = definition.vertices.iter().find_map(|vertex| match &vertex.op {
        Op::Exec(exec) => Some(exec.devices.clone()),
        _ => None,
    });
    let device = |name: &str, required| rbuild_ir::Device { name: name.into(), required };
    assert_eq!(devices.unwrap(), [device("a.b/c=d", true), device("a.b/e", false)]);
}

#[test]
fn proxies_reach_the_process_only_unless_declared() {
    let options = LowerOptions { build_args: vec![("https_proxy".into(), "p".into())], ..options() };
    let exec = |text: &str| {
        let definition = lowered(text, &options).unwrap();
        match definition.vertices.last().unwrap().op.clone() {
            Op::Exec(exec) => exec,
            other => panic!("{other:?}"),
        }
    };
    let undeclared = exec("FROM debian\nRUN x\n");
    let names: Vec<&str> = undeclared.proxy_env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["HTTPS_PROXY", "https_proxy"]);
    assert!(!undeclared.env.iter().any(|(name, _)| name == "https_proxy"));
    let declared = exec("FROM debian\nARG https_proxy\nRUN x\n");
    assert!(declared.env.contains(&("https_proxy".into(), "p".into())));
    assert_eq!(declared.proxy_env.len(), 2);
}

#[test]
fn values_cannot_grow_without_end() {
    let mut text = String::from("FROM debian\nENV A=aaaaaaaaaaaaaaaa\n");
    text.push_str(&"ENV A=$A$A$A$A$A$A$A$A\n".repeat(40));
    let (message, _) = error(&text, &options());
    assert!(message.contains("larger than") || message.contains("expands to more than"), "{message}");
}

#[test]
fn long_chains_of_stages_are_fine() {
    let mut text = String::from("FROM debian AS s0\n");
    for i in 1..300 {
        text.push_str(&format!("FROM s{} AS s{i}\nENV A{i}=1\n", i - 1));
    }
    text.push_str("FROM scratch\nCOPY --from=s299 / /\n");
    assert_eq!(lowered(&text, &options()).unwrap().vertices.len(), 2);
}

/// Half a file may be wrong, but it never takes the frontend down.
#[test]
fn cut_off_files_do_no_harm() {
    for entry in fs::read_dir(testdata()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path().join("Dockerfile")).unwrap();
        for end in 0..text.len() {
            if let Err(diagnostics) = lowered(&text[..end], &options()) {
                assert!(diagnostics.iter().any(Diagnostic::is_error), "{}", &text[..end]);
            }
        }
    }
}

/// Work grows with the file, not with its square.
#[test]
fn many_instructions() {
    let mut text = String::from("FROM debian AS base\nARG A=1\n");
    for i in 0..5000 {
        text.push_str(&format!("RUN step {i}\nCOPY --from=image{i} /a /b{i}\nENV V=$A{i}\n"));
    }
    text.push_str("FROM base\nCOPY --from=base / /\n");
    assert_eq!(lowered(&text, &options()).unwrap().vertices.len(), 15_002);
}

/// fetched sources are vertices of their own, equal ones are one, and names hold no credentials.
#[test]
fn fetched_sources_are_vertices() {
    let text = "FROM scratch\nADD https://u:pw@h/x/a.txt /a\nADD https://u:pw@h/x/a.txt https://h/a.git#v1:sub /b/\n";
    let definition = lowered(text, &options()).unwrap();
    let distinct: std::collections::HashSet<_> = definition.vertices.iter().map(|v| v.digest).collect();
    assert_eq!(distinct.len(), 4);
    let all = serde_json::to_string(&definition).unwrap();
    assert!(!all.contains("pw@") && all.contains("https://xxxxx:xxxxx@h/x/a.txt"), "{all}");
    let Some(Op::Copy(copy)) = definition.vertices.last().map(|vertex| vertex.op.clone()) else { panic!() };
    let paths: Vec<_> = copy
        .sources
        .iter()
        .map(|source| match source {
            CopySource::Path { from, path } => (from.clone(), path.as_str()),
            CopySource::Inline { .. } => panic!(),
        })
        .collect();
    assert_eq!(paths, [(Source::Input(0), "/a.txt"), (Source::Input(1), "/")]);
    let gits: Vec<_> = definition
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op {
            Op::Git(git) => Some((git.reference.as_str(), git.subdir.as_str(), git.submodules)),
            _ => None,
        })
        .collect();
    assert_eq!(gits, [("v1", "sub", true)]);
}

#[test]
fn wrong_fetched_sources_are_refused() {
    for (line, message) in [
        ("COPY https://h/a /", "source can't be a URL for COPY"),
        ("COPY https://h/a.git /", "source can't be a git ref for COPY"),
        ("COPY git@h:a /", "source can't be a git ref for COPY"),
        ("ADD --checksum=sha256:1 a /", "checksum requires HTTP(S) or Git sources"),
        (
            "ADD --checksum=sha256:1 https://h/a https://h/b /",
            "checksum can't be specified for multiple sources",
        ),
        ("ADD --checksum=md5:abc https://h/a /", "unsupported digest algorithm"),
        (
            "ADD --checksum=nohex! https://h/a.git /",
            "invalid checksum \"nohex!\", expected a commit id in hex",
        ),
        ("ADD https://h/a.git#--upload-pack=x /", "invalid git ref \"--upload-pack=x\""),
        ("ADD https://h/a.git?foo=bar /", "unexpected query \"foo\""),
    ] {
        let text = format!("FROM scratch\n{line}\n");
        let diagnostics = lowered(&text, &options()).unwrap_err();
        assert_eq!(diagnostics[0].message, message, "{line}");
    }
}

/// Every error says what to do about it.
#[test]
fn errors_have_remedies() {
    for (dockerfile, remedy) in [
        ("FROM a\nEXPOSE abc\n", "a number from 1 to 65535"),
        ("FROM a\nSTOPSIGNAL foo\n", "SIGTERM"),
        ("FROM a\nCOPY --from=5 /a /b\n", "counted from 0"),
        ("FROM a\nADD --checksum=foo http://x/y /\n", "64 hexadecimal digits"),
        ("FROM --platform=a/b/c/d a\n", "linux/arm64"),
        ("FROM UPPER\n", "lower case"),
        ("FROM a\nENV a=${b\n", "close it with }"),
        ("FROM a\nONBUILD ONBUILD RUN b\n", "write one ONBUILD"),
        ("FROM a\nONBUILD FROM b\n", "without ONBUILD"),
        ("FROM a AS\n", "write FROM image or FROM image AS name"),
    ] {
        let errors = lowered(dockerfile, &options()).unwrap_err();
        let help = errors[0].help.as_deref().unwrap_or_default();
        assert!(help.contains(remedy), "{dockerfile}: {help}");
    }
}
