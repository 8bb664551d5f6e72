//! `index.json`, and that every tagged image is all here.

use super::{Fsck, ProblemKind};
use crate::error::Result;
use crate::image::{Index, name_of};
use crate::inventory::{digest_of, read_document};
use rbuild_oci::Digest;
use serde_json::Value;
use std::fs;

impl Fsck<'_> {
    /// Under the gate.
    pub(super) fn check_index_json(&mut self) -> Result<()> {
        let Err(error) = Index::read(self.store.root()) else { return Ok(()) };
        if !self.options.repair {
            self.add(ProblemKind::Layout, "index.json", error.to_string());
            return Ok(());
        }
        let aside = self.store.quarantine(&self.store.root().join("index.json"))?;
        let restored = self.store.restore_index_json()?;
        let what =
            if restored { "the state before its last changes was restored" } else { "it is empty now" };
        let repair = format!("moved to {aside}; {what}");
        self.add_repaired(ProblemKind::Layout, "index.json", error.to_string(), repair);
        Ok(())
    }

    /// Under the gate.
    pub(super) fn check_images(&mut self) -> Result<()> {
        let Ok(index) = Index::read(self.store.root()) else { return Ok(()) };
        let entries = index.entries().to_vec();
        self.report.images = entries.len();
        let mut lost = Vec::new();
        for entry in &entries {
            let name = name_of(entry).unwrap_or("<none>").to_owned();
            let Some(digest) = digest_of(entry) else { continue };
            let missing = self.missing_of(entry, digest);
            if let Some((first, reason)) = missing.first() {
                let more = match missing.len() {
                    1 => String::new(),
                    count => format!(", and {} more", count - 1),
                };
                let detail = format!("{first} {reason}{more}");
                self.add_repaired(ProblemKind::Image, &name, detail, "the tag was removed");
                lost.push(entry.clone());
            }
        }
        if self.options.repair && !lost.is_empty() {
            self.store.remove_index_entries(&lost)?;
        }
        Ok(())
    }

    /// The blobs that an image lacks, and why.
    fn missing_of(&self, descriptor: &Value, digest: Digest) -> Vec<(Digest, String)> {
        let mut missing = Vec::new();
        if let Some(reason) = self.lack_of(descriptor, digest) {
            return vec![(digest, reason)];
        }
        let Some(document) = read_document(&self.store.blob_path(&digest)) else {
            return vec![(digest, "is no manifest".to_owned())];
        };
        let lists = ["layers", "blobs"].iter().filter_map(|name| document[*name].as_array());
        for child in lists.flatten().chain([&document["config"]]) {
            if let Some(digest) = digest_of(child)
                && let Some(reason) = self.lack_of(child, digest)
            {
                missing.push((digest, reason));
            }
        }
        // An index may name platforms whose manifests were never fetched, but not lack all.
        let children: Vec<_> = document["manifests"].as_array().into_iter().flatten().collect();
        let mut here = 0;
        let mut absent = Vec::new();
        for child in &children {
            let Some(digest) = digest_of(child) else { continue };
            if !self.store.blob_path(&digest).exists() && !self.bad_blobs.contains(&digest) {
                absent.push((digest, "is missing".to_owned()));
                continue;
            }
            here += 1;
            missing.extend(self.missing_of(child, digest));
        }
        if here == 0 {
            missing.extend(absent);
        }
        missing
    }

    fn lack_of(&self, descriptor: &Value, digest: Digest) -> Option<String> {
        if self.bad_blobs.contains(&digest) {
            return Some("is damaged".to_owned());
        }
        match (fs::metadata(self.store.blob_path(&digest)), descriptor["size"].as_u64()) {
            (Err(_), _) => Some("is missing".to_owned()),
            (Ok(meta), Some(size)) if meta.len() != size => {
                Some(format!("has {} bytes instead of {size}", meta.len()))
            }
            _ => None,
        }
    }
}
