//! What was fetched from URLs and git repositories: `http/` and `git/`.

use crate::Store;
use crate::error::{IoContext, Result};
use crate::fsutil::{optional, replace_file};
use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What a URL gave the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Digest of the file, which is a blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// `ETag`, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// `Last-Modified`, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
    /// When the server was last asked, seconds since 1970.
    #[serde(default)]
    pub asked: i64,
}

/// What a git reference led to the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitReference {
    /// The commit.
    pub commit: String,
    /// Id of what the reference names itself: the commit, or an annotated tag.
    pub own: String,
    /// The reference's full name.
    pub reference: String,
    /// When the remote was asked, seconds since 1970.
    pub asked: i64,
}

impl Store {
    /// What `url` (without credentials) gave the last time, if its blob is still here and whole. Under a lease it is kept.
    pub fn fetched(&self, url: &str) -> Result<Option<Fetched>> {
        let path = self.fetched_path(url);
        let Some(text) = optional(fs::read(&path)).at("read", &path)? else { return Ok(None) };
        // One that is not understood is fetched again.
        let Ok(fetched) = serde_json::from_slice::<Fetched>(&text) else { return Ok(None) };
        let here = self.blob_size(&fetched.digest)? == Some(fetched.size);
        Ok(Some(fetched).filter(|_| here))
    }

    /// Remembers what `url` gave. Its blob must be here.
    pub fn remember_fetched(&self, url: &str, fetched: &Fetched) -> Result<()> {
        let path = self.fetched_path(url);
        let text = serde_json::to_vec(fetched).unwrap_or_default();
        replace_file(&self.inner.session.new_path("j")?, &path, &text).at("write", &path)
    }

    /// What `name` (remote and reference, without credentials) led to the last time.
    pub fn git_reference(&self, name: &str) -> Result<Option<GitReference>> {
        let path = self.fetched_path(&git_reference_key(name));
        let Some(text) = optional(fs::read(&path)).at("read", &path)? else { return Ok(None) };
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Remembers what `name` led to.
    pub fn remember_git_reference(&self, name: &str, found: &GitReference) -> Result<()> {
        let path = self.fetched_path(&git_reference_key(name));
        let text = serde_json::to_vec(found).unwrap_or_default();
        replace_file(&self.inner.session.new_path("j")?, &path, &text).at("write", &path)
    }

    /// The directory of the bare repository that caches a git remote; it may not exist. Work in it is done under the key
    /// lock of [`Store::git_lock`].
    pub fn git_dir(&self, remote: &str) -> PathBuf {
        self.root().join("git").join(Self::git_lock(remote).hex())
    }

    /// The key that is locked by whoever works in [`Store::git_dir`].
    pub fn git_lock(remote: &str) -> Digest {
        Digest::of(format!("git\n{remote}"))
    }

    fn fetched_path(&self, url: &str) -> PathBuf {
        self.root().join("http").join(Digest::of(url).hex())
    }

    /// Moves a repository to the trash unless somebody works in it; whether it did.
    pub(crate) fn remove_git_dir(&self, path: &Path) -> Result<bool> {
        let Some(key) = crate::layer::snapshot_id(path) else { return Ok(false) };
        let Some(_lock) = self.try_lock_key(&key)? else { return Ok(false) };
        crate::ingest::to_trash(self.root(), path)?;
        Ok(true)
    }
}

/// Where a git reference is kept among the URLs.
fn git_reference_key(name: &str) -> String {
    format!("git reference\n{name}")
}
