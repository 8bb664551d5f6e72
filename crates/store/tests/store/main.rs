//! Tests of the store through its public interface, on a real directory.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod basics;
mod budget;
mod cache_mounts;
mod crash;
mod damage;
mod fsck;
mod full;
mod images;
mod power;
mod prune;
mod records;
mod sharing;
mod usage;

use rbuild_oci::{Descriptor, Digest, media_type};
use rbuild_store::{Layer, LayerKind, Record, Store};
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("root")).unwrap();
    (dir, store)
}

/// A valid single-layer image whose blobs differ by `seed`.
fn tiny_image(store: &Store, seed: &str) -> Descriptor {
    // An empty tar: two zero blocks.
    let (layer, size) = store.put_blob(&[0; 1024]).unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [layer]}, "history": [{"created_by": seed}],
    });
    let (config, config_size) = store.put_blob(config.to_string().as_bytes()).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::new(media_type::OCI_CONFIG, config, config_size),
        "layers": [Descriptor::new(media_type::OCI_LAYER, layer, size)],
    });
    let (digest, size) = store.put_blob(manifest.to_string().as_bytes()).unwrap();
    Descriptor::new(media_type::OCI_MANIFEST, digest, size)
}

fn layer(id: Digest) -> Layer {
    Layer {
        id,
        kind: LayerKind::Built,
        content_digest: None,
        created: 1,
        created_nanos: 2,
        bytes: 3,
        has_dir: false,
    }
}

fn record(key: Digest, chain: Vec<Digest>) -> Record {
    Record {
        key,
        op_digest: Digest::of("op"),
        content_key: None,
        layer: chain.last().copied(),
        chain,
        content_id: None,
        config: None,
        created: 1,
        cost_ms: 5,
        last_used: 0,
        uses: 0,
    }
}

/// Commits a layer directory with one file.
fn make_layer(store: &Store, id: &Digest, text: &str) {
    let ingest = store.new_layer_dir().unwrap();
    std::fs::write(ingest.upper.join("file"), text).unwrap();
    store.commit_layer_dir(ingest, id).unwrap();
}
