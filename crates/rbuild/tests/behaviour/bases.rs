//! Base images with layers that other tools made.

use super::site;
use crate::support::{BASE_TIME, Context, Image};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tar::EntryType;

/// A blob of an image layout: its descriptor.
fn blob(layout: &Path, media: &str, bytes: &[u8]) -> Value {
    let digest = rbuild_oci::Digest::of(bytes).to_string();
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
    json!({"mediaType": format!("application/vnd.oci.image.{media}"), "digest": digest, "size": bytes.len()})
}

/// Writes an image layout with these layers (uncompressed archives) and `config`; its `oci-layout:` address.
fn layout(context: &Context<'_>, layers: &[Vec<u8>], config: &Value) -> String {
    let dir = context.dir.with_extension("layout");
    let descriptors: Vec<Value> = layers.iter().map(|layer| blob(&dir, "layer.v1.tar", layer)).collect();
    let diff_ids: Vec<&Value> = descriptors.iter().map(|layer| &layer["digest"]).collect();
    let document = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(&dir, "config.v1+json", document.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": descriptors,
    });
    let mut manifest = blob(&dir, "manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "odd"});
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("oci-layout://{}:odd", dir.display())
}

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, owner: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(BASE_TIME as u64);
        header.set_size(0);
        header
    }

    fn dir(mut self, name: &str, mode: u32, owner: u64) -> Self {
        let mut header = Self::header(EntryType::Directory, mode, owner);
        self.0.append_data(&mut header, name, &[][..]).unwrap();
        self
    }

    fn file(mut self, name: &str, mode: u32, owner: u64, text: &str) -> Self {
        let mut header = Self::header(EntryType::Regular, mode, owner);
        header.set_size(text.len() as u64);
        self.0.append_data(&mut header, name, text.as_bytes()).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0);
        self.0.append_link(&mut header, name, target).unwrap();
        self
    }

    fn node(mut self, kind: EntryType, name: &str, numbers: (u32, u32)) -> Self {
        let mut header = Self::header(kind, 0o666, 0);
        header.set_device_major(numbers.0).unwrap();
        header.set_device_minor(numbers.1).unwrap();
        self.0.append_data(&mut header, name, &[][..]).unwrap();
        self
    }

    fn attributes(mut self, attributes: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(attributes.iter().copied()).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// `cap_net_bind_service=ep`.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn odd_layers() -> Vec<Vec<u8>> {
    let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).unwrap();
    let mut first = Layer::new()
        .dir("./bin/", 0o755, 0)
        .link(EntryType::Symlink, "bin/sh", "busybox")
        .dir("a/", 0o750, 5)
        .file("a/x", 0o4755, 5, "x")
        .file("a/y", 0o644, 0, "y")
        .link(EntryType::Link, "a/z", "a/x")
        .file("implied/deep/f", 0o600, 3_000_000, "f")
        .file("large-owner", 0o600, 3_000_000, "f")
        .dir("o", 0o711, 7)
        .file("o/old", 0o644, 0, "old")
        .dir("o/sub", 0o755, 0)
        .file("o/sub/older", 0o644, 0, "older")
        .dir("dir-to-file", 0o755, 0)
        .file("dir-to-file/inner", 0o644, 0, "i")
        .file("file-to-dir", 0o644, 0, "f")
        .node(EntryType::Char, "nodes/null", (1, 3))
        .node(EntryType::Block, "nodes/loop", (7, 0))
        .node(EntryType::Fifo, "nodes/fifo", (0, 0))
        .dir("etc", 0o755, 0)
        .file("etc/hosts", 0o640, 9, "base hosts\n")
        .file("etc/resolv.conf", 0o644, 0, "")
        .dir("dev", 0o700, 4)
        .file("dev/kept", 0o644, 0, "in dev")
        .dir("proc", 0o500, 4)
        .attributes(&[("SCHILY.xattr.security.capability", CAPABILITY), ("SCHILY.xattr.user.note", b"n")])
        .file("capable", 0o755, 0, "c");
    let mut header = Layer::header(EntryType::Regular, 0o755, 0);
    header.set_size(busybox.len() as u64);
    first.0.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    let second = Layer::new()
        .dir("a", 0o701, 6)
        .file("a/.wh.y", 0, 0, "")
        .file("a/later", 0o644, 5, "later")
        .dir("o", 0o711, 7)
        .file("o/.wh..wh..opq", 0, 0, "")
        .file("o/new", 0o644, 0, "new")
        .file("dir-to-file", 0o644, 0, "now a file")
        .dir("file-to-dir", 0o700, 0)
        .file("file-to-dir/inner", 0o644, 0, "i")
        .file(".wh.never-there", 0, 0, "");
    let third = Layer::new()
        .dir("a", 0o701, 6)
        .file("a/more", 0o644, 0, "m")
        .file("implied/deep/.wh.f", 0, 0, "")
        .file("fresh/f", 0o644, 0, "f");
    vec![first.done(), second.done(), third.done()]
}

fn shape(image: &Image, root: &str) -> Vec<String> {
    let files = image.files.iter().filter_map(|(path, entry)| {
        let rest = path.strip_prefix(root)?;
        let below = !rest.is_empty()
            && !rest.starts_with("bin")
            && !rest.starts_with("copy")
            && !rest.starts_with("seen");
        below.then(|| format!("{}{:o} {} {rest}", entry.kind, entry.mode, entry.owner()))
    });
    files.collect()
}

const MERGED: &[&str] = &[
    "d701 6:6 a",
    "-644 5:5 a/later",
    "-644 0:0 a/more",
    "-4755 5:5 a/x",
    "-4755 5:5 a/z",
    "-755 0:0 capable",
    "d700 4:4 dev",
    "-644 0:0 dev/kept",
    "-644 0:0 dir-to-file",
    "d755 0:0 etc",
    "-640 9:9 etc/hosts",
    "-644 0:0 etc/resolv.conf",
    "d700 0:0 file-to-dir",
    "-644 0:0 file-to-dir/inner",
    "d755 0:0 fresh",
    "-644 0:0 fresh/f",
    "d755 0:0 implied",
    "d755 0:0 implied/deep",
    "-600 3000000:3000000 large-owner",
    "d755 0:0 nodes",
    "p666 0:0 nodes/fifo",
    "b666 0:0 nodes/loop",
    "c666 0:0 nodes/null",
    "d711 7:7 o",
    "-644 0:0 o/new",
    "d500 4:4 proc",
];

/// B-016, B-017, A-105: whiteouts, opaque directories, links into lower layers, nodes and attributes of a base image.
#[test]
fn a_base_image_of_another_tool() {
    let site = site!("a_base_image_of_another_tool");
    let context = site.context();
    let given = format!("odd={}", layout(&context, &odd_layers(), &json!({})));
    context.file("Dockerfile", "FROM odd AS base\nFROM scratch\nCOPY --from=base / /copy/\n");
    let args = ["--build-context", given.as_str()];
    let image = context.image(&args);
    // A copied block device is a character device.
    let copied = MERGED
        .iter()
        .map(|line| if line.starts_with('b') { line.replacen('b', "c", 1) } else { (*line).to_owned() });
    assert_eq!(shape(&image, "copy/"), copied.collect::<Vec<_>>());
    assert_eq!(image.entry("copy/capable").xattrs["security.capability"], CAPABILITY);
    assert_eq!(image.entry("copy/capable").xattrs.len(), 1, "{:?}", image.entry("copy/capable").xattrs);
    assert_eq!(image.entry("copy/a/z").hard_link.as_deref(), Some("copy/a/x"));
    // Nothing of it changes by a step that changes nothing.
    context.file(
        "Dockerfile",
        "FROM odd\nRUN true\nRUN [ -e /a/later ] && [ ! -e /a/y ] && [ ! -e /o/sub ] && [ ! -e /dev/kept ]\n",
    );
    let image = context.image(&args);
    // The tar reader of these tests knows of no directories that an archive does not mention.
    let mentioned = |line: &&&str| !["fresh", "implied", "implied/deep", "nodes"].contains(&&line[9..]);
    let mut expected: Vec<&str> = MERGED.iter().filter(mentioned).copied().collect();
    expected.push("d755 0:0 sys");
    assert_eq!(shape(&image, ""), expected);
    assert_eq!((image.layers[3].as_slice(), image.layers[4].len()), (&["sys".to_owned()][..], 0));
}

/// B-016, B-017: what steps make of such files.
#[test]
fn steps_change_a_base_images_files() {
    let site = site!("steps_change_a_base_images_files");
    let context = site.context();
    let given = format!("odd={}", layout(&context, &odd_layers(), &json!({})));
    context.file(
        "Dockerfile",
        "FROM odd
RUN [\"busybox\", \"chown\", \"11:12\", \"/a/x\"]
RUN [\"busybox\", \"chmod\", \"700\", \"/capable\"]
RUN [\"busybox\", \"rm\", \"-r\", \"/o\", \"/nodes/null\"]
RUN [\"busybox\", \"mv\", \"/a/z\", \"/file-to-dir/inner\"]
RUN [\"busybox\", \"ln\", \"/dir-to-file\", \"/linked\"]
",
    );
    let image = context.image(&["--build-context", given.as_str()]);
    let layer = |number: usize| -> Vec<&str> {
        image.layers[number].iter().map(String::as_str).filter(|path| *path != "sys").collect()
    };
    assert_eq!(layer(3), ["a", "a/x"]);
    assert_eq!(image.entry("a/x").owner(), "11:12");
    assert_eq!((image.entry("a/x").mode, image.entry("file-to-dir/inner").owner()), (0o755, "5:5".into()));
    assert_eq!(layer(4), ["capable"]);
    assert_eq!(image.entry("capable").xattrs["security.capability"], CAPABILITY);
    assert_eq!(layer(5), ["nodes", "nodes/.wh.null", ".wh.o"]);
    assert_eq!(layer(6), ["a", "a/.wh.z", "file-to-dir", "file-to-dir/inner"]);
    assert_eq!((image.text("file-to-dir/inner"), image.entry("file-to-dir/inner").mode), ("x", 0o4755));
    // What has only got another name is unchanged: the name is a file of its own.
    assert_eq!(layer(7), ["linked"]);
    assert_eq!(image.entry("linked").hard_link, None);
    assert_eq!(image.text("linked"), image.text("dir-to-file"));
}

/// B-002, A-134, A-065: what is inherited from a base image's configuration.
#[test]
fn configuration_is_inherited() {
    let site = site!("configuration_is_inherited");
    let context = site.context();
    let config = json!({
        "User": "5", "Env": ["A=base", "NOVALUE"], "Entrypoint": ["/e"], "Cmd": ["c"], "WorkingDir": "/implied", "Labels": {"l": "1"},
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "StopSignal": "SIGUSR1", "Shell": ["/bin/busybox", "sh", "-c"],
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000}, "OnBuild": ["ENV TRIGGERED=yes", "LABEL t=$A"],
    });
    let given = format!("odd={}", layout(&context, &odd_layers(), &config));
    let args = ["--build-context", given.as_str()];
    context.file("Dockerfile", "FROM odd\nRUN echo $A $(pwd) $(busybox id -u) > /dev/stdout\n");
    let image = context.image(&args);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(image.config()["Env"], json!(["A=base", "NOVALUE", path, "TRIGGERED=yes"]));
    for key in [
        "User",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
        "ExposedPorts",
        "Volumes",
        "StopSignal",
        "Shell",
        "Healthcheck",
    ] {
        assert_eq!(image.config()[key], config[key], "{key}");
    }
    assert_eq!(image.config()["Labels"], json!({"l": "1", "t": "base"}));
    assert!(image.config().get("OnBuild").is_none());
    context.file("Dockerfile", "FROM odd AS one\nHEALTHCHECK NONE\nENTRYPOINT [\"/n\"]\nFROM one AS two\nUSER 6\nWORKDIR deep\nFROM two\nSTOPSIGNAL 9\n");
    let config = context.image(&args).config().clone();
    assert_eq!(config["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!((&config["Entrypoint"], config.get("Cmd")), (&json!(["/n"]), None));
    assert_eq!(
        (&config["User"], &config["WorkingDir"], &config["StopSignal"]),
        (&json!("6"), &json!("/implied/deep"), &json!("9"))
    );
}
