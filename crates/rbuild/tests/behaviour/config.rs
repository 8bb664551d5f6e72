//! Image configuration and history.

use super::site;
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A-035, B-004 (testDockerfileScratchConfig, testPullScratch)
#[test]
fn scratch_has_a_path_and_a_root() {
    let site = site!("scratch_has_a_path_and_a_root");
    let image = site.context().image_of("FROM scratch\nENV foo=bar\n");
    assert_eq!(image.config(), &json!({"Env": [PATH, "foo=bar"], "WorkingDir": "/"}));
    assert_eq!(image.document["rootfs"], json!({"type": "layers", "diff_ids": []}));
    assert_eq!(image.history(), ["- ENV foo=bar"]);
}

/// A-064 (testCmdShell, testDefaultShellAndPath, testIgnoreEntrypoint)
#[test]
fn cmd_entrypoint_and_shell() {
    let site = site!("cmd_entrypoint_and_shell");
    let cases = [
        ("CMD [\"a\"]\nENTRYPOINT e f", json!([["a"], ["/bin/sh", "-c", "e f"]])),
        ("ENTRYPOINT [\"e\"]\nCMD a b", json!([["/bin/sh", "-c", "a b"], ["e"]])),
        ("SHELL [\"sh\", \"-x\"]\nCMD a", json!([["sh", "-x", "a"], null])),
        ("ENTRYPOINT [\"/no/such\"]\nRUN [\"true\"]", json!([null, ["/no/such"]])),
        ("CMD []", json!([null, null])),
        ("CMD [\"one\"]\nCMD [\"two\"]", json!([["two"], null])),
    ];
    for (lines, expected) in cases {
        let image = site.context().image_of(&format!("FROM busybox\n{lines}\n"));
        let cleared = |value: &Value| if value == &json!([]) { Value::Null } else { value.clone() };
        let found = json!([cleared(&image.config()["Cmd"]), cleared(&image.config()["Entrypoint"])]);
        // ENTRYPOINT alone clears the base image's CMD.
        assert_eq!(found, expected, "{lines}");
    }
    let image = site
        .context()
        .image_of("FROM busybox AS base\nCMD [\"x\"]\nFROM base\nSHELL [\"ls\"]\nENTRYPOINT my entry\n");
    assert_eq!(
        (&image.config()["Cmd"], &image.config()["Entrypoint"]),
        (&Value::Null, &json!(["ls", "my entry"]))
    );
    assert_eq!(image.config()["Shell"], json!(["ls"]));
}

/// A-071 (testExposeExpansion), A-059 (testLabels), A-070, A-072, A-065
#[test]
fn ports_labels_volumes_signal_health() {
    let site = site!("ports_labels_volumes_signal_health");
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM scratch
ARG PORTS=\"3000 4000/udp\"
EXPOSE $PORTS
EXPOSE 5000-5002/TCP
LABEL a=b \"c d\"='e f'
LABEL a=over
VOLUME /v1 /v2
VOLUME [\"/v 3\"]
STOPSIGNAL sigint
USER u:g
HEALTHCHECK --interval=5s --retries=3 CMD curl -f localhost
",
    );
    let image = context.image(&["--label", "a=line", "--label", "z="]);
    let config = image.config();
    let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["3000/tcp", "4000/udp", "5000/tcp", "5001/tcp", "5002/tcp"]);
    assert_eq!(config["Labels"], json!({"a": "line", "c d": "e f", "z": ""}));
    assert_eq!(config["Volumes"], json!({"/v 3": {}, "/v1": {}, "/v2": {}}));
    assert_eq!((&config["StopSignal"], &config["User"]), (&json!("sigint"), &json!("u:g")));
    let test = json!(["CMD-SHELL", "curl -f localhost"]);
    assert_eq!(config["Healthcheck"], json!({"Test": test, "Interval": 5_000_000_000_u64, "Retries": 3}));
}

/// B-007, B-008, B-010 (testExportedHistory)
#[test]
fn every_instruction_has_its_history() {
    let site = site!("every_instruction_has_its_history");
    let context = site.context();
    context.file("f", "f").file("g", "g");
    let image = context.image_of(
        "FROM scratch AS base
ENV foo=bar
COPY f /f2
FROM busybox
MAINTAINER me
LABEL lbl=val
COPY --from=base --chown=1:2 f2 f3
COPY --link f g /w/
ADD --chmod=600 f <<inline /x/
inline text
inline
WORKDIR /
WORKDIR /made
RUN echo bar > foo4
RUN [\"ls\", \"-l\"]
EXPOSE 2375 5000 1234/udp
CMD [\"a b\", \"c\"]
ENTRYPOINT exec top
USER me
VOLUME /v /w
STOPSIGNAL 9
SHELL [\"sh\", \"-c\"]
ONBUILD RUN true
HEALTHCHECK NONE
",
    );
    let expected = [
        "- MAINTAINER me",
        "- LABEL lbl=val",
        "COPY --chown=1:2 f2 f3 # buildkit",
        "COPY f g /w/ # buildkit",
        "ADD --chmod=600 f <<inline /x/ # buildkit",
        "- WORKDIR /",
        "WORKDIR /made",
        "RUN /bin/sh -c echo bar > foo4 # buildkit",
        "RUN ls -l # buildkit",
        "- EXPOSE [1234/udp 2375/tcp 5000/tcp]",
        "- CMD [\"a b\" \"c\"]",
        "- ENTRYPOINT [\"/bin/sh\" \"-c\" \"exec top\"]",
        "- USER me",
        "- VOLUME [/v /w]",
        "- STOPSIGNAL 9",
        "- SHELL [sh -c]",
        "- HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
    ];
    let history = image.history();
    assert_eq!(history[2..], expected, "the base image's two come first");
    assert_eq!(history.iter().filter(|line| !line.starts_with("- ")).count(), image.layers.len());
    assert_eq!(image.document["author"], "me");
    for entry in &image.document["history"].as_array().unwrap()[2..] {
        assert_eq!(entry["comment"], "buildkit.dockerfile.v0");
        assert!(entry["created"].is_string(), "{entry}");
    }
}

/// A-052 (testExportedHistoryFlattenArgs)
#[test]
fn arguments_are_flattened_in_the_history() {
    let site = site!("arguments_are_flattened_in_the_history");
    let context = site.context();
    context.file("Dockerfile", "FROM busybox\nARG foo=bar\nARG bar=123\nARG foo=bar2\nARG unset\nRUN true\n");
    let image = context.image(&["--build-arg", "HTTP_PROXY=http://p", "--build-arg", "unset="]);
    let history = image.history();
    let expected = ["- ARG foo=bar", "- ARG bar=123", "- ARG foo=bar2"];
    assert_eq!(history[2..5], expected);
    assert_eq!(history[6], "RUN |3 foo=bar2 bar=123 unset= /bin/sh -c true # buildkit");
}

/// A-067 (testWorkdirCreatesDir, testWorkdirUser, testWorkdirExists)
#[test]
fn workdir_makes_its_directory_for_the_user() {
    let site = site!("workdir_makes_its_directory_for_the_user");
    let image = site.context().image_of("FROM scratch\nWORKDIR /foo\nWORKDIR /\n");
    assert_eq!((image.paths(), &image.config()["WorkingDir"]), (vec!["foo"], &json!("/")));
    let image = site.context().image_of(
        "FROM busybox
RUN echo app:x:1000:1001::/:/bin/sh >> /etc/passwd && mkdir -m 750 /there && chown 5:6 /there
USER app
WORKDIR /there
WORKDIR /new/dir
USER 7:8
WORKDIR deeper
USER nobody:www-data
WORKDIR /named
",
    );
    for (path, owner, mode) in [
        ("there", "5:6", 0o750),
        ("new", "1000:1001", 0o755),
        ("new/dir", "1000:1001", 0o755),
        ("new/dir/deeper", "7:8", 0o755),
        ("named", "65534:33", 0o755),
    ] {
        let entry = image.entry(path);
        assert_eq!((entry.owner().as_str(), entry.mode), (owner, mode), "{path}");
    }
}

/// the base's directory is not made until it is needed, and what stands below a volume stays changed.
#[test]
fn directories_and_volumes_of_the_base() {
    let site = site!("directories_and_volumes_of_the_base");
    let base = site.context();
    base.file("config.Dockerfile", "FROM busybox\nVOLUME /data\nRUN mkdir /data && echo one > /data/f\n");
    let dockerfile = base.dir.join("config.Dockerfile");
    assert_eq!(base.build(&["-t", "volumes", "-f", dockerfile.to_str().unwrap()]).code, 0);
    let image = site
        .context()
        .image_of("FROM volumes\nRUN echo two >> /data/f && touch /data/g\nCOPY Dockerfile /data/copied\n");
    assert_eq!(
        (image.text("data/f"), image.has("data/g"), image.has("data/copied")),
        ("one\ntwo\n", true, true)
    );
    assert_eq!(image.config()["Volumes"], json!({"/data": {}}));
    // A base that says where it works, and does not have the place.
    let gone = "FROM busybox AS b\nWORKDIR /not/there\nFROM b AS c\nRUN rm -r /not\n";
    let image = site.context().image_of(&format!("{gone}FROM c\nLABEL a=b\n"));
    assert_eq!((&image.config()["WorkingDir"], image.has("not")), (&json!("/not/there"), false));
    let image = site.context().image_of(&format!("{gone}FROM c\nRUN pwd > /where\n"));
    assert_eq!((image.text("where"), image.entry("not/there").mode), ("/not/there\n", 0o755));
    assert_eq!(image.entry("not/there").owner(), "0:0");
}

/// B-012, A-067 (testWorkdirSourceDateEpochReproducible, testReproSourceDateEpoch)
#[test]
fn source_date_epoch_decides_the_digest() {
    let site = site!("source_date_epoch_decides_the_digest");
    let build = || {
        let context = site.context();
        context
            .file("f", "f")
            .file("Dockerfile", "FROM busybox\nWORKDIR /made\nRUN touch /now\nCOPY f /copied\n");
        context.image(&["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1500000000"])
    };
    let (one, two) = (build(), build());
    assert_eq!(one.manifest, two.manifest);
    assert_eq!(["made", "now", "copied"].map(|path| one.entry(path).mtime), [1_500_000_000; 3]);
    assert_eq!(one.document["created"], "2017-07-14T02:40:00Z");
}
