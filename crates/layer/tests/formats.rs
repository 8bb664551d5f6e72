//! GNU tar's archives are read right, ours are read by GNU tar, and compressed streams end where they should.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what is skipped, as tests do"
)]

mod common;

use common::Raw;
use flate2::write::GzEncoder;
use rbuild_layer::{
    Codec, Compression, Limits, PackOptions, TarKind, decompress, is_archive, pack_slice, read_tar,
    unpack_archive,
};
use rbuild_oci::Digest;
use rbuild_tree::{DataSource, FileKind, LayerEntryKind};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

fn staging() -> (tempfile::TempDir, Arc<OwnedFd>) {
    let dir = tempfile::tempdir().unwrap();
    let fd = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
    (dir, fd)
}

/// Runs GNU tar; `None` (with a line that says so) where it is missing.
fn gnu_tar(test: &str, dir: &Path, args: &[&str]) -> Option<Vec<u8>> {
    match Command::new("tar").arg("--version").output() {
        Ok(output) if output.stdout.starts_with(b"tar (GNU tar)") => {}
        _ => {
            println!("skipped: {test}: no GNU tar");
            return None;
        }
    }
    let output = Command::new("tar").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn gnu_archives_are_read_right() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    fs::create_dir(dir.path().join("d".repeat(120))).unwrap();
    fs::write(dir.path().join(&long), "long").unwrap();
    std::os::unix::fs::symlink("t".repeat(200), dir.path().join("link")).unwrap();
    let sparse = File::create(dir.path().join("sparse")).unwrap();
    for i in 0..40 {
        sparse.write_all_at(&[b'x'; 5000], i * 100_000).unwrap();
    }
    sparse.set_len(5_000_001).unwrap();
    let content = Digest::of(fs::read(dir.path().join("sparse")).unwrap());
    for format in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let files = ["-cf", "-", "--sort=name", "--exclude=./extra", "."];
        let args: Vec<&str> = format.iter().copied().chain(files).collect();
        let Some(tar) = gnu_tar("gnu_archives_are_read_right", dir.path(), &args) else { return };
        let (_dir, fd) = staging();
        let entries = unpack_archive(&tar[..], &fd, &Limits::default()).unwrap().entries;
        let mut seen = Vec::new();
        for entry in entries {
            let LayerEntryKind::Node { meta, data, .. } = entry.kind else { panic!("whiteout") };
            if entry.path.as_bytes() == b"sparse" {
                assert_eq!(data.and_then(|d| d.digest), Some(content), "{format:?}");
                assert_eq!(meta.size, 5_000_001);
            }
            seen.push((entry.path.to_string(), meta.link_target.len()));
        }
        let dir_name = format!("/{}", "d".repeat(120));
        let expected =
            [(dir_name, 0), (format!("/{long}"), 0), ("/link".to_owned(), 200), ("/sparse".to_owned(), 0)];
        assert_eq!(seen, expected, "{format:?}");
    }
}

#[test]
fn gnu_tar_reads_what_is_packed() {
    let (source, fd) = staging();
    fs::create_dir(source.path().join("ünï")).unwrap();
    let long = format!("ünï/{}", "n".repeat(200));
    fs::write(source.path().join(&long), "content").unwrap();
    let tar = Raw::new()
        .dir("ünï")
        .pax(&[("path", long.as_bytes()), ("uid", b"3000000000"), ("mtime", b"-5")])
        .file("x", "content")
        .end();
    drop(source);
    let (_staging, staged) = staging();
    drop(fd);
    let entries = match unpack_archive(&tar[..], &staged, &Limits::default()) {
        Ok(unpacked) => unpacked.entries,
        Err(error) => {
            println!("skipped: gnu_tar_reads_what_is_packed: cannot extract: {error}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("layer.tar")).unwrap();
    pack_slice(
        &entries,
        &PackOptions { compression: Compression::None, epoch: None, ..PackOptions::default() },
        file,
    )
    .unwrap();
    let args = ["--quoting-style=literal", "--utc", "--full-time", "--numeric-owner", "-tvf", "layer.tar"];
    let Some(list) = gnu_tar("gnu_tar_reads_what_is_packed", dir.path(), &args) else { return };
    let list = String::from_utf8(list).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(lines[0].starts_with("drwxr-xr-x 0/0") && lines[0].ends_with("ünï/"), "{list}");
    assert!(lines[1].contains("3000000000/0") && lines[1].contains("1969-12-31 23:59:55"), "{list}");
    assert!(lines[1].ends_with(&long), "{list}");
}

/// The directory an archive is unpacked into is there before it, whatever the archive says it is.
#[test]
fn an_archives_entry_for_its_root_is_passed_over() {
    if !common::privileged("an_archives_entry_for_its_root_is_passed_over") {
        return;
    }
    let roots = [
        Raw::new().file("", "data of a file without a name"),
        Raw::new().file(".", "data"),
        Raw::new().symlink("./", "/etc"),
        Raw::new().dir("./"),
    ];
    for root in roots {
        let tar = root.file("a", "data").end();
        let (_dir, fd) = staging();
        let entries = unpack_archive(&tar[..], &fd, &Limits::default()).unwrap().entries;
        let paths: Vec<String> = entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, ["/a"]);
    }
}

/// Only directories without an entry of their own are implied: where they exist already they stay as they are.
#[test]
fn directories_an_archive_implies() {
    if !common::privileged("directories_an_archive_implies") {
        return;
    }
    let tar = Raw::new().file("a/b/f", "").dir("c").file("c/f", "").file("late/f", "").dir("late").end();
    let (_dir, fd) = staging();
    let unpacked = unpack_archive(&tar[..], &fd, &Limits::default()).unwrap();
    let mut implied: Vec<String> = unpacked.implied_parents.iter().map(ToString::to_string).collect();
    implied.sort();
    assert_eq!(implied, ["/a", "/a/b"]);
}

#[test]
fn entries_of_a_users_archive() {
    if !common::privileged("entries_of_a_users_archive") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let outside = host.path().to_str().unwrap();
    let tar = Raw::new()
        .dir("./")
        .file("b/.wh.kept", "as it is")
        .file("a", "data")
        .hardlink("b/hard", "a")
        .symlink("esc", outside)
        .file("esc/x", "inside")
        .entry("pipe", b'6', b"")
        .pax(&[("SCHILY.xattr.user.k", b"v")])
        .file("attr", "")
        .end();
    for (what, data) in [("plain", tar.clone()), ("gzip", gzip(&tar)), ("zstd", zstd(&tar))] {
        let (_dir, fd) = staging();
        let entries = unpack_archive(&data[..], &fd, &Limits::default()).unwrap().entries;
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0, "the archive escaped");
        let find = |name: &str| {
            let found = entries
                .iter()
                .find(|e| e.path.to_string() == name)
                .unwrap_or_else(|| panic!("{what}: {name}"));
            let LayerEntryKind::Node { meta, data, hard_link_to } = found.kind.clone() else {
                panic!("{what}")
            };
            (meta, data, hard_link_to)
        };
        assert!(entries.is_sorted_by(|a, b| a.path < b.path), "{what}");
        let (meta, data, _) = find("/a");
        let data = data.unwrap();
        assert_eq!(
            (meta.kind, data.size, data.digest),
            (FileKind::Regular, 4, Some(Digest::of("data"))),
            "{what}"
        );
        assert!(matches!(data.source, DataSource::Below { .. }));
        let (_, data, target) = find("/b/hard");
        assert!(data.is_none() && target.unwrap().to_string() == "/a", "{what}");
        assert_eq!(find("/b/.wh.kept").0.size, 8, "{what}");
        assert_eq!(find("/esc").0.link_target, outside.as_bytes(), "{what}");
        assert_eq!(find(&format!("{outside}/x")).0.size, 6, "{what}");
        assert_eq!(find("/pipe").0.kind, FileKind::Fifo, "{what}");
        assert_eq!(find("/attr").0.xattrs.get(&b"user.k"[..]).map(Vec::as_slice), Some(&b"v"[..]), "{what}");
        let packable: Vec<_> =
            entries.iter().filter(|e| !e.path.to_string().contains(".wh.")).cloned().collect();
        pack_slice(&packable, &PackOptions::default(), std::io::sink()).unwrap();
    }
}

#[test]
fn what_is_an_archive() {
    let tar = Raw::new().file("f", "x").end();
    let cut = &gzip(&tar)[..30];
    for (what, bytes, expected) in [
        ("plain", tar.clone(), Some(true)),
        ("gzip", gzip(&tar), Some(true)),
        ("zstd", zstd(&tar), Some(true)),
        ("with PAX header", Raw::new().pax(&[("path", b"y")]).file("f", "x").end(), Some(true)),
        ("only a first header", tar[..512].to_vec(), Some(true)),
        ("empty file", vec![], Some(false)),
        ("empty archive", vec![0; 1024], Some(false)),
        ("text", b"hello".repeat(300), Some(false)),
        ("gzip of text", gzip(&b"hello".repeat(300)), Some(false)),
        ("broken gzip", cut.to_vec(), Some(false)),
        ("half a header", tar[..300].to_vec(), Some(false)),
        ("broken bzip2", b"BZh91AY&SYabcdef".to_vec(), Some(false)),
        ("broken xz", b"\xfd7zXZ\0abcdefgh".to_vec(), Some(false)),
        ("text that begins like bzip2", b"BZh9 is no archive".to_vec(), Some(false)),
    ] {
        assert_eq!(is_archive(&bytes[..]).ok(), expected, "{what}");
    }
}

#[test]
fn compressed_streams_end_where_they_should() {
    let (a, b) = (gzip(b"first "), gzip(b"second"));
    let z = zstd(b"zstd");
    let skippable = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &z].concat();
    let long_window = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&vec![0; 300 << 10]).unwrap();
        encoder.finish().unwrap()
    };
    for (what, bytes, media_type, expected) in [
        ("one member", a.clone(), "x.tar+gzip", Some("first ")),
        ("two members", [&a[..], &b].concat(), "x.tar+gzip", Some("first second")),
        ("zero padding", [&a[..], &[0; 700]].concat(), "x.tar+gzip", Some("first ")),
        ("garbage", [&a[..], b"x"].concat(), "x.tar+gzip", None),
        ("padding, then garbage", [&a[..], &[0; 700], b"x"].concat(), "x.tar+gzip", None),
        ("padding, then a member", [&a[..], &[0; 7], &b].concat(), "x.tar+gzip", None),
        ("half a second member", [&a[..], &b[..9]].concat(), "x.tar+gzip", None),
        ("cut", a[..a.len() - 1].to_vec(), "x.tar+gzip", None),
        (
            "wrong checksum",
            {
                let mut c = a.clone();
                let at = c.len() - 6;
                c[at] ^= 1;
                c
            },
            "x.tar+gzip",
            None,
        ),
        ("docker's type", a.clone(), "application/vnd.docker.image.rootfs.diff.tar.gzip", Some("first ")),
        ("a lie", b"plain".to_vec(), "x.tar+gzip", None),
        ("another lie", z.clone(), "x.tar+gzip", None),
        ("zstd", z.clone(), "x.tar+zstd", Some("zstd")),
        ("two frames", [&z[..], &z].concat(), "x.tar+zstd", Some("zstdzstd")),
        ("skippable frame", skippable, "x.tar+zstd", Some("zstd")),
        ("zstd, cut", z[..z.len() - 1].to_vec(), "x.tar+zstd", None),
        ("zstd, garbage", [&z[..], b"garbage"].concat(), "x.tar+zstd", None),
        ("zstd, window too large", long_window, "x.tar+zstd", None),
        ("plain", b"plain".to_vec(), "x.tar", Some("plain")),
        ("plain, whatever it looks like", b"\x1f\x8b\x08".to_vec(), "x.tar", Some("\x1f\u{fffd}\x08")),
        ("sniffed gzip", a.clone(), "application/octet-stream", Some("first ")),
        ("sniffed zstd", z.clone(), "", Some("zstd")),
        ("sniffed plain", b"p".to_vec(), "", Some("p")),
        ("sniffed nothing", vec![], "", Some("")),
    ] {
        let mut out = Vec::new();
        let result = decompress(&bytes[..], media_type)
            .map_err(|e| e.to_string())
            .and_then(|mut reader| reader.read_to_end(&mut out).map_err(|e| e.to_string()));
        let got = result.is_ok().then(|| String::from_utf8_lossy(&out).into_owned());
        assert_eq!(got.as_deref(), expected, "{what}: {result:?}");
    }
    assert_eq!(
        Codec::of_media_type("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        Some(Codec::Gzip)
    );
    assert_eq!(Codec::of_media_type("application/gzip"), None);
}

#[test]
fn raw_entries() {
    let mut v7 = common::header(b"dir/", 0, 0);
    v7[257..265].fill(0);
    let mut split = common::header(b"name", b'0', 0);
    split[345..351].copy_from_slice(b"prefix");
    let mut big = common::header(b"big", b'0', 3);
    big[108..116].copy_from_slice(b"\x80\0\0\0\xee\x6b\x28\0");
    big[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    let tar = Raw::new()
        .raw(v7, b"")
        .raw(split, b"")
        .raw(big, b"abc")
        .entry("L", b'L', b"gnu name\0junk")
        .entry("K", b'K', b"gnu target\0")
        .link("x", b'2', "y")
        .end();
    let mut reader = read_tar(&tar[..]);
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        while let Some(part) = reader.next_data().unwrap() {
            data.extend_from_slice(part.bytes);
        }
        let name = String::from_utf8(entry.path).unwrap();
        seen.push((name, entry.kind, entry.uid, entry.mtime.seconds, data));
    }
    let link = TarKind::Symlink(b"gnu target".to_vec());
    assert_eq!(
        seen,
        [
            ("dir/".into(), TarKind::Directory, 0, 512, vec![]),
            ("prefix/name".into(), TarKind::Regular, 0, 512, vec![]),
            ("big".into(), TarKind::Regular, 0xee6b_2800, -2, b"abc".to_vec()),
            ("gnu name".into(), link, 0, 512, vec![]),
        ]
    );
}
