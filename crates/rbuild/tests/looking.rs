//! `check`, `plan`, `ast`, `--check` and `--call`: looking at a Dockerfile without building it. Needs neither root nor a
//! registry: everything stands on `scratch`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

struct Context {
    dir: tempfile::TempDir,
}

impl Context {
    fn of(dockerfile: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
        Self { dir }
    }

    /// rbuild in the context's directory.
    fn command(&self) -> Command {
        let store = self.dir.path().join("store");
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_rbuild")));
        command.current_dir(self.dir.path()).env("RBUILD_ROOT", store);
        command.env_remove("DOCKER_DEFAULT_PLATFORM").env_remove("BUILDKIT_PROGRESS");
        command
    }

    fn rbuild(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Exit code and standard output.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.rbuild(args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let (_, text) = self.run(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
    }
}

const CLEAN: &str = "FROM scratch\nCOPY Dockerfile /\n";
const WARNS: &str = "FROM scratch AS one\nCMD sleep 1\nFROM scratch\nWORKDIR a\n";

/// D-019: check ends with 1 when it found something; without a target every stage is looked at.
#[test]
fn check_has_an_exit_code() {
    for (dockerfile, args, code, words) in [
        (CLEAN, &["check"][..], 0, &["no warnings found"][..]),
        (
            WARNS,
            &["check", "."],
            1,
            &["JSONArgsRecommended", "WorkdirRelativePath", "Dockerfile:2:5", "2 warnings"],
        ),
        (WARNS, &["build", "--check", "."], 1, &["2 warnings"]),
        (WARNS, &["check", "--target", "one"], 1, &["JSONArgsRecommended", "1 warning"]),
        (WARNS, &["--call=check,ignorestatus=true", "."], 0, &["2 warnings"]),
        (WARNS, &["check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"], 0, &["no warnings"]),
        (
            "# check=error=true\nFROM scratch as a\n",
            &["check"],
            1,
            &["FromAsCasing", "1 warning has been found"],
        ),
        (
            "FROM scratch\nMAINTAINER x\nCOPPY a b\n",
            &["check"],
            2,
            &["COPPY", "MaintainerDeprecated", "1 error"],
        ),
        ("", &["check"], 2, &["cannot be empty"]),
    ] {
        let (got, out) = Context::of(dockerfile).run(args);
        assert_eq!(got, Some(code), "{args:?}\n{out}");
        words.iter().for_each(|word| assert!(out.contains(word), "{args:?}: no {word}\n{out}"));
    }
}

/// E-019: the ignore file is read as for a build.
#[test]
fn check_reads_the_ignore_file() {
    let context = Context::of("FROM scratch\nCOPY a.log b.txt /\n");
    std::fs::write(context.dir.path().join(".dockerignore"), "# logs\n*.log\n").unwrap();
    let found = context.json(&["check", "--format", "json"]);
    assert_eq!(found["warnings"][0]["ruleName"], "CopyIgnoredFile");
    assert_eq!(found["warnings"].as_array().unwrap().len(), 1);
    let sarif = context.json(&["check", "--format", "sarif"]);
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "CopyIgnoredFile");
    assert!(result["message"]["text"].as_str().unwrap().contains("`*.log` on line 2 of .dockerignore"));
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startColumn"], 6);
}

#[test]
fn a_build_with_violations_is_refused() {
    let context = Context::of("# check=error=true\nFROM scratch as a\n");
    let output = context.rbuild(&["build", "."]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("lint violation found for rules: FromAsCasing"), "{said}");
}

const DESCRIBED: &str = "# V of everything\nARG V=1\n# base what all stand on\nFROM scratch AS base\nARG V\n\
    # X one more\nARG X=$V.2\nFROM base AS tool\nRUN --mount=type=secret,id=token,required \
    --mount=type=cache,id=deps,target=/c --mount=type=ssh true\n# app the program\nFROM base AS app\nCOPY --from=tool /a /\n";

/// D-019: outline and targets as BuildKit shows them.
#[test]
fn outline_and_targets() {
    let context = Context::of(DESCRIBED);
    let (code, text) = context.run(&["--call=outline", "--build-arg", "V=7", "."]);
    let wanted = "TARGET:      app\nDESCRIPTION: the program\n\nBUILD ARG   VALUE   DESCRIPTION\n\
                  V           7       \nX           7.2     one more\n\nSECRET   REQUIRED\ntoken    true\n\n\
                  SSH       REQUIRED\ndefault   \n\nCACHE MOUNT\ndeps\n\n";
    // With a build argument it is the stage's ARG that counts, which has no description, as in BuildKit.
    assert_eq!((code, &*text), (Some(0), wanted));
    let (_, text) = context.run(&["--call=outline", "."]);
    assert!(text.contains("V           1       of everything\n"), "{text}");
    let outline = context.json(&["--call", "outline,format=json", "--target=base", "."]);
    assert_eq!((&outline["name"], &outline["description"]), (&"base".into(), &"what all stand on".into()));
    assert!(outline["secrets"].is_null() && outline["args"][1]["name"] == "X");
    let (_, targets) = context.run(&["--call=targets", "."]);
    assert_eq!(
        targets,
        "TARGET        DESCRIPTION\nbase          what all stand on\ntool          \napp (default) the program\n"
    );
    let targets = context.json(&["--call=targets,format=json", "."]);
    assert_eq!(
        (&targets["targets"][2]["default"], &targets["targets"][1]["base"]),
        (&true.into(), &"base".into())
    );
}

/// D-019 (testOutlineArgs): what the target and the stages it needs refer to, by line.
#[test]
fn outline_of_arguments() {
    let context = Context::of(
        "ARG inherited=at\nARG inherited2=box2\nARG unused=abc${inherited2}\n# sfx is a suffix\nARG sfx=\"cr${inherited}\"\n\n\
         FROM s${sfx}ch AS first\n# this is not assigned to anything\nARG FOO=123\n# BAR is a number\nARG BAR=456\nRUN true\n\n\
         FROM alpine${unused} AS second\nARG BAZ\nRUN true\n\nFROM scratch AS third\nARG ABC=a\n\n\
         # target defines build target\nFROM third AS target\nCOPY --from=first /etc/passwd /\n\nFROM second\n",
    );
    let outline =
        context.json(&["--call=outline,format=json", "--target=target", "--build-arg", "BAR=678", "."]);
    let at = |line: u32| serde_json::json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    assert_eq!(
        (&outline["name"], &outline["description"]),
        (&"target".into(), &"defines build target".into())
    );
    // Empty fields are left out, as Go does.
    assert_eq!(
        outline["args"],
        serde_json::json!([
            {"name": "inherited", "value": "at", "location": at(1)},
            {"name": "sfx", "value": "crat", "description": "is a suffix", "location": at(5)},
            {"name": "FOO", "value": "123", "location": at(9)},
            {"name": "BAR", "value": "678", "description": "is a number", "location": at(11)},
            {"name": "ABC", "value": "a", "location": at(19)},
        ])
    );
    assert!(outline["secrets"].is_null() && outline["sources"].as_array().unwrap().len() == 1);
}

/// D-019 (testOutlineSecrets)
#[test]
fn outline_of_secrets() {
    let context = Context::of(
        "\nFROM scratch AS first\nRUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true\n\n\
         FROM alpine AS second\nRUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true\n\n\
         FROM scratch AS third\nARG BAR\nRUN --mount=type=secret,id=second${BAR} true\n\n\
         FROM third AS target\nCOPY --from=first /foo /\nRUN --mount=type=ssh,id=ssh3,required true\n\nFROM second\n",
    );
    let outline =
        context.json(&["--call=outline,format=json", "--target=target", "--build-arg", "BAR=678", "."]);
    let shown = |list: &str| {
        let list = outline[list].as_array().unwrap().iter();
        let line = |entry: &Value| entry["location"]["ranges"][0]["start"]["line"].as_u64().unwrap();
        list.map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry["required"] == true, line(entry)))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("secrets"), [("passwd".to_owned(), true, 3), ("second678".to_owned(), false, 10)]);
    assert_eq!(shown("ssh"), [("default".to_owned(), false, 3), ("ssh3".to_owned(), true, 14)]);
}

/// D-019 (testTargetsList, testTargetsDescribeDefinition, testOutlineDescribeDefinition)
#[test]
fn targets_and_what_can_be_asked() {
    let context = Context::of(
        "\n# build defines stage for compiling the binary\nFROM alpine AS build\nRUN true\n\nFROM busybox as second\n\
         RUN false\n\nFROM alpine\nRUN false\n\n# binary returns the compiled binary\nFROM second AS binary\n",
    );
    let at = |line: u32| serde_json::json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    let list = context.json(&["--call=targets,format=json", "."]);
    assert_eq!(
        list["targets"],
        serde_json::json!([
            {"name": "build", "description": "defines stage for compiling the binary", "base": "alpine", "location": at(3)},
            {"name": "second", "base": "busybox", "location": at(6)},
            {"base": "alpine", "location": at(9)},
            {"name": "binary", "default": true, "description": "returns the compiled binary", "base": "second",
             "location": at(13)},
        ])
    );
    let (_, text) = context.run(&["--call=targets", "."]);
    assert!(
        text.contains(
            "\nsecond           \n                 \nbinary (default) returns the compiled binary\n"
        ),
        "{text}"
    );
    let (code, text) = context.run(&["--call=subrequests.describe", "."]);
    assert!(
        text.starts_with("NAME                 VERSION DESCRIPTION\noutline              1.0.0   List all"),
        "{text}"
    );
    let requests = context.json(&["--call=subrequests.describe,format=json", "."]);
    let names: Vec<&Value> = requests.as_array().unwrap().iter().map(|request| &request["name"]).collect();
    assert_eq!(
        names[..4],
        ["frontend.outline", "frontend.targets", "frontend.subrequests.describe", "frontend.lint"]
    );
    assert_eq!((code, &requests[0]["type"]), (Some(0), &"rpc".into()));
}

/// Nothing is executed, and the same file gives the same digests.
#[test]
fn plan_shows_steps_and_config() {
    let context = Context::of("FROM scratch AS a\nENV K=v\nRUN does not exist\nLABEL l=1\nUSER u\n");
    let (code, text) = context.run(&["plan"]);
    assert_eq!(code, Some(0), "{text}");
    for word in ["RUN does not exist", "K=v", "l=1", "User", "linux/"] {
        assert!(text.contains(word), "no {word}\n{text}");
    }
    let plan = context.json(&["plan", "--format=json"]);
    assert_eq!(plan, context.json(&["--call=plan,format=json", "."]));
    let step = &plan["steps"][0];
    assert_eq!((&step["kind"], &step["stage"], &step["lines"][0]), (&"exec".into(), &"a".into(), &3.into()));
    assert_eq!(step["digest"], plan["root"]);
    assert_eq!(plan["config"]["Labels"]["l"], "1");
    assert_eq!(plan["history"].as_array().unwrap().len(), 4);
    let output = Context::of("FROM scratch\nCOPY --from=no-such-stage:1@ a /\n").rbuild(&["plan"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// the tree is that of the Dockerfile language, whoever is asked to build the file: nothing is decided by it.
#[test]
fn ast_of_a_file_for_another_frontend() {
    let context = Context::of("# syntax=r2d4/mocker:1\nFROM scratch\nMOCK a\n");
    let output = context.rbuild(&["ast"]);
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&tree["syntax"], &tree["nodes"][1]["value"]),
        (&"r2d4/mocker:1".into(), &"MOCK".into()),
        "{tree}"
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("unknown instruction: MOCK") && !said.contains("frontend"), "{said}");
    assert_eq!(
        Context::of("# syntax=r2d4/mocker:1\nFROM scratch\n").run(&["ast", "--format=sexp"]).0,
        Some(0)
    );
}

#[test]
fn ast_in_both_forms() {
    let context = Context::of("# escape=`\nFROM scratch\nRUN [\"a\", \"b\"]\n");
    assert_eq!(
        context.run(&["ast", "--format=sexp"]),
        (Some(0), "(from \"scratch\")\n(run \"a\" \"b\")\n".into())
    );
    let tree = context.json(&["ast"]);
    assert_eq!((&tree["escape"], &tree["nodes"][1]["json"]), (&"`".into(), &true.into()));
    // Offsets into the text.
    assert_eq!(
        (&tree["nodes"][1]["span"], &tree["nodes"][1]["arg_spans"][1]),
        (&[24, 38].into(), &[34, 37].into())
    );
    let found = Context::of("FROM scratch\nCOPPY a\n").json(&["ast"]);
    assert_eq!(
        (&found["diagnostics"][0]["lines"][0], &found["diagnostics"][0]["spans"][0]),
        (&2.into(), &[13, 18].into())
    );
    let broken = Context::of("FROM scratch\nCOPPY a\n").rbuild(&["ast", "--format", "sexp"]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&broken.stdout).starts_with("(from \"scratch\")"));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("unknown instruction: COPPY"));
}

/// a file for another frontend is refused by every way of looking at it, and by a build.
#[test]
fn other_frontends_are_refused() {
    let context = Context::of("# syntax=r2d4/mocker:1 x\nFROM scratch\nCOPY Dockerfile /\n");
    let ours = ["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1.7-labs"];
    for args in [&["check"][..], &["plan"], &["--call=outline"], &["--call=targets"], &["build"]] {
        let output = context.rbuild(&[args, &["."]].concat());
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        for words in ["frontend `r2d4/mocker:1` is not supported", "Dockerfile:1:10", "^^^", "help: "] {
            assert!(said.contains(words), "{args:?}: no {words}\n{said}");
        }
        let output = context.rbuild(&[args, &ours, &["."]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let usual = Context::of("# syntax=docker/dockerfile:1\nFROM scratch\nCOPY Dockerfile /\n");
    assert_eq!(usual.run(&["check"]).0, Some(0));
    let other = usual.rbuild(&["plan", "--build-arg", "BUILDKIT_SYNTAX=a/b"]);
    assert_eq!(other.status.code(), Some(2));
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("frontend `a/b`, given with BUILDKIT_SYNTAX"), "{said}");
}

#[test]
fn plan_names_every_kind_of_step() {
    let context = Context::of(
        "FROM scratch\nADD https://example.org/file /\nADD https://example.org/repo.git /r\nWORKDIR /w\nRUN x\n",
    );
    let plan = context.json(&["plan", "--format=json"]);
    let mut kinds: Vec<&str> =
        plan["steps"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["copy", "copy", "exec", "git", "http", "mkdir"]);
}

/// D-008, D-009: what is printed by the ways of showing progress that are for programs.
#[test]
fn quiet_raw_and_no_progress() {
    let context = Context::of("FROM scratch\nCOPY Dockerfile /\n");
    let build = |args: &[&str]| {
        let output = context.rbuild(&[&["build"], args, &["."]].concat());
        assert_eq!(output.status.code(), Some(0));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (id, said) = build(&["-q"]);
    assert!(id.starts_with("sha256:") && id.lines().count() == 1 && said.is_empty(), "{id}{said}");
    assert_eq!(build(&["--progress=quiet"]), (id, String::new()));
    assert_eq!(build(&["--progress=none"]), (String::new(), String::new()));
    // $BUILDKIT_PROGRESS is what --progress is without one; empty it is not there.
    for (value, args, steps) in [
        ("none", &[][..], false),
        ("none", &["--progress=plain"], true),
        ("plain", &[], true),
        ("", &[], true),
    ] {
        let mut command = context.command();
        let output =
            command.env("BUILDKIT_PROGRESS", value).arg("build").args(args).arg(".").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), said.contains("#1 ")),
            (Some(0), steps),
            "{value} {args:?}: {said}"
        );
    }
    let (out, said) = build(&["--progress=rawjson"]);
    assert_eq!(out, "");
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let copy = |line: &&Value| {
        line["vertexes"][0]["name"] == "[1/1] COPY Dockerfile /" && line["vertexes"][0]["cached"] == true
    };
    let cached = lines.iter().find(copy).unwrap_or_else(|| panic!("{said}"));
    assert!(cached["vertexes"][0]["completed"].as_str().unwrap().ends_with('Z'));
}
