//! How names that can move (tags, URLs, branches) are resolved: by a lock, by what is remembered, by asking.

use crate::error::OpFailure;
use rbuild_ir::GitOp;
use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How names are resolved in one build.
#[derive(Debug, Clone, Default)]
pub struct Resolving {
    /// No request is made; what was remembered is used, however old.
    pub offline: bool,
    /// What has no digest of its own must be in the lock.
    pub locked: bool,
    /// Answers that are not older than this are used without asking again.
    pub max_age: Duration,
    /// The lock, if there is one.
    pub pins: Option<Arc<Pins>>,
}

/// What names are pinned to: the content of a lock file. Names carry no credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Image references with tag (`docker.io/library/debian:12`) → digest of what the tag named: an index or a manifest.
    #[serde(default)]
    pub images: BTreeMap<String, Digest>,
    /// URLs of files.
    #[serde(default)]
    pub urls: BTreeMap<String, PinnedFile>,
    /// `remote#reference` → commit.
    #[serde(default)]
    pub git: BTreeMap<String, String>,
}

/// A pinned file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// `Last-Modified`, seconds since 1970: the time the file gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
}

/// The name of a git reference in a lock.
pub fn git_pin_name(op: &GitOp) -> String {
    let reference = if op.reference.is_empty() { "HEAD" } else { &op.reference };
    format!("{}#{reference}", op.remote.redacted())
}

impl Resolving {
    /// What the lock says of an image reference with tag. Under [`Resolving::locked`] it must say something.
    ///
    /// # Errors
    /// [`OpFailure::NotLocked`].
    pub fn image(&self, name: &str) -> Result<Option<Digest>, OpFailure> {
        self.pinned(name, |pins| pins.images.get(name).copied())
    }

    pub(crate) fn url(&self, url: &str) -> Result<Option<PinnedFile>, OpFailure> {
        self.pinned(url, |pins| pins.urls.get(url).cloned())
    }

    pub(crate) fn git(&self, op: &GitOp) -> Result<Option<String>, OpFailure> {
        let name = git_pin_name(op);
        self.pinned(&name, |pins| pins.git.get(&name).cloned())
    }

    /// Whether something that was asked for at `asked` (seconds since 1970) need not be asked for again at `now`.
    pub fn is_fresh(&self, asked: i64, now: i64) -> bool {
        let age = now.checked_sub(asked).and_then(|age| u64::try_from(age).ok());
        self.offline || age.is_some_and(|age| !self.max_age.is_zero() && age <= self.max_age.as_secs())
    }

    fn pinned<T>(&self, name: &str, find: impl FnOnce(&Pins) -> Option<T>) -> Result<Option<T>, OpFailure> {
        match self.pins.as_deref().and_then(find) {
            None if self.locked => Err(OpFailure::NotLocked(name.to_owned())),
            pin => Ok(pin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_age() {
        let hour = Resolving { max_age: Duration::from_secs(3600), ..Resolving::default() };
        assert!(hour.is_fresh(1_000, 1_000));
        assert!(hour.is_fresh(1_000, 4_600));
        assert!(!hour.is_fresh(1_000, 4_601));
        assert!(!hour.is_fresh(1_001, 1_000), "an answer from the future is worth nothing");
        assert!(!Resolving::default().is_fresh(1_000, 1_000));
        assert!(Resolving { offline: true, ..Resolving::default() }.is_fresh(0, i64::MAX));
    }

    #[test]
    fn what_is_not_in_the_lock_is_refused_only_when_locked() {
        let pins = Pins { images: BTreeMap::from([("a".into(), Digest::of("a"))]), ..Pins::default() };
        let mut resolving = Resolving { pins: Some(Arc::new(pins)), ..Resolving::default() };
        assert_eq!(resolving.image("a").unwrap(), Some(Digest::of("a")));
        assert_eq!(resolving.image("b").unwrap(), None);
        resolving.locked = true;
        assert!(matches!(resolving.image("b"), Err(OpFailure::NotLocked(name)) if name == "b"));
        resolving.pins = None;
        assert!(resolving.image("a").is_err());
    }
}
