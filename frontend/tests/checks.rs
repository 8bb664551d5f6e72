//! Every build check: what it says, at which line, and what it leaves alone (features E-001 to E-022).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rbuild_context::Ignore;
use rbuild_context::ignore::read_rules;
use rbuild_frontend::{
    Diagnostic, IgnoreRule, IgnoreRules, ImageRequest, LowerOptions, ResolveError, ResolvedImage, Resolver,
    lower, parse, syntax_warnings,
};
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde_json::json;
use std::sync::Arc;

/// Every image is for amd64; one has a shell, one a working directory.
struct Images;

impl Resolver for Images {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let mut config = json!({"Env": ["PATH=/bin", "FROM_IMAGE=1"]});
        if request.reference.contains("/with-shell") {
            config["Shell"] = json!(["/bin/bash", "-c"]);
        }
        if request.reference.contains("/with-dir") {
            config["WorkingDir"] = "/base".into();
        }
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest::of("layer")]},
        });
        let config: ImageConfig = serde_json::from_value(document).unwrap();
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config })
    }
}

fn options() -> LowerOptions {
    LowerOptions { build_platform: Platform::linux("amd64"), ..LowerOptions::default() }
}

/// `line message` of the warnings of `rule`.
fn found(rule: &str, text: &str, options: &LowerOptions) -> Vec<String> {
    let (file, mut diagnostics) = parse(text.as_bytes());
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => diagnostics.extend(syntax_warnings(&file, &diagnostics, options)),
        false => diagnostics.extend(lower(&file, options, &Images).1),
    }
    let of_rule = |diagnostic: &&Diagnostic| !diagnostic.is_error() && diagnostic.rule == Some(rule);
    let show = |diagnostic: &Diagnostic| format!("{} {}", diagnostic.lines.start, diagnostic.message);
    diagnostics.iter().filter(of_rule).map(show).collect()
}

#[track_caller]
fn check(rule: &str, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(found(rule, text, &options()), *expected, "{text}");
    }
}

/// E-001
#[test]
fn stage_name_casing() {
    check(
        "StageNameCasing",
        &[
            ("FROM a AS build\n", &[]),
            ("FROM a AS b1-c_d\nFROM b AS Other\n", &["2 Stage name 'Other' should be lowercase"]),
            ("FROM a AS bUILD\n", &["1 Stage name 'bUILD' should be lowercase"]),
        ],
    );
}

/// E-002
#[test]
fn from_as_casing() {
    check(
        "FromAsCasing",
        &[
            ("FROM a AS b\n", &[]),
            ("from a as b\n", &[]),
            ("From a As b\n", &[]),
            ("From a as b\n", &[]),
            ("FROM a as b\n", &["1 'as' and 'FROM' keywords' casing do not match"]),
            ("from a AS b\n", &["1 'AS' and 'from' keywords' casing do not match"]),
            ("FROM a As b\n", &["1 'As' and 'FROM' keywords' casing do not match"]),
        ],
    );
}

/// E-003
#[test]
fn no_empty_continuation() {
    check(
        "NoEmptyContinuation",
        &[
            ("FROM scratch\nENV a=1 \\\n b=2\n", &[]),
            ("FROM scratch\nENV a=1 \\\n# comment\n b=2\n\n", &[]),
            ("FROM scratch\nENV a=1 \\\n\n b=2\n", &["4 Empty continuation line"]),
            ("FROM scratch\nENV a=1 \\\n   \n\n b=2\n", &["5 Empty continuation line"]),
        ],
    );
}

/// E-004
#[test]
fn consistent_instruction_casing() {
    check(
        "ConsistentInstructionCasing",
        &[
            ("FROM a\nENV a=1\n", &[]),
            ("from a\nenv a=1\n", &[]),
            (
                "FROM a\nENV a=1\nenv b=1\n",
                &["3 Command 'env' should match the case of the command majority (uppercase)"],
            ),
            (
                "from a\nenv a=1\nENV b=1\n",
                &["3 Command 'ENV' should match the case of the command majority (lowercase)"],
            ),
            // A draw is for upper case.
            (
                "FROM a\nenv a=1\n",
                &["2 Command 'env' should match the case of the command majority (uppercase)"],
            ),
            (
                "FROM a\nEnv a=1\n",
                &["2 Command 'Env' should match the case of the command majority (uppercase)"],
            ),
            (
                "from a\nEnv a=1\n",
                &["2 Command 'Env' should match the case of the command majority (lowercase)"],
            ),
        ],
    );
}

/// E-005
#[test]
fn duplicate_stage_name() {
    check(
        "DuplicateStageName",
        &[
            ("FROM a AS b\nFROM a AS c\nFROM a\nFROM a\n", &[]),
            ("FROM a AS b\nFROM a AS b\n", &["2 Duplicate stage name \"b\", stage names should be unique"]),
            (
                "FROM a AS b\nFROM a AS B\nFROM a AS b\n",
                &[
                    "2 Duplicate stage name \"b\", stage names should be unique",
                    "3 Duplicate stage name \"b\", stage names should be unique",
                ],
            ),
        ],
    );
}

/// E-006
#[test]
fn reserved_stage_name() {
    let message = "Stage name should not use the same name as reserved stage";
    check(
        "ReservedStageName",
        &[
            ("FROM a AS scratchy\nFROM a AS contexts\n", &[]),
            (
                "FROM a AS scratch\nFROM a AS context\n",
                &[&format!("1 {message} \"scratch\""), &format!("2 {message} \"context\"")],
            ),
        ],
    );
}

/// E-007
#[test]
fn json_args_recommended() {
    let message = |line: usize, name: &str| {
        format!(
            "{line} JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
        )
    };
    check(
        "JSONArgsRecommended",
        &[
            ("FROM a\nCMD [\"x\"]\nENTRYPOINT [\"x\"]\nRUN x\n", &[]),
            ("FROM a\nCMD x y\nENTRYPOINT z\n", &[&message(2, "CMD"), &message(3, "ENTRYPOINT")]),
            ("FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\n", &[]),
            ("FROM with-shell\nCMD x\n", &[]),
            ("FROM a AS b\nSHELL [\"/bin/bash\", \"-c\"]\nFROM b\nCMD x\n", &[]),
            ("FROM a\nHEALTHCHECK CMD x\n", &[]),
        ],
    );
}

/// E-008
#[test]
fn maintainer_deprecated() {
    check(
        "MaintainerDeprecated",
        &[
            ("FROM a\nLABEL org.opencontainers.image.authors=me\n", &[]),
            ("FROM a\nMAINTAINER me\n", &["2 Maintainer instruction is deprecated in favor of using label"]),
        ],
    );
}

/// E-009
#[test]
fn undefined_arg_in_from() {
    check(
        "UndefinedArgInFrom",
        &[
            ("ARG BASE=a\nFROM $BASE\n", &[]),
            ("FROM --platform=$BUILDPLATFORM a${TAG:-1}\n", &["1 FROM argument 'TAG' is not declared"]),
            (
                "FROM --platform=$BULIDPLATFORM a\n",
                &["1 FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)"],
            ),
            ("ARG BASE=a\nFROM a$BSAE\n", &["2 FROM argument 'BSAE' is not declared (did you mean BASE?)"]),
            // Declared in a stage is not declared before FROM.
            ("FROM a\nARG TAG=1\nFROM a${TAG}\n", &["3 FROM argument 'TAG' is not declared"]),
        ],
    );
}

/// E-010
#[test]
fn workdir_relative_path() {
    let message = "Relative workdir \"app\" can have unexpected results if the base image changes";
    check(
        "WorkdirRelativePath",
        &[
            ("FROM a\nWORKDIR /app\nWORKDIR sub\n", &[]),
            ("FROM a\nWORKDIR app\nWORKDIR sub\n", &[&format!("2 {message}")]),
            ("FROM with-dir\nWORKDIR app\n", &[&format!("2 {message}")]),
            ("FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR app\n", &[]),
            ("FROM a AS b\nENV x=1\nFROM b\nWORKDIR app\n", &[&format!("4 {message}")]),
        ],
    );
}

/// E-011
#[test]
fn undefined_var() {
    check(
        "UndefinedVar",
        &[
            ("FROM a\nARG x\nENV y=$x z=$FROM_IMAGE p=$PATH\n", &[]),
            ("FROM a\nENV y=${x:-default}\n", &["2 Usage of undefined variable '$x'"]),
            (
                "FROM a\nARG foo=1\nENV y=$fooo\n",
                &["3 Usage of undefined variable '$fooo' (did you mean $foo?)"],
            ),
            ("ARG x=1\nFROM a\nLABEL y=$x\n", &["3 Usage of undefined variable '$x'"]),
            // The shell of a RUN expands its own variables.
            ("FROM a\nRUN echo $x\nCMD echo $x\n", &[]),
            (
                "FROM a\nCOPY $src /\nWORKDIR /$dir\n",
                &["2 Usage of undefined variable '$src'", "3 Usage of undefined variable '$dir'"],
            ),
        ],
    );
}

/// E-012
#[test]
fn multiple_instructions_disallowed() {
    let message = |line: usize, name: &str| {
        format!(
            "{line} Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        )
    };
    check(
        "MultipleInstructionsDisallowed",
        &[
            ("FROM a AS b\nCMD [\"x\"]\nENTRYPOINT [\"x\"]\nHEALTHCHECK NONE\nFROM b\nCMD [\"x\"]\n", &[]),
            ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\nCMD [\"z\"]\n", &[&message(2, "CMD"), &message(3, "CMD")]),
            ("FROM a\nENTRYPOINT [\"x\"]\nENTRYPOINT [\"y\"]\n", &[&message(2, "ENTRYPOINT")]),
            ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\n", &[&message(2, "HEALTHCHECK")]),
        ],
    );
}

/// E-013
#[test]
fn legacy_key_value_format() {
    let message = |line: usize, name: &str| {
        format!("{line} \"{name} key=value\" should be used instead of legacy \"{name} key value\" format")
    };
    check(
        "LegacyKeyValueFormat",
        &[
            ("FROM a\nENV a=b c=d\nLABEL a=b\n", &[]),
            ("FROM a\nENV a b\nLABEL a b c\n", &[&message(2, "ENV"), &message(3, "LABEL")]),
        ],
    );
}

/// E-014
#[test]
fn invalid_base_image_platform() {
    check(
        "InvalidBaseImagePlatform",
        &[
            ("FROM --platform=linux/amd64 a\n", &[]),
            (
                "FROM --platform=linux/arm64 a\n",
                &[
                    "1 Base image a was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build",
                ],
            ),
        ],
    );
    let rule = rbuild_frontend::lint::rule("InvalidBaseImagePlatform").unwrap();
    assert_eq!(rule.url(), None);
}

/// E-015
#[test]
fn redundant_target_platform() {
    let message = "is redundant as this is the default behavior";
    check(
        "RedundantTargetPlatform",
        &[
            ("FROM --platform=$BUILDPLATFORM a\n", &[]),
            (
                "FROM --platform=$TARGETPLATFORM a\n",
                &[&format!("1 Setting platform to predefined $TARGETPLATFORM in FROM {message}")],
            ),
            (
                "FROM --platform=${TARGETPLATFORM} a\n",
                &[&format!("1 Setting platform to predefined ${{TARGETPLATFORM}} in FROM {message}")],
            ),
        ],
    );
}

/// E-016
#[test]
fn secrets_used_in_arg_or_env() {
    let warns =
        |line: &str| !found("SecretsUsedInArgOrEnv", &format!("FROM a\n{line}\n"), &options()).is_empty();
    for key in [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
        "TOKEN",
        "MY_SECRET",
        "SECRET_OF_MINE",
        "A_Token_B",
    ] {
        assert!(warns(&format!("ENV {key}=x")) && warns(&format!("ARG {key}")), "{key}");
    }
    for key in
        ["PUBLIC_KEY", "TOKEN_FILE", "SECRET_VERSION", "KEYBOARD", "monkey", "tokens", "my-token", "AUTHOR"]
    {
        assert!(!warns(&format!("ENV {key}=x")), "{key}");
    }
    check(
        "SecretsUsedInArgOrEnv",
        &[(
            "FROM a\nENV a=1 super_secret=x\nARG auth=1\n",
            &[
                "2 Do not use ARG or ENV instructions for sensitive data (ENV \"super_secret\")",
                "3 Do not use ARG or ENV instructions for sensitive data (ARG \"auth\")",
            ],
        )],
    );
}

/// E-017
#[test]
fn invalid_default_arg_in_from() {
    let message = |line: usize, name: &str| {
        format!("{line} Default value for ARG {name} results in empty or invalid base image name")
    };
    let text = "ARG TAG\nFROM busybox:$TAG\n";
    check(
        "InvalidDefaultArgInFrom",
        &[
            ("ARG TAG=1\nFROM busybox:$TAG\n", &[]),
            ("ARG TAG\nFROM busybox:${TAG:-1}\n", &[]),
            ("ARG TAG\nFROM busybox$TAG\n", &[]),
        ],
    );
    // Also when the build's own value is a good one.
    let given = LowerOptions { build_args: vec![("TAG".into(), "1".into())], ..options() };
    assert_eq!(found("InvalidDefaultArgInFrom", text, &given), [message(2, "busybox:$TAG")]);
    let given = LowerOptions { build_args: vec![("BASE".into(), "a".into())], ..options() };
    assert_eq!(found("InvalidDefaultArgInFrom", "ARG BASE\nFROM $BASE\n", &given), [message(2, "$BASE")]);
}

/// E-018
#[test]
fn from_platform_flag_const_disallowed() {
    let message = |value: &str| format!("1 FROM --platform flag should not use constant value \"{value}\"");
    check(
        "FromPlatformFlagConstDisallowed",
        &[
            ("FROM --platform=$BUILDPLATFORM a\n", &[]),
            ("FROM --platform=linux/amd64 a AS build_amd64\n", &[]),
            ("FROM --platform=linux/amd64 a AS linux\n", &[]),
            ("FROM --platform=linux/amd64 a\n", &[&message("linux/amd64")]),
            ("FROM --platform=linux/amd64 a AS build\n", &[&message("linux/amd64")]),
        ],
    );
}

fn ignoring(content: &str) -> LowerOptions {
    let ignore = Ignore::parse(".dockerignore", content.as_bytes()).unwrap();
    let rules = read_rules(content.as_bytes());
    let shown =
        rules.iter().map(|rule| IgnoreRule { line: rule.line, pattern: rule.pattern.clone() }).collect();
    let excluded_by = move |path: &str| {
        let path = rbuild_tree::TreePath::clamped(path.as_bytes()).ok()?;
        let rule = ignore.rule(&path)?;
        rules.iter().position(|known| known == rule)
    };
    let ignore =
        IgnoreRules { file: ".dockerignore".into(), rules: shown, excluded_by: Arc::new(excluded_by) };
    LowerOptions { ignore: Some(ignore), ..options() }
}

/// E-019
#[test]
fn copy_ignored_file() {
    let copy = |file: &str| format!("2 Attempting to Copy file \"{file}\" that is excluded by .dockerignore");
    for (ignore, line, expected) in [
        ("*.log\n", "COPY a.log b.txt /", vec![copy("a.log")]),
        (
            "*.log\n",
            "ADD a.log /",
            vec!["2 Attempting to Add file \"a.log\" that is excluded by .dockerignore".into()],
        ),
        ("*.log\n", "COPY --from=b a.log /", vec![]),
        ("*.log\n!keep.log\n", "COPY a.log /", vec![]),
        ("dir\n", "COPY dir/sub /", vec![copy("dir/sub")]),
        ("*.log\n", "COPY . /", vec![]),
        ("*\n", "COPY . /", vec![copy(".")]),
        ("**\n", "COPY / /", vec![copy("/")]),
        ("**/*\n", "COPY . /", vec![copy(".")]),
        ("*.log\n", "ADD https://h/a.log /", vec![]),
    ] {
        let found = found(
            "CopyIgnoredFile",
            &format!("FROM a AS x\n{line}\n").replace("=b", "=other"),
            &ignoring(ignore),
        );
        assert_eq!(found, expected, "{ignore} {line}");
    }
}

/// E-020
#[test]
fn invalid_definition_description() {
    let message = |line: usize, keyword: &str, name: &str| {
        format!("{line} Comment for {keyword} should follow the format: `# {name} <description>`")
    };
    let rule = "InvalidDefinitionDescription";
    check(rule, &[("# some text\nARG a=x\nFROM a\n", &[])]);
    for (text, expected) in [
        ("# a is described\nARG a=x\nFROM a\n", vec![]),
        ("# some text\n\nARG a=x\nFROM a\n", vec![message(4, "ARG", "a")]),
        (
            "# some text\nARG a=x\n# other\nFROM a AS b\n",
            vec![message(3, "ARG", "a"), message(5, "FROM", "b")],
        ),
        ("# b is described\nFROM a AS b\n# text\nFROM a\n# text\nENV x=1\n", vec![]),
    ] {
        let text = format!("# check=experimental=all\n{text}");
        assert_eq!(found(rule, &text, &options()), expected, "{text}");
    }
}

/// E-021
#[test]
fn expose_proto_casing() {
    let message =
        |word: &str| format!("2 Defined protocol '{word}' in EXPOSE instruction should be lowercase");
    check(
        "ExposeProtoCasing",
        &[
            ("FROM a\nEXPOSE 80/tcp 90 1/udp\n", &[]),
            ("FROM a\nEXPOSE 80/TcP 90/udp\n", &[&message("80/TcP")]),
        ],
    );
}

/// E-022
#[test]
fn expose_invalid_format() {
    let message = |word: &str| {
        format!("2 EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'")
    };
    check(
        "ExposeInvalidFormat",
        &[
            ("FROM a\nEXPOSE 80-90/tcp\n", &[]),
            ("FROM a\nEXPOSE 8080:80\n", &[&message("8080:80")]),
            ("FROM a\nEXPOSE 127.0.0.1:80:80 5000\n", &[&message("127.0.0.1:80:80")]),
        ],
    );
}

/// E-023: where controls come from and what they do; by line; parse errors with the warnings before them.
#[test]
fn controls_and_order() {
    let all = |text: &str, options: &LowerOptions| -> Vec<String> {
        let (file, mut diagnostics) = parse(text.as_bytes());
        match diagnostics.iter().any(Diagnostic::is_error) {
            true => diagnostics.extend(syntax_warnings(&file, &diagnostics, options)),
            false => diagnostics.extend(lower(&file, options, &Images).1),
        }
        diagnostics
            .iter()
            .filter(|diagnostic| !diagnostic.is_error())
            .map(|diagnostic| format!("{} {}", diagnostic.lines.start, diagnostic.rule.unwrap()))
            .collect()
    };
    let text = "FROM a AS B\nMAINTAINER x\nENV y $z\n";
    let everything =
        ["1 StageNameCasing", "2 MaintainerDeprecated", "3 UndefinedVar", "3 LegacyKeyValueFormat"];
    assert_eq!(all(text, &options()), everything);
    for (directive, expected) in [
        ("skip=all", &[][..]),
        ("skip=StageNameCasing,LegacyKeyValueFormat", &["3 MaintainerDeprecated", "4 UndefinedVar"]),
        (
            "skip=none",
            &["2 StageNameCasing", "3 MaintainerDeprecated", "4 UndefinedVar", "4 LegacyKeyValueFormat"],
        ),
    ] {
        assert_eq!(all(&format!("# check={directive}\n{text}"), &options()), expected, "{directive}");
    }
    let unreached = "FROM a AS one\nENV x=$y\nFROM a\nENV z=$w\n";
    assert_eq!(all(unreached, &options()), ["4 UndefinedVar"]);
    let every_stage = LowerOptions { all_stages: true, ..options() };
    assert_eq!(all(unreached, &every_stage), ["2 UndefinedVar", "4 UndefinedVar"]);
    assert_eq!(
        all("FROM a AS B\nMAINTAINER x\nNOSUCH x\n", &options()),
        ["1 StageNameCasing", "2 MaintainerDeprecated"]
    );
    let (_, diagnostics) =
        lower(&parse(b"# check=error=true\nFROM a AS B\nMAINTAINER x\n").0, &options(), &Images);
    let error = diagnostics.iter().find(|diagnostic| diagnostic.is_error()).unwrap();
    assert!(error.message.contains("lint violation found for rules: "), "{}", error.message);
}
