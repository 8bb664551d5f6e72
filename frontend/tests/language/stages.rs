//! A4: FROM and stages.

use crate::{
    PATH, build, build_with, for_platform, options, refused, refused_with, try_build, with_args,
    with_contexts,
};
use rbuild_frontend::{LowerOptions, NamedContext, lower, parse};
use rbuild_ir::{CopySource, Op, Source};
use rbuild_oci::Platform;
use serde_json::json;

fn target(name: &str) -> LowerOptions {
    LowerOptions { target: Some(name.into()), ..options() }
}

///
#[test]
fn forms_of_from() {
    let platforms =
        ["FROM a", "FROM a AS b", "from a as b", "FROM a aS b", "FROM --platform=linux/arm64 a AS b"];
    for line in platforms {
        let built = build(&format!("{line}\n"));
        let platform = if line.contains("arm64") { "linux/arm64" } else { "linux/amd64" };
        assert_eq!(built.asked, [("docker.io/library/a:latest".to_owned(), platform.to_owned())], "{line}");
    }
    for line in ["FROM", "FROM a b", "FROM a AS", "FROM a AS b c", "FROM a IS b", "FROM a AS b AS c"] {
        assert_eq!(refused(&format!("{line}\n")), "FROM requires either one or three arguments", "{line}");
    }
}

///
#[test]
fn stage_names() {
    for name in ["a", "A1", "a-b_c.d", "z9"] {
        let text = format!("FROM scratch AS {name}\nLABEL x=1\nFROM {}\n", name.to_lowercase());
        assert_eq!(build(&text).label("x"), "1", "{name}");
    }
    for name in ["1foo", "-a", "_a", ".a", "a+b", "a/b", "a:b", "é", "a$b"] {
        let message = refused(&format!("FROM scratch AS {name}\n"));
        let why = "name can't start with a number or contain symbols";
        assert_eq!(message, format!("invalid name for build stage: \"{name}\", {why}"));
    }
    let twice = "FROM scratch AS a\nLABEL x=1\nFROM a AS b\nFROM scratch AS A\nLABEL x=2\nFROM a\nCOPY --from=b / /\n";
    let built = build(twice);
    assert_eq!(built.label("x"), "2");
    assert!(built.rules().contains(&("DuplicateStageName", 4)));
    assert_eq!(
        build_with(&format!("{twice}FROM scratch AS z\n"), &target("b")).label("x"),
        "1",
        "the last one so far"
    );
}

///
#[test]
fn references_to_stages() {
    let head = "FROM scratch AS Base\nLABEL x=1\nCOPY a /\n";
    assert_eq!(build(&format!("{head}FROM base\n")).label("x"), "1");
    // FROM knows the lower-case name only; anything else is an image, and images are lower-case.
    assert!(refused(&format!("{head}FROM Base\n")).starts_with("failed to parse stage name \"Base\""));
    for from in ["base", "BASE", "Base", "0"] {
        let built = build(&format!("{head}FROM scratch\nCOPY --from={from} / /\n"));
        assert_eq!((built.asked.len(), built.definition.vertices.len()), (0, 2), "{from}");
    }
    for name in ["base", "BASE"] {
        assert_eq!(build_with(&format!("{head}FROM scratch\n"), &target(name)).label("x"), "1", "{name}");
    }
    assert_eq!(build(&format!("{head}FROM 0\n")).asked[0].0, "docker.io/library/0:latest");
    assert!(
        refused_with(&format!("{head}FROM scratch\n"), &target("0"))
            .starts_with("target stage \"0\" could not be")
    );
    let built = build(&format!("{head}FROM scratch\nRUN --mount=from=0,target=/m x\n"));
    assert_eq!(built.asked[0].0, "docker.io/library/0:latest");
    assert_eq!(refused(&format!("{head}FROM scratch\nCOPY --from=2 / /\n")), "invalid stage index 2");
}

/// what a build makes of it is tested with the command.
#[test]
fn scratch_is_empty() {
    let built = build("FROM scratch\n");
    assert!(
        built.asked.is_empty()
            && built.definition.vertices.is_empty()
            && built.definition.image.root.is_none()
    );
    assert_eq!(built.config(), json!({"Env": [PATH], "WorkingDir": "/"}));
    assert!(refused("FROM SCRATCH\n").contains("must be lowercase"));
    let built = build("FROM scratch\nCOPY --from=scratch / /\nRUN --mount=from=scratch,target=/m x\n");
    assert!(built.asked.is_empty());
    let Op::Copy(copy) = &built.definition.vertices[0].op else { panic!("no copy") };
    assert!(matches!(&copy.sources[0], CopySource::Path { from: Source::Empty, .. }));
}

///
#[test]
fn image_names() {
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (name, full) in [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/a/b:t", "host:5000/a/b:t"),
        ("index.docker.io/library/a", "docker.io/library/a:latest"),
        (&format!("a@{digest}"), &format!("docker.io/library/a@{digest}")),
        (&format!("a:1@{digest}"), &format!("docker.io/library/a:1@{digest}")),
    ] {
        assert_eq!(build(&format!("FROM {name}\n")).asked[0].0, full);
    }
    assert_eq!(refused("ARG X\nFROM $X\n"), "base name ($X) should not be blank");
    assert_eq!(refused("ARG X=\nFROM ${X:+a}\n"), "base name (${X:+a}) should not be blank");
    for name in ["a:b:c", "a/B", "a//b", "a@sha256:1", "-a"] {
        let message = refused(&format!("FROM {name}\n"));
        assert!(
            message.starts_with(&format!("failed to parse stage name \"{name}\": invalid reference format")),
            "{message}"
        );
    }
}

///
#[test]
fn platforms_of_stages() {
    let asked = |platform: &str| {
        build(&format!("ARG P=arm64\nFROM --platform={platform} a\n")).asked[0]
            .1
            .parse::<Platform>()
            .unwrap()
            .normalized()
            .format_all()
    };
    for (written, platform) in [
        ("linux/arm64", "linux/arm64"),
        ("linux/$P", "linux/arm64"),
        ("$BUILDPLATFORM", "linux/amd64"),
        ("$TARGETPLATFORM", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("LINUX/ARM64", "linux/arm64"),
        ("windows/amd64", "windows/amd64"),
    ] {
        assert_eq!(asked(written), platform, "{written}");
    }
    assert!(asked("linux").starts_with("linux/") && asked("amd64").ends_with("/amd64"));
    assert_eq!(
        refused("FROM --platform=$BUILDPLATFROM a\n"),
        "empty platform value from expression $BUILDPLATFROM (did you mean BUILDPLATFORM?)"
    );
    assert!(refused("FROM --platform=a/b/c/d x\n").starts_with("failed to parse platform a/b/c/d"));
    assert!(refused("FROM --platform=l!nux x\n").starts_with("failed to parse platform l!nux"));
    // ARGs of a stage are not in scope.
    assert!(refused("FROM scratch\nARG Q=linux\nFROM --platform=$Q a\n").starts_with("empty platform value"));
}

///
#[test]
fn unreachable_stages() {
    let built = build(
        "FROM missing AS unused\nRUN x\nCOPY --from=missing2 / /\nFROM a AS b\nFROM scratch\nCOPY --from=b / /\n",
    );
    assert_eq!(built.asked.len(), 1);
    assert_eq!(built.definition.vertices.len(), 2);
    let rest = "FROM scratch\nCOPY a /\n";
    assert_eq!(refused(&format!("FROM scratch AS unused\nNOTHING\n{rest}")), "unknown instruction: NOTHING");
    let cycle = "FROM scratch AS x\nCOPY --from=y / /\nFROM scratch AS y\nCOPY --from=x / /\n";
    assert_eq!(refused(&format!("{cycle}{rest}")), "circular dependency detected on stage: x");
}

///
#[test]
fn stages_in_the_wrong_order() {
    for (text, message) in [
        ("FROM scratch AS a\nCOPY --from=a / /\n", "circular dependency detected on stage: a"),
        ("FROM scratch\nCOPY --from=0 / /\n", "circular dependency detected on stage: stage-0"),
        ("FROM scratch AS a\nRUN --mount=from=a,target=/x y\n", "circular dependency detected on stage: a"),
        (
            "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nFROM a\n",
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM scratch AS a\nRUN --mount=from=b,target=/x y\nFROM scratch AS b\nFROM a\n",
            "cannot mount from stage \"b\" to \"/x\", stage needs to be defined before current command",
        ),
        ("FROM scratch\nCOPY --from=5 / /\n", "invalid stage index 5"),
        ("FROM scratch\nCOPY --from=-1 / /\n", "invalid stage index -1"),
    ] {
        assert_eq!(refused(text), message, "{text}");
    }
}

/// names without a known value; ARGs in scope are put in (tests/lower.rs).
#[test]
fn variables_in_from() {
    let copy = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope \
                as a workaround";
    for from in ["$X", "${X}", "a$X", "$X:1"] {
        assert_eq!(
            refused(&format!("ARG X=a\nFROM scratch\nENV X=b\nCOPY --from={from} / /\n")),
            copy,
            "{from}"
        );
    }
    let mount = "'from' doesn't support variable expansion, define alias stage instead";
    for from in ["$X", "${X}", "a$X"] {
        let text = format!("ARG X=a\nFROM scratch\nENV X=b\nRUN --mount=target=/m,from={from} y\n");
        assert_eq!(refused(&text), mount, "{from}");
    }
}

///
#[test]
fn missing_targets() {
    let text = "FROM scratch AS build\nFROM scratch\n";
    for (name, message) in [
        ("bulid", "target stage \"bulid\" could not be found (did you mean build?)"),
        ("x\"y", "target stage \"x\\\"y\" could not be found"),
    ] {
        assert_eq!(refused_with(text, &target(name)), message);
    }
}

///
#[test]
fn images_as_sources() {
    let text = "FROM --platform=linux/386 scratch\nCOPY --from=tools:1 /a /\nRUN --mount=from=me/other,target=/m x\n";
    let asked = build_with(text, &for_platform("linux/arm64")).asked;
    let expected =
        [("docker.io/library/tools:1", "linux/arm64"), ("docker.io/me/other:latest", "linux/arm64")];
    assert_eq!(asked, expected.map(|(name, platform)| (name.to_owned(), platform.to_owned())));
}

///
#[test]
fn named_contexts() {
    let image = |name: &str| NamedContext::Image(name.to_owned());
    let text =
        "FROM debian AS build\nRUN x\nFROM alpine\nCOPY --from=build / /\nCOPY --from=busybox:latest / /\n";
    let asked = |name: &str, text: &str| {
        let built = build_with(text, &with_contexts(&[(name, image("other:1"))]));
        built
            .asked
            .into_iter()
            .map(|(name, _)| name.trim_start_matches("docker.io/library/").to_owned())
            .collect::<Vec<_>>()
    };
    let plain = ["debian:latest", "alpine:latest", "busybox:latest"];
    assert_eq!(asked("unused", text), plain);
    assert_eq!(asked("build", text), ["other:1", "alpine:latest", "busybox:latest"]);
    for name in ["alpine", "alpine:latest", "docker.io/library/alpine", "alpine::linux/amd64"] {
        assert_eq!(asked(name, text), ["debian:latest", "other:1", "busybox:latest"], "{name}");
    }
    assert_eq!(asked("busybox", text)[2], "other:1");
    for name in ["alpine:3", "alpine::linux/arm64", "scratch", "context"] {
        assert_eq!(asked(name, text), plain, "{name}");
    }
    assert!(asked("scratch", "FROM scratch\n").is_empty());
    let built = build_with(text, &with_contexts(&[("build", NamedContext::Local)]));
    let sources = serde_json::to_string(&built.definition.vertices).unwrap();
    assert!(built.asked.len() == 2 && sources.contains("build"), "{sources}");
    // The instructions of a replaced stage are gone.
    assert!(!built.steps().iter().any(|step| step.contains("RUN")));
}

/// a context that has no image config leaves none to the stage it replaces, and to an image's place that of scratch.
#[test]
fn what_a_context_without_a_config_leaves() {
    let scratch = NamedContext::Image("scratch".into());
    let empty = json!({"Env": [crate::PATH], "WorkingDir": "/"});
    let path = json!({"Env": [crate::PATH]});
    for context in [NamedContext::Local, scratch] {
        let named = with_contexts(&[("base", context.clone())]);
        let text = "FROM rich AS base\nENV A=1\nONBUILD ENV B=$A\n";
        assert_eq!(build_with(text, &named).config(), json!({}));
        let child = build_with(&format!("{text}FROM base\n"), &named);
        assert_eq!(child.config(), json!({"Env": [crate::PATH, "B="]}), "the triggers of the text run");
        assert_eq!(build_with("FROM rich AS base\nFROM base\n", &named).config(), path);
        let child = build_with("FROM rich AS base\nFROM base\nWORKDIR a\nRUN x\n", &named);
        assert_eq!((child.exec().cwd.as_str(), &child.document()["architecture"]), ("/a", &json!("amd64")));
        let instead = with_contexts(&[("debian", context)]);
        assert_eq!(build_with("FROM debian\n", &instead).config(), empty);
    }
}

/// B-010: what BuildKit says of layers that no history entry speaks of.
#[test]
fn origins_of_layers() {
    let text = "FROM debian AS a\nRUN x\nFROM a\nCOPY a /\nWORKDIR /w\nENV a=b\nRUN [\"y\", \"z\"]\n";
    let digest = rbuild_oci::Digest::of("docker.io/library/debian:latest");
    let pulled = format!("pulled from docker.io/library/debian:latest@{digest}");
    assert_eq!(
        build(text).definition.image.origins,
        [
            pulled.as_str(),
            "mount / from exec /bin/sh -c x",
            "fileop target",
            "fileop target",
            "mount / from exec y z"
        ]
    );
    assert_eq!(build("FROM scratch\nCOPY a /\n").definition.image.origins, ["", "fileop target"]);
    assert!(build("FROM scratch\nENV a=b\n").definition.image.origins.is_empty());
}

///
#[test]
fn suggestions_for_images() {
    let message = refused("FROM busybx\n");
    assert_eq!(message, "busybx: docker.io/library/busybx:latest: not found (did you mean busybox?)");
    for known in ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"] {
        let (file, _) = parse(format!("FROM missing AS x\nFROM {known}x\n").as_bytes());
        struct Nothing;
        impl rbuild_frontend::Resolver for Nothing {
            fn resolve(
                &self,
                _: &rbuild_frontend::ImageRequest,
            ) -> Result<rbuild_frontend::ResolvedImage, rbuild_frontend::ResolveError> {
                Err(rbuild_frontend::ResolveError { message: "not found".into() })
            }
        }
        let message = lower(&file, &options(), &Nothing).1[0].message.clone();
        assert_eq!(message, format!("{known}x: not found (did you mean {known}?)"));
    }
    let stage = "FROM scratch AS mystage\nFROM missing\nCOPY --from=missings / /\n";
    assert_eq!(refused(stage), "missing: docker.io/library/missing:latest: not found");
    assert!(refused("FROM scratch AS missing1\nFROM missing2\n").ends_with("(did you mean missing1?)"));
}

///
#[test]
fn platforms_of_base_images() {
    let arm = build_with("FROM arm\nRUN x\n", &for_platform("linux/amd64"));
    assert_eq!(arm.rules(), [("InvalidBaseImagePlatform", 1)]);
    assert_eq!(arm.document()["architecture"], "amd64", "asked for");
    let plain = build("FROM arm\nRUN x\n");
    assert_eq!(
        (plain.rules(), &plain.document()["architecture"]),
        (vec![("InvalidBaseImagePlatform", 1)], &json!("arm64"))
    );
    assert_eq!(build_with("FROM a\n", &for_platform("linux/arm/v6")).document()["variant"], "v6");
}

/// what RUN makes of it is tested with the command.
#[test]
fn stages_on_stages() {
    let built = build(
        "FROM debian AS parent\nARG declared=yes\nENV set=too\nWORKDIR /here\nSHELL [\"bash\", \"-c\"]\nUSER me\nLABEL l=1\n\
         ONBUILD ENV trigger=$declared\nONBUILD RUN first\nRUN own\nFROM parent AS child\nRUN $declared $set\nFROM child\nWORKDIR sub\n",
    );
    assert_eq!(built.env()[1..], ["set=too", "trigger=yes"]);
    let config = built.config();
    assert_eq!(
        (&config["WorkingDir"], &config["User"], built.label("l")),
        (&json!("/here/sub"), &json!("me"), json!("1"))
    );
    assert_eq!(config["Shell"], json!(["bash", "-c"]));
    assert_eq!(config["OnBuild"], json!(null), "triggers run once");
    assert_eq!(built.exec().args, ["bash", "-c", "$declared $set"]);
    assert_eq!((built.run_env("declared"), built.run_env("trigger")), (Some("yes"), Some("yes")));
    let steps: Vec<&str> = built.steps().into_iter().map(|step| step.split_once("] ").unwrap().1).collect();
    assert_eq!(steps[1..], ["WORKDIR /here", "RUN own", "ONBUILD RUN first", "RUN yes too", "WORKDIR sub"]);
    let child = build_with("FROM scratch AS a\nARG A=1\nFROM a\nLABEL x=$A\n", &with_args(&[("A", "2")]));
    assert_eq!(child.label("x"), "2");
    assert!(try_build("FROM scratch AS a\nFROM scratch\nLABEL x=$A\n", &options()).is_ok());
}
