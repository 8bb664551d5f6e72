//! Layers as others make them, and what becomes of a layer that no image wants.

use crate::context::{TestContext, busybox, installed, run, skip};
use rbuild_oci::Digest;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

/// An entry of a layer made by hand: path (a directory's ends in `/`), mode and owner.
type Entry<'a> = (&'a str, u32, u64);

fn layer_tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, owner) in entries {
        let is_dir = path.ends_with('/');
        let data = if is_dir { "" } else { path };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if is_dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// busybox with more layers, as an OCI layout in `dir`.
fn base_with(dir: &Path, layers: &[&[Entry<'_>]]) {
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(busybox()).arg(dir);
    run(copy, b"").ok();
    let blob = |digest: &str| dir.join("blobs").join(digest.replace(':', "/"));
    let read = |digest: &Value| -> Value {
        serde_json::from_slice(&std::fs::read(blob(digest.as_str().unwrap())).unwrap()).unwrap()
    };
    let write = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes).to_string();
        std::fs::write(blob(&digest), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let index: Value = serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let mut manifest = read(&index["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    for entries in layers {
        let tar = layer_tar(entries);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let descriptor = write(&gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip");
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(Digest::of(&tar).to_string()));
        config["history"].as_array_mut().unwrap().push(json!({ "created_by": "by hand" }));
        manifest["layers"].as_array_mut().unwrap().push(descriptor);
    }
    let kind = manifest["config"]["mediaType"].as_str().unwrap().to_owned();
    manifest["config"] = write(config.to_string().as_bytes(), &kind);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let descriptor = write(manifest.to_string().as_bytes(), kind);
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// A layer that leaves out the entries of directories keeps those of the layers below as they are; two images that share
/// the layer keep each its own.
#[test]
fn directories_that_a_base_layer_leaves_out() {
    let context = TestContext::new();
    let shared: &[Entry<'_>] = &[("tmp/x", 0o644, 0), ("home/me/.conf", 0o600, 7), ("only/here/f", 0o644, 0)];
    let one: &[Entry<'_>] = &[("tmp/", 0o1777, 0), ("home/", 0o755, 0), ("home/me/", 0o700, 7)];
    let two: &[Entry<'_>] = &[("tmp/", 0o755, 0), ("home/", 0o711, 0), ("home/me/", 0o750, 8)];
    base_with(&context.path("one"), &[one, shared]);
    base_with(&context.path("two"), &[two, shared]);
    let expected = [
        ("one", "1777 0 /tmp\n755 0 /home\n700 7 /home/me\n755 0 /only\n755 0 /only/here\n"),
        ("two", "755 0 /tmp\n711 0 /home\n750 8 /home/me\n755 0 /only\n755 0 /only/here\n"),
    ];
    // The second time from what the first has left in the store.
    for (turn, (name, modes)) in expected.into_iter().chain(expected).enumerate() {
        let named = format!("{name}=oci-layout://{}", context.path(name).display());
        let context_flag = ["--build-context", &named];
        let dockerfile = format!(
            "FROM {name}\nRUN stat -c '%a %u %n' /tmp /home /home/me /only /only/here > /out && : {turn}\n\
             COPY Dockerfile /tmp/\n"
        );
        assert_eq!(context.output_of(&dockerfile, &context_flag), modes, "{name}");
        // COPY puts the directory into its layer as the view has it, without a change.
        let all = [&context_flag[..], &["-t", name]].concat();
        context.build(&all).ok();
        let image = crate::image::Image::of(&context, &format!("{name}:latest"));
        let tmp = image.last().get("tmp").unwrap().line();
        assert_eq!(tmp, if name == "one" { "d 1777 0:0 tmp/" } else { "d 0755 0:0 tmp/" });
        // What RUN changed is /out alone.
        let run_layer = &image.layers[image.layers.len() - 2];
        assert_eq!(run_layer.entries.len(), 1, "{:?}", run_layer.lines());
    }
    context.assert_nothing_left();
}

/// D-025: times in a directory are those of an archive.
#[test]
fn source_date_epoch_in_a_directory() {
    const EPOCH: i64 = 1_500_000_000;
    let mut context =
        TestContext::of("FROM base\nRUN mkdir /new && touch /new/f && touch -d @1000 /new/old\n");
    context.env("SOURCE_DATE_EPOCH", &EPOCH.to_string());
    context.build(&["-o", "out"]).ok();
    for (name, expected) in [("new", EPOCH), ("new/f", EPOCH), ("new/old", 1000)] {
        let meta = std::fs::metadata(context.path("out").join(name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (expected, 0), "{name}");
    }
}

/// A small COPY whose layer no image wants is done once; a large one is not copied into the store for that.
#[test]
fn copies_are_cached_whatever_the_output() {
    for output in ["type=local,dest=out", "type=tar,dest=out.tar", "type=cacheonly"] {
        let context = TestContext::of("FROM scratch\nCOPY a /one/\nADD b.tar /two/\n");
        context.file("a", "a").file("b.tar", layer_tar(&[("in", 0o644, 3)]));
        let first = context.build(&["-o", output]).ok();
        assert_eq!(first.executed().len(), 2, "{output}");
        let second = context.build(&["-o", output]).ok();
        assert!(second.executed().is_empty(), "{output}: {:?}", second.executed());
        // What the record leads to is in the store, not in the context.
        std::fs::remove_dir_all(context.path("out"))
            .or_else(|_| std::fs::remove_file(context.path("out.tar")))
            .ok();
        context.build(&["-o", "out2"]).ok();
        assert_eq!(std::fs::read_to_string(context.path("out2/one/a")).unwrap(), "a");
        assert_eq!(std::fs::read_to_string(context.path("out2/two/in")).unwrap(), "in");
        context.file("a", "b");
        assert_eq!(context.build(&["-o", output]).ok().executed().len(), 2, "{output}");
        context.file("a", vec![1; 33 << 20]);
        context.build(&["-o", output]).ok();
        let again = context.build(&["-o", output]).ok();
        assert_eq!(again.executed().len(), 2, "{output}: {:?}", again.executed());
        context.assert_nothing_left();
    }
}

/// An image without a name is listed, found by its id, and goes with the next prune.
#[test]
fn an_image_without_a_name() {
    let context = TestContext::of("FROM scratch\nCOPY a /\n");
    context.file("a", "a");
    context.build(&[""; 0]).ok();
    let listed = || context.rbuild(&["images", "--format", "json"]).ok().stdout;
    let row: Value = serde_json::from_str(listed().trim()).unwrap();
    assert_eq!((row["Repository"].as_str(), row["Tag"].as_str()), (Some("<none>"), Some("<none>")));
    let id = row["ID"].as_str().unwrap().to_owned();
    // Building it again adds nothing, and a further image does not hide it.
    context.build(&[""; 0]).ok();
    assert_eq!(listed().lines().count(), 1);
    context.build(&["-t", "app", "--label", "x=y"]).ok();
    assert_eq!(listed().lines().count(), 2);
    context.rbuild(&["inspect", &id]).ok();
    context.rbuild(&["history", &id]).ok();
    if installed("skopeo") {
        let mut copy = Command::new("skopeo");
        let from = format!("oci:{}:docker.io/library/app:latest", context.store().display());
        copy.args([
            "--insecure-policy",
            "copy",
            &from,
            &format!("oci:{}:x", context.path("copied").display()),
        ]);
        run(copy, b"").ok();
    } else {
        skip("an_image_without_a_name", "skopeo is not installed");
    }
    // A name is all it needs to stay.
    context.rbuild(&["tag", &id, "named"]).ok();
    let names: Vec<String> = listed()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["Repository"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.contains(&"named".to_owned()) && !names.contains(&"<none>".to_owned()), "{names:?}");
    context.rbuild(&["rmi", "named"]).ok();
    // Removed by its id, and by prune.
    context.build(&[""; 0]).ok();
    let removed = context.rbuild(&["rmi", &id]).ok().stdout;
    assert!(removed.contains("Deleted: "), "{removed}");
    assert_eq!(listed().lines().count(), 1);
    context.build(&[""; 0]).ok();
    let pruned = context.rbuild(&["prune", "-f"]).ok().stdout;
    assert!(pruned.contains("image        sha256:"), "{pruned}");
    assert!(!listed().contains("<none>") && listed().contains("app"));
    context.rbuild(&["inspect", &id]).fails(2, &["No such image"]);
    // An image for elsewhere is not the store's.
    context.build(&["-o", "type=oci,dest=x.tar"]).ok();
    assert!(!listed().contains("<none>"));
}
