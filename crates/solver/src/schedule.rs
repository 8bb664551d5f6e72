//! Which steps are needed, and running them side by side.

use crate::{
    Beneath, CacheEntry, CacheStore, Explanation, Inputs, KeyGuard, Keyed, Observer, Op, OpError,
    OperationKey, Output, ResultLost, SolveError, StepContext, definition_key,
};
use rbuild_event::{Event, Reporter, VertexId};
use rbuild_graph::{Plan, Step};
use rbuild_oci::Digest;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// For which steps the cache is not read.
#[derive(Debug, Clone, Default)]
pub enum NoCache {
    /// For none.
    #[default]
    Never,
    /// `--no-cache`.
    All,
    /// `--no-cache-filter`: the steps of these stages (lower case).
    Stages(BTreeSet<String>),
}

impl NoCache {
    /// Whether the cache is not read for the steps of this stage (lower case).
    pub fn covers(&self, stage: &str) -> bool {
        match self {
            NoCache::Never => false,
            NoCache::All => true,
            NoCache::Stages(stages) => stages.contains(stage),
        }
    }
}

/// How to solve.
#[derive(Debug, Clone, Default)]
pub struct SolveOptions {
    /// Most steps that execute at once; `None` is no limit.
    pub max_parallelism: Option<usize>,
    /// For which steps the cache is not read.
    pub no_cache: NoCache,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was executed.
    Cached,
    /// It ran, for this long.
    Executed(Duration),
}

/// What became of one step.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Its definition key.
    pub key: Digest,
    /// How it ended.
    pub outcome: Outcome,
}

/// The result of a build.
#[derive(Debug, Clone)]
pub struct Solved<T> {
    /// The results of the plan's targets, in their order; `None` for an image without files.
    pub targets: Vec<Option<T>>,
    /// In the plan's order.
    pub steps: Vec<StepReport>,
}

/// Told of every result that is at hand.
pub type OnOutput<T> = Arc<dyn Fn(Step, &T) + Send + Sync>;

type DynOp<T> = Arc<dyn Op<Output = T>>;

/// Runs a plan.
pub struct Solver<T: Sync> {
    /// Where results are kept.
    pub cache: Arc<dyn CacheStore<T>>,
    /// How to solve.
    pub options: SolveOptions,
    /// Where events go.
    pub reporter: Reporter,
    /// Is told of keys and misses.
    pub observer: Option<Arc<dyn Observer>>,
    /// Stops the build from outside.
    pub cancel: CancellationToken,
    /// Numbers of the steps: made by the first attempt to solve a plan, and used again by those after
    /// [`SolveError::Lost`].
    pub declared: Arc<OnceLock<Vec<VertexId>>>,
}

impl<T: Output> Solver<T> {
    /// Solves `plan`, whose steps are done by `ops` (same order). `on_output` is told of every result that is at hand,
    /// cached or new, as soon as it is; results that nobody needed are not made and not told.
    pub async fn solve(
        &self,
        plan: Arc<Plan>,
        ops: Vec<DynOp<T>>,
        on_output: OnOutput<T>,
    ) -> Result<Solved<T>, SolveError> {
        assert_eq!(plan.vertices().len(), ops.len(), "one operation for each vertex");
        // Ends every step of this build when one fails, without stopping other builds of the caller.
        let cancel = self.cancel.child_token();
        let contexts: Vec<StepContext> = (self.declare(&plan).into_iter())
            .map(|vertex| StepContext { vertex, reporter: self.reporter.clone(), cancel: cancel.clone() })
            .collect();
        let operations = self.operation_keys(&plan, &ops, &contexts).await?;
        let keys = definition_keys(&plan, &ops, &operations);
        let ignored: Vec<bool> =
            plan.vertices().iter().map(|vertex| self.options.no_cache.covers(&vertex.stage)).collect();
        let tainted = tainted(&plan, &ops, &ignored);
        let mut hits = self.hits(&plan, &ops, &keys, &tainted)?;
        let mut needed = needed_steps(&plan, &ops, &hits.outputs);
        if (0..keys.len()).any(|step| needed[step] && hits.outputs[step].is_none() && ops[step].cacheable()) {
            self.hits_elsewhere(&plan, &ops, &keys, &tainted, &mut hits).await?;
            needed = needed_steps(&plan, &ops, &hits.outputs);
        }
        let run = Arc::new(Run {
            permits: self.options.max_parallelism.map(|n| Semaphore::new(n.max(1))),
            cache: Arc::clone(&self.cache),
            observer: self.observer.clone(),
            plan,
            ops,
            contexts,
            operations,
            keys,
            ignored,
            tainted,
            origins: hits.origins,
            on_output,
        });
        run.tell_keys(&hits.outputs, &needed);
        run.all(hits.outputs, &needed, &cancel).await
    }

    fn declare(&self, plan: &Plan) -> Vec<VertexId> {
        let names = plan.vertices().iter().map(|vertex| vertex.name.clone());
        if let Some(declared) = self.declared.get() {
            for (vertex, name) in declared.iter().zip(names) {
                self.reporter.report(Event::Declared { vertex: *vertex, name });
            }
            return declared.clone();
        }
        self.declared.get_or_init(|| names.map(|name| self.reporter.declare(name)).collect()).clone()
    }

    /// Asks all operations for their keys at once: this is where local contexts are read.
    async fn operation_keys(
        &self,
        plan: &Plan,
        ops: &[DynOp<T>],
        contexts: &[StepContext],
    ) -> Result<Vec<OperationKey>, SolveError> {
        let keys = ops.iter().zip(contexts).map(|(op, context)| op.operation_key(context));
        let keys = tokio::select! {
            keys = futures_util::future::join_all(keys) => keys,
            () = self.cancel.cancelled() => return Err(SolveError::Canceled),
        };
        let mut found = Vec::with_capacity(keys.len());
        for (step, key) in keys.into_iter().enumerate() {
            match key {
                Ok(key) => found.push(key),
                Err(error) => {
                    report_failure(&contexts[step], &*error);
                    return Err(step_error(plan, step, error));
                }
            }
        }
        Ok(found)
    }

    fn hits(
        &self,
        plan: &Plan,
        ops: &[DynOp<T>],
        keys: &[Digest],
        tainted: &[bool],
    ) -> Result<Hits<T>, SolveError> {
        let asked: Vec<Step> =
            (0..keys.len()).filter(|step| !tainted[*step] && ops[*step].cacheable()).collect();
        let asked_keys: Vec<Digest> = asked.iter().map(|step| keys[*step]).collect();
        let found = self
            .cache
            .lookup(&asked_keys)
            .map_err(|error| step_error(plan, keys.len().saturating_sub(1), error))?;
        let mut hits = Hits { outputs: vec![None; keys.len()], origins: vec![None; keys.len()] };
        for (step, hit) in asked.into_iter().zip(found) {
            hits.outputs[step] = hit;
        }
        Ok(hits)
    }

    /// Fills what the cache here does not have from caches elsewhere.
    async fn hits_elsewhere(
        &self,
        plan: &Plan,
        ops: &[DynOp<T>],
        keys: &[Digest],
        tainted: &[bool],
        hits: &mut Hits<T>,
    ) -> Result<(), SolveError> {
        let is_asked =
            |step: &Step| !tainted[*step] && ops[*step].cacheable() && hits.outputs[*step].is_none();
        let asked: Vec<Step> = (0..keys.len()).filter(is_asked).collect();
        let asked_keys: Vec<Digest> = asked.iter().map(|step| keys[*step]).collect();
        let found = tokio::select! {
            found = self.cache.lookup_elsewhere(&asked_keys) => found,
            () = self.cancel.cancelled() => return Err(SolveError::Canceled),
        };
        let found = found.map_err(|error| step_error(plan, keys.len().saturating_sub(1), error))?;
        for (step, hit) in asked.into_iter().zip(found) {
            let Some(hit) = hit else { continue };
            hits.outputs[step] = Some(hit.output);
            hits.origins[step] = Some(hit.origin);
        }
        Ok(())
    }
}

/// Results that are there before anything runs, by step.
struct Hits<T> {
    outputs: Vec<Option<T>>,
    /// The cache elsewhere that each is from, if it is.
    origins: Vec<Option<Arc<str>>>,
}

fn definition_keys<T: Output>(plan: &Plan, ops: &[DynOp<T>], operations: &[OperationKey]) -> Vec<Digest> {
    let mut keys: Vec<Digest> = Vec::with_capacity(ops.len());
    for (step, op) in ops.iter().enumerate() {
        let parent = plan.parent(step).filter(|_| op.reads_parent()).map(|parent| keys[parent]);
        let inputs: Vec<Digest> = plan.inputs(step).iter().map(|input| keys[*input]).collect();
        keys.push(definition_key(&operations[step].digest, parent.as_ref(), &inputs));
    }
    keys
}

/// What a step's own result depends on.
fn depends_on<'a, T: Output>(
    plan: &'a Plan,
    ops: &'a [DynOp<T>],
    step: Step,
) -> impl Iterator<Item = Step> + 'a {
    let parent = plan.parent(step).filter(move |_| ops[step].reads_parent());
    parent.into_iter().chain(plan.inputs(step).iter().copied())
}

/// Steps whose definition key says nothing, because something below them is made anew on purpose.
fn tainted<T: Output>(plan: &Plan, ops: &[DynOp<T>], ignored: &[bool]) -> Vec<bool> {
    let mut tainted = ignored.to_vec();
    for step in 0..tainted.len() {
        // An image source has no cache to ignore: under --no-cache it gives what it gave before.
        tainted[step] =
            (ignored[step] && ops[step].cacheable()) || depends_on(plan, ops, step).any(|need| tainted[need]);
    }
    tainted
}

/// Steps whose result must be at hand, searched from the targets backwards.
fn needed_steps<T: Output>(plan: &Plan, ops: &[DynOp<T>], hits: &[Option<T>]) -> Vec<bool> {
    let mut needed = vec![false; hits.len()];
    let mut pending: Vec<Step> = plan.targets().iter().copied().flatten().collect();
    while let Some(step) = pending.pop() {
        if std::mem::replace(&mut needed[step], true) {
            continue;
        }
        match &hits[step] {
            None => pending.extend_from_slice(plan.needs(step)),
            Some(_) if !ops[step].reads_parent() => pending.extend(plan.parent(step)),
            Some(_) => {}
        }
    }
    needed
}

fn step_error(plan: &Plan, step: Step, source: OpError) -> SolveError {
    let vertex = &plan.vertices()[step];
    SolveError::Step { name: vertex.name.clone(), lines: vertex.lines.clone(), source }
}

fn report_failure(context: &StepContext, error: &(dyn std::error::Error + Send + Sync)) {
    let failed = Event::Failed { vertex: context.vertex, at: SystemTime::now(), error: error.to_string() };
    context.reporter.report(failed);
}

/// Everything the running steps share.
struct Run<T: Sync> {
    plan: Arc<Plan>,
    ops: Vec<DynOp<T>>,
    contexts: Vec<StepContext>,
    operations: Vec<OperationKey>,
    keys: Vec<Digest>,
    ignored: Vec<bool>,
    tainted: Vec<bool>,
    origins: Vec<Option<Arc<str>>>,
    cache: Arc<dyn CacheStore<T>>,
    observer: Option<Arc<dyn Observer>>,
    permits: Option<Semaphore>,
    on_output: OnOutput<T>,
}

/// Why a step gave no result.
enum Stop {
    Failed(OpError),
    Canceled,
}

type Slot<T> = watch::Receiver<Option<T>>;

impl<T: Output> Run<T> {
    fn tell_keys(&self, hits: &[Option<T>], needed: &[bool]) {
        let Some(observer) = &self.observer else { return };
        let depends_on: Vec<Vec<Step>> =
            (0..self.keys.len()).map(|step| depends_on(&self.plan, &self.ops, step).collect()).collect();
        let steps: Vec<Keyed<'_>> = (0..self.keys.len())
            .map(|step| Keyed {
                vertex: self.contexts[step].vertex,
                operation: &self.operations[step],
                key: &self.keys[step],
                depends_on: &depends_on[step],
                cacheable: self.ops[step].cacheable(),
                ignored: self.ignored[step],
                hit: hits[step].is_some(),
                needed: needed[step],
            })
            .collect();
        observer.keyed(&steps);
    }

    async fn all(
        self: Arc<Self>,
        hits: Vec<Option<T>>,
        needed: &[bool],
        cancel: &CancellationToken,
    ) -> Result<Solved<T>, SolveError> {
        let (senders, slots): (Vec<_>, Vec<Slot<T>>) = hits.iter().map(|_| watch::channel(None)).unzip();
        let slots = Arc::new(slots);
        let mut reports: Vec<StepReport> =
            self.keys.iter().map(|key| StepReport { key: *key, outcome: Outcome::Cached }).collect();
        // Needed or not: what one cache says of a build stays together.
        for step in (0..hits.len()).filter(|step| self.origins[*step].is_some()) {
            self.cache.adopt(&self.keys[step]).map_err(|error| step_error(&self.plan, step, error))?;
        }
        let mut running = JoinSet::new();
        for (step, (hit, sender)) in hits.into_iter().zip(senders).enumerate() {
            if !needed[step] {
                self.report_cached(step, self.origins[step].clone());
                continue;
            }
            let (run, slots) = (Arc::clone(&self), Arc::clone(&slots));
            running.spawn(async move { (step, run.step(step, hit, &slots, sender).await) });
        }
        let mut first_failure = None;
        while let Some(joined) = running.join_next().await {
            let (step, ended) = joined.expect("steps do not panic and are never aborted");
            match ended {
                Ok(outcome) => reports[step].outcome = outcome,
                Err(Stop::Failed(error)) => {
                    cancel.cancel();
                    first_failure.get_or_insert_with(|| match error.downcast::<ResultLost>() {
                        Ok(lost) => SolveError::Lost(*lost),
                        Err(error) => step_error(&self.plan, step, error),
                    });
                }
                Err(Stop::Canceled) => {}
            }
        }
        if let Some(failure) = first_failure {
            return Err(failure);
        }
        if cancel.is_cancelled() {
            return Err(SolveError::Canceled);
        }
        let output = |step: Step| slots[step].borrow().clone().expect("no step failed");
        let targets = self.plan.targets().iter().map(|target| target.map(output)).collect();
        Ok(Solved { targets, steps: reports })
    }

    fn report_cached(&self, step: Step, from: Option<Arc<str>>) {
        if self.ops[step].cacheable() {
            let context = &self.contexts[step];
            context.reporter.report(Event::Cached { vertex: context.vertex, from });
        }
    }

    /// Brings one step to its end and publishes its result.
    async fn step(
        &self,
        step: Step,
        hit: Option<T>,
        slots: &[Slot<T>],
        sender: watch::Sender<Option<T>>,
    ) -> Result<Outcome, Stop> {
        // Operations watch the cancellation themselves, so that they can clean up before they end.
        match self.resolve(step, hit, slots).await {
            Ok((output, outcome)) => {
                (self.on_output)(step, &output);
                sender.send_replace(Some(output));
                Ok(outcome)
            }
            Err(stop) => {
                self.report_stop(step, &stop);
                Err(stop)
            }
        }
    }

    fn report_stop(&self, step: Step, stop: &Stop) {
        let context = &self.contexts[step];
        match stop {
            Stop::Failed(error) if !error.is::<ResultLost>() => report_failure(context, &**error),
            Stop::Failed(_) | Stop::Canceled => {
                context.reporter.report(Event::Canceled { vertex: context.vertex, at: SystemTime::now() });
            }
        }
    }

    async fn resolve(&self, step: Step, hit: Option<T>, slots: &[Slot<T>]) -> Result<(T, Outcome), Stop> {
        if let Some(own) = hit {
            let output = self.stacked(step, own, slots).await?;
            self.report_cached(step, self.origins[step].clone());
            return Ok((output, Outcome::Cached));
        }
        let inputs = self.inputs(step, slots).await?;
        if let Some((own, origin)) = self.hit_by_content(step, &inputs).await.map_err(Stop::Failed)? {
            self.report_cached(step, origin);
            return Ok((self.ops[step].stack(inputs.parent.as_ref(), own), Outcome::Cached));
        }
        self.execute_once(step, &inputs).await
    }

    async fn stacked(&self, step: Step, own: T, slots: &[Slot<T>]) -> Result<T, Stop> {
        if self.ops[step].reads_parent() {
            return Ok(own);
        }
        let parent = match self.plan.parent(step) {
            Some(parent) => Some(output_of(&slots[parent]).await?),
            None => None,
        };
        Ok(self.ops[step].stack(parent.as_ref(), own))
    }

    async fn inputs(&self, step: Step, slots: &[Slot<T>]) -> Result<Inputs<T>, Stop> {
        let parent = match self.plan.parent(step) {
            Some(parent) => Some(output_of(&slots[parent]).await?),
            None => None,
        };
        let mut inputs = Vec::with_capacity(self.plan.inputs(step).len());
        for input in self.plan.inputs(step) {
            inputs.push(output_of(&slots[*input]).await?);
        }
        Ok(Inputs { parent, inputs })
    }

    /// The second lookup. On a hit the result is also kept under this definition key, for next time.
    async fn hit_by_content(
        &self,
        step: Step,
        inputs: &Inputs<T>,
    ) -> Result<Option<(T, Option<Arc<str>>)>, OpError> {
        let (op, operation) = (&self.ops[step], &self.operations[step]);
        if self.ignored[step] || !op.cacheable() || !self.cache.knows_operation(&operation.digest)? {
            return Ok(None);
        }
        let Some(inputs_digest) = op.inputs_digest(inputs).await? else { return Ok(None) };
        let parent = match &inputs.parent {
            _ if !op.reads_parent() => Beneath::Anything,
            None => Beneath::Nothing,
            Some(parent) => Beneath::Root(parent),
        };
        let found = self.cache.lookup_content(&operation.digest, &inputs_digest, parent).await?;
        let (own, origin) = match found {
            Some(own) => (own, None),
            None => {
                let found =
                    self.cache.lookup_content_elsewhere(&operation.digest, &inputs_digest, parent).await?;
                let Some(found) = found else { return Ok(None) };
                (found.output, Some(found.origin))
            }
        };
        self.commit(step, Some(inputs_digest), &own, Duration::ZERO)?;
        Ok(Some((own, origin)))
    }

    /// Executes unless another process or an equal step has just done so.
    async fn execute_once(&self, step: Step, inputs: &Inputs<T>) -> Result<(T, Outcome), Stop> {
        let (op, context, key) = (&self.ops[step], &self.contexts[step], self.keys[step]);
        let _permit = self.permit(step).await?;
        let _guard = match op.cacheable() {
            true => Some(self.lock(step).await?),
            false => None,
        };
        if context.cancel.is_cancelled() {
            return Err(Stop::Canceled);
        }
        if op.cacheable() && !self.tainted[step] {
            let found = self.cache.lookup(&[key]).map_err(Stop::Failed)?.pop().flatten();
            if let Some(own) = found {
                self.report_cached(step, None);
                return Ok((op.stack(inputs.parent.as_ref(), own), Outcome::Cached));
            }
        }
        context.reporter.report(Event::Started { vertex: context.vertex, at: SystemTime::now() });
        let explained = self.explain(step);
        let begin = Instant::now();
        let own = op.execute(context, inputs).await;
        let took = begin.elapsed();
        if let Some(explained) = explained {
            // A reason that cannot be found is no reason to fail.
            drop(explained.await);
        }
        let own = own.map_err(|error| self.failed_or_canceled(step, error))?;
        if op.cacheable() {
            let inputs_digest = op.inputs_digest(inputs).await.map_err(Stop::Failed)?;
            self.commit(step, inputs_digest, &own, took).map_err(Stop::Failed)?;
        }
        context.reporter.report(Event::Completed { vertex: context.vertex, at: SystemTime::now() });
        Ok((op.stack(inputs.parent.as_ref(), own), Outcome::Executed(took)))
    }

    /// Reports why the step is executed, while it is.
    fn explain(&self, step: Step) -> Option<JoinHandle<()>> {
        let explanation: Explanation = self.observer.as_ref()?.missed(step)?;
        let (vertex, reporter) = (self.contexts[step].vertex, self.contexts[step].reporter.clone());
        Some(tokio::task::spawn_blocking(move || {
            if let Some(miss) = explanation() {
                reporter.report(Event::Missed { vertex, miss });
            }
        }))
    }

    async fn permit(&self, step: Step) -> Result<Option<SemaphorePermit<'_>>, Stop> {
        let Some(permits) = self.permits.as_ref().filter(|_| self.ops[step].cacheable()) else {
            return Ok(None);
        };
        tokio::select! {
            permit = permits.acquire() => Ok(Some(permit.expect("the semaphore is never closed"))),
            () = self.contexts[step].cancel.cancelled() => Err(Stop::Canceled),
        }
    }

    async fn lock(&self, step: Step) -> Result<KeyGuard, Stop> {
        let locked = self.cache.lock(&self.keys[step], &self.contexts[step].cancel).await;
        locked.map_err(|error| self.failed_or_canceled(step, error))
    }

    fn failed_or_canceled(&self, step: Step, error: OpError) -> Stop {
        if self.contexts[step].cancel.is_cancelled() { Stop::Canceled } else { Stop::Failed(error) }
    }

    fn commit(
        &self,
        step: Step,
        inputs_digest: Option<Digest>,
        own: &T,
        cost: Duration,
    ) -> Result<(), OpError> {
        let needs: Vec<Digest> =
            depends_on(&self.plan, &self.ops, step).map(|need| self.keys[need]).collect();
        self.cache.commit(CacheEntry {
            key: self.keys[step],
            operation: &self.operations[step],
            inputs_digest,
            reads_parent: self.ops[step].reads_parent(),
            needs: &needs,
            name: &self.plan.vertices()[step].name,
            output: own,
            cost,
        })
    }
}

/// Waits for another step's result; if that step ended without one, so does this.
async fn output_of<T: Output>(slot: &Slot<T>) -> Result<T, Stop> {
    let mut slot = slot.clone();
    let output = slot.wait_for(Option::is_some).await.map_err(|_| Stop::Canceled)?;
    Ok(output.clone().expect("waited for it"))
}
