//! Images read back: documents, layers and their entries, with every digest checked.

use crate::context::TestContext;
use rbuild_oci::Digest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// An image of an OCI layout.
#[derive(Debug)]
pub struct Image {
    pub digest: String,
    pub manifest: Value,
    pub config: Value,
    pub layers: Vec<Layer>,
}

/// A layer's entries, in order.
#[derive(Debug)]
pub struct Layer {
    pub entries: Vec<Entry>,
}

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    /// `f`, `d`, `l` (symbolic link), `h` (hard link), `c`, `b`, `p`.
    pub kind: char,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: String,
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    /// `f 0644 0:0 etc/x (3)`: everything but times and bytes.
    pub fn line(&self) -> String {
        let detail = match self.kind {
            'f' => format!(" ({})", self.data.len()),
            'l' | 'h' => format!(" -> {}", self.link),
            _ => String::new(),
        };
        format!("{} {:04o} {}:{} {}{detail}", self.kind, self.mode, self.uid, self.gid, self.path)
    }
}

impl Layer {
    /// An entry by its path without a leading slash.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path.trim_end_matches('/') == path)
    }

    /// All lines.
    pub fn lines(&self) -> Vec<String> {
        self.entries.iter().map(Entry::line).collect()
    }
}

impl Image {
    /// The image that the test's store has under a name.
    #[track_caller]
    pub fn of(context: &TestContext, name: &str) -> Self {
        let image = Self::in_layout(&context.store(), |annotations| {
            annotations["org.opencontainers.image.ref.name"] == format!("docker.io/library/{name}").as_str()
        });
        image.unwrap_or_else(|| panic!("no image {name} in the store"))
    }

    /// The only image of an OCI layout.
    #[track_caller]
    pub fn only(layout: &Path) -> Self {
        Self::in_layout(layout, |_| true).expect("an image in the layout")
    }

    fn in_layout(layout: &Path, wanted: impl Fn(&Value) -> bool) -> Option<Self> {
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).ok()?).unwrap();
        let found =
            index["manifests"].as_array()?.iter().find(|descriptor| wanted(&descriptor["annotations"]))?;
        Some(Self::read(layout, found))
    }

    /// The images of an index that an entry of a layout's `index.json` describes, with the index itself.
    #[track_caller]
    pub fn all(layout: &Path, entry: &Value) -> (Value, Vec<Self>) {
        assert_eq!(entry["mediaType"], "application/vnd.oci.image.index.v1+json", "{entry}");
        let index: Value = serde_json::from_slice(&blob(layout, entry)).unwrap();
        let images = index["manifests"].as_array().unwrap().iter().map(|entry| Self::read(layout, entry));
        let images = images.collect();
        (index, images)
    }

    fn read(layout: &Path, descriptor: &Value) -> Self {
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let manifest: Value = serde_json::from_slice(&blob(layout, descriptor)).unwrap();
        let config: Value = serde_json::from_slice(&blob(layout, &manifest["config"])).unwrap();
        let described = manifest["layers"].as_array().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(described.len(), diff_ids.len(), "layers and diff_ids");
        let layers =
            described.iter().zip(diff_ids).map(|(layer, diff_id)| read_layer(&blob(layout, layer), diff_id));
        Self { digest, layers: layers.collect(), manifest, config }
    }

    /// The last layer.
    #[track_caller]
    pub fn last(&self) -> &Layer {
        self.layers.last().expect("a layer")
    }

    /// `created_by` of every history entry, with ` (empty)` behind those without a layer.
    pub fn history(&self) -> Vec<String> {
        let entries = self.config["history"].as_array().unwrap();
        let line = |entry: &Value| {
            let empty = if entry["empty_layer"] == true { " (empty)" } else { "" };
            format!("{}{empty}", entry["created_by"].as_str().unwrap_or("-"))
        };
        entries.iter().map(line).collect()
    }
}

/// A blob, whose size and digest must be what its descriptor says.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = std::fs::read(layout.join("blobs").join(digest.replace(':', "/")))
        .expect("the blob is in the layout");
    assert_eq!(descriptor["size"], bytes.len(), "size of {digest}");
    assert_eq!(Digest::of(&bytes).to_string(), digest);
    bytes
}

fn read_layer(bytes: &[u8], diff_id: &Value) -> Layer {
    let mut tar = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut tar).expect("a gzip layer");
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => tar = zstd::decode_all(bytes).expect("a zstd layer"),
        plain => tar.extend_from_slice(plain),
    }
    assert_eq!(Digest::of(&tar).to_string(), *diff_id, "diff id");
    Layer { entries: read_tar(&tar) }
}

/// All entries of a tar archive.
pub fn read_tar(bytes: &[u8]) -> Vec<Entry> {
    let mut archive = tar::Archive::new(bytes);
    let mut entries = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in extensions {
                let extension = extension.unwrap();
                if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Regular => 'f',
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Link => 'h',
            tar::EntryType::Char => 'c',
            tar::EntryType::Block => 'b',
            tar::EntryType::Fifo => 'p',
            other => panic!("unexpected entry type {other:?}"),
        };
        entries.push(Entry {
            kind,
            mode: header.mode().unwrap(),
            uid: header.uid().unwrap(),
            gid: header.gid().unwrap(),
            mtime: header.mtime().unwrap(),
            link: entry
                .link_name_bytes()
                .map(|name| String::from_utf8_lossy(&name).into_owned())
                .unwrap_or_default(),
            path: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            data,
            xattrs,
        });
    }
    entries
}
