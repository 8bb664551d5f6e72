//! Where images came from: what a reference was resolved to, and which repositories have a blob.

use crate::Store;
use crate::db::{first, run};
use crate::error::Result;
use crate::fsutil::now;
use rbuild_oci::{Descriptor, Digest, Platform, Reference};
use rusqlite::params;

/// What a reference was resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Manifest of the platform.
    pub descriptor: Descriptor,
    /// When the registry was asked, seconds since 1970.
    pub resolved: i64,
}

impl Store {
    /// Remembers what a reference is on a platform, as of now.
    pub fn remember_resolution(
        &self,
        reference: &Reference,
        platform: &Platform,
        manifest: &Descriptor,
    ) -> Result<()> {
        let _gate = self.protect(&[manifest.digest])?;
        let (reference, platform) = (reference.to_string(), platform.to_string());
        // A descriptor has no map with other keys than strings, so that it always serialises.
        let text = serde_json::to_string(manifest).unwrap_or_default();
        let sql = "INSERT OR REPLACE INTO resolutions (reference, platform, descriptor, resolved) VALUES (?1, ?2, ?3, ?4)";
        self.change(|tx| run(tx, sql, params![reference, platform, text, now()]).map(drop))
    }

    /// What a reference was on a platform when it was last asked for. Its blobs need not be here.
    pub fn resolution(&self, reference: &Reference, platform: &Platform) -> Result<Option<Resolution>> {
        let _gate = self.protect(&[])?;
        let sql = "SELECT descriptor, resolved FROM resolutions WHERE reference = ?1 AND platform = ?2";
        let key = params![reference.to_string(), platform.to_string()];
        let row = self.query(|db| first(db, sql, key, |row| Ok((row.get::<_, String>(0)?, row.get(1)?))))?;
        let Some((text, resolved)) = row else { return Ok(None) };
        // One that is not understood is asked for again.
        let Ok(descriptor) = serde_json::from_str::<Descriptor>(&text) else { return Ok(None) };
        let _noted = self.protect(&[descriptor.digest])?;
        Ok(Some(Resolution { descriptor, resolved }))
    }

    /// Remembers that a repository (`registry/path`) has these blobs: they can be pulled from there again, or mounted
    /// from there when something is pushed to the same registry.
    pub fn remember_blob_sources(&self, blobs: &[Digest], repository: &str) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO blob_sources (blob, repository, seen) VALUES (?1, ?2, ?3)";
        let now = now();
        self.change(|tx| {
            blobs
                .iter()
                .try_for_each(|blob| run(tx, sql, params![blob.as_bytes(), repository, now]).map(drop))
        })
    }

    /// Repositories (`registry/path`) that have had this blob, the last seen first.
    pub fn blob_sources(&self, blob: &Digest) -> Result<Vec<String>> {
        let sql = "SELECT repository FROM blob_sources WHERE blob = ?1 ORDER BY seen DESC, repository";
        self.query(|db| db.prepare_cached(sql)?.query_map([blob.as_bytes()], |row| row.get(0))?.collect())
    }
}
