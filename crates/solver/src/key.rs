//! Keys and their preimages.

use rbuild_oci::Digest;
use serde_json::Value;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

/// What decides an operation's output, except what it stands on and reads.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationKey {
    /// Digest of `preimage` (or of a longer form that it summarises).
    pub digest: Digest,
    /// The structured form, kept with the record so that a later miss can name its cause.
    pub preimage: Value,
    /// Parts that `preimage` names only by digest, such as the files of a COPY.
    pub details: Vec<KeyDetail>,
}

/// A part of a key that is too long for the preimage. It is written out only where somebody wants to keep it.
#[derive(Clone)]
pub struct KeyDetail {
    /// Its name, found in the preimage.
    pub digest: Digest,
    /// Writes it, in a form that belongs to the operation.
    pub write: Arc<WriteDetail>,
}

/// See [`KeyDetail::write`].
pub type WriteDetail = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

impl PartialEq for KeyDetail {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for KeyDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyDetail").field(&self.digest).finish()
    }
}

impl OperationKey {
    /// The key of a value that is small enough to be its own preimage.
    pub fn of(preimage: Value) -> Self {
        let text = serde_json::to_vec(&preimage).expect("a JSON value serialises");
        Self {
            digest: Digest::of([b"rbuild.op.v2\n", text.as_slice()].concat()),
            preimage,
            details: Vec::new(),
        }
    }

    /// This key with parts that its preimage names.
    pub fn with_details(self, details: impl IntoIterator<Item = KeyDetail>) -> Self {
        Self { details: details.into_iter().collect(), ..self }
    }
}

/// The definition key: domain-separated SHA-256 over the operation key and the keys of parent and inputs, each with its
/// position. `parent` is `None` for the empty root and for operations that do not read their parent.
pub fn definition_key(operation: &Digest, parent: Option<&Digest>, inputs: &[Digest]) -> Digest {
    let mut bytes = Vec::with_capacity(32 * (inputs.len() + 2) + 32);
    bytes.extend_from_slice(b"rbuild.key.v2\n");
    bytes.extend_from_slice(operation.as_bytes());
    bytes.push(u8::from(parent.is_some()));
    if let Some(parent) = parent {
        bytes.extend_from_slice(parent.as_bytes());
    }
    for input in inputs {
        bytes.extend_from_slice(input.as_bytes());
    }
    Digest::of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_not_an_input() {
        let (op, other) = (Digest::of("op"), Digest::of("other"));
        assert_ne!(definition_key(&op, Some(&other), &[]), definition_key(&op, None, &[other]));
        assert_ne!(definition_key(&op, None, &[]), definition_key(&op, Some(&other), &[]));
    }

    /// A change of this value invalidates every cache in the world: bump the version on purpose or not at all. Version 2 leaves
    /// behind records that took what an instruction made on a base for what it makes on the empty root.
    #[test]
    fn the_encoding_is_stable() {
        let key = definition_key(&Digest::of("op"), Some(&Digest::of("parent")), &[Digest::of("input")]);
        assert_eq!(key.short(), "0d4ad81e2390");
        assert_eq!(OperationKey::of(serde_json::json!({"op": "exec"})).digest.short(), "70a269a28ced");
    }
}
