//! bzip2 and xz, which users' archives come in, against the programs that make them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests panic when something is wrong and say what they skip"
)]

mod common;

use common::Raw;
use proptest::prelude::*;
use rbuild_layer::{
    Codec, DecompressError, Limits, decompress_sniffed, is_archive, stage_archive, unpack_archive,
};
use rbuild_oci::Digest;
use rbuild_tree::LayerEntryKind;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// What a program makes of `data`; `None`, with a line, when there is no such program.
fn filtered(test: &str, program: &[&str], data: &[u8]) -> Option<Vec<u8>> {
    let child =
        Command::new(program[0]).args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("skipped: {test}: {} is not installed", program[0]);
        return None;
    };
    let (mut input, data) = (child.stdin.take().unwrap(), data.to_vec());
    let writer = std::thread::spawn(move || input.write_all(&data));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program:?}");
    Some(output.stdout)
}

fn decompressed(data: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut reader = decompress_sniffed(data).map_err(|e| e.to_string())?;
    reader.read_to_end(&mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that neither compress to nothing nor stay as they are.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 28) as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn what_the_programs_write_is_read() {
    let test = "what_the_programs_write_is_read";
    let data = sample(400_000);
    for (program, codec) in [
        (&["bzip2", "-1"][..], Codec::Bzip2),
        (&["bzip2", "-9"], Codec::Bzip2),
        (&["xz", "-0"], Codec::Xz),
        (&["xz", "-9"], Codec::Xz),
        (&["xz", "-T2", "--block-size=30000"], Codec::Xz),
        (&["xz", "--check=none"], Codec::Xz),
        (&["xz", "--check=crc32"], Codec::Xz),
        (&["xz", "--check=sha256"], Codec::Xz),
        (&["xz", "--x86", "--lzma2=preset=1"], Codec::Xz),
        (&["xz", "--delta=dist=4", "--arm64", "--lzma2=preset=1"], Codec::Xz),
    ] {
        let Some(compressed) = filtered(test, program, &data) else { continue };
        assert_eq!(Codec::sniff(&compressed), codec, "{program:?}");
        assert!(decompressed(&compressed).unwrap() == data, "{program:?}");
    }
}

#[test]
fn streams_in_a_row_are_one() {
    let test = "streams_in_a_row_are_one";
    let (first, second) = (sample(90_000), b"second".to_vec());
    let both = [&first[..], &second].concat();
    let mut cases = vec![("bzip2", bzip2(&first), bzip2(&second), vec![])];
    if let (Some(one), Some(two)) = (filtered(test, &["xz"], &first), filtered(test, &["xz"], &second)) {
        cases.push(("xz", one.clone(), two.clone(), vec![]));
        cases.push(("xz with padding", one, two, vec![0; 8]));
    }
    for (what, one, two, padding) in cases {
        let joined = [&one[..], &padding, &two].concat();
        assert!(decompressed(&joined).unwrap() == both, "{what}");
        // An end that is missing is never taken for the end.
        for cut in [1, two.len() / 2, two.len() - 1, two.len() + one.len() / 2] {
            let error = decompressed(&joined[..joined.len() - cut]).expect_err(what);
            let name = what.split(' ').next().unwrap();
            assert!(error.contains(name), "{what} without {cut} bytes: {error}");
        }
        let mut damaged = joined.clone();
        damaged[one.len() / 2] ^= 0x10;
        decompressed(&damaged).expect_err(what);
    }
}

#[test]
fn a_reader_that_failed_stays_failed() {
    let mut damaged = bzip2(&sample(100_000));
    let at = damaged.len() / 2;
    damaged[at] ^= 0xff;
    let mut reader = decompress_sniffed(&damaged[..]).unwrap();
    let first = io::copy(&mut reader, &mut io::sink()).unwrap_err();
    assert!(first.to_string().starts_with("bad bzip2 data"), "{first}");
    assert!(reader.read(&mut [0; 9]).is_err());
}

/// A stream names the memory it needs before it has given anything for it.
#[test]
fn memory_that_a_stream_may_ask_for_is_bounded() {
    let test = "memory_that_a_stream_may_ask_for_is_bounded";
    let tar = Raw::new().file("f", "x").end();
    let long = |mib: u32| format!("--lzma2=preset=0,dict={mib}MiB");
    let Some(allowed) = filtered(test, &["xz", &long(128)], &tar) else { return };
    assert!(is_archive(&allowed[..]).unwrap());
    let refused = filtered(test, &["xz", &long(256)], &tar).unwrap();
    let zstd = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&[&tar[..], &vec![0; 300 << 10]].concat()).unwrap();
        encoder.finish().unwrap()
    };
    // It must not be taken for a file that is no archive, and copied as it is.
    for (what, data) in [("xz", refused), ("zstd", zstd)] {
        match is_archive(&data[..]) {
            Err(DecompressError::Io(error)) => {
                assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{what}");
                assert!(error.to_string().contains("128 MiB"), "{what}: {error}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn compressed_archives_are_unpacked() {
    let test = "compressed_archives_are_unpacked";
    if !common::privileged(test) {
        return;
    }
    let tar = Raw::new().dir("d").file("d/f", "data").end();
    let (one, two) = tar.split_at(700);
    let mut cases = vec![("bzip2", bzip2(&tar)), ("bzip2, two streams", [bzip2(one), bzip2(two)].concat())];
    if let (Some(all), Some(one), Some(two)) =
        (filtered(test, &["xz"], &tar), filtered(test, &["xz"], one), filtered(test, &["xz"], two))
    {
        cases.extend([("xz", all), ("xz, two streams", [one, two].concat())]);
    }
    for (what, data) in cases {
        assert!(is_archive(&data[..]).unwrap(), "{what}");
        let dir = tempfile::tempdir().unwrap();
        let fd = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
        let entries = unpack_archive(&data[..], &fd, &Limits::default()).unwrap().entries;
        let sizes: Vec<_> = entries
            .iter()
            .map(|entry| match &entry.kind {
                LayerEntryKind::Node { meta, .. } => (entry.path.to_string(), meta.size),
                other => panic!("{what}: {other:?}"),
            })
            .collect();
        assert_eq!(sizes, [("/d".to_owned(), 0), ("/d/f".to_owned(), 4)], "{what}");
    }
    for (what, data) in [("bzip2 of text", bzip2(&sample(2000))), ("bzip2 of nothing", bzip2(b""))] {
        assert!(!is_archive(&data[..]).unwrap(), "{what}");
    }
}

/// A file of a few kilobytes that would fill the disk is stopped at the limit, not at its end.
#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let tar = Raw::new().file("zeros", &"\0".repeat(6 << 20)).end();
    let data = bzip2(&tar);
    assert!(data.len() < 4096, "{}", data.len());
    let dir = tempfile::tempdir().unwrap();
    let fd = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
    let error = unpack_archive(&data[..], &fd, &Limits { entries: 9, bytes: 1 << 20 }).unwrap_err();
    assert!(error.to_string().contains("decompression bomb"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is behind the magic ends, without panic, in bytes or an error.
    #[test]
    fn damaged_streams_end(
        which in 0..3_usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut data = match which {
            0 => bzip2(&sample(5000)),
            // `xz -0` of 40 and then, in a second stream, of 3 bytes.
            _ => XZ.to_vec(),
        };
        for (at, with) in flips {
            let at = at.index(data.len());
            data[at] ^= with;
        }
        let mut reader = decompress_sniffed(&data[..]).unwrap();
        let _ = io::copy(&mut reader.by_ref().take(64 << 20), &mut io::sink());
        let _ = reader.read(&mut [0; 16]);
    }
}

const XZ: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x0c,
    0x00, 0x00, 0x00, 0x8f, 0x98, 0x41, 0x9c, 0xe0, 0x00, 0x27, 0x00, 0x1f, 0x5d, 0x00, 0x3a, 0x1a, 0x08,
    0xce, 0x76, 0xc7, 0xe5, 0xe9, 0xd6, 0x07, 0x34, 0xc3, 0xd1, 0x0e, 0xbf, 0xce, 0x55, 0xe1, 0xaa, 0xbd,
    0xe4, 0x69, 0x54, 0x61, 0x9d, 0xdc, 0x5a, 0xae, 0xb5, 0x45, 0x80, 0x00, 0x00, 0xdf, 0x59, 0xca, 0xcc,
    0x2e, 0x30, 0xc1, 0x8d, 0x00, 0x01, 0x3b, 0x28, 0xe9, 0xf2, 0x81, 0x29, 0x1f, 0xb6, 0xf3, 0x7d, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a, 0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6,
    0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x0c, 0x00, 0x00, 0x00, 0x8f, 0x98, 0x41, 0x9c, 0x01, 0x00, 0x02,
    0x61, 0x62, 0x63, 0x00, 0x00, 0x27, 0x76, 0x27, 0x1a, 0x4a, 0x09, 0xd8, 0x2c, 0x00, 0x01, 0x1b, 0x03,
    0x0b, 0x2f, 0xb9, 0x10, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
];

/// What an archive says, in its order, also twice of one name; files are staged under numbers, so that no name does harm.
#[test]
fn a_staged_archive_says_what_it_says() {
    let tar = Raw::new()
        .dir("./")
        .file("a", "first")
        .hardlink("b", "/../a")
        .file("../../up", "")
        .symlink("s", "/etc")
        .file("s/x", "behind")
        .file("a", "second")
        .entry("pipe", b'6', b"")
        .end();
    let dir = tempfile::tempdir().unwrap();
    let fd = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
    let entries = stage_archive(&bzip2(&tar)[..], &fd, &Limits::default()).unwrap();
    let shown: Vec<String> = entries
        .iter()
        .map(|entry| {
            let link = entry.hard_link_to.as_ref().map_or(String::new(), |to| format!(" = {to}"));
            let digest = entry.data.as_ref().and_then(|data| data.digest);
            let data = ["", "first", "second", "behind"].iter().find(|text| digest == Some(Digest::of(text)));
            format!("{:?} {}{link} {data:?}", entry.meta.kind, entry.path)
        })
        .collect();
    let expected = [
        "Regular /a Some(\"first\")",
        "Regular /b = /a None",
        "Regular /up Some(\"\")",
        "Symlink /s None",
        "Regular /s/x Some(\"behind\")",
        "Regular /a Some(\"second\")",
        "Fifo /pipe None",
    ];
    assert_eq!(shown, expected);
    let mut staged: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    staged.sort();
    assert_eq!(staged, ["0", "1", "2"]);
    let many = |count| Limits { entries: count, ..Limits::default() };
    let (_, empty) = (drop(fd), tempfile::tempdir().unwrap());
    let fd = Arc::new(OwnedFd::from(File::open(empty.path()).unwrap()));
    assert!(stage_archive(&tar[..], &fd, &many(3)).unwrap_err().to_string().contains("more than 3 entries"));
}
