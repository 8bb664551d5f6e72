//! What a build wrote, read without rbuild.

use crate::source::{Node, Tree, regroup};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// The files of an image's layers from the `skip`th on, one over the other. No layer here has a whiteout.
pub fn image(store: &Path, name: &str, skip: usize) -> Tree {
    let read =
        |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blob = |digest: &Value| read(&store.join("blobs").join(digest.as_str().unwrap().replace(':', "/")));
    let index: Value = serde_json::from_slice(&read(&store.join("index.json"))).unwrap();
    let full = format!("docker.io/library/{name}:latest");
    let named = |one: &&Value| one["annotations"]["org.opencontainers.image.ref.name"] == full.as_str();
    let found = index["manifests"].as_array().unwrap().iter().find(named).expect("the image has its name");
    let manifest: Value = serde_json::from_slice(&blob(&found["digest"])).unwrap();
    let mut tree = Tree::new();
    for layer in manifest["layers"].as_array().unwrap().iter().skip(skip) {
        let bytes = blob(&layer["digest"]);
        apply(&mut tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..])), &mut tree);
    }
    regroup(&mut tree);
    tree
}

/// The files of a tar.
pub fn archive(path: &Path) -> Tree {
    let mut tree = Tree::new();
    apply(&mut tar::Archive::new(std::fs::File::open(path).unwrap()), &mut tree);
    regroup(&mut tree);
    tree
}

fn apply(archive: &mut tar::Archive<impl Read>, tree: &mut Tree) {
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
        assert!(!name.contains(".wh."), "{name}");
        let link = entry.link_name().unwrap().map(|link| link.to_str().unwrap().to_owned());
        let header = entry.header().clone();
        if header.entry_type().is_hard_link() {
            let target = link.unwrap().trim_start_matches('/').to_owned();
            let first = tree.get_mut(&target).expect("a hard link's target comes first");
            let group = first.first.get_or_insert(target).clone();
            let node = Node { first: Some(group), ..first.clone() };
            tree.insert(name, node);
            continue;
        }
        let mut capability = None;
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            if extension.key() == Ok("SCHILY.xattr.security.capability") {
                capability = Some(extension.value_bytes().to_vec());
            }
        }
        let kind = match header.entry_type() {
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Regular => 'f',
            other => panic!("{name}: {other:?}"),
        };
        let mut data = Vec::new();
        match kind {
            'l' => data = link.unwrap().into_bytes(),
            _ => drop(entry.read_to_end(&mut data).unwrap()),
        }
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        let mode = header.mode().unwrap() & 0o7777;
        tree.insert(name, Node { kind, mode, owner, data, capability, first: None });
    }
}
