//! Images of a store as layouts and archives.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use rbuild_export::{
    ExportError, ExportImage, Result, write_docker_archive, write_file, write_oci_archive,
    write_oci_layout_dir,
};
use rbuild_oci::{Descriptor, Digest, Reference, media_type};
use rbuild_store::{Store, StoreError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("root")).unwrap();
    (dir, store)
}

fn put(store: &Store, media_type: &str, document: &Value) -> Descriptor {
    let (digest, size) = store.put_blob(document.to_string().as_bytes()).unwrap();
    Descriptor::new(media_type, digest, size)
}

/// A valid image with the same layer twice.
fn image(store: &Store, seed: &str) -> Descriptor {
    let (layer, size) = store.put_blob(&[0; 1024]).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [layer, layer]},
    });
    let config = put(store, media_type::OCI_CONFIG, &config);
    let layer = Descriptor::new(media_type::OCI_LAYER, layer, size);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer, layer],
    });
    put(store, media_type::OCI_MANIFEST, &manifest)
}

fn named(descriptor: Descriptor, names: &[&str]) -> ExportImage {
    let names = names.iter().map(|name| name.parse::<Reference>().unwrap());
    ExportImage { created: Some("1970-01-01T00:00:00Z".into()), ..ExportImage::new(descriptor, names) }
}

type Files = BTreeMap<String, Vec<u8>>;

fn untar(bytes: &[u8]) -> (Vec<String>, Files) {
    let mut order = Vec::new();
    let mut files = Files::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        order.push(name.clone());
        if entry.header().entry_type().is_file() {
            files.insert(name, content);
        }
    }
    (order, files)
}

fn read_dir(root: &Path) -> Files {
    let mut files = Files::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Every blob has the digest of its name, and there are `count`.
fn assert_blobs(files: &Files, count: usize) {
    let blobs: Vec<_> = files.iter().filter(|(name, _)| name.starts_with("blobs/")).collect();
    assert_eq!(blobs.len(), count);
    for (name, bytes) in blobs {
        assert_eq!(*name, format!("blobs/sha256/{}", Digest::of(bytes).hex()));
    }
}

fn has_skopeo(test: &str) -> bool {
    let found = Command::new("skopeo").arg("--version").output().is_ok();
    if !found {
        println!("skipped: {test}: skopeo is not installed");
    }
    found
}

fn skopeo_inspect(reference: &str) -> Value {
    let output = Command::new("skopeo").args(["inspect", reference]).output().unwrap();
    assert!(output.status.success(), "{reference}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_layout_and_an_archive_have_the_same_files() {
    let (dir, store) = store();
    let image = named(image(&store, "1"), &["app:1.0", "localhost:5000/web"]);
    let bytes = write_oci_archive(&store, &image, Vec::new()).unwrap();
    assert_eq!(bytes, write_oci_archive(&store, &image, Vec::new()).unwrap(), "no times, no chance");
    let (order, files) = untar(&bytes);
    assert_eq!(order[..2], ["blobs/", "blobs/sha256/"]);
    assert_eq!(order[5..], ["index.json", "oci-layout"]);
    assert!(order[2..5].is_sorted());
    assert_blobs(&files, 3);
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let annotations: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["annotations"].clone()).collect();
    let expected = |name, tag| {
        json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
            "org.opencontainers.image.ref.name": tag,
        })
    };
    let web = expected("localhost:5000/web:latest", "latest");
    assert_eq!(annotations, [expected("docker.io/library/app:1.0", "1.0"), web]);
    for dest in ["new", "empty/"] {
        let dest = dir.path().join(dest);
        if dest.ends_with("empty") {
            fs::create_dir(&dest).unwrap();
        }
        write_oci_layout_dir(&store, &image, &dest).unwrap();
        assert_eq!(read_dir(&dest), files);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing temporary is left");
}

#[test]
fn an_image_without_names_has_one_entry() {
    let (_dir, store) = store();
    let mut image = named(image(&store, "1"), &[]);
    image
        .descriptor
        .annotations
        .insert("org.opencontainers.image.ref.name".into(), "what the store says".into());
    image.created = None;
    let (_, files) = untar(&write_oci_archive(&store, &image, Vec::new()).unwrap());
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(index["manifests"][0].get("annotations"), None);
}

#[test]
fn a_layout_that_is_there_gets_the_image_in_addition() {
    let (dir, store) = store();
    let dest = dir.path().join("out");
    let (one, two) = (image(&store, "1"), image(&store, "2"));
    let write = |descriptor: &Descriptor, name| {
        write_oci_layout_dir(&store, &named(descriptor.clone(), &[name]), &dest).unwrap();
    };
    write(&one, "app:1");
    write(&one, "app:2");
    // A blob that was damaged there is replaced.
    fs::write(dest.join("blobs/sha256").join(one.digest.hex()), vec![b'x'; one.size as usize]).unwrap();
    write(&two, "app:2");
    write(&one, "app:1");
    let files = read_dir(&dest);
    assert_blobs(&files, 5);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let tags: BTreeMap<_, _> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            (tag, entry["digest"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(tags, BTreeMap::from([("1", one.digest.to_string()), ("2", two.digest.to_string())]));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(files.len(), 7, "nothing temporary is left");
}

#[test]
fn docker_gets_its_manifest() {
    let (_dir, store) = store();
    let image = named(image(&store, "1"), &["app:1.0", "ghcr.io/me/web"]);
    let (_, files) = untar(&write_docker_archive(&store, &image, Vec::new()).unwrap());
    assert_blobs(&files, 3);
    let documents: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(documents[0]["RepoTags"], json!(["app:1.0", "ghcr.io/me/web:latest"]));
    let config: Value = serde_json::from_slice(&files[documents[0]["Config"].as_str().unwrap()]).unwrap();
    assert_eq!(config["config"]["Labels"]["seed"], "1");
    let layers = documents[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    assert!(layers.iter().all(|layer| files[layer.as_str().unwrap()] == [0; 1024]));
}

#[test]
fn an_index_is_exported_with_all_it_names_but_not_to_docker() {
    let (_dir, store) = store();
    let (one, two) = (image(&store, "1"), image(&store, "2"));
    let index = put(&store, media_type::OCI_INDEX, &json!({"schemaVersion": 2, "manifests": [one, two]}));
    let image = named(index, &["app"]);
    let (_, files) = untar(&write_oci_archive(&store, &image, Vec::new()).unwrap());
    assert_blobs(&files, 6);
    let error = write_docker_archive(&store, &image, Vec::new()).unwrap_err();
    assert!(matches!(error, ExportError::SeveralPlatforms));
}

#[test]
fn nesting_ends() {
    let (_dir, store) = store();
    let mut inner = image(&store, "1");
    for _ in 0..20 {
        inner = put(&store, media_type::OCI_INDEX, &json!({"schemaVersion": 2, "manifests": [inner]}));
    }
    let error = write_oci_archive(&store, &named(inner, &[]), Vec::new()).unwrap_err();
    assert!(matches!(error, ExportError::Manifest { .. }), "{error}");
}

#[test]
fn a_foreign_layer_may_be_missing_and_others_may_not() {
    let (_dir, store) = store();
    for (media_type, fine) in [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
        (media_type::OCI_LAYER_GZIP, false),
    ] {
        let config = put(&store, media_type::OCI_CONFIG, &json!({}));
        let layer = Descriptor::new(media_type, Digest::of("elsewhere"), 9);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let image = named(put(&store, media_type::OCI_MANIFEST, &manifest), &[]);
        let result = write_oci_archive(&store, &image, Vec::new());
        assert_eq!(result.is_ok(), fine, "{media_type}");
    }
}

/// Everything that is written when `damage` was done to the store; nothing may be left.
fn assert_fails_clean(damage: impl Fn(&Store, &Descriptor)) -> Vec<ExportError> {
    let (_dir, store) = store();
    let descriptor = image(&store, "1");
    damage(&store, &descriptor);
    let image = named(descriptor, &["app"]);
    let out = tempfile::tempdir().unwrap();
    let old = out.path().join("old.tar");
    fs::write(&old, "what was there").unwrap();
    let dir = out.path().join("layout");
    let errors = vec![
        write_oci_layout_dir(&store, &image, &dir).unwrap_err(),
        write_file(&old, |file| write_oci_archive(&store, &image, file)).unwrap_err(),
        write_file(&old, |file| write_docker_archive(&store, &image, file)).unwrap_err(),
    ];
    assert_eq!(read_dir(out.path()), Files::from([("old.tar".into(), b"what was there".to_vec())]));
    assert!(!dir.exists());
    errors
}

#[test]
fn a_failed_export_leaves_nothing() {
    let layer = Digest::of([0; 1024]);
    let errors = assert_fails_clean(|store, _| fs::remove_file(store.blob_path(&layer)).unwrap());
    assert!(errors.iter().all(|e| matches!(e, ExportError::Store(StoreError::NoBlob(_)))), "{errors:?}");
    let errors = assert_fails_clean(|store, _| fs::write(store.blob_path(&layer), [0; 1023]).unwrap());
    let size_mismatch = |e: &ExportError| matches!(e, ExportError::Store(StoreError::SizeMismatch { .. }));
    assert!(errors.iter().all(size_mismatch), "{errors:?}");
    assert_fails_clean(|store, image| {
        fs::write(store.blob_path(&image.digest), vec![b' '; image.size as usize]).unwrap();
    });
}

#[test]
fn a_file_is_replaced_only_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (dest, link) = (dir.path().join("file"), dir.path().join("link"));
    std::os::unix::fs::symlink("file", &link).unwrap();
    fs::write(&dest, "old").unwrap();
    let write = |text: &'static str, result: fn() -> Result<()>| {
        write_file(&link, |mut file: File| {
            file.write_all(text.as_bytes()).unwrap();
            result()
        })
    };
    write("half", || Err(ExportError::SeveralPlatforms)).unwrap_err();
    assert_eq!(fs::read_to_string(&dest).unwrap(), "old");
    write("new", || Ok(())).unwrap();
    assert_eq!(fs::read_to_string(&dest).unwrap(), "new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert!(matches!(write_file(dir.path(), |_| Ok(())), Err(ExportError::IsDirectory { .. })));
    assert!(matches!(write_file(&dir.path().join("no/file"), |_| Ok(())), Err(ExportError::Io { .. })));
    write_file(Path::new("/dev/null"), |mut file| {
        file.write_all(b"straight").unwrap();
        Ok(())
    })
    .unwrap();
    assert!(!Path::new("/dev/null").is_file());
}

#[test]
fn a_full_device_is_a_clear_error() {
    let (_dir, store) = store();
    let image = named(image(&store, "1"), &["app"]);
    let error =
        write_file(Path::new("/dev/full"), |file| write_oci_archive(&store, &image, file)).unwrap_err();
    assert!(matches!(error, ExportError::NoSpace { .. }), "{error}");
}

#[test]
fn a_directory_with_other_things_is_left_alone() {
    let (dir, store) = store();
    let image = named(image(&store, "1"), &["app"]);
    let dest = dir.path().join("home");
    fs::create_dir(&dest).unwrap();
    fs::write(dest.join("thesis"), "x").unwrap();
    let error = write_oci_layout_dir(&store, &image, &dest).unwrap_err();
    assert!(matches!(error, ExportError::NotALayout { .. }));
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 1);
}

#[test]
fn skopeo_reads_all_three() {
    if !has_skopeo("skopeo_reads_all_three") {
        return;
    }
    let (dir, store) = store();
    let descriptor = image(&store, "1");
    let image = named(descriptor.clone(), &["app:1.0"]);
    let path = |name: &str| dir.path().join(name);
    write_oci_layout_dir(&store, &image, &path("layout")).unwrap();
    write_file(&path("oci.tar"), |file| write_oci_archive(&store, &image, file)).unwrap();
    write_file(&path("docker.tar"), |file| write_docker_archive(&store, &image, file)).unwrap();
    for (reference, same_digest) in [
        ("oci:{}/layout:1.0", true),
        ("oci-archive:{}/oci.tar:1.0", true),
        ("docker-archive:{}/docker.tar:app:1.0", false),
    ] {
        let found = skopeo_inspect(&reference.replace("{}", dir.path().to_str().unwrap()));
        assert_eq!(found["Labels"]["seed"], "1", "{reference}");
        assert_eq!(found["Digest"] == descriptor.digest.to_string(), same_digest, "{reference}");
    }
}
