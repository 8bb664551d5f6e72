//! Hostile and odd archives: every one either fails or stays inside, and the host's canary is never touched.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what is skipped, as tests do"
)]

mod common;

use common::{Raw, header, observe, privileged};
use rbuild_layer::{Limits, unpack_layer};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Host {
    _dir: tempfile::TempDir,
    outside: PathBuf,
    dest: PathBuf,
    before: BTreeMap<String, String>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (outside, dest) = (dir.path().join("outside"), dir.path().join("dest"));
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::create_dir(&dest).unwrap();
        for name in ["victim", "sub/victim"] {
            fs::write(outside.join(name), "canary").unwrap();
            fs::set_permissions(outside.join(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        let before = observe(&outside);
        Self { _dir: dir, outside, dest, before }
    }

    fn text(&self) -> &str {
        self.outside.to_str().unwrap()
    }

    /// The canary's path inside the destination, where absolute links lead.
    fn inside(&self, name: &str) -> PathBuf {
        self.dest.join(self.text().trim_start_matches('/')).join(name)
    }

    fn unpack(&self, tar: &[u8]) -> Result<rbuild_layer::Unpacked, String> {
        let limits = Limits { entries: 1000, bytes: 10_000_000 };
        let result = unpack_layer(
            tar,
            "application/vnd.oci.image.layer.v1.tar",
            File::open(&self.dest).unwrap(),
            &limits,
        );
        assert_eq!(observe(&self.outside), self.before, "the canary was touched");
        assert!(!common::is_opaque(&self.outside));
        let siblings = fs::read_dir(self.dest.parent().unwrap()).unwrap().count();
        assert_eq!(siblings, 2, "something was created beside the destination");
        result.map_err(|e| e.to_string())
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

#[test]
fn links_in_the_middle_of_a_name_stay_inside() {
    let host = Host::new();
    let up = format!("../../../../../../../../..{}", host.text());
    for (link, name) in [(host.text(), "esc/x"), (&up, "esc/x"), (host.text(), "esc/victim")] {
        let host_dest = Host::new();
        // The link leads to the first host's outside; the same path inside the second's destination.
        let tar = Raw::new().symlink("esc", link).file(name, "inside").end();
        host_dest.unpack(&tar).unwrap();
        let below = host_dest.dest.join(host.text().trim_start_matches('/'));
        assert_eq!(read(below.join(name.trim_start_matches("esc/"))), "inside", "{link} {name}");
        assert_eq!(observe(&host.outside), host.before);
    }
}

#[test]
fn chains_and_loops_of_links() {
    let host = Host::new();
    let tar = Raw::new()
        .symlink("a", "b/..")
        .symlink("b", "../..")
        .symlink("c", "a/c2")
        .file("c/x", "inside")
        .end();
    host.unpack(&tar).unwrap();
    assert_eq!(read(host.dest.join("c2/x")), "inside");
    let host = Host::new();
    let error = host.unpack(&Raw::new().symlink("l", "l").file("l/x", "").end()).unwrap_err();
    assert!(error.contains("symbolic links"), "{error}");
    let mut tar = Raw::new();
    for i in 0..50 {
        tar = tar.symlink(&format!("l{i}"), &format!("l{}", i + 1));
    }
    let error = Host::new().unpack(&tar.dir("l50").file("l0/x", "").end()).unwrap_err();
    assert!(error.contains("symbolic links"), "{error}");
}

#[test]
fn a_link_is_replaced_never_written_through() {
    if !privileged("a_link_is_replaced_never_written_through") {
        return;
    }
    let host = Host::new();
    let mut open_dir = header(b"d", b'5', 0);
    open_dir[100..108].copy_from_slice(b"0007777\0");
    let tar = Raw::new()
        .symlink("d", host.text())
        .raw(open_dir, b"")
        .symlink("v", &format!("{}/victim", host.text()))
        .file("v", "mine")
        .symlink("dangling", &format!("{}/new", host.text()))
        .file("dangling", "mine")
        .symlink("fifo", &format!("{}/victim", host.text()))
        .entry("fifo", b'6', b"")
        .end();
    host.unpack(&tar).unwrap();
    let seen = observe(&host.dest);
    assert!(seen["d"].starts_with("dir 7777"), "{}", seen["d"]);
    assert!(seen["v"].starts_with("file \"mine\""));
    assert!(seen["dangling"].starts_with("file \"mine\""));
    assert!(seen["fifo"].starts_with("fifo"));
}

#[test]
fn hard_links_only_to_earlier_files_inside() {
    let host = Host::new();
    let victim = format!("{}/victim", host.text());
    let victim = victim.as_str();
    for (what, tar) in [
        ("absolute", Raw::new().hardlink("h", victim)),
        ("relative", Raw::new().hardlink("h", "../outside/victim")),
        ("through a link", Raw::new().symlink("s", host.text()).hardlink("h", "s/victim")),
        ("forward", Raw::new().hardlink("h", "later").file("later", "")),
        ("whiteout", Raw::new().file(".wh.w", "").hardlink("h", "w")),
        ("gone with what it replaces", Raw::new().file("a/f", "").hardlink("a", "a/f")),
    ] {
        let host = Host::new();
        let error = host.unpack(&tar.end()).unwrap_err();
        assert!(error.contains("not in the archive before it"), "{what}: {error}");
    }
    for (what, tar, message) in [
        ("itself", Raw::new().file("h", "").hardlink("h", "h"), "itself"),
        ("itself, missing", Raw::new().hardlink("h", "./h"), "not in the archive"),
        ("a directory", Raw::new().dir("d").hardlink("h", "d"), "to a directory"),
        ("the root", Raw::new().hardlink("h", "/"), "to the root"),
        ("nothing", Raw::new().hardlink("h", ""), "without a target"),
    ] {
        let error = Host::new().unpack(&tar.end()).unwrap_err();
        assert!(error.contains(message), "{what}: {error}");
    }
}

#[test]
fn hard_links_that_are_right() {
    let host = Host::new();
    let tar = Raw::new()
        .file("a", "old")
        .hardlink("h", "/a")
        .file("a", "new")
        .symlink("s", host.text())
        .hardlink("t", "s")
        .file("t", "mine")
        .hardlink("twice", "h")
        .hardlink("twice", "h")
        .end();
    host.unpack(&tar).unwrap();
    assert_eq!((read(host.dest.join("h")), read(host.dest.join("a"))), ("old".into(), "new".into()));
    assert_eq!(read(host.dest.join("t")), "mine");
    assert!(observe(&host.dest)["twice"].starts_with("same as h"));
}

#[test]
fn names_are_clamped_to_the_root() {
    for (name, place) in [
        ("../x", "x"),
        ("a/../../x", "x"),
        ("/abs/x", "abs/x"),
        ("//x", "x"),
        ("./x", "x"),
        ("a/./b/../x", "a/x"),
        ("../../../../../../etc/x", "etc/x"),
    ] {
        let host = Host::new();
        host.unpack(&Raw::new().file(name, "here").end()).unwrap();
        assert_eq!(read(host.dest.join(place)), "here", "{name}");
    }
}

#[test]
fn names_that_cannot_be() {
    let long = "n/".repeat(2100);
    for (what, tar, message) in [
        ("root is a link", Raw::new().symlink(".", "/"), "root can only be a directory"),
        ("root is a file", Raw::new().file("/", ""), "root can only be a directory"),
        ("climbing to the root", Raw::new().file("a/..", ""), "root can only be a directory"),
        ("NUL", Raw::new().pax(&[("path", b"a\0b")]).file("x", ""), "NUL"),
        ("too long", Raw::new().pax(&[("path", long.as_bytes())]).file("x", ""), "limit"),
        ("GNU too long", Raw::new().entry("L", b'L', long.as_bytes()).file("x", ""), "limit"),
        ("component too long", Raw::new().pax(&[("path", &[b'c'; 256])]).file("x", ""), "too long"),
        ("below a file", Raw::new().file("f", "").file("f/x", ""), "needs a directory"),
        ("long link", Raw::new().symlink("s", &long), "limit"),
    ] {
        let error = Host::new().unpack(&tar.end()).unwrap_err();
        assert!(error.contains(message), "{what}: {error}");
    }
}

#[test]
fn whiteouts_stay_inside() {
    if !privileged("whiteouts_stay_inside") {
        return;
    }
    let host = Host::new();
    let tar = Raw::new()
        .symlink("s", host.text())
        .file("s/.wh.victim", "")
        .file("s/sub/.wh..wh..opq", "")
        .symlink("t", host.text())
        .file("t/.wh..wh..opq", "")
        .end();
    host.unpack(&tar).unwrap();
    let seen = observe(&host.dest);
    let below = host.text().trim_start_matches('/');
    assert_eq!(seen[&format!("{below}/victim")], "char 0:0");
    assert!(common::is_opaque(&host.inside("sub")));
    assert!(common::is_opaque(&host.inside("")));
}

#[test]
fn malformed_whiteouts_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", ".wh.x/below"] {
        let error = Host::new().unpack(&Raw::new().file(name, "").end()).unwrap_err();
        assert!(error.contains("whiteout"), "{name}: {error}");
    }
    // What aufs left behind is skipped with everything in it.
    let host = Host::new();
    host.unpack(&Raw::new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "").end())
        .unwrap();
    assert!(observe(&host.dest).is_empty());
}

#[test]
fn whiteouts_beside_nodes_of_the_same_name() {
    if !privileged("whiteouts_beside_nodes_of_the_same_name") {
        return;
    }
    for (what, tar, name, expected) in [
        ("node after", Raw::new().file(".wh.a", "").file("a", "x"), "a", "file \"x\""),
        ("node before", Raw::new().file("a", "x").file(".wh.a", ""), "a", "file \"x\""),
        ("directory after", Raw::new().file(".wh.a", "").dir("a/"), "a", "dir opaque"),
        ("directory before", Raw::new().dir("a/").file(".wh.a", ""), "a", "dir opaque"),
        ("contents after", Raw::new().file(".wh.a", "").file("a/b", ""), "a", "dir opaque"),
        ("twice", Raw::new().file(".wh.a", "").file(".wh.a", ""), "a", "char 0:0"),
    ] {
        let host = Host::new();
        host.unpack(&tar.end()).unwrap();
        let seen = observe(&host.dest);
        assert!(seen[name].starts_with(expected), "{what}: {}", seen[name]);
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    for (what, tar, expected) in [
        ("file, file", Raw::new().file("a", "1").file("a", "2"), vec![("a", "file \"2\"")]),
        ("directory, file", Raw::new().file("a/b/c", "1").file("a", "2"), vec![("a", "file \"2\"")]),
        ("file, directory", Raw::new().file("a", "1").file("a", "").dir("a"), vec![("a", "dir")]),
        (
            "directories merge",
            Raw::new().dir("a").file("a/x", "1").dir("a"),
            vec![("a", "dir"), ("a/x", "file")],
        ),
        (
            "directory, link",
            Raw::new().file("a/b", "1").symlink("a", "c").file("a/d", ""),
            vec![("a", "-> c"), ("c", "dir"), ("c/d", "file")],
        ),
    ] {
        let host = Host::new();
        host.unpack(&tar.end()).unwrap();
        let seen = observe(&host.dest);
        assert_eq!(seen.len(), expected.len(), "{what}: {seen:?}");
        for (name, start) in expected {
            assert!(seen[name].starts_with(start), "{what}: {name}: {}", seen[name]);
        }
    }
}

#[test]
fn a_nested_archive_is_data() {
    let inner = Raw::new().file("smuggled", "x").end();
    // The header says 0, PAX says the truth: a reader that takes the header's word sees `smuggled`.
    let host = Host::new();
    let size = inner.len().to_string();
    let tar = Raw::new()
        .pax(&[("size", size.as_bytes())])
        .raw(header(b"nested.tar", b'0', 0), &inner)
        .file("after", "")
        .end();
    host.unpack(&tar).unwrap();
    assert_eq!(observe(&host.dest).into_keys().collect::<Vec<_>>(), ["after", "nested.tar"]);
    assert_eq!(fs::read(host.dest.join("nested.tar")).unwrap(), inner);
    // The other way round, PAX still decides; what follows is no header then.
    let tar = Raw::new().pax(&[("size", b"3")]).raw(header(b"f", b'0', 2000), &[b'x'; 2000]).end();
    let error = Host::new().unpack(&tar).unwrap_err();
    assert!(error.contains("checksum"), "{error}");
    // Links and directories have no data, whatever they claim.
    let host = Host::new();
    let tar = Raw::new()
        .file("f", "")
        .raw(
            {
                let mut h = header(b"h", b'1', 512);
                h[157] = b'f';
                h
            },
            b"",
        )
        .raw(header(b"d", b'5', 4096), b"")
        .file("after", "")
        .end();
    host.unpack(&tar).unwrap();
    assert_eq!(observe(&host.dest).into_keys().collect::<Vec<_>>(), ["after", "d", "f", "h"]);
}

#[test]
fn malformed_extended_headers_are_refused() {
    let x = |body: &str| Raw::new().entry("x", b'x', body.as_bytes()).file("f", "");
    for body in [
        "1 a=b\n",
        "0 a=b\n",
        " a=b\n",
        "6 a=bc",
        "99 a=b\n",
        "6 a=b\n6 a=b\nx",
        "-6 a=b\n",
        "+6 a=b\n",
        "06 =bc\n",
        "8 abcdef\n",
        "99999999999999999999999 a=b\n",
        "12 size=-1\n\n",
        "11 size=1x\n",
        "10 size= \n",
        "13 mtime=abc\n",
        "11 uid=abc\n",
        "23 GNU.sparse.map=1,2,3\n",
    ] {
        let error = Host::new().unpack(&x(body).end()).unwrap_err();
        assert!(error.contains("malformed"), "{body:?}: {error}");
    }
    let size = |value: &[u8; 12]| {
        let mut h = header(b"f", b'0', 0);
        h[124..136].copy_from_slice(value);
        Raw::new().raw(h, b"")
    };
    for (what, tar, message) in [
        ("without entry", Raw::new().pax(&[("path", b"a")]), "without an entry"),
        ("twice", Raw::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", ""), "two extended"),
        ("global name", Raw::new().entry("g", b'g', b"10 path=a\n").file("f", ""), "global"),
        ("global size", Raw::new().entry("g", b'g', b"10 size=1\n").file("f", ""), "global"),
        ("unknown type", Raw::new().entry("f", b'V', b""), "unknown type"),
        ("negative size", size(&[0xff; 12]), "size"),
        ("size beyond 64 bits", size(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), "size"),
        (
            "size beyond the stream",
            size(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            "more than 10000000 bytes",
        ),
        ("no owner", Raw::new().pax(&[("uid", b"4294967295")]).file("f", ""), "owner"),
        ("owner too large", Raw::new().pax(&[("gid", b"4294967296")]).file("f", ""), "owner"),
        ("lone zero block", Raw(vec![0; 512]).file("f", ""), "zero block"),
        (
            "device without numbers",
            {
                let mut h = header(b"c", b'3', 0);
                h[329] = b'x';
                Raw::new().raw(h, b"")
            },
            "device",
        ),
    ] {
        let error = Host::new().unpack(&tar.end()).unwrap_err();
        assert!(error.contains(message), "{what}: {error}");
    }
    // Records that mean nothing here are allowed, global comments too.
    let tar =
        Raw::new().entry("g", b'g', b"13 comment=x\n").pax(&[("atime", b"x"), ("path", b"")]).file("f", "");
    Host::new().unpack(&tar.end()).unwrap();
}

#[test]
fn huge_extended_headers_are_refused_before_they_are_read() {
    for kind in [b'x', b'g', b'L', b'K'] {
        let tar = Raw::new().raw(header(b"x", kind, 2 << 20), b"").0;
        let error = Host::new().unpack(&tar).unwrap_err();
        assert!(error.contains("limit"), "{error}");
    }
    let value = vec![b'v'; 300_000];
    let tar = Raw::new().pax(&[("SCHILY.xattr.user.big", &value)]).file("f", "").end();
    assert!(Host::new().unpack(&tar).unwrap_err().contains("extended attributes"));
}

#[test]
fn bombs_are_stopped_by_their_limits() {
    let mut tar = Raw::new();
    for i in 0..1001 {
        tar = tar.dir(&format!("d{i}"));
    }
    assert!(Host::new().unpack(&tar.end()).unwrap_err().contains("more than 1000 entries"));
    let tar = Raw::new().raw(header(b"f", b'0', 10_000_001), b"").0;
    assert!(Host::new().unpack(&tar).unwrap_err().contains("more than 10000000 bytes"));
}

/// An old GNU sparse entry with up to four segments in its header.
fn sparse(segments: &[(u64, u64)], real: u64, data: &[u8]) -> Raw {
    let mut h = header(b"sparse", b'S', data.len() as u64);
    h[257..265].copy_from_slice(b"ustar  \0");
    for (i, (offset, len)) in segments.iter().enumerate() {
        let at = 386 + 24 * i;
        h[at..at + 24].copy_from_slice(format!("{offset:011o}\0{len:011o}\0").as_bytes());
    }
    h[483..495].copy_from_slice(format!("{real:011o}\0").as_bytes());
    Raw::new().raw(h, data)
}

#[test]
fn sparse_files_that_lie_are_refused() {
    for (what, tar, message) in [
        ("overlap", sparse(&[(0, 4), (2, 4)], 100, b"12345678"), "out of order"),
        ("backwards", sparse(&[(50, 4), (0, 4)], 100, b"12345678"), "out of order"),
        ("beyond the end", sparse(&[(98, 4)], 100, b"1234"), "beyond the end"),
        ("less data", sparse(&[(0, 4)], 100, b"12"), "does not match"),
        ("more data", sparse(&[(0, 4)], 100, b"12345678"), "does not match"),
        ("huge", sparse(&[(0, 4)], 8_000_000_000, b"1234"), "more than 10000000 bytes"),
        (
            "1.0, map longer than data",
            {
                let records: &[(&str, &[u8])] =
                    &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
                Raw::new().pax(records).file("f", "5\n")
            },
            "longer than its entry",
        ),
        (
            "1.0, too many",
            {
                let records: &[(&str, &[u8])] =
                    &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
                Raw::new().pax(records).file("f", &format!("{:<512}", "99999999\n"))
            },
            "segments",
        ),
        ("unknown version", Raw::new().pax(&[("GNU.sparse.major", b"2")]).file("f", ""), "version"),
        ("no size", Raw::new().pax(&[("GNU.sparse.map", b"0,1")]).file("f", "x"), "real size"),
    ] {
        let error = Host::new().unpack(&tar.end()).unwrap_err();
        assert!(error.contains(message), "{what}: {error}");
    }
    let mut endless = header(b"s", b'S', 0);
    endless[257..265].copy_from_slice(b"ustar  \0");
    endless[482] = 1;
    let tar = Raw::new().raw(endless, b"").0;
    assert!(Host::new().unpack(&tar).unwrap_err().contains("truncated"));
    let host = Host::new();
    host.unpack(&sparse(&[(2, 3), (8, 1)], 10, b"abcd").file("after", "x").end()).unwrap();
    assert_eq!(fs::read(host.dest.join("sparse")).unwrap(), b"\0\0abc\0\0\0d\0");
    assert_eq!(read(host.dest.join("after")), "x");
}

#[test]
fn truncation_is_noticed_wherever_it_is() {
    let tar = Raw::new().pax(&[("mtime", b"1.5")]).file("f", &"x".repeat(700)).dir("d").end();
    for end in (1..tar.len() - 1024).filter(|end| end % 97 == 0 || end % 512 < 2) {
        let result = Host::new().unpack(&tar[..end]);
        // A stream that ends where a header could begin is complete, unless a PAX header waits for its entry.
        let complete = end == tar.len() - 1024 - 512;
        assert_eq!(result.is_ok(), complete, "cut at {end}: {result:?}");
    }
}

#[test]
fn attributes_that_steer_overlayfs_are_dropped() {
    if !privileged("attributes_that_steer_overlayfs_are_dropped") {
        return;
    }
    let host = Host::new();
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"system_u"),
        ("SCHILY.xattr.user.kept", b"yes"),
    ];
    host.unpack(&Raw::new().pax(records).dir("d").pax(records).file("f", "").end()).unwrap();
    for name in ["d", "f"] {
        let mut list = [0; 4096];
        let n = rustix::fs::llistxattr(host.dest.join(name), &mut list[..]).unwrap();
        let names = String::from_utf8_lossy(&list[..n]).into_owned();
        assert!(!names.contains("overlay"), "{name}: {names}");
        assert!(!names.contains("selinux") || !names.contains("user.kept"), "{name}: {names}");
    }
}

#[test]
fn a_device_zero_is_a_whiteout() {
    if !privileged("a_device_zero_is_a_whiteout") {
        return;
    }
    let mut h = header(b"gone", b'3', 0);
    h[329..345].copy_from_slice(b"0000000\x000000000\0");
    let host = Host::new();
    host.unpack(&Raw::new().raw(h, b"").end()).unwrap();
    assert_eq!(observe(&host.dest)["gone"], "char 0:0");
}
