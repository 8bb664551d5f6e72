//! From a name to the one manifest that fits a platform (F-014).

use crate::client::Client;
use crate::error::{Access, RegistryError, one_line};
use crate::manifest::Resolved;
use rbuild_oci::{Index, Platform, Reference, best_match, media_type};

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 4;

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What the reference itself stands for: an index, or the manifest.
    pub root: Resolved,
    /// The image manifest. Its config's platform is still to be compared: an index may not tell it, and a
    /// reference to a manifest never does.
    pub manifest: Resolved,
}

impl Client {
    /// Resolves `reference`, choosing by `platform` with variant fallback where it stands for an index.
    pub async fn resolve_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let root = self.resolve(reference).await?;
        let mut current = root.clone();
        for _ in 0..MAX_DEPTH {
            if media_type::is_manifest(&current.descriptor.media_type) {
                return Ok(ResolvedImage { root, manifest: current });
            }
            let session = self.session(reference, Access::Pull);
            let index: Index = serde_json::from_slice(&current.bytes)
                .map_err(|error| session.protocol(format!("the index cannot be read: {error}")))?;
            let Some(chosen) = best_match(&index.manifests, platform) else {
                return Err(RegistryError::NoPlatform {
                    target: session.target.into(),
                    wanted: platform.format_all(),
                    available: available(&index),
                });
            };
            let descriptor = index.manifests[chosen].clone();
            let bytes = self.manifest(reference, &descriptor).await?;
            current = Resolved { descriptor, bytes };
        }
        let session = self.session(reference, Access::Pull);
        Err(session.protocol(format!("more than {MAX_DEPTH} indexes within each other")))
    }
}

/// The platforms of an index in one line; attestations are no platforms.
fn available(index: &Index) -> String {
    let mut names: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(Platform::format_all)
        .collect();
    names.dedup();
    if names.is_empty() { "none".into() } else { one_line(&names.join(", ")) }
}
