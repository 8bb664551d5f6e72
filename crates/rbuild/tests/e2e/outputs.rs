//! What a build leaves: images in the store, files, names; and the commands that look at them.

use crate::context::{Run, TestContext, installed, run, skip};
use crate::image::{Image, read_tar};
use serde_json::Value;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

const SMALL: &str = "FROM base\nRUN echo hello > /greeting && ln -s greeting /link && mkdir -m 1777 /sticky\n\
                     COPY --chown=12:34 --chmod=4711 tool /bin/tool\nCMD [\"cat\", \"/greeting\"]\n";

fn small() -> TestContext {
    let context = TestContext::of(SMALL);
    context.file("tool", "#!/bin/sh\n");
    context
}

#[test]
fn a_directory() {
    let context = small();
    context.build(&["-o", "out/deep"]).ok();
    let dir = context.path("out/deep");
    assert_eq!(std::fs::read_to_string(dir.join("greeting")).unwrap(), "hello\n");
    assert_eq!(std::fs::read_link(dir.join("link")).unwrap().to_str(), Some("greeting"));
    assert_eq!(std::fs::metadata(dir.join("sticky")).unwrap().permissions().mode() & 0o7777, 0o1777);
    let tool = std::fs::metadata(dir.join("bin/tool")).unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777), (0, 0, 0o4711), "owned by whoever builds");
    assert!(dir.join("bin/busybox").exists(), "files of the base");
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "", "nothing is kept without a name");
}

#[test]
fn a_tar_of_the_files() {
    let context = small();
    context.build(&["-o", "type=tar,dest=x.tar"]).ok();
    let entries = read_tar(&std::fs::read(context.path("x.tar")).unwrap());
    let find = |path: &str| entries.iter().find(|entry| entry.path == path).map(|entry| entry.line());
    assert_eq!(find("greeting").as_deref(), Some("f 0644 0:0 greeting (6)"));
    assert_eq!(find("bin/tool").as_deref(), Some("f 4711 12:34 bin/tool (10)"));
    let piped = context.build(&["-o", "type=tar", "context"]).ok();
    assert_eq!(read_tar(&piped.bytes).len(), entries.len(), "the same on standard output");
}

#[test]
fn an_oci_layout_as_directory_and_archive() {
    let context = small();
    context
        .build(&["-t", "app:1.0", "-o", "type=oci,dest=layout,tar=false", "-o", "type=oci,dest=x.tar"])
        .ok();
    let stored = Image::of(&context, "app:1.0");
    let layout = Image::only(&context.path("layout"));
    assert_eq!(layout.digest, stored.digest);
    std::fs::create_dir(context.path("unpacked")).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(context.path("x.tar")).arg("-C").arg(context.path("unpacked"));
    run(tar, b"").ok();
    assert_eq!(Image::only(&context.path("unpacked")).digest, stored.digest);
    let index: Value =
        serde_json::from_slice(&std::fs::read(context.path("unpacked/index.json")).unwrap()).unwrap();
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1.0");
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/app:1.0");
}

#[test]
fn a_docker_archive() {
    let context = small();
    context.build(&["-t", "app:1.0", "-o", "type=docker,dest=x.tar"]).ok();
    let entries = read_tar(&std::fs::read(context.path("x.tar")).unwrap());
    let manifest = entries.iter().find(|entry| entry.path == "manifest.json").expect("manifest.json");
    let manifest: Value = serde_json::from_slice(&manifest.data).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "app:1.0");
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        assert!(
            entries.iter().any(|entry| entry.path == layer.as_str().unwrap()),
            "{layer} is in the archive"
        );
    }
    if !installed("skopeo") {
        return skip("a_docker_archive", "skopeo is not installed");
    }
    let mut skopeo = Command::new("skopeo");
    skopeo.arg("inspect").arg(format!("docker-archive:{}", context.path("x.tar").display()));
    run(skopeo, b"").ok();
}

#[test]
fn only_the_cache() {
    let context = small();
    context.build(&["-o", "type=cacheonly"]).ok();
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "");
    let again = context.build(&["-t", "x"]).ok();
    assert!(!again.executed().iter().any(|step| step.contains("RUN")), "{}", again.stderr);
}

#[test]
fn files_and_quiet() {
    let context = small();
    let quiet = context.build(&["-q", "-t", "a", "--iidfile=iid", "--metadata-file=meta.json"]).ok();
    let image = Image::of(&context, "a:latest");
    let id = image.manifest["config"]["digest"].as_str().unwrap();
    assert_eq!(quiet.stdout, format!("{id}\n"));
    assert_eq!(quiet.stderr, "");
    assert_eq!(std::fs::read_to_string(context.path("iid")).unwrap(), id);
    let meta: Value = serde_json::from_slice(&std::fs::read(context.path("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], image.digest.as_str());
    assert_eq!(meta["containerimage.config.digest"], id);
    assert_eq!(meta["image.name"], "docker.io/library/a:latest");
    assert_eq!(meta["containerimage.descriptor"]["digest"], image.digest.as_str());
    assert_eq!(meta["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let builds = context.rbuild(&["builds", "ls", "-q"]).ok().stdout;
    assert_eq!(meta["buildx.build.ref"], format!("rbuild/rbuild/{}", builds.trim()));
    assert!(meta.get("buildx.build.warnings").is_none(), "only if asked for");
    // D-014: no image, no id.
    context.build(&["--iidfile=iid", "--metadata-file=meta.json", "-o", "out"]).ok();
    assert_eq!(std::fs::read_to_string(context.path("iid")).unwrap(), "");
    let meta: Value = serde_json::from_slice(&std::fs::read(context.path("meta.json")).unwrap()).unwrap();
    assert!(meta.get("containerimage.digest").is_none() && meta.get("image.name").is_none(), "{meta}");
}

/// D-014: BUILDX_METADATA_WARNINGS.
#[test]
fn warnings_are_facts_too() {
    let mut context = TestContext::of("FROM base as b\nCOPY Dockerfile /\n");
    context.env("BUILDX_METADATA_WARNINGS", "1");
    context.build(&["--metadata-file=meta.json"]).ok();
    let meta: Value = serde_json::from_slice(&std::fs::read(context.path("meta.json")).unwrap()).unwrap();
    let [warning] = &meta["buildx.build.warnings"].as_array().unwrap()[..] else { panic!("{meta}") };
    // `FromAsCasing: …`
    assert!(warning["short"].as_str().unwrap().starts_with("RnJvbUFzQ2FzaW5n"), "{warning}");
    assert_eq!(warning["level"], 1);
}

#[test]
fn a_failed_build_writes_no_output() {
    let context = TestContext::of("FROM base\nRUN false\n");
    std::fs::write(context.path("iid"), "earlier").unwrap();
    let args = ["-t", "a", "--iidfile=iid", "--metadata-file=meta", "-o", "type=tar,dest=x.tar", "-o", "out"];
    context.build(&args).fails(1, &["exit code: 1"]);
    // D-014: not even the id of an earlier build.
    for name in ["meta", "x.tar", "out", "iid"] {
        assert!(!context.path(name).exists(), "{name}");
    }
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "");
    context.assert_nothing_left();
}

fn skopeo(context: &TestContext, name: &str) -> Run {
    let mut command = Command::new("skopeo");
    command.arg("inspect").arg(format!("oci:{}:{name}", context.store().display()));
    run(command, b"")
}

#[test]
fn other_tools_read_the_store() {
    let context = small();
    context.build(&["-t", "app:1.0"]).ok();
    context.dockerfile("FROM base\nLABEL other=yes\n").build(&["-t", "web:1.0"]).ok();
    if !installed("skopeo") || !installed("umoci") {
        return skip("other_tools_read_the_store", "skopeo and umoci are not installed");
    }
    let app: Value =
        serde_json::from_str(&skopeo(&context, "docker.io/library/app:1.0").ok().stdout).unwrap();
    assert_eq!(app["Digest"], Image::of(&context, "app:1.0").digest.as_str());
    let web: Value =
        serde_json::from_str(&skopeo(&context, "docker.io/library/web:1.0").ok().stdout).unwrap();
    assert_eq!(web["Labels"]["other"], "yes");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:docker.io/library/app:1.0", context.store().display()));
    umoci.arg(context.path("bundle"));
    run(umoci, b"").ok();
    let rootfs = context.path("bundle/rootfs");
    assert_eq!(std::fs::read_to_string(rootfs.join("greeting")).unwrap(), "hello\n");
    assert_eq!(std::fs::metadata(rootfs.join("bin/tool")).unwrap().mode() & 0o7777, 0o4711);
}

#[test]
fn images_have_names_until_they_are_removed() {
    let context = small();
    context.build(&["-t", "app:1.0", "-t", "registry.example:5000/team/app:x"]).ok();
    let listed = context.rbuild(&["images", "--format=json", "--no-trunc"]).ok().stdout;
    let rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut names: Vec<String> = rows
        .iter()
        .map(|row| format!("{}:{}", row["Repository"].as_str().unwrap(), row["Tag"].as_str().unwrap()))
        .collect();
    names.sort();
    assert_eq!(names, ["app:1.0", "registry.example:5000/team/app:x"]);
    assert_eq!(rows[0]["ID"], rows[1]["ID"]);

    context.rbuild(&["tag", "app:1.0", "app:2.0"]).ok();
    assert_eq!(context.rbuild(&["images", "app", "-q"]).ok().stdout.lines().count(), 2);
    let inspected: Value =
        serde_json::from_str(&context.rbuild(&["inspect", "app:2.0"]).ok().stdout).unwrap();
    assert_eq!(inspected[0]["Id"], rows[0]["ID"]);
    let history = context.rbuild(&["history", "--no-trunc", "app:2.0"]).ok().stdout;
    assert!(history.lines().nth(1).unwrap().contains(r#"CMD ["cat" "/greeting"]"#), "{history}");

    let id = rows[0]["ID"].as_str().unwrap();
    context.rbuild(&["rmi", id]).fails(2, &[]);
    context.rbuild(&["rmi", "app:1.0", "app:2.0"]).ok();
    context.rbuild(&["rmi", "app:1.0"]).fails(2, &["app:1.0"]);
    context.rbuild(&["rmi", "-f", "app:1.0"]).ok();
    context.rbuild(&["rmi", id]).ok();
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "");
    for command in [&["inspect", "app"][..], &["history", "app"], &["tag", "app", "b"]] {
        context.rbuild(command).fails(2, &["app"]);
    }
}

#[test]
fn a_tag_moves_to_the_newer_image() {
    let context = TestContext::of("FROM base\nLABEL n=1\n");
    context.build(&["-t", "a"]).ok();
    context.dockerfile("FROM base\nLABEL n=2\n").build(&["-t", "a"]).ok();
    let image = Image::of(&context, "a:latest");
    assert_eq!(image.config["config"]["Labels"]["n"], "2");
    assert_eq!(context.rbuild(&["images", "-q", "a"]).ok().stdout.lines().count(), 1);
}

#[test]
fn prune_keeps_what_tagged_images_need() {
    let context = small();
    context.build(&["-t", "kept"]).ok();
    context.dockerfile("FROM base\nRUN head -c 3000000 /dev/urandom > /big\n").build(&["-t", "gone"]).ok();
    let size = || {
        let mut du = Command::new("du");
        du.arg("-sk").arg(context.store());
        let out = run(du, b"").ok().stdout;
        out.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    context.rbuild(&["rmi", "gone"]).ok();
    let before = size();
    context.rbuild(&["prune", "-f"]).ok();
    assert!(size() + 2500 < before, "{before} KiB before, {} KiB after", size());
    Image::of(&context, "kept:latest");
    context.dockerfile(SMALL);
    let again = context.build(&["-t", "kept"]).ok();
    Image::of(&context, "kept:latest");
    assert_eq!(again.count("panicked"), 0);
    context.rbuild(&["prune", "-f", "--all"]).ok();
    Image::of(&context, "kept:latest");
    context.build(&["-t", "kept"]).ok();
    Image::of(&context, "kept:latest");
}

#[test]
fn the_context_may_come_on_standard_input() {
    let context = small();
    let mut tar = Command::new("tar");
    tar.args(["-C"]).arg(context.path("context")).args(["-cf", "-", "Dockerfile", "tool"]);
    let archive = run(tar, b"").ok().bytes;
    context.build_with_stdin(&["-t", "a", "-"], &archive).ok();
    let expected = Image::of(&context, "a:latest").layers.len();
    let programs = [("gzip", &["-c"][..]), ("bzip2", &["-c"]), ("xz", &["-c"]), ("zstd", &["-c", "-q"])];
    for (program, flags) in programs {
        if !installed(program) {
            skip("the_context_may_come_on_standard_input", &format!("{program} is not installed"));
            continue;
        }
        let mut command = Command::new(program);
        command.args(flags);
        let packed = run(command, &archive).ok().bytes;
        let again = context.build_with_stdin(&["-t", "b", "-"], &packed).ok();
        assert_eq!(again.steps().0, 0, "{program}: the same files are the same context:\n{}", again.stderr);
        assert_eq!(Image::of(&context, "b:latest").layers.len(), expected);
    }
}

#[test]
fn the_dockerfile_may_come_on_standard_input() {
    let context = small();
    let text = b"FROM scratch\nCOPY tool /only\n";
    context.build_with_stdin(&["-f", "-", "-t", "a", "context"], text).ok();
    assert_eq!(Image::of(&context, "a:latest").last().lines(), ["f 0644 0:0 only (10)"]);
    context.build_with_stdin(&["-t", "b", "-"], b"FROM base\nRUN echo x > /x\n").ok();
    context.build_with_stdin(&["-", "-t", "b"], b"FROM base\nCOPY tool /x\n").fails(2, &["tool"]);
    context.build_with_stdin(&["-f", "-", "-"], b"FROM base\n").fails(2, &["stdin"]);
}

#[test]
fn another_dockerfile_and_a_directory_as_named_context() {
    let context = small();
    context.file("docker/other.Dockerfile", "FROM scratch\nCOPY --from=more one /\nCOPY tool /\n");
    std::fs::create_dir(context.path("more")).unwrap();
    std::fs::write(context.path("more/one"), "1").unwrap();
    let args = ["-t", "a", "-f", "context/docker/other.Dockerfile", "--build-context", "more=more"];
    context.build(&args).ok();
    let image = Image::of(&context, "a:latest");
    assert_eq!(image.layers[0].lines(), ["f 0644 0:0 one (1)"]);
    assert_eq!(image.layers[1].lines(), ["f 0644 0:0 tool (10)"]);
}

#[test]
fn legacy_flags_are_accepted_with_a_warning() {
    let context = small();
    let run = context.build(&["--rm", "--force-rm=false", "--compress", "--squash"]).ok();
    for flag in ["--rm", "--force-rm", "--compress", "squash"] {
        assert!(run.stderr.contains(flag), "{flag} in {}", run.stderr);
    }
}

/// D-027: `name=` gives an archive names of its own, beside the tags.
#[test]
fn names_of_an_output() {
    let context = small();
    context.build(&["-o", "type=oci,dest=x,tar=false,\"name=app:2,other/app\""]).ok();
    let index = std::fs::read(context.path("x/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|descriptor| descriptor["annotations"]["io.containerd.image.name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["docker.io/library/app:2", "docker.io/other/app:latest"]);
    context.build(&["-t", "app:1", "-o", "type=docker,dest=x.tar,name=app:2"]).ok();
    let entries = read_tar(&std::fs::read(context.path("x.tar")).unwrap());
    let manifest = entries.iter().find(|entry| entry.path == "manifest.json").unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.data).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1", "app:2"]));
    context.build(&["-o", "type=docker,name=kept:3"]).ok();
    assert!(context.rbuild(&["images"]).ok().stdout.contains("kept"), "without a file it is kept");
}

/// B-021: new layers are packed as asked, also where the store has them packed otherwise; those of the base stay as they are.
#[test]
fn compressions() {
    let context = small();
    context.build(&["-t", "app:1"]).ok();
    let config = |name: &str| -> (Vec<String>, Value) {
        let image = Image::only(&context.path(name));
        let kinds = image.manifest["layers"].as_array().unwrap().iter();
        let kinds = kinds.map(|layer| layer["mediaType"].as_str().unwrap().to_owned());
        (kinds.collect(), image.config["rootfs"].clone())
    };
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let mut seen = Vec::new();
    for (name, options, kind) in [
        ("zstd", ",compression=zstd,compression-level=7", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("plain", ",compression=uncompressed", "application/vnd.oci.image.layer.v1.tar"),
        ("gzip", ",compression=gzip", gzip),
    ] {
        let output = format!("type=oci,dest={name},tar=false{options}");
        let built = context.build(&["-t", "app:1", "-o", &output]).ok();
        assert_eq!(built.executed(), Vec::<String>::new(), "{name}: nothing runs again");
        let (kinds, rootfs) = config(name);
        assert_eq!(kinds[0], gzip, "{name}: the base");
        assert!(kinds.len() > 1 && kinds[1..].iter().all(|found| found == kind), "{name}: {kinds:?}");
        seen.push(rootfs);
        if installed("skopeo") {
            let mut inspect = Command::new("skopeo");
            inspect.arg("inspect").arg(format!("oci:{}:1", context.path(name).display()));
            run(inspect, b"").ok();
        }
    }
    assert!(seen.iter().all(|rootfs| *rootfs == seen[0]), "{seen:?}");
}
