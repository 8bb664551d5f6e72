use super::*;
use rbuild_tree::{DataRef, DataSource, FileKind, LayerEntryKind, Metadata, Timestamp, TreePath};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

fn path(text: &str) -> TreePath {
    TreePath::clamped(text).unwrap()
}

fn node(name: &str, kind: FileKind) -> (TreePath, Metadata) {
    (
        path(name),
        Metadata {
            kind,
            mode: 0o644,
            ..Metadata::directory(Timestamp { seconds: 1000, nanos: 999_999_999 })
        },
    )
}

fn plain(name: &str, kind: FileKind) -> LayerEntry {
    let (path, meta) = node(name, kind);
    LayerEntry { path, kind: LayerEntryKind::Node { meta, data: None, hard_link_to: None } }
}

fn file(name: &str, bytes: &[u8]) -> LayerEntry {
    let data = DataRef {
        size: bytes.len() as u64,
        digest: Some(Digest::of(bytes)),
        source: DataSource::Inline(bytes.into()),
    };
    let (path, meta) = node(name, FileKind::Regular);
    let meta = Metadata { size: data.size, ..meta };
    LayerEntry { path, kind: LayerEntryKind::Node { meta, data: Some(data), hard_link_to: None } }
}

fn packed(entries: &[LayerEntry], compression: Compression) -> (Vec<u8>, Packed) {
    let mut out = Vec::new();
    let packed =
        pack_slice(entries, &PackOptions { compression, epoch: None, ..PackOptions::default() }, &mut out)
            .unwrap();
    assert_eq!((packed.blob, packed.size), (Digest::of(&out), out.len() as u64));
    (out, packed)
}

fn tar_of(entries: &[LayerEntry]) -> Vec<u8> {
    packed(entries, Compression::None).0
}

/// Bytes that repeat nothing, the same every time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn prose(len: usize) -> Vec<u8> {
    (0..).flat_map(|i: u64| format!("line {} of many, {}\n", i, i * i % 977).into_bytes()).take(len).collect()
}

#[test]
fn the_empty_layer_is_the_one_everybody_has() {
    let (bytes, packed) = packed(&[], Compression::default());
    let known = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!((packed.diff_id.to_string().as_str(), packed.tar_size), (known, 1024));
    assert_eq!(packed.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

#[test]
fn an_independent_reader_sees_the_entries() {
    let hard = LayerEntry {
        path: path("d/hard"),
        kind: LayerEntryKind::Node {
            meta: node("", FileKind::Regular).1,
            data: None,
            hard_link_to: Some(path("d/file")),
        },
    };
    let (link_path, meta) = node("d/link", FileKind::Symlink);
    let meta = Metadata { link_target: b"../x".to_vec(), ..meta };
    let link =
        LayerEntry { path: link_path, kind: LayerEntryKind::Node { meta, data: None, hard_link_to: None } };
    let entries = [
        plain("d", FileKind::Directory),
        LayerEntry { path: path("d"), kind: LayerEntryKind::Opaque },
        file("d/file", b"hello"),
        LayerEntry { path: path("d/gone"), kind: LayerEntryKind::Whiteout },
        hard,
        link,
        plain("d/pipe", FileKind::Fifo),
        plain("d/socket", FileKind::Socket),
    ];
    let bytes = tar_of(&entries);
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        let line = (
            String::from_utf8(entry.path_bytes().into_owned()).unwrap(),
            header.entry_type().as_byte(),
            header.mode().unwrap(),
            header.mtime().unwrap(),
            String::from_utf8(entry.link_name_bytes().unwrap_or_default().into_owned()).unwrap(),
        );
        let mut data = String::new();
        entry.read_to_string(&mut data).unwrap();
        seen.push(format!("{line:?} {data}"));
    }
    assert_eq!(
        seen,
        [
            r#"("d/", 53, 420, 1000, "") "#,
            r#"("d/.wh..wh..opq", 48, 0, 0, "") "#,
            r#"("d/file", 48, 420, 1000, "") hello"#,
            r#"("d/.wh.gone", 48, 0, 0, "") "#,
            r#"("d/hard", 49, 420, 1000, "d/file") "#,
            r#"("d/link", 50, 420, 1000, "../x") "#,
            r#"("d/pipe", 54, 420, 1000, "") "#,
        ]
    );
    assert_eq!(bytes.len(), 512 * 8 + 1024);
}

#[test]
fn later_times_become_the_epoch() {
    let at = |seconds| {
        let (path, meta) = node("f", FileKind::Directory);
        let meta = Metadata { mtime: Timestamp { seconds, nanos: 5 }, ..meta };
        LayerEntry { path, kind: LayerEntryKind::Node { meta, data: None, hard_link_to: None } }
    };
    for (time, epoch, expected) in
        [(1000, None, 1000), (1000, Some(999), 999), (1000, Some(1000), 1000), (1000, Some(1001), 1000)]
    {
        let mut out = Vec::new();
        pack_slice(
            &[at(time)],
            &PackOptions { compression: Compression::None, epoch, ..PackOptions::default() },
            &mut out,
        )
        .unwrap();
        let expected = format!("{expected:011o}\0");
        assert_eq!(out[136..148], *expected.as_bytes(), "{time} {epoch:?}");
    }
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let root = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
    let big = noise(3 << 20);
    fs::write(dir.path().join("small"), "12345").unwrap();
    fs::write(dir.path().join("big"), &big).unwrap();
    std::os::unix::fs::symlink("small", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    rustix::fs::mknodat(&*root, "fifo", rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let mut other = big.clone();
    other[2 << 20] ^= 1;
    let below = |name: &str| DataSource::Below { root: Arc::clone(&root), path: path(name) };
    let owned = DataSource::Owned(dir.path().join("small"));
    let small = Some(Digest::of("12345"));
    for (what, source, size, digest, fine) in [
        ("right", below("small"), 5, small, true),
        ("unchecked", below("small"), 5, None, true),
        ("owned", owned, 5, small, true),
        ("big", below("big"), 3 << 20, Some(Digest::of(&big)), true),
        ("other bytes", below("small"), 5, Some(Digest::of("54321")), false),
        ("shorter", below("small"), 6, None, false),
        ("longer", below("small"), 4, None, false),
        ("big, other bytes", below("big"), 3 << 20, Some(Digest::of(&other)), false),
        ("big, shorter", below("big"), (3 << 20) + 1, None, false),
        ("big, longer", below("big"), (3 << 20) - 1, None, false),
        ("big, now small", below("small"), 3 << 20, None, false),
        ("gone", below("nothing"), 5, small, false),
        ("now a link", below("link"), 5, small, false),
        ("now a directory", below("dir"), 5, small, false),
        ("now a pipe", below("fifo"), 5, small, false),
        ("inline, other bytes", DataSource::Inline((*b"abcde").into()), 5, small, false),
        ("inline, shorter", DataSource::Inline((*b"1234").into()), 5, None, false),
    ] {
        let (name, meta) = node("the/file", FileKind::Regular);
        let data = Some(DataRef { size, digest, source });
        let entry = LayerEntry { path: name, kind: LayerEntryKind::Node { meta, data, hard_link_to: None } };
        // Alone (inline path), and behind other parts (pool path).
        for before in [0, 300] {
            let mut entries: Vec<_> = (0..before).map(|i| file(&format!("a/{i:04}"), b"x")).collect();
            entries.push(entry.clone());
            let result = pack_slice(&entries, &PackOptions::default(), io::sink());
            match result {
                Ok(_) => assert!(fine, "{what}"),
                Err(PackError::Changed { path }) => assert!(!fine && path == entry.path, "{what}"),
                Err(other) => panic!("{what}: {other}"),
            }
        }
    }
}

#[test]
fn entries_that_cannot_be_packed() {
    let (p, meta) = node("f", FileKind::Regular);
    let no_data = LayerEntry {
        path: p,
        kind: LayerEntryKind::Node { meta: Metadata { size: 1, ..meta }, data: None, hard_link_to: None },
    };
    let whiteout = |name: &str| LayerEntry { path: path(name), kind: LayerEntryKind::Whiteout };
    for (what, entries, message) in [
        ("reserved name", vec![file("a/.wh.b", b"")], ".wh."),
        ("whiteout of the root", vec![whiteout("")], "root"),
        ("no data", vec![no_data], "bytes"),
        ("twice", vec![file("a", b""), file("a", b"")], "order"),
        ("order", vec![file("a-b", b""), file("a/b", b"")], "order"),
    ] {
        let error = pack_slice(&entries, &PackOptions::default(), io::sink()).unwrap_err().to_string();
        assert!(error.contains(message), "{what}: {error}");
    }
    for compression in
        [Compression::Gzip { level: 10 }, Compression::Zstd { level: 23 }, Compression::Zstd { level: -1 }]
    {
        let error =
            pack_slice(&[], &PackOptions { compression, epoch: None, ..PackOptions::default() }, io::sink())
                .unwrap_err();
        assert!(matches!(error, PackError::Level { .. }), "{compression:?}");
    }
    let failing = [Ok(file("a", b"")), Err(io::Error::other("walk failed"))];
    let error = pack(failing, &PackOptions::default(), io::sink()).unwrap_err();
    assert!(error.to_string().contains("walk failed"));
}

#[test]
fn a_full_disk_is_an_error_and_nobody_hangs() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let megabyte = noise(1 << 20);
    let entries: Vec<_> = (0..40).map(|i| file(&format!("{i:02}"), &megabyte)).collect();
    for compression in [Compression::None, Compression::default(), Compression::Zstd { level: 3 }] {
        for room in [0, 5, 10 << 20] {
            let options = PackOptions { compression, epoch: None, ..PackOptions::default() };
            let error = pack_slice(&entries, &options, Full(room)).unwrap_err();
            assert!(matches!(error, PackError::Write(_)), "{error}");
        }
    }
}

#[test]
fn every_codec_gives_back_the_tar() {
    // Prose, noise and prose again: deflated, stored and deflated chunks with a dictionary across the border.
    let entries = [
        file("a", &prose(2_500_000)),
        file("b", &noise(3_000_000)),
        file("c", &prose(700_000)),
        file("d", b"end"),
    ];
    let tar = tar_of(&entries);
    for compression in [
        Compression::Gzip { level: 0 },
        Compression::Gzip { level: 1 },
        Compression::default(),
        Compression::Gzip { level: 9 },
        Compression::Zstd { level: 0 },
        Compression::Zstd { level: 3 },
        Compression::Zstd { level: 19 },
    ] {
        let (blob, packed) = packed(&entries, compression);
        assert_eq!(
            (packed.diff_id, packed.tar_size),
            (Digest::of(&tar), tar.len() as u64),
            "{compression:?}"
        );
        let mut back = Vec::new();
        match compression {
            Compression::Zstd { .. } => {
                _ = zstd::Decoder::new(&blob[..]).unwrap().read_to_end(&mut back).unwrap()
            }
            _ => {
                // A single-member reader must reach the end, and the end of the member the end of the blob.
                let mut decoder = flate2::bufread::GzDecoder::new(&blob[..]);
                decoder.read_to_end(&mut back).unwrap();
                assert!(decoder.into_inner().is_empty(), "{compression:?}: more than one member");
            }
        }
        assert!(back == tar, "{compression:?}");
        if compression == Compression::default() {
            assert!(blob.len() > 3_000_000 && blob.len() < 3_900_000, "{}", blob.len());
        }
    }
}

#[test]
fn gzip_itself_accepts_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let file_path = dir.path().join("layer.gz");
    let (blob, _) =
        packed(&[file("a", &prose(1_500_000)), file("b", &noise(1_500_000))], Compression::default());
    fs::write(&file_path, blob).unwrap();
    match std::process::Command::new("gzip").arg("-tv").arg(&file_path).output() {
        Err(error) => println!("skipped: gzip_itself_accepts_the_blob: no gzip: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn bytes_do_not_depend_on_where_and_when_they_are_made() {
    let text = prose(30_000);
    let mut entries: Vec<_> = (0..600).map(|i| file(&format!("{i:04}"), &text[..i * 37])).collect();
    entries.push(file("z1", &prose(4_000_000)));
    entries.push(file("z2", &noise(2_000_000)));
    for compression in
        [Compression::default(), Compression::Gzip { level: 9 }, Compression::Zstd { level: 3 }]
    {
        let (_, first) = packed(&entries, compression);
        // Other data in between must not leave traces in reused state.
        packed(&[file("x", &noise(3_000_000)), file("y", &prose(3_000_000))], compression);
        assert_eq!(packed(&entries, compression).1, first, "{compression:?}");
        // Inside a pool everything happens on the calling thread.
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(
                pool.install(|| packed(&entries, compression).1),
                first,
                "{compression:?}, {threads} threads"
            );
        }
    }
}

/// The bytes are part of what users rely on: a change here is a versioned change (DESIGN promise 3).
#[test]
fn golden_bytes() {
    let entries =
        [file("a", &prose(1_300_000)), file("b", &noise(1_100_000)), plain("c", FileKind::Directory)];
    for (compression, blob) in [
        (Compression::None, GOLDEN_NONE),
        (Compression::default(), GOLDEN_GZIP),
        (Compression::Zstd { level: DEFAULT_ZSTD_LEVEL }, GOLDEN_ZSTD),
    ] {
        let (_, packed) = packed(&entries, compression);
        assert_eq!(
            (packed.diff_id.short().as_str(), packed.blob.short().as_str()),
            (GOLDEN_NONE, blob),
            "{compression:?}"
        );
    }
}

const GOLDEN_NONE: &str = "62968db52011";
const GOLDEN_GZIP: &str = "10c4a4a8f553";
const GOLDEN_ZSTD: &str = "ad4b1d4d7eca";
