//! Cache records, layers' rows, packed forms, resolutions.

use crate::{layer, make_layer, record, store};
use rbuild_oci::{Descriptor, Digest, Platform};
use rbuild_store::{Batch, Layer, LayerKind, Packed, Record};
use std::fs;

fn packed(layer: Digest, epoch: Option<i64>, blob: Digest) -> Packed {
    Packed {
        layer,
        codec: "gzip-4.1".into(),
        epoch,
        diff_id: Digest::of("tar"),
        blob,
        size: 5,
        tar_size: 1024,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
    }
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let (_dir, store) = store();
    let ids = [Digest::of("base"), Digest::of("top")];
    for id in &ids {
        make_layer(&store, id, "x");
    }
    let full = Record {
        content_key: Some(Digest::of("content key")),
        content_id: Some(Digest::of("content id")),
        config: Some("{\"a\":1}".into()),
        ..record(Digest::of("key"), ids.to_vec())
    };
    let bare = Record { layer: None, ..record(Digest::of("bare"), vec![]) };
    let batch = Batch::new().layer(layer(ids[0])).layer(layer(ids[1]));
    store.write(&batch.record(full.clone(), "{\"why\":[]}").record_only(bare.clone())).unwrap();

    let found = store.records(&[bare.key, Digest::of("nothing"), full.key]).unwrap();
    let without_time = |record: &Option<Record>| record.clone().map(|r| Record { last_used: 0, ..r });
    assert_eq!(
        found.iter().map(without_time).collect::<Vec<_>>(),
        [Some(bare.clone()), None, Some(full.clone())]
    );
    assert_eq!(store.preimage(&full.key).unwrap().as_deref(), Some("{\"why\":[]}"));
    assert_eq!(store.preimage(&bare.key).unwrap(), None);
    let by_content = store.record_by_content(&Digest::of("content key")).unwrap().unwrap();
    assert_eq!(by_content.key, full.key);
    assert!(store.any_record_of_op(&Digest::of("op")).unwrap());
    assert!(!store.any_record_of_op(&Digest::of("another op")).unwrap());
    assert_eq!(store.records_of_op(&Digest::of("op"), 9).unwrap().len(), 2);
    assert_eq!(store.layer(&ids[0]).unwrap(), Some(Layer { has_dir: true, ..layer(ids[0]) }));

    store.put_record(Record { cost_ms: 99, ..full.clone() }, "[]").unwrap();
    assert_eq!(store.record(&full.key).unwrap().unwrap().cost_ms, 99);
    assert_eq!(store.preimage(&full.key).unwrap().as_deref(), Some("[]"));
}

#[test]
fn a_record_without_its_layers_is_dropped() {
    let (_dir, store) = store();
    let (dir_layer, blob_layer) = (Digest::of("dir"), Digest::of("blob"));
    make_layer(&store, &dir_layer, "x");
    let (blob, _) = store.put_blob(b"bytes").unwrap();
    let record = record(Digest::of("key"), vec![dir_layer, blob_layer]);
    store.write(&Batch::new().packed(packed(blob_layer, None, blob)).record(record.clone(), "{}")).unwrap();
    assert!(store.record(&record.key).unwrap().is_some());
    fs::remove_file(store.blob_path(&blob)).unwrap();
    assert_eq!(store.record(&record.key).unwrap(), None);
    store.put_blob(b"bytes").unwrap();
    assert_eq!(store.record(&record.key).unwrap(), None, "it is gone, not hidden");
    assert!(store.evicted(&record.key).unwrap().is_some());
}

#[test]
fn a_pulled_layer_need_not_be_here() {
    let (_dir, store) = store();
    let base = Digest::of("base");
    let blob = Digest::of("remote");
    let pulled = Layer { kind: LayerKind::Pulled, ..layer(base) };
    let record = record(Digest::of("key"), vec![base]);
    store
        .write(&Batch::new().layer(pulled).packed(packed(base, None, blob)).record(record.clone(), "{}"))
        .unwrap();
    store.remember_blob_sources(&[blob], "docker.io/library/debian").unwrap();
    assert!(store.record(&record.key).unwrap().is_some());
    assert!(store.packed_any(&base).unwrap().is_empty());
    assert_eq!(store.packed_known(&base).unwrap().len(), 1);
    assert_eq!(store.blob_sources(&blob).unwrap(), ["docker.io/library/debian"]);
}

#[test]
fn packed_forms_are_told_apart_by_codec_and_epoch() {
    let (_dir, store) = store();
    let id = Digest::of("layer");
    let mut forms = Vec::new();
    for (text, epoch) in [("none.", None), ("zero.", Some(0)), ("first", Some(1)), ("minus", Some(-1))] {
        let (blob, _) = store.put_blob(text.as_bytes()).unwrap();
        forms.push(packed(id, epoch, blob));
        store.put_packed(forms[forms.len() - 1].clone()).unwrap();
    }
    for form in &forms {
        assert_eq!(store.packed(&id, "gzip-4.1", form.epoch).unwrap().as_ref(), Some(form));
    }
    assert_eq!(store.packed(&id, "zstd-3", None).unwrap(), None);
    assert_eq!(store.packed_any(&id).unwrap().len(), 4);
    fs::remove_file(store.blob_path(&forms[0].blob)).unwrap();
    assert_eq!(store.packed(&id, "gzip-4.1", None).unwrap(), None);
    fs::write(store.blob_path(&forms[1].blob), "").unwrap();
    assert_eq!(store.packed(&id, "gzip-4.1", Some(0)).unwrap(), None, "cut short");
}

#[test]
fn equal_content_finds_the_oldest_layer_that_is_here() {
    let (_dir, store) = store();
    let content = Some(Digest::of("content"));
    for (name, created, here) in [("gone", 1, false), ("old", 2, true), ("new", 3, true)] {
        let id = Digest::of(name);
        if here {
            make_layer(&store, &id, name);
        }
        store.put_layer(Layer { created, content_digest: content, ..layer(id) }).unwrap();
    }
    let found = store.layer_by_content(&Digest::of("content")).unwrap().unwrap();
    assert_eq!((found.id, found.has_dir), (Digest::of("old"), true));
    store.put_layer(Layer { created: 9, content_digest: None, ..layer(found.id) }).unwrap();
    assert_eq!(store.layer(&found.id).unwrap().unwrap().content_digest, content);
}

#[test]
fn uses_are_written_when_the_lease_ends() {
    let (_dir, store) = store();
    let record = record(Digest::of("key"), vec![]);
    let record = Record { layer: None, ..record };
    store.put_record(record.clone(), "{}").unwrap();
    let lease = store.lease().unwrap();
    assert_eq!(store.record(&record.key).unwrap().unwrap().uses, 0);
    assert_eq!(store.record(&record.key).unwrap().unwrap().uses, 0);
    drop(lease);
    assert_eq!(store.record(&record.key).unwrap().unwrap().uses, 1);
    store.touch(&[record.key]).unwrap();
    assert_eq!(store.record(&record.key).unwrap().unwrap().uses, 2);
}

#[test]
fn a_resolution_is_per_platform() {
    let (_dir, store) = store();
    let name = "debian:13".parse().unwrap();
    let descriptor = Descriptor::new("application/vnd.oci.image.manifest.v1+json", Digest::of("m"), 7);
    store.remember_resolution(&name, &Platform::linux("amd64"), &descriptor).unwrap();
    let found = store.resolution(&name, &Platform::linux("amd64")).unwrap().unwrap();
    assert_eq!(found.descriptor, descriptor);
    assert!(found.resolved > 0);
    assert_eq!(store.resolution(&name, &Platform::linux("arm64")).unwrap(), None);
}
