//! The build graph: equal vertices are one, unneeded ones are gone, and the order is known.
//!
//! Built on petgraph; a vertex's identity is its digest, node indices never leave this room.

use petgraph::acyclic::Acyclic;
use petgraph::data::Build;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use rbuild_ir::{Definition, Vertex, VertexDigest};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Why a definition is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An edge closes a cycle.
    #[error("circular dependency: `{from}` needs `{to}`, which already depends on it")]
    Cycle {
        /// Name of the vertex whose need closes the cycle.
        from: String,
        /// Name of the vertex that it needs.
        to: String,
    },
    /// A vertex refers to one that is not in the definition.
    #[error("internal error: `{vertex}` refers to the unknown vertex {missing}")]
    Dangling {
        /// Name of the vertex.
        vertex: String,
        /// The digest it refers to.
        missing: VertexDigest,
    },
}

/// Index of a vertex in [`Plan::vertices`].
pub type Step = usize;

/// The vertices that the targets need, each once, every one after all that it needs. There is a target for each platform.
#[derive(Debug, Clone)]
pub struct Plan {
    vertices: Vec<Vertex>,
    needs: Vec<Vec<Step>>,
    targets: Vec<Option<Step>>,
}

impl Plan {
    /// [`Plan::of_all`] with one definition.
    pub fn new(definition: &Definition) -> Result<Self, GraphError> {
        Self::of_all(std::slice::from_ref(definition))
    }

    /// Dedupes the definitions' vertices by digest, keeps those reachable from the images' roots, and orders them. What
    /// several definitions need has the name that the first of them gives it.
    pub fn of_all(definitions: &[Definition]) -> Result<Self, GraphError> {
        let full = FullGraph::build(definitions)?;
        let roots = definitions
            .iter()
            .map(|definition| definition.image.root.map(|root| full.node(&root, "the image")).transpose());
        let roots: Vec<Option<NodeIndex>> = roots.collect::<Result<_, _>>()?;
        let order = full.needed_in_order(roots.iter().copied().flatten());
        let step_of: HashMap<NodeIndex, Step> =
            order.iter().enumerate().map(|(step, node)| (*node, step)).collect();
        let vertices: Vec<Vertex> = order.iter().map(|node| full.graph[*node].clone()).collect();
        let needs = vertices
            .iter()
            .map(|vertex| {
                needed_digests(vertex).map(|digest| step_of[&full.by_digest[digest]]).collect::<Vec<Step>>()
            })
            .collect();
        let targets = roots.into_iter().map(|root| root.map(|root| step_of[&root])).collect();
        Ok(Self { vertices, needs, targets })
    }

    /// The vertices in topological order.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// What a step needs: its parent first (if it has one), then its inputs in order.
    pub fn needs(&self, step: Step) -> &[Step] {
        &self.needs[step]
    }

    /// The parent of a step.
    pub fn parent(&self, step: Step) -> Option<Step> {
        self.vertices[step].parent.map(|_| self.needs[step][0])
    }

    /// The inputs of a step, in order.
    pub fn inputs(&self, step: Step) -> &[Step] {
        let skip = usize::from(self.vertices[step].parent.is_some());
        &self.needs[step][skip..]
    }

    /// For each definition, the step whose root is the image's; `None` for an image without files.
    pub fn targets(&self) -> &[Option<Step>] {
        &self.targets
    }

    /// The steps that make the layers of a definition's image: the target and its line of parents, the base first.
    pub fn layer_line(&self, definition: usize) -> Vec<Step> {
        let target = self.targets.get(definition).copied().flatten();
        let mut line: Vec<Step> = std::iter::successors(target, |step| self.parent(*step)).collect();
        line.reverse();
        line
    }

    /// The most expensive chain of steps when `cost` is what each takes; the first step first.
    pub fn critical_path(&self, cost: impl Fn(Step) -> u64) -> Vec<Step> {
        let mut best: Vec<(u64, Option<Step>)> = Vec::with_capacity(self.vertices.len());
        for step in 0..self.vertices.len() {
            let before = self.needs[step].iter().map(|need| (best[*need].0, *need)).max();
            best.push((before.map_or(0, |(sum, _)| sum) + cost(step), before.map(|(_, need)| need)));
        }
        let Some(last) = (0..best.len()).max_by_key(|step| best[*step].0) else { return Vec::new() };
        let mut path: Vec<Step> = std::iter::successors(Some(last), |step| best[*step].1).collect();
        path.reverse();
        path
    }

    /// The graph in Graphviz's language.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph build {\n");
        for (step, vertex) in self.vertices.iter().enumerate() {
            let label = vertex.name.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(out, "  v{step} [label=\"{label}\"];").expect("writing to a string cannot fail");
            for need in &self.needs[step] {
                writeln!(out, "  v{need} -> v{step};").expect("writing to a string cannot fail");
            }
        }
        out.push_str("}\n");
        out
    }
}

fn needed_digests(vertex: &Vertex) -> impl Iterator<Item = &VertexDigest> {
    vertex.parent.iter().chain(&vertex.inputs)
}

/// All vertices of the definitions, with an edge from each vertex to what needs it.
struct FullGraph {
    graph: Acyclic<StableDiGraph<Vertex, ()>>,
    by_digest: HashMap<VertexDigest, NodeIndex>,
}

impl FullGraph {
    fn build(definitions: &[Definition]) -> Result<Self, GraphError> {
        let vertices = || definitions.iter().flat_map(|definition| &definition.vertices);
        let mut full = Self { graph: Acyclic::new(), by_digest: HashMap::with_capacity(vertices().count()) };
        for vertex in vertices() {
            full.by_digest.entry(vertex.digest).or_insert_with(|| full.graph.add_node(vertex.clone()));
        }
        for vertex in vertices() {
            let to = full.by_digest[&vertex.digest];
            for digest in needed_digests(vertex) {
                let from = full.node(digest, &vertex.name)?;
                full.graph.try_update_edge(from, to, ()).map_err(|_| GraphError::Cycle {
                    from: vertex.name.clone(),
                    to: full.graph[from].name.clone(),
                })?;
            }
        }
        Ok(full)
    }

    fn node(&self, digest: &VertexDigest, vertex: &str) -> Result<NodeIndex, GraphError> {
        let missing = || GraphError::Dangling { vertex: vertex.to_owned(), missing: *digest };
        self.by_digest.get(digest).copied().ok_or_else(missing)
    }

    /// The roots and all that they need, in a topological order that follows the Dockerfile where it is free to.
    fn needed_in_order(&self, roots: impl Iterator<Item = NodeIndex>) -> Vec<NodeIndex> {
        let mut pending: Vec<NodeIndex> = roots.collect();
        let mut needed: std::collections::HashSet<NodeIndex> = pending.iter().copied().collect();
        while let Some(node) = pending.pop() {
            for edge in self.graph.edges_directed(node, petgraph::Direction::Incoming) {
                if needed.insert(edge.source()) {
                    pending.push(edge.source());
                }
            }
        }
        self.graph.nodes_iter().filter(|node| needed.contains(node)).collect()
    }
}

#[cfg(test)]
mod tests;
