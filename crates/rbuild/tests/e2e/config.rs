//! The image's config, history and manifest.

use crate::context::TestContext;
use crate::image::Image;
use serde_json::{Value, json};

/// Something of everything.
const REPRESENTATIVE: &str = r##"
ARG VERSION=7
FROM base AS build
ARG VERSION
RUN echo "v$VERSION" > /version

FROM base
MAINTAINER Jo <jo@example.org>
LABEL org.example.a="x & y" org.example.b='<z>'
ENV ONE=1 TWO="two words" \
    THREE=$ONE
ARG FOUR=4
ARG FIVE
EXPOSE 8080 53/udp
VOLUME ["/data", "/var/log"]
WORKDIR /srv
WORKDIR app
COPY --from=build --chown=1000:1000 /version ./
ADD --chmod=640 a.txt b.txt /etc/app/
RUN echo ${FOUR} > four
RUN ["/bin/touch", "/srv/exec form"]
USER nobody
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m30s --retries=2 CMD test -e /srv
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT exec "$0" "$@"
CMD ["cat", "/srv/app/version"]
"##;

fn representative() -> TestContext {
    let context = TestContext::of(REPRESENTATIVE);
    context.file("a.txt", "a\n").file("b.txt", "b\n");
    context
}

/// The config with what differs from build to build replaced.
fn stable(mut config: Value) -> Value {
    config["created"] = json!("[time]");
    for entry in config["history"].as_array_mut().unwrap() {
        entry["created"] = json!("[time]");
    }
    for id in config["rootfs"]["diff_ids"].as_array_mut().unwrap() {
        *id = json!("[digest]");
    }
    config
}

#[test]
fn the_config_of_a_representative_dockerfile() {
    let context = representative();
    context.build(&["-t", "golden", "--label", "from=cli", "--build-arg", "FIVE=5"]).ok();
    insta::assert_json_snapshot!(stable(Image::of(&context, "golden:latest").config));
}

#[test]
fn layers_and_history_entries_agree() {
    let context = representative();
    context.build(&["-t", "golden"]).ok();
    let image = Image::of(&context, "golden:latest");
    let with_layer = image.history().iter().filter(|line| !line.ends_with("(empty)")).count();
    assert_eq!(with_layer, image.layers.len());
    let lines: Vec<Vec<String>> = image.layers[1..].iter().map(|layer| layer.lines()).collect();
    insta::assert_json_snapshot!(lines);
}

#[test]
fn created_is_that_of_the_last_history_entry_and_times_never_go_back() {
    let context = representative();
    context.build(&["-t", "golden"]).ok();
    let config = Image::of(&context, "golden:latest").config;
    let history = config["history"].as_array().unwrap();
    assert_eq!(config["created"], history.last().unwrap()["created"]);
    // The base's own entries are older than the build and come first.
    let times: Vec<&str> = history.iter().map(|entry| entry["created"].as_str().unwrap()).collect();
    assert!(times[0] < times[times.len() - 1], "{times:?}");
}

#[test]
fn the_manifest_is_oci() {
    let context = TestContext::of("FROM base\nRUN true\n");
    context.build(&["-t", "m"]).ok();
    let manifest = Image::of(&context, "m:latest").manifest;
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    }
}

#[test]
fn scratch_alone_makes_an_image_without_layers() {
    let context = TestContext::of("FROM scratch\nENV A=b\n");
    context.build(&["-t", "empty"]).ok();
    let image = Image::of(&context, "empty:latest");
    assert_eq!(image.layers.len(), 0);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(image.config["config"]["Env"], json!([path, "A=b"]));
    assert_eq!(image.config["config"]["WorkingDir"], "/");
}

#[test]
fn entrypoint_clears_the_cmd_of_the_base() {
    let context = TestContext::of("FROM base AS a\nCMD [\"x\"]\nFROM a\nENTRYPOINT [\"e\"]\n");
    context.build(&["-t", "e"]).ok();
    let config = Image::of(&context, "e:latest").config;
    assert_eq!(config["config"]["Entrypoint"], json!(["e"]));
    assert_eq!(config["config"]["Cmd"], Value::Null);
}

#[test]
fn a_run_that_changes_nothing_makes_an_empty_layer() {
    let context = TestContext::of("FROM base\nRUN true\n");
    context.build(&["-t", "x"]).ok();
    let image = Image::of(&context, "x:latest");
    assert_eq!(image.last().lines(), Vec::<String>::new());
    assert_eq!(image.history().last().unwrap(), "RUN /bin/sh -c true # buildkit");
}

#[test]
fn the_platform_is_written_and_foreign_ones_can_copy() {
    let context =
        TestContext::of("FROM scratch\nARG TARGETPLATFORM\nLABEL p=$TARGETPLATFORM\nCOPY Dockerfile /\n");
    context.build(&["-t", "arm", "--platform=linux/arm64"]).ok();
    let config = Image::of(&context, "arm:latest").config;
    assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("arm64")));
    assert_eq!(config["config"]["Labels"]["p"], "linux/arm64");
}

#[test]
fn build_args_and_scopes() {
    let dockerfile = "ARG GLOBAL=g\nFROM base\nARG GLOBAL\nARG A=default\nARG B\nENV B=${B:-unset}\n\
                      RUN echo \"$GLOBAL $A $B $HTTP_PROXY\" > /out\n";
    for (args, expected) in [
        (&[][..], "g default unset \n"),
        (&["--build-arg", "A=x", "--build-arg", "B=y"], "g x y \n"),
        (&["--build-arg", "GLOBAL=h", "--build-arg", "A="], "h  unset \n"),
        (&["--build-arg", "HTTP_PROXY=http://p"], "g default unset http://p\n"),
    ] {
        assert_eq!(TestContext::new().output_of(dockerfile, args), expected, "{args:?}");
    }
}

#[test]
fn a_build_arg_without_a_value_comes_from_the_environment() {
    let mut context = TestContext::of("FROM scratch\nARG A=default\nLABEL a=$A\n");
    context.env("A", "from the environment");
    context.build(&["-t", "x", "--build-arg", "A"]).ok();
    assert_eq!(Image::of(&context, "x:latest").config["config"]["Labels"]["a"], "from the environment");
}
