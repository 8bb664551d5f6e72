//! Several platforms in one build. The programs of both are this machine's, so that all steps run; what the images and
//! keys say of them differs.

use crate::context::{Run, TestContext, installed, run, skip};
use crate::image::{Image, read_tar};
use rbuild_testkit::{DebianOptions, DebianRegistry, Options, TestRegistry};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BOTH: [&str; 2] = ["--platform", "linux/arm64,linux/amd64"];

/// A stage for this machine, and one for the target on a base that knows its own platform.
const PROJECT: &str = "FROM --platform=$BUILDPLATFORM base AS build\n\
                       RUN echo compiled-$((40+2)) | tee /program\n\
                       FROM two\n\
                       ARG TARGETPLATFORM\n\
                       ARG TARGETARCH\n\
                       RUN echo \"$TARGETPLATFORM on $(cat /arch)\" | tee /target\n\
                       COPY --from=build /program /program\n\
                       LABEL arch=$TARGETARCH\n";

/// A context with `two`, an image for both platforms in an OCI layout.
fn project() -> TestContext {
    let context = TestContext::of("FROM base\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n");
    context.build(&[&BOTH[..], &["-o", "type=oci,dest=two,tar=false"]].concat()).ok();
    context.dockerfile(PROJECT);
    context
}

/// Builds on `two`.
fn build(context: &TestContext, args: &[&str]) -> Run {
    let two = format!("two=oci-layout://{}", context.path("two").display());
    context.build(&[&["--build-context", &*two], args].concat())
}

fn entries(layout: &Path) -> Vec<Value> {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

/// The descriptor that the store has for a name.
#[track_caller]
fn stored(context: &TestContext, name: &str) -> Value {
    let name = format!("docker.io/library/{name}:latest");
    let found = entries(&context.store())
        .into_iter()
        .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == name.as_str());
    found.unwrap_or_else(|| panic!("no image {name} in the store"))
}

fn text(image: &Image, path: &str) -> String {
    let entry = image.layers.iter().rev().find_map(|layer| layer.get(path)).expect("the file is in a layer");
    String::from_utf8(entry.data.clone()).unwrap()
}

/// B-025, A-054: an index in request order; what is equal runs once.
#[test]
fn two_platforms_are_one_build() {
    let context = project();
    let args = ["-t", "app", "--platform", "linux/arm64,linux/amd64", "--platform", "linux/arm64"];
    let files = ["--iidfile", "iid", "--metadata-file", "meta.json"];
    let run = build(&context, &[&args[..], &files].concat()).ok();
    assert_eq!(run.count("compiled-42"), 1, "the stage for this machine runs once:\n{}", run.stderr);
    for step in
        ["[linux/arm64 stage-1 1/3] RUN", "[linux/amd64 stage-1 1/3] RUN", "[linux/amd64 build 1/2] RUN"]
    {
        assert!(run.stderr.contains(step), "{step}:\n{}", run.stderr);
    }
    let entry = stored(&context, "app");
    let (index, images) = Image::all(&context.store(), &entry);
    assert_eq!(index["mediaType"], INDEX);
    let platforms: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|entry| &entry["platform"]).collect();
    let expected = ["arm64", "amd64"].map(|arch| json!({"architecture": arch, "os": "linux"}));
    assert_eq!(platforms, expected.iter().collect::<Vec<_>>());
    for (image, arch) in images.iter().zip(["arm64", "amd64"]) {
        assert_eq!(image.config["architecture"], arch);
        assert_eq!(image.config["config"]["Labels"]["arch"], arch);
        assert_eq!(text(image, "target"), format!("linux/{arch} on {arch}\n"), "the base of the platform");
        assert_eq!(text(image, "program"), "compiled-42\n");
    }
    let digest = entry["digest"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(context.path("iid")).unwrap(), digest);
    let meta: Value = serde_json::from_slice(&std::fs::read(context.path("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], digest);
    assert_eq!(meta["containerimage.descriptor"]["mediaType"], INDEX);
    assert_eq!(meta["containerimage.config.digest"], Value::Null);

    // A second build has nothing to do, and writes nothing.
    let before = std::fs::metadata(context.store().join("index.json")).unwrap().modified().unwrap();
    assert_eq!(build(&context, &args).ok().steps().0, 0);
    assert_eq!(stored(&context, "app"), entry);
    let after = std::fs::metadata(context.store().join("index.json")).unwrap().modified().unwrap();
    assert_eq!(before, after);

    // B-024: for one platform it is the image itself, the same as in the index.
    assert_eq!(build(&context, &["-t", "one", "--platform", "linux/amd64"]).ok().steps().0, 0);
    assert_eq!(stored(&context, "one")["digest"], images[1].digest.as_str());
}

/// an index of one, and who asks for what cannot be.
#[test]
fn an_index_of_one_platform() {
    let context = project();
    let run = build(&context, &["-t", "app", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]).ok();
    assert!(
        run.stderr.contains("[linux/amd64 build 1/2]") || !cfg!(target_arch = "x86_64"),
        "{}",
        run.stderr
    );
    let (_, images) = Image::all(&context.store(), &stored(&context, "app"));
    assert_eq!(images.len(), 1);
    let refused = build(&context, &[&BOTH[..], &["--build-arg", "BUILDKIT_MULTI_PLATFORM=0"]].concat());
    refused.fails(2, &["conflicting config: returning multiple target platforms is not allowed"]);
    let refused = build(&context, &["--build-arg", "BUILDKIT_MULTI_PLATFORM=perhaps"]);
    refused.fails(2, &["invalid boolean value for multi-platform: perhaps"]);
}

/// What is said of several platforms is said once; of one, for that one.
#[test]
fn warnings_are_given_once() {
    let context = TestContext::of("FROM base\n");
    context.build(&["--platform=linux/amd64", "-t", "stored"]).ok();
    context.dockerfile("FROM stored\nMAINTAINER me\nENV A $NOBODY\n");
    let run = context.build(&BOTH).ok();
    for rule in ["MaintainerDeprecated", "UndefinedVar", "LegacyKeyValueFormat", "InvalidBaseImagePlatform"] {
        assert_eq!(run.count(&format!("{rule}: ")), 1, "{}", run.stderr);
    }
    let args = ["--platform", "linux/arm64,linux/s390x"];
    let check = context.rbuild(&[&["check"], &args[..], &["context"]].concat());
    assert_eq!(check.stdout.matches("MaintainerDeprecated").count(), 1, "{}", check.stdout);
    assert_eq!(check.stdout.matches("InvalidBaseImagePlatform").count(), 2, "{}", check.stdout);
    let plan = context.rbuild(&[&["plan", "--format=json"], &args[..], &["context"]].concat()).ok();
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let platforms: Vec<&Value> =
        plan["platforms"].as_array().unwrap().iter().map(|part| &part["platform"]).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/s390x"]);
}

/// A-054, D-024 to D-026: files of each platform below a directory of its own.
#[test]
fn files_are_split_by_platform() {
    let context = TestContext::of("FROM scratch\nARG TARGETARCH\nCOPY ${TARGETARCH} /arch\nCOPY common /\n");
    context.file("amd64", "64\n").file("arm64", "a64\n").file("arm", "32\n").file("common", "c\n");
    let platforms = ["--platform", "linux/amd64,linux/arm/v7"];
    let outputs = ["-o", "out", "-o", "type=tar,dest=x.tar"];
    context.build(&[&platforms[..], &outputs].concat()).ok();
    let read = |path: &str| std::fs::read_to_string(context.path(path)).unwrap();
    assert_eq!((read("out/linux_amd64/arch"), read("out/linux_arm_v7/arch")), ("64\n".into(), "32\n".into()));
    let tar = read_tar(&std::fs::read(context.path("x.tar")).unwrap());
    let paths: Vec<&str> = tar.iter().map(|entry| entry.path.trim_end_matches('/')).collect();
    let expected = ["linux_amd64", "linux_amd64/arch", "linux_amd64/common"];
    assert_eq!(paths[..3], expected);
    assert_eq!(paths[3..], ["linux_arm_v7", "linux_arm_v7/arch", "linux_arm_v7/common"]);

    let whole = ["-o", "type=local,dest=whole,platform-split=false"];
    let words = "cannot overwrite arch from linux/amd64 with linux/arm/v7 when split option is disabled";
    context.build(&[&platforms[..], &whole].concat()).fails(2, &[words]);
    assert!(!context.path("whole/arch").exists(), "nothing is written");
    context.build(&["--platform=linux/amd64", "-o", "type=local,dest=split,platform-split=true"]).ok();
    assert_eq!(read("split/linux_amd64/arch"), "64\n");
    context.build(&["--platform=linux/amd64", "-o", "plain"]).ok();
    assert_eq!(read("plain/arch"), "64\n");
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "");

    // A link in the place of a platform's directory is not followed.
    std::fs::create_dir_all(context.path("epoch")).unwrap();
    std::fs::create_dir(context.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(context.path("elsewhere"), context.path("epoch/linux_arm_v7")).unwrap();
    let epoch = ["--build-arg=SOURCE_DATE_EPOCH=86400", "-o", "epoch"];
    context.build(&[&platforms[..], &epoch].concat()).ok();
    let modified = std::fs::metadata(context.path("epoch/linux_amd64")).unwrap().modified().unwrap();
    assert_eq!(modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 86_400);
    assert_eq!(read("epoch/linux_arm_v7/arch"), "32\n");
    assert_eq!(std::fs::read_dir(context.path("elsewhere")).unwrap().count(), 0);

    // Without a split, trees that share directories only are merged.
    context.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY ${TARGETARCH} /files/${TARGETARCH}\n");
    let merged = ["-o", "type=local,dest=m,platform-split=0", "-o", "type=tar,dest=m.tar,platform-split=0"];
    context.build(&[&platforms[..], &merged].concat()).ok();
    assert_eq!((read("m/files/amd64"), read("m/files/arm")), ("64\n".into(), "32\n".into()));
    let tar = read_tar(&std::fs::read(context.path("m.tar")).unwrap());
    let paths: Vec<&str> = tar.iter().map(|entry| entry.path.trim_end_matches('/')).collect();
    assert_eq!(paths, ["files", "files/amd64", "files/arm"]);
}

/// B-027, B-033, D-027
#[test]
fn a_layout_has_the_index_and_docker_cannot() {
    let context = project();
    build(&context, &[&BOTH[..], &["-t", "app:1.0", "-o", "type=oci,dest=layout,tar=false"]].concat()).ok();
    let entries = entries(&context.path("layout"));
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["annotations"]["org.opencontainers.image.ref.name"], "1.0");
    let (_, images) = Image::all(&context.path("layout"), &entries[0]);
    assert_eq!(images.len(), 2);
    for output in ["type=docker,dest=x.tar", "type=docker"] {
        let refused = build(&context, &[&BOTH[..], &["-o", output]].concat());
        let refused =
            refused.fails(2, &["docker exporter does not currently support exporting manifest lists"]);
        assert_eq!(refused.count("RUN"), 0, "before anything is done: {}", refused.stderr);
    }
}

/// D-028: blobs, manifests, then the index.
#[test]
fn an_index_is_pushed() {
    const TEST: &str = "an_index_is_pushed";
    let Some(registry) = DebianRegistry::start(TEST, &DebianOptions::default()) else { return };
    let context = project();
    let name = format!("{}/team/app:1.0", registry.host());
    build(&context, &[&BOTH[..], &["-t", &name, "--push"]].concat()).ok();
    let local = entries(&context.store())[0]["digest"].clone();
    if !installed("skopeo") {
        return skip(TEST, "skopeo is not installed");
    }
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--raw"]).arg(format!("docker://{name}"));
    let raw = run(skopeo, b"").ok().bytes;
    assert_eq!(rbuild_oci::Digest::of(&raw).to_string(), local);
    let raw: Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(raw["manifests"][0]["platform"]["architecture"], "arm64");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--all", "--src-tls-verify=false"]).arg(format!("docker://{name}"));
    skopeo.arg(format!("oci:{}:copied", context.path("copied").display()));
    run(skopeo, b"").ok();
    let (_, images) = Image::all(&context.path("copied"), &entries(&context.path("copied"))[0]);
    assert_eq!(images.len(), 2);

    // The image is a base as any other.
    std::fs::remove_dir_all(context.store()).unwrap();
    context.dockerfile(&format!("FROM {name}\nRUN cat /arch\n"));
    let run = context.build(&["--platform", "linux/arm64"]).ok();
    assert!(run.stderr.lines().any(|line| line.ends_with(" arm64")), "{}", run.stderr);
}

#[test]
fn a_second_push_of_an_index_uploads_nothing() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let name = format!("{}/team/app:1.0", registry.host());
    build(&context, &[&BOTH[..], &["-t", &name, "--push"]].concat()).ok();
    let puts: Vec<String> = registry
        .log()
        .iter()
        .filter(|entry| entry.method == "PUT")
        .map(|entry| entry.target.clone())
        .collect();
    let manifests: Vec<&String> = puts.iter().filter(|target| target.contains("/manifests/")).collect();
    assert!(manifests.len() == 3 && manifests[2].ends_with("/1.0"), "the index comes last: {manifests:?}");
    assert!(puts.last().is_some_and(|target| target.ends_with("/1.0")), "{puts:?}");
    registry.clear_log();
    build(&context, &[&BOTH[..], &["-t", &name, "--push"]].concat()).ok();
    assert_eq!(registry.count("POST", "/blobs/uploads"), 0, "{:?}", registry.log());
}

/// D-046 to D-050
#[test]
fn an_index_is_looked_at_named_and_removed() {
    let context = project();
    build(&context, &[&BOTH[..], &["-t", "app"]].concat()).ok();
    let digest = stored(&context, "app")["digest"].as_str().unwrap().to_owned();
    let images = context.rbuild(&["images"]).ok().stdout;
    assert!(images.contains("linux/arm64,linux/amd64"), "{images}");
    let line: Value =
        serde_json::from_str(&context.rbuild(&["images", "--format=json", "--no-trunc"]).ok().stdout)
            .unwrap();
    assert_eq!(line["ID"], digest.as_str());
    let inspect = |args: &[&str]| -> Value {
        let shown = context.rbuild(&[&["inspect", "app"], args].concat()).ok().stdout;
        serde_json::from_str::<Value>(&shown).unwrap()[0].clone()
    };
    assert_eq!(inspect(&["--platform=arm64"])["Architecture"], "arm64");
    let shown = inspect(&[]);
    assert_eq!(
        (&shown["Id"], &shown["Index"]["manifests"][1]["platform"]["architecture"]),
        (&json!(digest), &json!("amd64"))
    );
    context.rbuild(&["inspect", "app", "--platform=s390x"]).fails(2, &["linux/arm64, linux/amd64"]);
    let history = context.rbuild(&["history", "--no-trunc", "--platform=arm64", "app"]).ok().stdout;
    assert!(history.contains("LABEL arch=arm64"), "{history}");

    context.rbuild(&["tag", "app", "other:1.0"]).ok();
    assert_eq!(context.rbuild(&["rmi", "app"]).ok().stdout, "Untagged: docker.io/library/app:latest\n");
    // What an index names is kept.
    context.rbuild(&["prune", "-af"]).ok();
    context.rbuild(&["fsck", "--deep"]).ok();
    assert_eq!(context.rbuild(&["inspect", &digest[7..19]]).ok().stdout.matches("\"RepoTags\"").count(), 1);
    context.dockerfile("FROM other:1.0\nARG TARGETARCH\nRUN echo from-$(cat /arch)-for-$TARGETARCH\n");
    let run = context.build(&BOTH).ok();
    for arch in ["arm64", "amd64"] {
        assert!(run.stderr.contains(&format!("from-{arch}-for-{arch}")), "{}", run.stderr);
    }
    let removed = context.rbuild(&["rmi", "other:1.0"]).ok().stdout;
    assert!(removed.contains(&format!("Deleted: {digest}")), "{removed}");
    context.rbuild(&["prune", "-af"]).ok();
    assert!(!context.store().join("blobs/sha256").join(&digest[7..]).exists());
}

/// C-033: keys have the platform; what is exported is that of all platforms.
#[test]
fn caches_know_the_platform() {
    let context = project();
    assert_eq!(build(&context, &["--platform=linux/amd64"]).ok().count("linux/amd64 on amd64"), 1);
    let other = build(&context, &["--platform=linux/arm64"]).ok();
    assert_eq!(other.count("linux/arm64 on arm64"), 1, "{}", other.stderr);
    assert_eq!(other.count("compiled-42"), 0, "{}", other.stderr);

    let export = ["-t", "app", "--cache-to", "type=local,dest=cache,mode=max"];
    build(&context, &[&BOTH[..], &export].concat()).ok();
    std::fs::remove_dir_all(context.store()).unwrap();
    let import = ["--cache-from", "type=local,src=cache", "-t", "app"];
    let run = build(&context, &[&BOTH[..], &import].concat()).ok();
    assert_eq!(run.steps().0, 0, "{}", run.stderr);

    // Inline: each image has the records of its own steps.
    let registry = TestRegistry::start(Options::default());
    let name = format!("{}/team/app:1.0", registry.host());
    let push = ["-t", &name, "--push", "--cache-to", "type=inline"];
    build(&context, &[&BOTH[..], &push].concat()).ok();
    for platforms in [&BOTH[..], &["--platform=linux/arm64"]] {
        std::fs::remove_dir_all(context.store()).unwrap();
        let run = build(&context, &[platforms, &["--cache-from", &name]].concat()).ok();
        assert_eq!(run.count(" on a"), 0, "{}", run.stderr);
    }
}

/// a context for one platform only.
#[test]
fn a_named_context_for_a_platform() {
    let context = TestContext::of("FROM base\nCOPY --from=data /name /\n");
    for name in ["some", "arm"] {
        std::fs::create_dir(context.path(name)).unwrap();
        std::fs::write(context.path(name).join("name"), name).unwrap();
    }
    let some = format!("data={}", context.path("some").display());
    let arm = format!("data::linux/arm64={}", context.path("arm").display());
    context
        .build(&[&BOTH[..], &["--build-context", &some, "--build-context", &arm, "-o", "out"]].concat())
        .ok();
    let read = |path: &str| std::fs::read_to_string(context.path(path)).unwrap();
    assert_eq!((read("out/linux_arm64/name"), read("out/linux_amd64/name")), ("arm".into(), "some".into()));
}
