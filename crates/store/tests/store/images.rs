//! `index.json`, and other tools that read it.

use crate::{store, tiny_image};
use rbuild_oci::{Digest, Manifest, Reference};
use rbuild_store::{MatchedBy, Store, StoreError};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn index(store: &Store) -> Value {
    serde_json::from_slice(&fs::read(store.root().join("index.json")).unwrap()).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.images().unwrap().into_iter().filter_map(|image| image.name).collect()
}

#[test]
fn names_are_full_and_unique() {
    let (_dir, store) = store();
    let (one, two) = (tiny_image(&store, "1"), tiny_image(&store, "2"));
    store.tag(&name("app:1.0"), &one).unwrap();
    store.tag_all(&[name("web:1.0"), name("localhost:5000/x")], &two).unwrap();
    let all = ["docker.io/library/app:1.0", "docker.io/library/web:1.0", "localhost:5000/x:latest"];
    assert_eq!(names(&store), all);
    store.tag(&name("app:1.0"), &two).unwrap();
    assert_eq!(names(&store), all, "a moved tag keeps its place");
    assert_eq!(store.images().unwrap()[0].descriptor.digest, two.digest);
    assert!(store.untag(&name("web:1.0")).unwrap());
    assert!(!store.untag(&name("web:1.0")).unwrap());
    assert_eq!(names(&store), [all[0], all[2]]);
}

#[test]
fn a_name_needs_its_blob() {
    let (_dir, store) = store();
    let mut image = tiny_image(&store, "1");
    image.digest = Digest::of("nothing");
    assert!(matches!(store.tag(&name("app"), &image), Err(StoreError::NoBlob(_))));
    assert!(names(&store).is_empty());
}

#[test]
fn what_others_wrote_stays() {
    let (_dir, store) = store();
    let theirs = json!({
        "schemaVersion": 2, "x-top": {"kept": true},
        "manifests": [
            {"mediaType": "a/b", "digest": "sha512:00", "size": 1, "x": [1, 2]},
            {"mediaType": "a/b", "digest": Digest::of("n"), "size": 1},
        ],
    });
    fs::write(store.root().join("index.json"), theirs.to_string()).unwrap();
    let image = tiny_image(&store, "1");
    store.tag(&name("app"), &image).unwrap();
    store.tag(&name("app"), &tiny_image(&store, "2")).unwrap();
    assert!(store.untag(&name("app")).unwrap());
    assert_eq!(index(&store), theirs);
    assert_eq!(store.images().unwrap().len(), 1, "an unknown digest algorithm is not shown");
}

#[test]
fn an_unchanged_tag_writes_nothing() {
    let (_dir, store) = store();
    let mut image = tiny_image(&store, "1");
    image.annotations.insert("org.opencontainers.image.created".into(), "1970-01-01T00:00:00Z".into());
    store.tag(&name("app"), &image).unwrap();
    let inode =
        || std::os::unix::fs::MetadataExt::ino(&fs::metadata(store.root().join("index.json")).unwrap());
    let before = inode();
    store.tag(&name("app"), &image).unwrap();
    assert_eq!(inode(), before);
    assert_eq!(
        store.images().unwrap()[0].descriptor.annotations["org.opencontainers.image.created"],
        "1970-01-01T00:00:00Z"
    );
}

#[test]
fn images_are_found_as_docker_finds_them() {
    let (_dir, store) = store();
    let (one, two) = (tiny_image(&store, "1"), tiny_image(&store, "2"));
    store.tag(&name("app:1.0"), &one).unwrap();
    store.tag(&name("app"), &two).unwrap();
    let find =
        |text: &str| store.find_image(text).unwrap().map(|found| (found.image.descriptor.digest, found.by));
    let manifest: Manifest = serde_json::from_slice(&store.read_blob(&one.digest, 9_999).unwrap()).unwrap();
    let config = manifest.config.digest;
    let by_name = [
        ("app:1.0", one.digest),
        ("docker.io/library/app:1.0", one.digest),
        ("app", two.digest),
        (&format!("app@{}", one.digest), one.digest),
    ];
    for (text, digest) in by_name {
        assert_eq!(find(text), Some((digest, MatchedBy::Name)), "{text}");
    }
    for text in
        [one.digest.to_string(), one.digest.hex(), one.digest.short(), config.to_string(), config.short()]
    {
        assert_eq!(find(&text), Some((one.digest, MatchedBy::Id)), "{text}");
    }
    let other = Digest::of("other");
    for text in
        ["nope", "app:2", "", "sha256:", "zz", &format!("app@{other}"), &format!("web@{}", one.digest)]
    {
        assert_eq!(find(text), None, "{text}");
    }
    let mut ambiguous = None;
    for n in 0..40 {
        let image = tiny_image(&store, &format!("more {n}"));
        store.tag(&name(&format!("more:{n}")), &image).unwrap();
        let clash = image.digest.hex()[..1] == one.digest.hex()[..1];
        ambiguous = ambiguous.or(clash.then(|| one.digest.hex()[..1].to_owned()));
    }
    let prefix = ambiguous.unwrap();
    assert!(matches!(store.find_image(&prefix), Err(StoreError::AmbiguousImage { .. })));
}

#[test]
fn several_names_of_one_image_are_not_ambiguous() {
    let (_dir, store) = store();
    let image = tiny_image(&store, "1");
    store.tag_all(&[name("a"), name("b")], &image).unwrap();
    assert!(store.find_image(&image.digest.short()).unwrap().is_some());
}

#[test]
fn a_damaged_index_is_an_error_and_is_not_overwritten() {
    let (_dir, store) = store();
    let image = tiny_image(&store, "1");
    for bad in ["", "{", "[]", "null", r#"{"manifests":{}}"#, "\u{0}"] {
        fs::write(store.root().join("index.json"), bad).unwrap();
        assert!(matches!(store.images(), Err(StoreError::Damaged { .. })), "{bad}");
        assert!(matches!(store.tag(&name("a"), &image), Err(StoreError::Damaged { .. })), "{bad}");
        assert!(matches!(store.prune(&Default::default()), Err(StoreError::Damaged { .. })), "{bad}");
        assert_eq!(fs::read_to_string(store.root().join("index.json")).unwrap(), bad);
    }
    assert!(store.has_blob(&image.digest).unwrap());
}

#[test]
fn skopeo_reads_the_store() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        println!("skipped: skopeo_reads_the_store: skopeo is not installed");
        return;
    }
    let (_dir, store) = store();
    let (app, web) = (tiny_image(&store, "app"), tiny_image(&store, "web"));
    store.tag(&name("app:1.0"), &app).unwrap();
    store.tag(&name("web:1.0"), &web).unwrap();
    store.lease().unwrap();
    for (name, digest) in [("app", app.digest), ("web", web.digest)] {
        let reference = format!("oci:{}:docker.io/library/{name}:1.0", store.root().display());
        let output = Command::new("skopeo").args(["inspect", &reference]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["Digest"], digest.to_string());
        assert_eq!(found["Labels"]["seed"], name);
    }
}

/// An image that was built without a name is an entry without one: any tool reads the file as before.
#[test]
fn an_unnamed_image_is_listed_until_it_has_a_name() {
    let (_dir, store) = store();
    let (one, two) = (tiny_image(&store, "1"), tiny_image(&store, "2"));
    store.keep_unnamed(&one).unwrap();
    store.keep_unnamed(&one).unwrap();
    store.tag(&name("app"), &two).unwrap();
    store.keep_unnamed(&two).unwrap();
    let listed = || -> Vec<_> {
        store.images().unwrap().into_iter().map(|image| (image.name, image.descriptor.digest)).collect()
    };
    let app = (Some("docker.io/library/app:latest".to_owned()), two.digest);
    assert_eq!(listed(), [(None, one.digest), app.clone()]);
    let found = store.find_image(&one.digest.short()).unwrap().unwrap();
    assert_eq!((found.image.descriptor.digest, found.by), (one.digest, MatchedBy::Id));
    let entry = &index(&store)["manifests"][0];
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], Value::Null);
    assert!(store.remove_unnamed(&one.digest).unwrap() && !store.remove_unnamed(&two.digest).unwrap());
    assert_eq!(listed(), std::slice::from_ref(&app));
    store.keep_unnamed(&one).unwrap();
    store.tag(&name("app:2"), &one).unwrap();
    let named = (Some("docker.io/library/app:2".to_owned()), one.digest);
    assert_eq!(listed(), [app, named]);
    let nowhere = rbuild_oci::Descriptor { digest: Digest::of("nothing"), ..one };
    assert!(matches!(store.keep_unnamed(&nowhere), Err(StoreError::NoBlob(_))));
}
