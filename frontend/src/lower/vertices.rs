//! The vertices made so far.

use super::state::Root;
use crate::ast::LineRange;
use rbuild_ir::{CopyOp, CopySource, Op, Source, Unpack, Vertex, VertexDigest};
use rbuild_oci::Reference;

/// Vertices with their edges. Equal ones are kept apart: they may belong to different stages.
#[derive(Default)]
pub(super) struct Vertices {
    list: Vec<Made>,
}

struct Made {
    vertex: Vertex,
    /// The parent, then the inputs.
    edges: Vec<usize>,
}

/// Inputs of a vertex that is being put together.
#[derive(Default)]
pub(super) struct Inputs(Vec<usize>);

impl Inputs {
    /// How an operation refers to a root.
    pub(super) fn source(&mut self, root: &Root) -> Source {
        match root {
            Root::Empty => Source::Empty,
            Root::Context(name) => Source::Context(name.clone()),
            Root::Vertex(vertex) => match self.0.iter().position(|input| input == vertex) {
                Some(index) => Source::Input(index),
                None => {
                    self.0.push(*vertex);
                    Source::Input(self.0.len() - 1)
                }
            },
        }
    }

    pub(super) fn vertices(&self) -> &[usize] {
        &self.0
    }
}

impl Vertices {
    pub(super) fn add(
        &mut self,
        op: Op,
        parent: Option<usize>,
        inputs: &[usize],
        name: String,
        stage: String,
        lines: LineRange,
    ) -> usize {
        let mut vertex = Vertex::new(
            op,
            parent.map(|parent| self.digest(parent)),
            inputs.iter().map(|input| self.digest(*input)).collect(),
        );
        vertex.name = name;
        vertex.stage = stage;
        vertex.lines = line(lines.start)..line(lines.end + usize::from(lines.end > 0));
        let edges = parent.into_iter().chain(inputs.iter().copied()).collect();
        self.list.push(Made { vertex, edges });
        self.list.len() - 1
    }

    pub(super) fn digest(&self, vertex: usize) -> VertexDigest {
        self.list[vertex].vertex.digest
    }

    /// Operations whose content is behind a URL.
    pub(super) fn remote(&self) -> impl Iterator<Item = &Op> {
        let ops = self.list.iter().map(|made| &made.vertex.op);
        ops.filter(|op| matches!(op, Op::Http(_) | Op::Git(_)))
    }

    /// The vertex of a root; a local context becomes one by copying it into the empty root.
    pub(super) fn root(&mut self, root: &Root, stage: &str) -> Option<usize> {
        let name = match root {
            Root::Empty => return None,
            Root::Vertex(vertex) => return Some(*vertex),
            Root::Context(name) => name,
        };
        let op = Op::Copy(CopyOp {
            sources: vec![CopySource::Path { from: Source::Context(name.clone()), path: "/".into() }],
            dest: "/".into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: Unpack::Never,
            is_add: false,
        });
        let shown = format!("[context {name}] load from client");
        Some(self.add(op, None, &[], shown, stage.to_owned(), LineRange::default()))
    }

    /// What BuildKit says of the layers below `root`: of those of the base image, then of each step's.
    pub(super) fn origins(&self, root: Option<usize>) -> Vec<String> {
        let mut steps = Vec::new();
        let mut next = root;
        while let Some(made) = next.map(|index| &self.list[index]) {
            if let Op::Image(image) = &made.vertex.op {
                // An image of a layout goes by the name of its context.
                let name = image.reference.trim_start_matches("oci-layout://");
                let reference = name.parse::<Reference>();
                let pinned = reference.map(|reference| reference.with_digest(image.manifest).to_string());
                steps.push(format!("pulled from {}", pinned.unwrap_or_else(|_| image.reference.clone())));
                steps.reverse();
                return steps;
            }
            steps.push(match &made.vertex.op {
                Op::Exec(exec) => format!("mount / from exec {}", exec.args.join(" ")),
                _ => "fileop target".to_owned(),
            });
            next = made.vertex.parent.and(made.edges.first().copied());
        }
        if !steps.is_empty() {
            steps.push(String::new());
        }
        steps.reverse();
        steps
    }

    /// Those that `root` needs, each after its parent and inputs.
    pub(super) fn into_order(self, root: Option<usize>) -> Vec<Vertex> {
        let mut list: Vec<_> = self.list.into_iter().map(|made| (Some(made.vertex), made.edges)).collect();
        let mut entered = vec![false; list.len()];
        let mut out = Vec::new();
        let mut open: Vec<(usize, bool)> = root.into_iter().map(|root| (root, false)).collect();
        while let Some((index, done)) = open.pop() {
            if done {
                out.extend(list[index].0.take());
            } else if !std::mem::replace(&mut entered[index], true) {
                open.push((index, true));
                open.extend(list[index].1.iter().rev().map(|edge| (*edge, false)));
            }
        }
        out
    }
}

/// Line numbers that don't fit are as good as none.
fn line(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
