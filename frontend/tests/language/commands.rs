//! A7: CMD, ENTRYPOINT, SHELL, HEALTHCHECK.

use crate::{build, refused, scratch};
use serde_json::{Value, json};

/// Cmd and Entrypoint.
#[track_caller]
fn commands(text: &str) -> Value {
    let config = build(text).config();
    json!([config["Cmd"], config["Entrypoint"]])
}

///
#[test]
fn forms_of_cmd_and_entrypoint() {
    for (lines, expected) in [
        ("CMD [\"a\", \"b c\"]\nENTRYPOINT [\"d\"]", json!([["a", "b c"], ["d"]])),
        (
            "CMD a  \"b\" $c \nENTRYPOINT e   f",
            json!([["/bin/sh", "-c", "a  \"b\" $c"], ["/bin/sh", "-c", "e   f"]]),
        ),
        (
            "SHELL [\"x\", \"y\", \"z\"]\nCMD a\nENTRYPOINT b",
            json!([["x", "y", "z", "a"], ["x", "y", "z", "b"]]),
        ),
        ("CMD a\nCMD [\"b\"]\nENTRYPOINT c\nENTRYPOINT [\"d\"]", json!([["b"], ["d"]])),
        ("CMD", json!([["/bin/sh", "-c", ""], null])),
        ("CMD [\"a\"]\nENTRYPOINT [\"b\"]\nENTRYPOINT []\nCMD []", json!([null, null])),
    ] {
        assert_eq!(commands(&format!("FROM scratch\n{lines}\n")), expected, "{lines}");
    }
    assert_eq!(commands("FROM rich\nCMD []\n"), json!([null, ["e"]]), "inherited ones");
    assert_eq!(commands("FROM rich\nENTRYPOINT []\nCMD []\n"), json!([null, null]));
    assert_eq!(commands("FROM rich\nENTRYPOINT\n"), json!([null, ["bash", "-c", ""]]));
}

///
#[test]
fn entrypoint_clears_the_inherited_cmd() {
    for (text, expected) in [
        ("FROM rich\n", json!([["c"], ["e"]])),
        ("FROM rich\nENTRYPOINT [\"x\"]\n", json!([null, ["x"]])),
        ("FROM scratch AS a\nCMD [\"y\"]\nFROM a\nENTRYPOINT [\"x\"]\n", json!([null, ["x"]])),
        ("FROM rich\nENTRYPOINT [\"x\"]\nCMD [\"y\"]\n", json!([["y"], ["x"]])),
        ("FROM rich\nCMD [\"y\"]\nENTRYPOINT [\"x\"]\n", json!([["y"], ["x"]])),
        ("FROM rich\nCMD [\"y\"]\nENTRYPOINT [\"x\"]\nENTRYPOINT [\"z\"]\n", json!([["y"], ["z"]])),
    ] {
        assert_eq!(commands(text), expected, "{text}");
    }
}

///
#[test]
fn cmd_says_that_args_are_escaped() {
    for line in ["CMD a", "CMD [\"a\"]", "CMD []"] {
        assert_eq!(scratch(line).config()["ArgsEscaped"], true, "{line}");
    }
    for line in ["ENTRYPOINT a", "LABEL a=b"] {
        assert_eq!(scratch(line).config()["ArgsEscaped"], Value::Null, "{line}");
    }
    assert_eq!(build("FROM rich\nENTRYPOINT x\n").config()["ArgsEscaped"], true, "inherited");
}

///
#[test]
fn shell() {
    for line in ["SHELL bash -c", "SHELL ['bash']", "SHELL \"bash\""] {
        assert_eq!(
            refused(&format!("FROM scratch\n{line}\n")),
            "SHELL requires the arguments to be in JSON form"
        );
    }
    assert_eq!(refused("FROM scratch\nSHELL []\n"), "SHELL requires at least one argument");
    assert_eq!(refused("FROM scratch\nSHELL\n"), "SHELL requires at least one argument");
    let parent = "FROM debian AS p\nCMD before\nSHELL [\"ash\", \"-ec\"]\n";
    let built = build(&format!("{parent}RUN x\nENTRYPOINT y\n"));
    assert_eq!(built.exec().args, ["ash", "-ec", "x"]);
    assert_eq!(built.config()["Entrypoint"], json!(["ash", "-ec", "y"]));
    assert_eq!(built.config()["Shell"], json!(["ash", "-ec"]));
    assert_eq!(commands(parent), json!([["/bin/sh", "-c", "before"], null]), "later ones only");
    let child = build(&format!("{parent}FROM p\nRUN x\nCMD y\nRUN [\"z\"]\n"));
    assert_eq!(
        (child.config()["Cmd"].clone(), &child.exec().args),
        (json!(["ash", "-ec", "y"]), &vec!["z".to_owned()])
    );
    assert_eq!(build("FROM rich\nRUN x\n").exec().args, ["bash", "-c", "x"], "the image's");
    assert_eq!(build(&format!("{parent}FROM debian\nRUN x\n")).exec().args, ["/bin/sh", "-c", "x"]);
    let windows = crate::build_with("FROM scratch\nCMD x\n", &crate::for_platform("windows/amd64"));
    assert_eq!(windows.config()["Cmd"], json!(["cmd", "/S", "/C", "x"]));
    assert_eq!(windows.env(), ["PATH=c:\\Windows\\System32;c:\\Windows"]);
}

///
#[test]
fn healthcheck() {
    let check = |line: &str| scratch(line).config()["Healthcheck"].clone();
    assert_eq!(check("HEALTHCHECK CMD a  \"b\""), json!({"Test": ["CMD-SHELL", "a  \"b\""]}));
    assert_eq!(check("HEALTHCHECK cmd [\"a\", \"b\"]"), json!({"Test": ["CMD", "a", "b"]}));
    assert_eq!(check("HEALTHCHECK NONE"), json!({"Test": ["NONE"]}));
    assert_eq!(check("SHELL [\"x\"]\nHEALTHCHECK CMD a"), json!({"Test": ["CMD-SHELL", "a"]}), "no SHELL");
    assert_eq!(
        check(
            "HEALTHCHECK --interval=1m30s --timeout=1ms --start-period=1.5h --start-interval=2s5ms --retries=4 CMD a"
        ),
        json!({"Test": ["CMD-SHELL", "a"], "Interval": 90_000_000_000_i64, "Timeout": 1_000_000, "StartPeriod": 5_400_000_000_000_i64,
            "StartInterval": 2_005_000_000, "Retries": 4})
    );
    assert_eq!(
        check("HEALTHCHECK --interval=0 --timeout=0s --retries=0 CMD a"),
        json!({"Test": ["CMD-SHELL", "a"]})
    );
    assert_eq!(check("HEALTHCHECK CMD a\nHEALTHCHECK NONE"), json!({"Test": ["NONE"]}), "the last one");
    for (line, message) in [
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK foo", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --interval=5 CMD a", "time: missing unit in duration \"5\""),
        ("HEALTHCHECK --interval=x CMD a", "time: invalid duration \"x\""),
    ] {
        assert_eq!(refused(&format!("FROM scratch\n{line}\n")), message, "{line}");
    }
    for flag in ["interval", "timeout", "start-period", "start-interval"] {
        for short in ["1us", "999us", "-1s"] {
            let message = refused(&format!("FROM scratch\nHEALTHCHECK --{flag}={short} CMD a\n"));
            assert_eq!(message, format!("Interval \"{flag}\" cannot be less than 1ms"));
        }
    }
}
