//! What the registry in memory holds and remembers.

use super::fault::Fault;
use rbuild_oci::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// One answered request.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `Authorization`, if sent.
    pub authorization: Option<String>,
    /// `Range`, if sent.
    pub range: Option<String>,
    /// `Content-Length`, if sent.
    pub content_length: Option<u64>,
    /// Status of the answer; 0 when the connection was closed instead.
    pub status: u16,
    /// Length of the request's body.
    pub received: u64,
    /// Length of the answer's body as far as it was sent.
    pub sent: u64,
}

/// One repository.
#[derive(Default)]
pub(crate) struct Repository {
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) manifests: BTreeMap<Digest, String>,
    pub(crate) tags: BTreeMap<String, Digest>,
}

#[derive(Default)]
pub(crate) struct State {
    /// All content, whichever repository it belongs to.
    pub(crate) content: BTreeMap<Digest, Vec<u8>>,
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// Open uploads: id to repository and bytes so far.
    pub(crate) uploads: BTreeMap<u64, (String, Vec<u8>)>,
    /// Valid tokens and their scopes.
    pub(crate) tokens: BTreeMap<String, Vec<String>>,
    pub(crate) next_id: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) log: Vec<Entry>,
}

impl State {
    pub(crate) fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub(crate) fn put_blob(&mut self, repository: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.content.insert(digest, bytes);
        self.repository(repository).blobs.insert(digest);
        digest
    }

    pub(crate) fn put_manifest(
        &mut self,
        repository: &str,
        version: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Digest {
        let digest = Digest::of(&bytes);
        self.content.insert(digest, bytes);
        let repository = self.repository(repository);
        repository.manifests.insert(digest, media_type.to_owned());
        if version.parse::<Digest>().is_err() {
            repository.tags.insert(version.to_owned(), digest);
        }
        digest
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
