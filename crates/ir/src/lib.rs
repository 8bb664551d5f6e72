//! The operations a build is made of, their canonical encoding and its digest.
//!
//! A vertex makes at most one layer. Its root filesystem is its parent's root with that layer on top; a vertex without
//! a parent starts from the empty root. Nothing here knows how an operation is executed.

mod definition;
mod op;
mod remote;

pub use definition::{Definition, HistoryEntry, ImageResult, Source, Vertex, VertexDigest};
pub use op::{
    CopyOp, CopySource, Device, ExecOp, ImageOp, MkdirOp, Mount, MountKind, NetworkMode, Op, SecurityMode,
    Sharing, Unpack,
};
pub use remote::{
    GitOp, GitTime, HttpOp, RemoteUrl, is_commit, is_commit_prefix, is_reference, percent_decoded, redacted,
};
