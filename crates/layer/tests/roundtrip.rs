//! What is packed comes out again when it is unpacked.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what is skipped, as tests do"
)]

mod common;

use common::{Raw, header, observe, privileged};
use proptest::prelude::*;
use rbuild_layer::{Compression, Limits, PackOptions, pack_slice, unpack_layer};
use rbuild_oci::Digest;
use rbuild_tree::{
    DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath, Xattrs,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

#[derive(Debug, Clone)]
enum Item {
    Dir,
    File(Vec<u8>),
    Link(String),
    Fifo,
    Device(u32, u32),
    Whiteout,
    HardLink,
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        3 => Just(Item::Dir),
        5 => ("[a-z]{0,12}", 0_usize..200).prop_map(|(text, n)| Item::File(text.repeat(n).into_bytes())),
        2 => "[a-zä/.]{1,130}".prop_map(Item::Link),
        1 => Just(Item::Fifo),
        1 => (1_u32..300, 0_u32..5000).prop_map(|(a, b)| Item::Device(a, b)),
        1 => Just(Item::Whiteout),
        2 => Just(Item::HardLink),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        "[a-c]{120}",
        Just("ü x".to_owned()),
        Just("a-b".to_owned())
    ]
}

type Meta = (u32, u32, u32, i64);

fn entries() -> impl Strategy<Value = Vec<LayerEntry>> {
    let meta = (
        0_u32..0o10000,
        prop_oneof![Just(0_u32), 0..u32::MAX],
        0_u32..70_000,
        -2_000_000_000_i64..10_000_000_000,
    );
    let one = (proptest::collection::vec(name(), 1..4), item(), meta);
    proptest::collection::vec(one, 0..25).prop_map(build)
}

/// Sorted entries without conflicts: every parent is a directory.
fn build(items: Vec<(Vec<String>, Item, Meta)>) -> Vec<LayerEntry> {
    let mut by_path: BTreeMap<TreePath, (Item, Meta)> = BTreeMap::new();
    for (names, item, meta) in items {
        let path = TreePath::clamped(names.join("/")).unwrap();
        for parent in path.ancestors() {
            by_path.insert(parent, (Item::Dir, (0o755, 0, 0, 7)));
        }
        by_path.entry(path).or_insert((item, meta));
    }
    let mut entries = Vec::new();
    let mut first_file = None;
    for (path, (item, (mode, uid, gid, seconds))) in by_path {
        let mut meta = Metadata { mode, uid, gid, ..Metadata::directory(Timestamp { seconds, nanos: 123 }) };
        let (mut data, mut hard_link_to) = (None, None);
        match (item, &first_file) {
            (Item::Whiteout, _) => {
                entries.push(LayerEntry { path, kind: LayerEntryKind::Whiteout });
                continue;
            }
            (Item::HardLink, Some((target, target_meta))) => {
                meta = Metadata::clone(target_meta);
                hard_link_to = Some(TreePath::clone(target));
            }
            (Item::Dir | Item::HardLink, _) => {}
            (Item::File(bytes), _) => {
                meta.kind = FileKind::Regular;
                meta.size = bytes.len() as u64;
                data = Some(DataRef {
                    size: meta.size,
                    digest: Some(Digest::of(&bytes)),
                    source: DataSource::Inline(bytes.into()),
                });
                first_file.get_or_insert((path.clone(), meta.clone()));
            }
            (Item::Link(target), _) => {
                meta.kind = FileKind::Symlink;
                meta.mode = 0o777;
                meta.link_target = target.into_bytes();
            }
            (Item::Fifo, _) => meta.kind = FileKind::Fifo,
            (Item::Device(major, minor), _) => {
                meta.kind = FileKind::CharDevice;
                meta.rdev = (major, minor);
            }
        }
        entries.push(LayerEntry { path, kind: LayerEntryKind::Node { meta, data, hard_link_to } });
    }
    entries
}

/// What [`observe`] should say.
fn expected(entries: &[LayerEntry]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for entry in entries {
        let name = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let LayerEntryKind::Node { meta, data, hard_link_to } = &entry.kind else {
            lines.insert(name, "char 0:0".to_owned());
            continue;
        };
        let what = match (meta.kind, hard_link_to, data) {
            (_, Some(target), _) => format!("same as {}", String::from_utf8_lossy(target.as_bytes())),
            (FileKind::Regular, _, Some(DataRef { source: DataSource::Inline(bytes), .. })) => {
                format!("file {:?}", String::from_utf8_lossy(bytes))
            }
            (FileKind::Symlink, ..) => format!("-> {}", String::from_utf8_lossy(&meta.link_target)),
            (FileKind::Fifo, ..) => "fifo".into(),
            (FileKind::CharDevice, ..) => format!("char {}:{}", meta.rdev.0, meta.rdev.1),
            _ => "dir".into(),
        };
        let line = format!("{what} {:o} {}:{} {}.0", meta.mode, meta.uid, meta.gid, meta.mtime.seconds);
        lines.insert(name, line);
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unpacked_is_what_was_packed(entries in entries(), zstd in any::<bool>()) {
        if !privileged("unpacked_is_what_was_packed") {
            return Ok(());
        }
        let compression = if zstd { Compression::Zstd { level: 3 } } else { Compression::default() };
        let mut blob = Vec::new();
        let packed = pack_slice(&entries, &PackOptions { compression, epoch: None, ..PackOptions::default() }, &mut blob).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dest = File::open(dir.path()).unwrap();
        let unpacked = unpack_layer(&blob[..], packed.media_type, &dest, &Limits::default()).unwrap();
        prop_assert_eq!((unpacked.diff_id, unpacked.tar_size), (packed.diff_id, packed.tar_size));
        prop_assert_eq!(unpacked.entries, entries.len() as u64);
        prop_assert!(unpacked.implied_parents.is_empty());
        prop_assert_eq!(observe(dir.path()), expected(&entries));
    }

    #[test]
    fn any_bytes_are_refused_or_unpacked_but_never_a_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..2000),
        spots in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { entries: 100, bytes: 1 << 20 };
        let _ = unpack_layer(&garbage[..], "", File::open(dir.path()).unwrap(), &limits);
        // A valid archive with some bytes changed, checksums repaired.
        let mut tar = Raw::new().pax(&[("mtime", b"1.5"), ("GNU.sparse.map", b"0,1")]).file("f", "data").dir("d").end();
        for (at, byte) in spots {
            let at = at % tar.len();
            tar[at] = byte;
        }
        for block in tar.chunks_exact_mut(512) {
            if block[257..262] == *b"ustar" {
                let sealed = common::seal(block.try_into().unwrap());
                block.copy_from_slice(&sealed);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let _ = unpack_layer(&tar[..], "", File::open(dir.path()).unwrap(), &limits);
    }
}

#[test]
fn attributes_setuid_and_capabilities_survive() {
    if !privileged("attributes_setuid_and_capabilities_survive") {
        return;
    }
    // VFS_CAP_REVISION_2 with cap_net_raw, effective.
    let capability: Vec<u8> = [1, 0, 0, 2, 0, 0x20, 0, 0].into_iter().chain([0; 12]).collect();
    let bytes = b"#!";
    let meta = Metadata {
        kind: FileKind::Regular,
        mode: 0o4755,
        uid: 1000,
        gid: 50,
        size: 2,
        xattrs: Xattrs::from([(b"security.capability".to_vec(), capability.clone())]),
        ..Metadata::directory(Timestamp { seconds: 5, nanos: 0 })
    };
    let data =
        DataRef { size: 2, digest: Some(Digest::of(bytes)), source: DataSource::Inline((*bytes).into()) };
    let kind = LayerEntryKind::Node { meta, data: Some(data), hard_link_to: None };
    let mut blob = Vec::new();
    let entries = [LayerEntry { path: TreePath::clamped("ping").unwrap(), kind }];
    pack_slice(&entries, &PackOptions::default(), &mut blob).unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack_layer(&blob[..], "", File::open(dir.path()).unwrap(), &Limits::default()).unwrap();
    let seen = dir.path().join("ping").metadata().unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o4755, 1000, 50));
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(dir.path().join("ping"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..n], capability);
}

#[test]
fn directories_keep_their_times_and_implied_ones_are_reported() {
    if !privileged("directories_keep_their_times_and_implied_ones_are_reported") {
        return;
    }
    let mut root = header(b"./", b'5', 0);
    root[100..108].copy_from_slice(b"0001777\0");
    let tar = Raw::new()
        .pax(&[("mtime", b"1234.567890123")])
        .raw(root, b"")
        .pax(&[("mtime", b"-1.5")])
        .dir("d")
        .file("d/f", "x")
        .file("i/j/f", "x")
        .end();
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack_layer(&tar[..], "", File::open(dir.path()).unwrap(), &Limits::default()).unwrap();
    let at = |name: &str| {
        let meta = dir.path().join(name).metadata().unwrap();
        (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(at(""), (0o1777, 1234, 567_890_123));
    assert_eq!(at("d"), (0o755, -2, 500_000_000));
    assert_eq!((at("i"), at("i/j")), ((0o755, 0, 0), (0o755, 0, 0)));
    let implied: Vec<String> = unpacked.implied_parents.iter().map(ToString::to_string).collect();
    assert_eq!(implied, ["/i", "/i/j"]);
    assert_eq!((unpacked.diff_id, unpacked.tar_size), (Digest::of(&tar), tar.len() as u64));
}
