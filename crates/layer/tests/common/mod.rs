//! Tars written byte by byte, independently of the crate's writer, and a look at what came out.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what is skipped, as tests do"
)]
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its part of this module")]

use rustix::fs::XattrFlags;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A tar under construction.
#[derive(Default, Clone)]
pub struct Raw(pub Vec<u8>);

pub fn header(name: &[u8], kind: u8, size: u64) -> [u8; 512] {
    let mut h = [0; 512];
    h[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    h[100..108].copy_from_slice(if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    h[108..116].copy_from_slice(b"0000000\0");
    h[116..124].copy_from_slice(b"0000000\0");
    h[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    h[136..148].copy_from_slice(b"00000001000\0");
    h[156] = kind;
    h[257..265].copy_from_slice(b"ustar\x0000");
    h
}

pub fn seal(mut h: [u8; 512]) -> [u8; 512] {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    h
}

impl Raw {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, h: [u8; 512], data: &[u8]) -> Self {
        self.0.extend_from_slice(&seal(h));
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn entry(self, name: &str, kind: u8, data: &[u8]) -> Self {
        self.raw(header(name.as_bytes(), kind, data.len() as u64), data)
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.entry(name, b'0', data.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', b"")
    }

    pub fn link(self, name: &str, kind: u8, target: &str) -> Self {
        let h = header(name.as_bytes(), kind, 0);
        if target.len() > 100 {
            return self.pax(&[("linkpath", target.as_bytes())]).raw(h, b"");
        }
        let mut h = h;
        h[157..157 + target.len()].copy_from_slice(target.as_bytes());
        self.raw(h, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.link(name, b'2', target)
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.link(name, b'1', target)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (rest + 1..rest + 8).find(|n| rest + n.to_string().len() == *n).unwrap();
            body.extend_from_slice(format!("{len} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry("PaxHeaders.0/x", b'x', &body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// What is below `root`: path to a line that says everything a layer carries.
pub fn observe(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut names = HashMap::new();
    visit(root, "", &mut found, &mut names);
    found
}

fn visit(dir: &Path, below: &str, found: &mut BTreeMap<String, String>, names: &mut HashMap<u64, String>) {
    let mut items: Vec<_> = fs::read_dir(dir).unwrap().map(|i| i.unwrap()).collect();
    items.sort_by_key(|i| i.file_name());
    for item in items {
        let name = format!("{below}{}", item.file_name().to_string_lossy());
        let meta = item.metadata().unwrap();
        let kind = meta.file_type();
        let first = names.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let what = if kind.is_dir() {
            let opaque = if is_opaque(&item.path()) { " opaque" } else { "" };
            format!("dir{opaque}")
        } else if kind.is_symlink() {
            format!(
                "-> {}",
                String::from_utf8_lossy(fs::read_link(item.path()).unwrap().as_os_str().as_bytes())
            )
        } else if kind.is_fifo() {
            "fifo".into()
        } else if kind.is_char_device() || kind.is_block_device() {
            let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            format!("{} {major}:{minor}", if kind.is_char_device() { "char" } else { "block" })
        } else if first != name {
            format!("same as {first}")
        } else {
            format!("file {:?}", String::from_utf8_lossy(&fs::read(item.path()).unwrap()))
        };
        let mode = if kind.is_symlink() { 0o777 } else { meta.mode() & 0o7777 };
        let owner = format!("{mode:o} {}:{} {}.{}", meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        found.insert(name.clone(), if what == "char 0:0" { what } else { format!("{what} {owner}") });
        if kind.is_dir() {
            visit(&item.path(), &format!("{name}/"), found, names);
        }
    }
}

pub fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|n| value[..n] == *b"y")
}

/// Whether the tests can make whiteouts, change owners and set trusted attributes here; says why not.
pub fn privileged(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let set = rustix::fs::setxattr(dir.path(), "trusted.rbuild.test", b"y", XattrFlags::empty());
    if let Err(error) = set {
        println!("skipped: {test}: cannot set trusted attributes in the temporary directory: {error}");
        return false;
    }
    true
}
