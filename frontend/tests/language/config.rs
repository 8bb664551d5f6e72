//! A8 up to VOLUME, and B1: the image config.

use crate::{PATH, build, build_with, for_platform, options, refused, scratch, try_build};
use rbuild_frontend::LowerOptions;
use rbuild_ir::Op;
use serde_json::json;

///
#[test]
fn workdir() {
    for (lines, dir) in [
        ("WORKDIR /a", "/a"),
        ("WORKDIR a", "/a"),
        ("WORKDIR /a\nWORKDIR b\nWORKDIR c/d", "/a/b/c/d"),
        ("WORKDIR /a\nWORKDIR ../b/./c//d/", "/b/c/d"),
        ("WORKDIR /a\nWORKDIR ../../..", "/"),
        ("WORKDIR /d/./e//f/", "/d/./e//f/"),
        ("WORKDIR /d/./e//f/\nWORKDIR g", "/d/e/f/g"),
        ("WORKDIR /a b", "/a b"),
        ("WORKDIR \"/a b\"", "/a b"),
        ("WORKDIR '/a'\\ b", "/a b"),
        ("ENV X=/x\nWORKDIR $X/y", "/x/y"),
        ("LABEL a=b", "/"),
    ] {
        assert_eq!(scratch(lines).config()["WorkingDir"], dir, "{lines}");
    }
    assert_eq!(build("FROM rich\nWORKDIR sub\n").config()["WorkingDir"], "/base/sub");
    assert_eq!(build("FROM debian\nWORKDIR sub\n").config()["WorkingDir"], "/sub");
    assert_eq!(refused("FROM scratch\nWORKDIR\n"), "WORKDIR requires exactly one argument");
}

/// what is made on disk is tested with the command.
#[test]
fn workdir_makes_a_layer() {
    let options = LowerOptions { build_args: vec![("SOURCE_DATE_EPOCH".into(), "7".into())], ..options() };
    let built =
        build_with("FROM scratch\nWORKDIR /\nWORKDIR /a/b\nUSER me:us\nWORKDIR c/\nWORKDIR /a\n", &options);
    assert_eq!(
        built.history(),
        ["- WORKDIR /", "WORKDIR /a/b", "- USER me:us", "WORKDIR /a/b/c", "WORKDIR /a"]
    );
    let made: Vec<_> = built
        .definition
        .vertices
        .iter()
        .map(|vertex| match &vertex.op {
            Op::Mkdir(mkdir) => (mkdir.path.as_str(), mkdir.user.as_str(), mkdir.epoch),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(made, [("/a/b", "", Some(7)), ("/a/b/c", "me:us", Some(7)), ("/a", "me:us", Some(7))]);
}

/// what is made on disk is tested with the command.
#[test]
fn the_directory_of_the_base() {
    let built = build("FROM rich\nRUN x\nCOPY a b\n");
    assert_eq!((built.exec().cwd.as_str(), &built.config()["WorkingDir"]), ("/base", &json!("/base")));
    assert!(!built.definition.vertices.iter().any(|vertex| matches!(vertex.op, Op::Mkdir(_))));
    let Some(Op::Copy(copy)) = built.definition.vertices.last().map(|vertex| &vertex.op) else {
        panic!("no copy")
    };
    assert_eq!(copy.dest, "/base/b");
}

/// how names are resolved is tested with the command.
#[test]
fn user() {
    for (line, user) in [
        ("USER me", "me"),
        ("USER me:us", "me:us"),
        ("USER 1:2", "1:2"),
        ("USER a b", "a b"),
        ("ENV U=x\nUSER $U:${U}y", "x:xy"),
        ("USER \"me\"", "me"),
    ] {
        assert_eq!(scratch(line).config()["User"], user, "{line}");
    }
    let built = build("FROM rich\nRUN x\n");
    assert_eq!((built.exec().user.as_str(), &built.config()["User"]), ("app:app", &json!("app:app")));
    assert_eq!(build("FROM rich\nUSER 5\nRUN x\n").exec().user, "5");
    assert_eq!(refused("FROM scratch\nUSER\n"), "USER requires exactly one argument");
}

/// that later changes are kept is tested with the command.
#[test]
fn volume() {
    let volumes = |text: &str| build(text).config()["Volumes"].clone();
    assert_eq!(
        volumes("FROM scratch\nVOLUME /a /b\nVOLUME [\"/c d\", \" /e \"]\n"),
        json!({"/a": {}, "/b": {}, "/c d": {}, "/e": {}})
    );
    assert_eq!(volumes("FROM rich\nENV X=x\nVOLUME /$X\n"), json!({"/v": {}, "/x": {}}));
    for line in ["VOLUME [\"\"]", "VOLUME [\"/a\", \"  \"]", "VOLUME $none", "VOLUME \"\""] {
        assert_eq!(
            refused(&format!("FROM scratch\n{line}\n")),
            "VOLUME specified can not be an empty string",
            "{line}"
        );
    }
    assert_eq!(refused("FROM scratch\nVOLUME\n"), "VOLUME requires at least one argument");
    assert_eq!(refused("FROM scratch\nVOLUME []\n"), "VOLUME requires at least one argument");
}

/// B-001, B-002
#[test]
fn what_the_base_leaves() {
    let built = build("FROM rich\n");
    let document = built.document();
    assert_eq!(
        built.config(),
        json!({
            "User": "app:app", "ExposedPorts": {"1/tcp": {}}, "Env": ["A=base", "PATH=/bin"], "Entrypoint": ["e"],
            "Cmd": ["c"], "Volumes": {"/v": {}}, "WorkingDir": "/base", "Labels": {"base": "1", "both": "base"},
            "StopSignal": "SIGINT", "ArgsEscaped": true, "Healthcheck": {"Test": ["NONE"]}, "Shell": ["bash", "-c"],
        })
    );
    assert_eq!(document.get("moby.unknown"), None, "BuildKit reads the config into the fields it knows");
    assert_eq!(document["author"], "base author");
    assert_eq!(document["history"], json!([{"created": "2024-01-01T00:00:00Z", "created_by": "ADD base /"}]));
    assert_eq!(document["rootfs"]["type"], "layers");
    assert_eq!(document.get("created"), None);
    let built = build("FROM trigger\nONBUILD RUN own\n");
    assert_eq!(built.env(), ["PATH=/bin", "FROM=trigger"]);
    assert_eq!(built.config()["OnBuild"], json!(["RUN own"]), "used ones are cleared");
    assert_eq!(built.history(), ["- ENV FROM=trigger"]);
}

/// B-001, A-071: a list that turns out to be empty is no part of the config.
#[test]
fn empty_maps_are_left_out() {
    let built = scratch("ARG none\nEXPOSE $none\n");
    assert_eq!(built.config(), json!({"Env": [PATH], "WorkingDir": "/"}));
    assert_eq!(built.history(), ["- ARG none", "- EXPOSE []"]);
}

/// B-003
#[test]
fn what_the_image_is_for() {
    let platform = |text: &str, platform: &str| {
        let document = build_with(text, &for_platform(platform)).document();
        let part = |key: &str| document[key].as_str().unwrap_or("-").to_owned();
        format!("{}/{}/{}", part("os"), part("architecture"), part("variant"))
    };
    for (given, written) in [
        ("linux/arm64", "linux/arm64/-"),
        ("linux/arm64/v8", "linux/arm64/-"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/x86_64", "linux/amd64/-"),
        ("linux/riscv64", "linux/riscv64/-"),
    ] {
        assert_eq!(platform("FROM scratch\n", given), written, "{given}");
        assert_eq!(platform("FROM debian\n", given), written, "{given}");
    }
    assert_eq!(
        platform("FROM --platform=linux/386 debian\n", "linux/arm64"),
        "linux/arm64/-",
        "the target's"
    );
    let document = build("FROM arm\n").document();
    assert_eq!(
        (&document["os"], &document["architecture"]),
        (&json!("linux"), &json!("arm64")),
        "the image's own"
    );
    let document = scratch("").document();
    assert_eq!((&document["os"], &document["architecture"]), (&json!("linux"), &json!("amd64")));
}

/// B-005
#[test]
fn labels_of_the_command_line() {
    let options = LowerOptions { labels: vec![("a".into(), "cli".into())], ..options() };
    let built = build_with("FROM scratch\nLABEL a=file b=file\n", &options);
    assert_eq!(built.config()["Labels"], json!({"a": "cli", "b": "file"}));
    assert_eq!(built.history(), ["- LABEL a=file b=file"]);
    assert!(try_build("FROM scratch\n", &options).unwrap().history().is_empty());
}
