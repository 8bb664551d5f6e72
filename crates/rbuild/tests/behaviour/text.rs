//! Arguments, variables and heredocs.

use super::site;

/// A-050 (testGlobalArg, testMultiArgs, testQuotedMetaArgs, testArgDefaultExpansion, testDefaultEnvWithArgs)
#[test]
fn arguments() {
    let site = site!("arguments");
    let context = site.context();
    context.file(
        "Dockerfile",
        "ARG a1=\"foo bar\" a2=box
ARG a3=\"$a2-foo\" image=idlebox
FROM busy${image#idle} AS build
ARG a3 a4=\"123 456\" a1
ARG a5=\"<$a4>\" undefined
ENV e=\"${undefined:-default}\" trimmed=\"${a4%% *}\"
RUN echo -n \"$a1:$a2:$a3:$a4:$a5:$e:$trimmed\" > /out
FROM scratch
COPY --from=build /out .
",
    );
    assert_eq!(context.image(&[]).text("out"), "foo bar::box-foo:123 456:<123 456>:default:123");
    let image =
        context.image(&["--build-arg", "a4=given", "--build-arg", "a2=x", "--build-arg", "undefined=now"]);
    assert_eq!(image.text("out"), "foo bar::x-foo:given:<given>:now:given");
    context.build_of("ARG FOO=${FOO:?\"custom error\"}\nFROM scratch\n").refused(2, "FOO: custom error");
    context
        .build_of("FROM scratch\nARG FOO\nARG BAR=${FOO:?\"foo missing\"}\n")
        .refused(2, "FOO: foo missing");
}

/// A-053, A-054 (testBuiltinArgs, testTargetStageNameArg, testPlatformArgsExplicit)
#[test]
fn predefined_arguments() {
    let site = site!("predefined_arguments");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox AS base
RUN echo -n \"$TARGETSTAGE,$TARGETOS,$HTTP_PROXY,$https_proxy\" > /undeclared
ARG TARGETSTAGE TARGETOS BUILDOS
RUN echo -n \"$TARGETSTAGE,$TARGETOS,$BUILDOS\" > /declared
FROM base AS named
FROM base
",
    );
    let args = ["--build-arg", "HTTP_PROXY=p", "--build-arg", "HTTPS_PROXY=q"];
    let image = context.image(&args);
    assert_eq!((image.text("undeclared"), image.text("declared")), (",,p,q", "default,linux,linux"));
    let image = context.image(&[&args[..], &["--target", "named"]].concat());
    assert_eq!(image.text("declared"), "named,linux,linux");
    assert!(!image.history().concat().contains("HTTP_PROXY=p"));
}

/// A-055 (testBuiltinArgs): arguments with a meaning of their own. BUILDKIT_CACHE_MOUNT_NS, BUILDKIT_CONTEXT_KEEP_GIT_DIR,
/// BUILDKIT_SYNTAX and SOURCE_DATE_EPOCH have their own tests.
#[test]
fn magic_arguments() {
    let site = site!("magic_arguments");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true BUILDKIT_SBOM_SCAN_STAGE=true other=1
RUN hostname > /hostname; env > /env
",
    );
    let image = context.image(&[
        "--build-arg",
        "BUILDKIT_SANDBOX_HOSTNAME=named",
        "--build-arg",
        "BUILDKIT_SBOM_SCAN_STAGE=a,b",
    ]);
    assert_eq!(image.text("hostname"), "named\n");
    assert!(
        image.text("env").contains("other=1") && !image.text("env").contains("SBOM"),
        "{}",
        image.text("env")
    );
    for name in ["BUILDKIT_INLINE_CACHE=1", "BUILDKIT_BUILD_NAME=x", "BUILDKIT_ATTEST_SBOM=false"] {
        let image = context.image(&["--build-arg", name]);
        let name = name.split('=').next().unwrap();
        assert!(!image.text("env").contains(name) && !image.history().concat().contains(name), "{name}");
    }
    // Replaces the directive.
    context.file("Dockerfile", "# check=skip=all\nFROM scratch AS A\nCOPY Dockerfile /\n");
    assert_eq!(context.build(&[]).code, 0);
    context.build(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"]).refused(2, "StageNameCasing");
}

/// A-126 (testCopyHeredoc, testCopyHeredocSpecialSymbols, testHeredocIndent,
/// testHeredocVarSubstitution)
#[test]
fn heredocs_as_files() {
    let site = site!("heredocs_as_files");
    let context = site.context();
    context.file("plain", "plain");
    let image = context.image_of(
        "FROM scratch
ARG name=world
COPY <<one <<\"two\" /dest/
hello $name ${none:-default} \\$name 'single $name' \"double\"
one
hello $name \\$name
two
COPY <<-TABS /tabs
\t\tindented
\t  and not
\tTABS
COPY plain <<x /mixed/
# no comment

ends in \\\\
x
COPY --chmod=751 --chown=3:4 <<EOF /sub/file
EOF
ADD <<EOF /added
long \\
line
EOF
",
    );
    assert_eq!(image.text("dest/one"), "hello world default $name 'single world' \"double\"\n");
    assert_eq!(image.text("dest/two"), "hello $name \\$name\n");
    assert_eq!(image.text("tabs"), "indented\n  and not\n");
    assert_eq!(image.text("mixed/x"), "# no comment\n\nends in \\\n");
    assert_eq!(image.text("mixed/plain"), "plain");
    assert_eq!(image.text("added"), "long \nline\n");
    let file = image.entry("sub/file");
    assert_eq!((file.mode, file.owner(), file.text()), (0o751, "3:4".into(), ""));
    assert_eq!((image.entry("dest/one").mode, image.entry("dest/one").owner()), (0o644, "0:0".into()));
}

/// A-123 (testRunBasicHeredoc, testRunFakeHeredoc, testRunShebangHeredoc, testRunComplexHeredoc)
#[test]
fn heredocs_as_scripts() {
    let site = site!("heredocs_as_scripts");
    let image = site.context().image_of(
        "FROM busybox
ARG arg=A
RUN <<EOF
set -e
echo i am $(id -un) $arg > /plain
EOF
RUN <<'EOF'
#!/bin/awk -f
BEGIN { print \"from awk\" > \"/shebang\" }
EOF
RUN cat > /fed <<EOF && echo after > /after
fed $arg \\$arg
EOF
RUN (cat <<\"A\" ; cat <<B ) > /two
quoted $arg
A
unquoted $arg
B
RUN cat 4<<EOF <&4 > /fd
fourth
EOF
RUN echo '<<EOF' > /fake
SHELL [\"/bin/sh\", \"-c\", \"echo shell:$0 > /shell\"]
RUN <<EOF
given
EOF
",
    );
    let expected = [
        ("plain", "i am root A"),
        ("shebang", "from awk"),
        ("fed", "fed A $arg"),
        ("after", "after"),
        ("two", "quoted $arg\nunquoted A"),
        ("fd", "fourth"),
        ("fake", "<<EOF"),
        ("shell", "shell:given"),
    ];
    for (path, text) in expected {
        assert_eq!(image.text(path).trim_end(), text, "{path}");
    }
    let outcome = site.context().build_of("FROM busybox\nRUN <<EOF\nexit 3\nEOF\n");
    outcome.refused(1, "exit code: 3");
}

/// A-133 (testOnBuildHeredoc)
#[test]
fn heredocs_in_triggers() {
    let site = site!("heredocs_in_triggers");
    let image = site.context().image_of(
        "FROM busybox AS base
ONBUILD RUN <<EOF
echo one > /dest
echo two >> /dest
EOF
ONBUILD COPY <<F /file
text
F
FROM base
",
    );
    assert_eq!((image.text("dest"), image.text("file")), ("one\ntwo\n", "text\n"));
}

/// A-136 (testDockerfileInvalidInstruction, testErrorsSourceMap)
#[test]
fn errors_name_line_and_cause() {
    let site = site!("errors_name_line_and_cause");
    for (dockerfile, message) in [
        ("FROM scratch\nFNTRYPOINT [\"x\"]\n", "unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)"),
        ("from busybox\nenv\n", "ENV requires at least one argument"),
        ("from scratch\nenv foo=bar\ncopy --foo=bar / /\n", "unknown flag: --foo"),
        ("", "cannot be empty"),
        ("FROM scratch\nENV a='x\n", "looking for matching single-quote"),
        ("FROM scratch\nADD --chmod=64a Dockerfile /\n", "invalid chmod parameter"),
    ] {
        site.context().build_of(dockerfile).refused(2, message);
    }
}

/// what is not expanded is copied byte for byte.
#[test]
fn a_heredoc_that_is_no_utf8() {
    let site = site!("a_heredoc_that_is_no_utf8");
    let context = site.context();
    context.file("Dockerfile", b"FROM scratch\nCOPY <<'E' /f\ncaf\xe9 $x\r\nE\nLABEL l=caf\xe9\n");
    let image = context.image(&[]);
    assert_eq!(image.entry("f").content, b"caf\xe9 $x\r\n");
    assert_eq!(image.config()["Labels"]["l"], "caf\u{fffd}");
    context.file("Dockerfile", b"FROM busybox\nRUN echo caf\xe9\n");
    context.build(&[]).refused(2, "the command is not UTF-8");
}

/// a command finds variables in the order in which they were last set, HOME last.
#[test]
fn the_order_of_the_environment() {
    let site = site!("the_order_of_the_environment");
    let image = site.context().image_of(
        "FROM busybox AS a\nENV A=1 B=2\nARG C=3\nENV A=4\nFROM a\nARG B=5\nRUN [\"sh\", \"-c\", \"cat /proc/$$/environ | tr '\\\\0' '\\\\n' > /env\"]\n",
    );
    let lines: Vec<&str> = image.text("env").lines().filter(|line| !line.starts_with("PWD=")).collect();
    // A child sets what its parent's image says once more.
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines[..4], ["C=3", path, "A=4", "B=5"]);
    assert_eq!(image.config()["Env"], serde_json::json!([path, "A=4", "B=2"]), "the config keeps places");
}
