//! Scheduling: operations that do nothing, so that only the solver is measured.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rbuild_event::Reporter;
use rbuild_graph::Plan;
use rbuild_ir::{Definition, ImageResult, MkdirOp, Vertex};
use rbuild_oci::{Digest, ImageConfig, Platform};
use rbuild_solver::{
    Beneath, CacheEntry, CacheStore, Inputs, KeyGuard, Op, OpError, OperationKey, SolveOptions, Solver,
    StepContext,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct Nothing(usize);

#[async_trait]
impl Op for Nothing {
    type Output = usize;

    async fn operation_key(&self, _: &StepContext) -> Result<OperationKey, OpError> {
        Ok(OperationKey::of(self.0.into()))
    }

    async fn inputs_digest(&self, _: &Inputs<usize>) -> Result<Option<Digest>, OpError> {
        Ok(None)
    }

    async fn execute(&self, _: &StepContext, _: &Inputs<usize>) -> Result<usize, OpError> {
        Ok(self.0)
    }
}

/// Knows everything, or nothing.
struct Cache(bool);

#[async_trait]
impl CacheStore<usize> for Cache {
    fn lookup(&self, keys: &[Digest]) -> Result<Vec<Option<usize>>, OpError> {
        Ok(keys.iter().map(|_| self.0.then_some(1)).collect())
    }

    fn knows_operation(&self, _: &Digest) -> Result<bool, OpError> {
        Ok(false)
    }

    async fn lookup_content(
        &self,
        _: &Digest,
        _: &Digest,
        _: Beneath<'_, usize>,
    ) -> Result<Option<usize>, OpError> {
        Ok(None)
    }

    fn commit(&self, _: CacheEntry<'_, usize>) -> Result<(), OpError> {
        Ok(())
    }

    async fn lock(&self, _: &Digest, _: &CancellationToken) -> Result<KeyGuard, OpError> {
        Ok(Box::new(()))
    }
}

/// `width` chains of `depth` steps, joined by one last step.
fn plan(width: usize, depth: usize) -> Arc<Plan> {
    let mut vertices = Vec::new();
    let mut ends = Vec::new();
    for chain in 0..width {
        let mut parent = None;
        for step in 0..depth {
            let path = format!("/{chain}/{step}");
            let op = rbuild_ir::Op::Mkdir(MkdirOp { path, user: String::new(), epoch: None });
            let vertex = Vertex::new(op, parent, Vec::new());
            parent = Some(vertex.digest);
            vertices.push(vertex);
        }
        ends.extend(parent);
    }
    let op = rbuild_ir::Op::Mkdir(MkdirOp { path: "/".into(), user: String::new(), epoch: None });
    let last = Vertex::new(op, None, ends);
    let image = ImageResult {
        root: Some(last.digest),
        config: ImageConfig::default(),
        history: Vec::new(),
        origins: Vec::new(),
        platform: Platform::linux("amd64"),
        source_date_epoch: None,
    };
    vertices.push(last);
    Arc::new(Plan::new(&Definition { vertices, image }).expect("an acyclic graph"))
}

fn solve(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut group = c.benchmark_group("solver");
    for (width, depth) in [(1, 50), (50, 50)] {
        let plan = plan(width, depth);
        group.throughput(Throughput::Elements(plan.vertices().len() as u64));
        for cached in [false, true] {
            let name = format!("{width} x {depth}, {}", if cached { "cached" } else { "cold" });
            group.bench_function(name, |b| {
                b.to_async(&runtime).iter(|| async {
                    let ops = (0..plan.vertices().len())
                        .map(|n| Arc::new(Nothing(n)) as Arc<dyn Op<Output = usize>>);
                    let solver = Solver {
                        cache: Arc::new(Cache(cached)),
                        options: SolveOptions::default(),
                        reporter: Reporter::silent(),
                        observer: None,
                        cancel: CancellationToken::new(),
                        declared: Arc::default(),
                    };
                    solver
                        .solve(Arc::clone(&plan), ops.collect(), Arc::new(|_, _| {}))
                        .await
                        .expect("a result")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, solve);
criterion_main!(benches);
