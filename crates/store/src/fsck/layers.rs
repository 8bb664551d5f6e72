//! Unpacked layers.

use super::{Fsck, ProblemKind};
use crate::error::{IoContext, Result};
use crate::layer::{LAYER, layer_row, snapshot_id};
use crate::sum::Sum;
use crate::{LayerId, LayerKind};
use rbuild_oci::Digest;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// An unpacked layer whose content is to be compared.
#[derive(Debug)]
pub struct LayerOnDisk<'a> {
    /// Where it came from.
    pub kind: LayerKind,
    /// Its directory.
    pub dir: &'a Path,
    /// The directories of the layers below it, the base first.
    pub below: &'a [PathBuf],
}

/// Computes content digests for the store, which does not know what they are made of.
pub trait LayerCheck {
    /// The digest of the layer's content but for times, as in [`crate::Layer::content_digest`], or why it cannot be had.
    fn content_digest(&self, layer: &LayerOnDisk<'_>) -> std::result::Result<Digest, String>;
}

/// What the index knows of a layer.
struct Known {
    kind: LayerKind,
    content: Option<Digest>,
    /// Layers below it in some record.
    below: Option<Vec<LayerId>>,
}

impl Fsck<'_> {
    pub(super) fn check_layers(&mut self) -> Result<()> {
        let dir = self.store.root().join("snapshots");
        let known = match self.options.layers {
            Some(_) => self.known_layers()?,
            None => HashMap::new(),
        };
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let Some(id) = snapshot_id(&path) else {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.add(
                    ProblemKind::Leftover,
                    format!("snapshots/{name}"),
                    "it is no layer, and left alone",
                );
                continue;
            };
            self.report.layers += 1;
            if let Some(reason) = self.fault_of(&path, known.get(&id)) {
                // Whether it has vanished meanwhile is seen under the gate.
                self.bad_layers.insert(id);
                self.add(ProblemKind::Layer, id, reason);
            }
        }
        Ok(())
    }

    fn fault_of(&self, path: &Path, known: Option<&Known>) -> Option<String> {
        if !path.join("fs").is_dir() {
            return path.exists().then(|| "it has no directory".to_owned());
        }
        if let Some(sum) = Sum::read(path) {
            match Sum::measure(path) {
                Ok(now) if now.same_entries(&sum) => {}
                Ok(_) => return Some("its files have been cut short, removed or added to".to_owned()),
                Err(_) if !path.exists() => return None,
                Err(error) => return Some(format!("it cannot be read: {error}")),
            }
        }
        let (check, known) = (self.options.layers?, known?);
        // The content digest of a pulled layer is that of its tar, which times are part of.
        if known.kind == LayerKind::Pulled {
            return None;
        }
        let content = known.content?;
        let below: Vec<PathBuf> = match (&known.below, known.kind) {
            (_, LayerKind::Written) => Vec::new(),
            (Some(below), _) => {
                below.iter().map(|id| self.store.root().join("snapshots").join(id.hex()).join("fs")).collect()
            }
            (None, _) => return None,
        };
        if below.iter().any(|dir| !dir.is_dir()) {
            return None;
        }
        let layer = LayerOnDisk { kind: known.kind, dir: &path.join("fs"), below: &below };
        match check.content_digest(&layer) {
            Ok(found) if found == content => None,
            Ok(found) => Some(format!("its content has the digest {found} instead of {content}")),
            Err(reason) => Some(format!("it cannot be read: {reason}")),
        }
    }

    fn known_layers(&self) -> Result<HashMap<LayerId, Known>> {
        self.store.query(|db| {
            let mut found = HashMap::new();
            let mut statement = db.prepare(&format!("SELECT {LAYER} FROM layers"))?;
            for layer in statement.query_map([], layer_row)? {
                let layer = layer?;
                let known = Known { kind: layer.kind, content: layer.content_digest, below: None };
                found.insert(layer.id, known);
            }
            let mut statement = db.prepare("SELECT chain FROM records")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let chain: Vec<u8> = row.get(0)?;
                let ids = chain.chunks_exact(32).filter_map(|id| <[u8; 32]>::try_from(id).ok());
                let ids: Vec<LayerId> = ids.map(Digest::from_bytes).collect();
                for (place, id) in ids.iter().enumerate() {
                    if let Some(known) = found.get_mut(id) {
                        known.below.get_or_insert_with(|| ids[..place].to_vec());
                    }
                }
            }
            Ok(found)
        })
    }

    /// Under the gate: puts away the layers that are still bad.
    pub(super) fn repair_layers(&mut self) -> Result<()> {
        for id in self.bad_layers.clone() {
            let path = self.store.root().join("snapshots").join(id.hex());
            let text = id.to_string();
            if !path.exists() {
                self.bad_layers.remove(&id);
                self.report.problems.retain(|p| p.kind != ProblemKind::Layer || p.object != text);
                continue;
            }
            if !self.options.repair || self.in_use.contains(&id) {
                continue;
            }
            let aside = self.store.quarantine(&path)?;
            for problem in &mut self.report.problems {
                if problem.kind == ProblemKind::Layer && problem.object == text {
                    problem.repair = Some(format!("moved to {aside}"));
                }
            }
        }
        Ok(())
    }
}
