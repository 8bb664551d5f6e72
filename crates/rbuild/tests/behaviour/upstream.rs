//! Test functions of BuildKit's Dockerfile frontend, restated: each is named above the test that does the same here.

use super::site;
use crate::support::{Context, Outcome};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// A build whose context (or Dockerfile) comes through standard input.
fn build_from_stdin(context: &Context<'_>, args: &[&str], input: &[u8]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    command.args(["build", "--progress=plain"]).args(args).arg("-").current_dir(&context.dir);
    command.env("RBUILD_ROOT", context.store());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("rbuild starts");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    Outcome { code: out.status.code().unwrap_or(-1), output: String::from_utf8_lossy(&text).into_owned() }
}

/// A-128 (testTarContext; a Dockerfile elsewhere, as testTarContextExternalDockerfile has it, is not for command lines)
#[test]
fn an_archive_as_context() {
    let site = site!("an_archive_as_context");
    let archive = |dockerfile: Option<&str>| {
        let mut builder = tar::Builder::new(Vec::new());
        let files = [("foo", "contents"), (".dockerignore", "foo\n")].into_iter();
        for (name, text) in files.chain(dockerfile.map(|text| ("Dockerfile", text))) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let gzipped = |data: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(data).unwrap();
        gzip.finish().unwrap()
    };
    let text = "FROM scratch\nCOPY foo /\nCOPY Dockerfile /\n";
    let whole = archive(Some(text));
    for input in [gzipped(&whole), whole] {
        let context = site.context();
        let built = build_from_stdin(&context, &["-o", "out"], &input);
        assert_eq!(built.code, 0, "{}", built.output);
        let read = |name: &str| std::fs::read_to_string(context.dir.join("out").join(name)).unwrap();
        // The archive's own ignore file means nothing.
        assert_eq!((read("foo"), read("Dockerfile")), ("contents".to_owned(), text.to_owned()));
    }
    // The name of a Dockerfile is one inside the archive.
    let built = build_from_stdin(&site.context(), &["-f", "Dockerfile"], &archive(None));
    built.refused(2, "no such file");
}

/// A-037, A-043 (testNamedImageContextPlatform): the platform of FROM chooses, not that of the target.
#[test]
fn a_named_image_for_the_platform_of_from() {
    let site = site!("a_named_image_for_the_platform_of_from");
    let context = site.context();
    context
        .file("Dockerfile", "FROM --platform=$BUILDPLATFORM no.such/image AS target\nRUN echo hello > /f\n");
    let named = "no.such/image=docker-image://busybox";
    let image = context.image(&["--platform", "darwin/ppc64le", "--build-context", named]);
    assert_eq!(image.text("f"), "hello\n");
    assert_eq!(
        (&image.document["os"], &image.document["architecture"]),
        (&"darwin".into(), &"ppc64le".into())
    );
}

/// A-043, B-009, B-011 (testNamedImageContextTimestamps): an image's own time is not that of the context it stands on.
#[test]
fn a_named_image_does_not_date_what_stands_on_it() {
    let site = site!("a_named_image_does_not_date_what_stands_on_it");
    let base = site.context();
    base.file("Dockerfile", "FROM busybox\nRUN echo foo >> /test\n");
    let name = "test.local/dated";
    let built = base.build(&["-t", name, "--build-arg", "SOURCE_DATE_EPOCH=1000"]);
    assert_eq!(built.code, 0, "{}", built.output);
    let context = site.context();
    context.file("Dockerfile", "FROM alpine\nRUN echo foo >> /test\n");
    let named = format!("alpine=docker-image://{name}");
    let image = context.image(&["--build-context", &named]);
    assert_eq!(image.text("test"), "foo\nfoo\n");
    let history = image.document["history"].as_array().unwrap();
    let (old, new) = (&history[history.len() - 2], &history[history.len() - 1]);
    assert_eq!(old["created"], "1970-01-01T00:16:40Z");
    assert!(new["created"].as_str().unwrap() > "2020" && image.document["created"] == new["created"]);
}

/// A-043 (testNamedOCILayoutContextExport): the config of a layout's image goes on.
#[test]
fn the_config_of_a_named_layout() {
    let site = site!("the_config_of_a_named_layout");
    let base = site.context();
    base.file("Dockerfile", "FROM scratch\nWORKDIR /test\nENV foo=bar\n");
    let layout = base.dir.join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let built = base.build(&["-o", &output]);
    assert_eq!(built.code, 0, "{}", built.output);
    let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let context = site.context();
    context.file("Dockerfile", "FROM nonexistent AS base\n");
    let named = format!("nonexistent=oci-layout://{}@{digest}", layout.display());
    let image = context.image(&["--build-context", &named]);
    assert_eq!(image.config()["WorkingDir"], "/test");
    assert!(image.config()["Env"].to_string().contains("foo=bar"));
    assert_eq!(image.history(), ["WORKDIR /test", "- ENV foo=bar"]);
}

/// A-054, B-003 (testPlatformWithOSVersion, testMaintainBaseOSVersion)
#[test]
fn versions_of_operating_systems() {
    let site = site!("versions_of_operating_systems");
    let text = "FROM scratch AS base\nARG TARGETOSVERSION\nCOPY <<EOF /osversion\n${TARGETOSVERSION}\nEOF\n\
                ARG TARGETPLATFORM\nCOPY <<EOF /targetplatform\n${TARGETPLATFORM}\nEOF\n";
    for version in ["1.2.3", "1.1.0"] {
        let context = site.context();
        let platform = format!("windows({version})/bar");
        let image = context.file("Dockerfile", text).image(&["--platform", &platform]);
        assert_eq!(image.text("osversion"), format!("{version}\n"));
        assert_eq!(image.text("targetplatform"), format!("{platform}\n"));
        assert_eq!(image.document["os.version"], version);
    }
    let base = site.context();
    base.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let name = "test.local/windows-base";
    let built = base.build(&["-t", name, "--platform", "windows(10.0.20348.1006)/amd64"]);
    assert_eq!(built.code, 0, "{}", built.output);
    let context = site.context();
    context.file("Dockerfile", format!("FROM {name}\nCOPY <<EOF /other\nhello\nEOF\n"));
    let image = context.image(&["--platform", "windows/amd64"]);
    assert_eq!(image.document["os.version"], "10.0.20348.1006", "the base's is kept");
}

/// A-134 (testOnBuildNewDeps, the nested case; testOnBuildWithCacheMount)
#[test]
fn triggers_that_need_stages_with_triggers() {
    let site = site!("triggers_that_need_stages_with_triggers");
    let tagged = |name: &str, text: &str| {
        let base = site.context();
        let built = base.file("Dockerfile", text).build(&["-t", name]);
        assert_eq!(built.code, 0, "{}", built.output);
    };
    tagged("deps1", "FROM busybox\nONBUILD COPY --from=alpine /etc/os-release /out/release2\n");
    tagged(
        "deps2",
        "FROM alpine\nONBUILD RUN --mount=type=bind,target=/in,from=inputstage mkdir /out && cat /in/foo > /out/bar && \
         cat /in/out/release2 > /out/bar2\n",
    );
    let image = site.context().image_of(
        "FROM deps1 AS inputstage\nRUN cat /out/release2 > /out/release4\nRUN echo -n foo > /foo\n\
         FROM deps2 AS base\nRUN echo -n bar3 > /out/bar3\nFROM scratch\nCOPY --from=base /out /\n",
    );
    assert_eq!(["bar", "bar2", "bar3"].map(|name| image.text(name)), ["foo", "NAME=test\n", "bar3"]);
    tagged(
        "cached",
        "FROM busybox\nONBUILD RUN --mount=type=cache,target=/cache-ob echo -n 42 > /cache-ob/foo && echo -n 11 >> /bar\n",
    );
    let built = site.context().build_of(
        "FROM cached\nRUN --mount=type=cache,target=/cache-ob [ \"$(cat /cache-ob/foo)\" = 42 ] && [ \"$(cat /bar)\" = 11 ]\n",
    );
    assert_eq!(built.code, 0, "{}", built.output);
}

/// A-069 (testUser, testUserAdditionalGids)
#[test]
fn users_and_their_groups() {
    let site = site!("users_and_their_groups");
    let id = "$(id -u):$(id -g)/$(id -G)";
    let mut text = String::from(
        "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\n\
         RUN echo dockerio:x:1001:1001::/bin:/bin/false >> /etc/passwd; echo dockerio:x:1001: >> /etc/group; \
         echo supplementary:x:1002:dockerio >> /etc/group\n",
    );
    for (user, ids) in [
        ("root", "0:0/0 10"),
        ("dockerio", "1001:1001/1001 1002"),
        ("1001", "1001:1001/1001 1002"),
        ("dockerio:dockerio", "1001:1001/1001"),
        ("1001:dockerio", "1001:1001/1001"),
        ("dockerio:1001", "1001:1001/1001"),
        ("1001:1001", "1001:1001/1001"),
        ("dockerio:supplementary", "1001:1002/1002"),
        ("1001:1002", "1001:1002/1002"),
        ("1042:1043", "1042:1043/1043"),
        ("1234", "1234:0/0"),
        ("1234:1234", "1234:1234/1234"),
        ("daemon", "1:1/1"),
    ] {
        text += &format!("USER {user}\nRUN [ \"{id}\" = '{ids}' ] || {{ echo \"{user}: {id}\"; false; }}\n");
    }
    text += "USER nobody\n";
    let image = site.context().image_of(&text);
    assert_eq!(image.config()["User"], "nobody");
}

/// A-024, A-049 (testGlobalArgErrors, testArgDefaultExpansion, testDefaultEnvWithArgs, testBuiltinArgs)
#[test]
fn arguments_given_and_not() {
    let site = site!("arguments_given_and_not");
    let context = site.context();
    let code = |text: &str, args: &[&str]| context.file("Dockerfile", text).build(args).code;
    let global = "ARG FOO=${FOO:?\"custom error\"}\nFROM scratch\n";
    assert_eq!((code(global, &[]), code(global, &["--build-arg", "FOO=bar"])), (2, 0));
    let own = "FROM scratch\nARG FOO\nARG BAR=${FOO:?\"foo missing\"}\n";
    for (args, expected) in [(&[][..], 2), (&["--build-arg", "FOO=123"], 0), (&["--build-arg", "BAR=123"], 0)]
    {
        assert_eq!(code(own, args), expected, "{args:?}");
    }
    context
        .file("myscript.sh", "\n#!/usr/bin/env sh\necho -n $my_arg $* > /out\n")
        .mode("myscript.sh", 0o700);
    context.file(
        "Dockerfile",
        "ARG image=idlebox\nFROM busy${image#idle} AS build\nARG my_arg\nENV my_arg \"my_arg=${my_arg:-def_val}\"\n\
         ENV my_trimmed_arg \"${my_arg%%e*}\"\nCOPY myscript.sh myscript.sh\nRUN ./myscript.sh $my_arg $my_trimmed_arg\n\
         FROM scratch\nCOPY --from=build /out /out\n",
    );
    for (args, expected) in [
        (&[][..], "my_arg=def_val my_arg=def_val my_arg=d"),
        (&["--build-arg", "my_arg="], "my_arg=def_val my_arg=def_val my_arg=d"),
        (&["--build-arg", "my_arg=override"], "my_arg=override my_arg=override my_arg=ov"),
    ] {
        assert_eq!(context.image(args).text("out"), expected);
    }
    // A proxy is no reason to run a step again; a declared argument is.
    context.file(
        "Dockerfile",
        "FROM busybox AS build\nARG FOO\nARG BAR\nARG BAZ=bazcontent\nRUN echo -n $HTTP_PROXY::$NO_PROXY::$FOO::$BAR::$BAZ > /out\n\
         FROM scratch\nCOPY --from=build /out /\n",
    );
    let out = |args: &[&str]| {
        let args: Vec<&str> = args.iter().flat_map(|arg| ["--build-arg", arg]).collect();
        context.image(&args).text("out").to_owned()
    };
    let first = "hpvalue::npvalue::foocontents::::bazcontent";
    assert_eq!(out(&["FOO=foocontents", "http_proxy=hpvalue", "NO_PROXY=npvalue"]), first);
    assert_eq!(out(&["FOO=foocontents", "http_proxy=hpvalue2"]), first);
    assert_eq!(out(&["FOO=other", "http_proxy=hpvalue2"]), "hpvalue2::::other::::bazcontent");
}

/// A-040 (testMountContext, testMountDuplicate, testMountInvalid, testMountFromError)
#[test]
fn mounts_of_the_context() {
    let site = site!("mounts_of_the_context");
    let context = site.context();
    context.file("b.txt", "bar\n");
    for text in ["foo\n", "updated\n"] {
        let image = context.file("a.txt", text).image_of(
            "FROM busybox AS base\nRUN --mount=source=.,target=/tmp/test \\\n  --mount=source=b.txt,target=/tmp/b.txt \\\n  \
             cat /tmp/test/a.txt /tmp/b.txt > /combined.txt\nRUN --mount=target=/context [ -f /context/a.txt ]\n\
             FROM scratch\nCOPY --from=base /combined.txt /\n",
        );
        assert_eq!(image.text("combined.txt"), format!("{text}bar\n"));
    }
    for (line, message) in [
        ("RUN --mont=target=/mytmp,type=tmpfs /bin/true", "unknown flag: --mont (did you mean mount?)"),
        ("RUN --mount=typ=tmpfs /bin/true", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
        ("RUN --mount=type=tmp /bin/true", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
        (
            "ENV ttt=test\nRUN --mount=from=$ttt,type=cache,target=/tmp ls",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
    ] {
        context.build_of(&format!("FROM scratch AS test\nFROM scratch\n{line}\n")).refused(2, message);
    }
}

/// A-031 (testStepNames)
#[test]
fn names_of_steps() {
    let site = site!("names_of_steps");
    let built = site.context().build_of(
        "FROM busybox AS base\nWORKDIR /out\nRUN echo \"base\" > base\nFROM scratch\nCOPY --from=base --chmod=0644 /out /out\n",
    );
    assert_eq!(built.code, 0, "{}", built.output);
    for name in
        ["[base 3/3] RUN echo \"base\" > base", "[stage-1 1/1] COPY --from=base --chmod=0644 /out /out"]
    {
        assert!(built.output.contains(&format!(" {name}\n")), "{name}\n{}", built.output);
    }
}

/// D-027 (testOCILayoutMultiname): one entry of the index for each name.
#[test]
fn a_layout_with_two_names() {
    let site = site!("a_layout_with_two_names");
    let context = site.context();
    context.file("Dockerfile", "FROM scratch\nCOPY <<EOF /foo\nhello\nEOF\n");
    let dest = context.dir.join("layout");
    let output = format!("type=oci,tar=false,dest={}", dest.display());
    let built = context.build(&["-o", &output, "-t", "org/repo:tag1", "-t", "org/repo:tag2"]);
    assert_eq!(built.code, 0, "{}", built.output);
    let index = std::fs::read_to_string(dest.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["digest"]), (2, &entries[1]["digest"]));
    for (entry, tag) in entries.iter().zip(["tag1", "tag2"]) {
        let annotations = &entry["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], format!("docker.io/org/repo:{tag}"));
        assert_eq!(annotations["org.opencontainers.image.ref.name"], tag);
    }
}
