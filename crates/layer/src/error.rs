//! What can go wrong, and what to do about it.

use rbuild_tree::TreePath;
use std::io;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a layer could not be packed. What was written to the output until then is garbage.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file's bytes are no longer those its entry promises: it was changed, truncated or removed meanwhile. Read the
    /// tree again and pack again.
    #[error("{path} changed while it was being read; build again when nothing writes to it")]
    Changed {
        /// The entry.
        path: TreePath,
    },
    /// A file could not be read.
    #[error("cannot read {path} for the layer: {source}")]
    Read {
        /// The entry.
        path: TreePath,
        /// What the system said.
        source: io::Error,
    },
    /// The blob could not be written (disk full, for one).
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
    /// The iterator of entries failed.
    #[error("cannot list the layer's entries: {0}")]
    Entries(#[source] Source),
    /// An entry cannot be expressed in an OCI layer.
    #[error("{path} cannot be stored in a layer: {reason}")]
    Unrepresentable {
        /// The entry.
        path: TreePath,
        /// What is in the way.
        reason: &'static str,
    },
    /// The entries are not in strictly ascending order; a fault of the caller.
    #[error("layer entries out of order at {path} (internal error; please report it)")]
    Order {
        /// The first entry that is not after its predecessor.
        path: TreePath,
    },
    /// The compression level does not exist.
    #[error("invalid compression level {level}: {codec} has levels {min} to {max}")]
    Level {
        /// The codec's name.
        codec: &'static str,
        /// The level asked for.
        level: i32,
        /// Lowest level.
        min: i32,
        /// Highest level.
        max: i32,
    },
    /// The codec failed; not known to happen.
    #[error("cannot compress the layer: {0}")]
    Codec(String),
}

/// Why a byte stream is no tar archive that can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed, or the compressed stream around the archive is bad.
    #[error("cannot read the archive: {0}")]
    Io(#[source] io::Error),
    /// The stream ends inside a header or inside an entry's data.
    #[error("the archive is truncated at byte {offset}")]
    Truncated {
        /// Bytes of the tar stream that could be read.
        offset: u64,
    },
    /// The bytes are no valid tar.
    #[error("malformed archive: {reason} (entry header at byte {offset})")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
        /// Where the entry's last header begins in the tar stream.
        offset: u64,
    },
    /// A limit that protects memory or disk was exceeded.
    #[error("the archive exceeds a limit: {what} (at most {limit}, entry header at byte {offset})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// Where the entry's last header begins in the tar stream.
        offset: u64,
    },
}

/// Why a blob could not be opened as compressed data.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// Reading failed.
    #[error("cannot read compressed data: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not what the media type says.
    #[error("the data is not {expected} although its media type `{media_type}` says so")]
    Mismatch {
        /// The codec that the media type names.
        expected: &'static str,
        /// The media type.
        media_type: String,
    },
}

/// Why a layer or an archive could not be unpacked. What is in the destination until then must be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The compressed stream cannot be opened.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The tar stream is bad.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The system refused an operation.
    #[error("cannot unpack {path}: {action}: {source}")]
    Io {
        /// The entry.
        path: TreePath,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An entry makes no sense or tries to escape.
    #[error("cannot unpack {path}: {reason}")]
    Entry {
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A hard link's target is not an earlier file of the same archive.
    #[error("cannot unpack {path}: its hard link target {target} is not in the archive before it")]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// What it should be another name of.
        target: TreePath,
    },
    /// More entries or bytes than allowed.
    #[error("cannot unpack {path}: more than {limit} {what}; this looks like a decompression bomb")]
    Limit {
        /// The first entry beyond the limit.
        path: TreePath,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}
