//! The whole of a build: vertices in topological order and the image to make of the last root.

use crate::Op;
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde::Serialize;
use std::ops::Range;

/// Digest of a vertex: its operation's canonical encoding and the digests of what it stands on and reads.
pub type VertexDigest = Digest;

/// A tree that an operation reads from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A local build context by name: `context` is the main one. Keyed by content, not by name.
    Context(String),
    /// The root of `Vertex::inputs[i]`.
    Input(usize),
    /// The empty root (`--from=scratch`, or a stage with no vertex).
    Empty,
}

/// One operation and what it stands on.
#[derive(Debug, Clone, Serialize)]
pub struct Vertex {
    /// See [`VertexDigest`].
    pub digest: VertexDigest,
    /// What to do.
    pub op: Op,
    /// The root this operation changes; `None` is the empty root.
    pub parent: Option<VertexDigest>,
    /// Further roots it reads, referred to by [`Source::Input`].
    pub inputs: Vec<VertexDigest>,
    /// As shown: `[build 2/5] RUN make`. Not part of the digest.
    pub name: String,
    /// Lower-case stage name or number, for --no-cache-filter.
    pub stage: String,
    /// 1-based lines of the Dockerfile, end exclusive; empty for what has no line.
    pub lines: Range<u32>,
}

impl Vertex {
    /// Builds a vertex and computes its digest: SHA-256 over `rbuild.ir.v1\n` and the JSON of
    /// `[op, parent, inputs]` with fields in declaration order.
    pub fn new(op: Op, parent: Option<VertexDigest>, inputs: Vec<VertexDigest>) -> Self {
        let canonical =
            serde_json::to_string(&(&op, &parent, &inputs)).expect("operations hold only JSON values");
        let digest = Digest::of(format!("rbuild.ir.v1\n{canonical}"));
        Self { digest, op, parent, inputs, name: String::new(), stage: String::new(), lines: 0..0 }
    }
}

/// What the frontend hands to the solver.
#[derive(Debug, Clone, Serialize)]
pub struct Definition {
    /// Vertices, each after its parent and inputs. May hold equal digests twice; the graph removes them.
    pub vertices: Vec<Vertex>,
    /// The image to make.
    pub image: ImageResult,
}

/// The target stage's image.
#[derive(Debug, Clone, Serialize)]
pub struct ImageResult {
    /// The vertex whose root is the image's; `None` is the empty root.
    pub root: Option<VertexDigest>,
    /// Config without diff IDs of new layers and without created times.
    pub config: ImageConfig,
    /// History of the new instructions, after `config.history` (the base's).
    pub history: Vec<HistoryEntry>,
    /// What the layers come from, for history entries that are missing (B-010): first of all layers of the base image, then of
    /// each layer on top of it, bottom first. Empty when there are no layers.
    #[serde(skip)]
    pub origins: Vec<String>,
    /// Platform of the result.
    pub platform: Platform,
    /// SOURCE_DATE_EPOCH, from the build argument or a global ARG default.
    pub source_date_epoch: Option<i64>,
}

/// A history entry of a new instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// B-008.
    pub created_by: String,
    /// Comment, `buildkit.dockerfile.v0`.
    pub comment: String,
    /// The vertex that made the layer; `None` is an empty layer.
    pub vertex: Option<VertexDigest>,
}
