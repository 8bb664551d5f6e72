//! An image in a store as its layers make it.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::Path;
use tar::EntryType;

/// One path of a root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `-`, `d`, `l`, `p`, `c` or `b`.
    pub kind: char,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
    /// Target of a symlink.
    pub link: String,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name of a file that was written as a hard link.
    pub hard_link: Option<String>,
}

impl Entry {
    /// `1000:100`.
    pub fn owner(&self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.content).expect("the file is text")
    }
}

/// An image: its documents and its root filesystem by path without a leading `/`.
#[derive(Debug)]
pub struct Image {
    pub manifest: Value,
    /// The whole configuration document.
    pub document: Value,
    pub files: BTreeMap<String, Entry>,
    /// Paths in each layer, as its tar names them.
    pub layers: Vec<Vec<String>>,
}

fn blob(store: &Path, digest: &Value) -> Vec<u8> {
    let digest = digest.as_str().expect("a digest").replace(':', "/");
    fs::read(store.join("blobs").join(digest)).expect("the blob is in the store")
}

impl Image {
    /// The image that is called `name` in `store`.
    pub fn read(store: &Path, name: &str) -> Self {
        let index: Value = serde_json::from_slice(&fs::read(store.join("index.json")).unwrap()).unwrap();
        let named =
            |descriptor: &&Value| descriptor["annotations"]["org.opencontainers.image.ref.name"] == name;
        let descriptor = index["manifests"].as_array().unwrap().iter().find(named);
        let manifest: Value =
            serde_json::from_slice(&blob(store, &descriptor.expect("the image has its name")["digest"]))
                .unwrap();
        let document = serde_json::from_slice(&blob(store, &manifest["config"]["digest"])).unwrap();
        let mut image = Self { manifest, document, files: BTreeMap::new(), layers: Vec::new() };
        for layer in image.manifest["layers"].as_array().unwrap().clone() {
            let data = blob(store, &layer["digest"]);
            let names = match layer["mediaType"].as_str().unwrap() {
                "application/vnd.oci.image.layer.v1.tar" => image.apply(&mut tar::Archive::new(&data[..])),
                media => {
                    assert_eq!(media, "application/vnd.oci.image.layer.v1.tar+gzip");
                    image.apply(&mut tar::Archive::new(flate2::read::GzDecoder::new(&data[..])))
                }
            };
            image.layers.push(names);
        }
        image
    }

    /// `config` of the configuration document.
    pub fn config(&self) -> &Value {
        &self.document["config"]
    }

    /// What each instruction left in the history; those without a layer begin with `- `.
    pub fn history(&self) -> Vec<String> {
        let entries = self.document["history"].as_array().expect("a history");
        let show = |entry: &Value| {
            let empty = entry["empty_layer"] == true;
            format!("{}{}", if empty { "- " } else { "" }, entry["created_by"].as_str().unwrap_or_default())
        };
        entries.iter().map(show).collect()
    }

    /// The entry at `path`.
    #[track_caller]
    pub fn entry(&self, path: &str) -> &Entry {
        self.files.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", self.paths()))
    }

    /// The content of the file at `path`.
    #[track_caller]
    pub fn text(&self, path: &str) -> &str {
        self.entry(path).text()
    }

    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// All paths.
    pub fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    fn remove(&mut self, path: &str, itself: bool) {
        let below = format!("{path}/");
        self.files.retain(|name, _| !(itself && name == path || path.is_empty() || name.starts_with(&below)));
    }

    fn apply(&mut self, layer: &mut tar::Archive<impl Read>) -> Vec<String> {
        let mut names = Vec::new();
        for entry in layer.entries().expect("a tar") {
            let mut entry = entry.expect("a tar entry");
            let name = entry.path().unwrap().to_str().expect("a UTF-8 name").trim_end_matches('/').to_owned();
            names.push(name.clone());
            let (dir, last) = name.rsplit_once('/').unwrap_or(("", &name));
            if last == ".wh..wh..opq" {
                self.remove(dir, false);
                continue;
            }
            if let Some(hidden) = last.strip_prefix(".wh.") {
                let path = if dir.is_empty() { hidden.to_owned() } else { format!("{dir}/{hidden}") };
                self.remove(&path, true);
                continue;
            }
            let read = self.read_entry(&mut entry);
            if read.kind != 'd' {
                self.remove(&name, true);
            }
            self.files.insert(name, read);
        }
        names
    }

    fn read_entry(&self, entry: &mut tar::Entry<'_, impl Read>) -> Entry {
        let header = entry.header().clone();
        let link = entry.link_name().unwrap().map(|link| link.to_str().expect("UTF-8").to_owned());
        if header.entry_type() == EntryType::Link {
            let first = link.expect("a target").trim_start_matches('/').to_owned();
            let mut read = self.files.get(&first).expect("a hard link's target comes first").clone();
            read.hard_link = Some(first);
            return read;
        }
        let kind = match header.entry_type() {
            EntryType::Directory => 'd',
            EntryType::Symlink => 'l',
            EntryType::Fifo => 'p',
            EntryType::Char => 'c',
            EntryType::Block => 'b',
            _ => '-',
        };
        let (mut uid, mut gid) = (header.uid().unwrap(), header.gid().unwrap());
        let mut xattrs = BTreeMap::new();
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            let key = record.key().unwrap();
            match key {
                "uid" => uid = record.value().unwrap().parse().unwrap(),
                "gid" => gid = record.value().unwrap().parse().unwrap(),
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                    }
                }
            }
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        Entry {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            uid,
            gid,
            mtime: header.mtime().unwrap() as i64,
            link: link.unwrap_or_default(),
            content,
            xattrs,
            hard_link: None,
        }
    }

    /// What this image has otherwise than `base`, as text: one line a path. `times` names the modification times that are
    /// known; others are `?`.
    pub fn listing(&self, base: &BTreeMap<String, Entry>, times: &[(i64, &str)]) -> String {
        let mut out = String::new();
        for (path, entry) in &self.files {
            if base.get(path) == Some(entry) {
                continue;
            }
            let time = times.iter().find(|(time, _)| *time == entry.mtime).map_or("?", |(_, name)| *name);
            let owner = entry.owner();
            write!(out, "{}{:04o} {owner} {time} /{path}", entry.kind, entry.mode).unwrap();
            match entry.kind {
                '-' => {
                    write!(out, " {} {:016x}", entry.content.len(), super::fnv(&entry.content)).unwrap();
                }
                'l' => write!(out, " -> {}", entry.link).unwrap(),
                _ => {}
            }
            if let Some(first) = &entry.hard_link {
                write!(out, " = /{first}").unwrap();
            }
            for (name, value) in &entry.xattrs {
                write!(out, " {name}={}", String::from_utf8_lossy(value)).unwrap();
            }
            out.push('\n');
        }
        for path in base.keys().filter(|path| !self.files.contains_key(*path)) {
            writeln!(out, "gone /{path}").unwrap();
        }
        out
    }
}
