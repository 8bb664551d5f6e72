//! The documents of a cache: what is written can be read, by BuildKit's rules too; what others write does no harm.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use proptest::prelude::*;
use rbuild_cache::{
    CONFIG_MEDIA_TYPE, Contents, Form, MAX_CHAIN, RemoteLayer, RemoteRecord, config_json, inline_value,
    manifest_json, parse_config, parse_inline,
};
use rbuild_oci::{Descriptor, Digest, media_type};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;

fn layer(name: &str) -> RemoteLayer {
    let kind = media_type::OCI_LAYER_GZIP;
    RemoteLayer {
        diff_id: Digest::of(format!("tar {name}")),
        blob: Some(Descriptor::new(kind, Digest::of(format!("blob {name}")), 100)),
        content: Some(Digest::of(format!("content {name}"))),
        created: Some((1_700_000_000, 7)),
        epoch: None,
    }
}

fn base() -> RemoteLayer {
    RemoteLayer { diff_id: Digest::of("base"), blob: None, content: None, created: None, epoch: None }
}

fn record(name: &str, chain: &[usize]) -> RemoteRecord {
    RemoteRecord {
        key: Digest::of(format!("key {name}")),
        operation: Digest::of(format!("op {name}")),
        content_key: None,
        reads_parent: true,
        needs: vec![Digest::of("key before")],
        name: format!("[1/2] RUN {name}"),
        chain: chain.to_vec(),
        created: 1_700_000_000,
        cost_ms: 12,
        config: None,
        preimage: Some(r#"{"name":"x"}"#.into()),
    }
}

fn two_steps() -> Contents {
    Contents {
        layers: vec![base(), layer("a"), layer("b")],
        records: vec![record("a", &[0, 1]), record("b", &[0, 1, 2])],
    }
}

/// BuildKit's types (C-027), with exactly its fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KitLayer {
    blob: Digest,
    parent: i64,
    annotations: KitAnnotations,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KitAnnotations {
    media_type: String,
    #[serde(rename = "diffID")]
    diff_id: Digest,
    size: i64,
    created_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KitRecord {
    digest: Digest,
    #[serde(default)]
    layers: Vec<KitResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KitResult {
    layer: usize,
    created_at: String,
}

#[test]
fn c_027_buildkit_can_follow_every_record_to_its_blobs() {
    let contents = two_steps();
    let bytes = config_json(&contents).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let layers: Vec<KitLayer> = serde_json::from_value(value["layers"].clone()).unwrap();
    let records: Vec<KitRecord> = serde_json::from_value(value["records"].clone()).unwrap();
    let config = Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of(&bytes), bytes.len() as u64);
    let (kind, manifest) = manifest_json(&contents, &config, Form::Manifest).unwrap();
    assert_eq!(kind, media_type::OCI_MANIFEST);
    let manifest: rbuild_oci::Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.config.media_type, CONFIG_MEDIA_TYPE);
    let blobs: HashSet<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    for found in &manifest.layers {
        assert!(found.annotations["containerd.io/uncompressed"].starts_with("sha256:"));
    }
    let expected: [&[&str]; 2] = [&["blob a"], &["blob a", "blob b"]];
    for ((record, own), expected) in records.iter().zip(&contents.records).zip(expected) {
        assert_eq!(record.digest, own.key);
        assert_eq!(record.layers[0].created_at, "2023-11-14T22:13:20Z");
        let mut chain = Vec::new();
        let mut at = i64::try_from(record.layers[0].layer).unwrap();
        while at >= 0 {
            assert!(chain.len() <= layers.len(), "a circle");
            let layer = &layers[usize::try_from(at).unwrap()];
            assert!(blobs.contains(&layer.blob), "a blob that the manifest does not name");
            assert_eq!(
                (&*layer.annotations.media_type, layer.annotations.size),
                (media_type::OCI_LAYER_GZIP, 100)
            );
            assert_eq!(layer.annotations.created_at, "2023-11-14T22:13:20Z");
            assert_ne!(layer.annotations.diff_id, layer.blob);
            chain.push(layer.blob);
            at = layer.parent;
        }
        chain.reverse();
        assert_eq!(chain, expected.iter().map(Digest::of).collect::<Vec<_>>());
    }
}

#[test]
fn the_older_form_is_an_index_of_blobs() {
    let contents = two_steps();
    let config = Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of("config"), 6);
    for (oci, expected) in [(true, media_type::OCI_INDEX), (false, media_type::DOCKER_INDEX)] {
        let (kind, bytes) = manifest_json(&contents, &config, Form::Index { oci }).unwrap();
        assert_eq!(kind, expected);
        let index: rbuild_oci::Index = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(index.manifests.len(), 3);
        assert_eq!(index.manifests[2], config);
    }
}

/// BuildKit reads no config longer than 1 MiB.
#[test]
fn long_preimages_are_left_out_of_a_long_config() {
    let mut contents = two_steps();
    contents.records[0].preimage = Some(json!("x".repeat(2 << 20)).to_string());
    let bytes = config_json(&contents).unwrap();
    assert!(bytes.len() < 10_000);
    let read = parse_config(&bytes).unwrap().unwrap();
    assert!(read.records.iter().all(|record| record.preimage.is_none()));
    assert_eq!(read.records.len(), 2);
}

#[test]
fn what_is_not_ours_is_nothing_and_what_is_broken_is_an_error() {
    let good: Value = serde_json::from_slice(&config_json(&two_steps()).unwrap()).unwrap();
    let with = |path: &str, value: Value| {
        let mut config = good.clone();
        *config.pointer_mut(path).unwrap() = value;
        config.to_string()
    };
    for nothing in [
        "{}".to_owned(),
        r#"{"layers":[{"blob":"sha256:x","parent":0}],"records":[{"digest":1,"inputs":[[{"link":0}]]}]}"#
            .to_owned(),
        with("/rbuild/version", json!(2)),
        with("/rbuild", json!({})),
        with("/rbuild", Value::Null),
    ] {
        assert_eq!(parse_config(nothing.as_bytes()), Ok(None), "{nothing}");
    }
    for broken in [
        String::new(),
        "null-and-more".to_owned(),
        with("/rbuild", json!("x")),
        with("/rbuild/version", json!(-1)),
        with("/rbuild/records/0/chain", json!([3])),
        with("/rbuild/records/0/chain", json!([-1])),
        with("/rbuild/records/0/chain", json!([1.5])),
        with("/rbuild/records/0/chain", json!([])),
        with("/rbuild/records/0/chain", json!(vec![0; MAX_CHAIN + 1])),
        with("/rbuild/records/0/key", json!("sha256:../../etc/passwd")),
        with("/rbuild/layers/1/diffID", json!("sha512:00")),
        with("/rbuild/layers/1/blob/size", json!(-1)),
        with("/rbuild/layers/1/created", json!([0, -1])),
        "[".repeat(100_000),
    ] {
        assert!(parse_config(broken.as_bytes()).is_err(), "{broken}");
    }
}

#[test]
fn records_without_their_blobs_are_left_out_with_their_layers() {
    let mut contents = two_steps();
    contents.records.push(record("c", &[2]));
    contents.retain_present(|blob| *blob != Digest::of("blob a"));
    assert_eq!(contents.records.iter().map(|record| record.key).collect::<Vec<_>>(), [Digest::of("key c")]);
    assert_eq!((contents.layers.clone(), contents.records[0].chain.clone()), (vec![layer("b")], vec![0]));
    assert!(contents.check().is_ok());
}

#[test]
fn c_029_inline_records_come_back_as_prefixes_of_the_image() {
    let contents = two_steps();
    let value = inline_value(&contents).unwrap();
    let blobs: Vec<Descriptor> = ["base", "a", "b"]
        .map(|name| Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(format!("blob {name}")), 100))
        .to_vec();
    let diff_ids: Vec<Digest> = contents.layers.iter().map(|layer| layer.diff_id).collect();
    let read = parse_inline(&value, &blobs, &diff_ids).unwrap().unwrap();
    assert_eq!(read.layers, contents.layers, "the base's layer is had from the base");
    let chains: Vec<&[usize]> = read.records.iter().map(|record| &record.chain[..]).collect();
    assert_eq!(chains, [&[0, 1][..], &[0, 1, 2]]);
    assert_eq!(read.records[1].operation, contents.records[1].operation);
    assert!(parse_inline(&value, &blobs[..2], &diff_ids).is_err());
    assert!(
        parse_inline(&value, &blobs[..2], &diff_ids[..2]).is_err(),
        "a record of a layer that is not there"
    );
    assert!(parse_inline("no base64!", &blobs, &diff_ids).is_err());
    let kit = r#"[{"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae","layers":[{"layer":1}]}]"#;
    let kit = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, kit);
    assert_eq!(parse_inline(&kit, &blobs, &diff_ids), Ok(None), "BuildKit's own");
}

fn any_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn any_layer() -> impl Strategy<Value = RemoteLayer> {
    let blob = proptest::option::of(
        (any_digest(), any::<u64>())
            .prop_map(|(digest, size)| Descriptor::new(media_type::OCI_LAYER_ZSTD, digest, size)),
    );
    let created = proptest::option::of((any::<i64>(), 0..1_000_000_000_u32));
    let epoch = proptest::option::of(any::<i64>());
    (any_digest(), blob, proptest::option::of(any_digest()), created, epoch).prop_map(
        |(diff_id, blob, content, created, epoch)| RemoteLayer { diff_id, blob, content, created, epoch },
    )
}

fn any_contents() -> impl Strategy<Value = Contents> {
    let record = |layers: usize| {
        let ids = (
            any_digest(),
            any_digest(),
            proptest::option::of(any_digest()),
            proptest::collection::vec(any_digest(), 0..3),
        );
        let chain = proptest::collection::vec(0..layers, 1..5);
        (ids, any::<bool>(), ".*", chain, any::<i64>(), any::<u64>()).prop_map(
            |((key, operation, content_key, needs), reads_parent, name, chain, created, cost_ms)| {
                let (config, preimage) = (Some(name.clone()), Some(json!({ "a": name }).to_string()));
                RemoteRecord {
                    key,
                    operation,
                    content_key,
                    reads_parent,
                    needs,
                    name,
                    chain,
                    created,
                    cost_ms,
                    config,
                    preimage,
                }
            },
        )
    };
    proptest::collection::vec(any_layer(), 1..6).prop_flat_map(move |layers| {
        let records = proptest::collection::vec(record(layers.len()), 0..6);
        (Just(layers), records).prop_map(|(layers, records)| Contents { layers, records })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(contents in any_contents()) {
        let bytes = config_json(&contents).unwrap();
        prop_assert_eq!(parse_config(&bytes).unwrap(), Some(contents));
    }

    #[test]
    fn no_bytes_are_harmful(bytes in proptest::collection::vec(any::<u8>(), 0..500), at in 0..2000_usize, byte: u8) {
        drop(parse_config(&bytes));
        let mut damaged = config_json(&two_steps()).unwrap();
        let at = at % damaged.len();
        damaged[at] = byte;
        if let Ok(Some(contents)) = parse_config(&damaged) {
            prop_assert!(contents.check().is_ok());
        }
    }
}
