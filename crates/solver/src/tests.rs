//! The solver with operations in memory: an output is the text of everything that went into it.

use crate::*;
use async_trait::async_trait;
use rbuild_event::Reporter;
use rbuild_graph::Plan;
use rbuild_ir::{Definition, ImageResult, MkdirOp, Vertex};
use rbuild_oci::{Digest, ImageConfig, Platform};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
struct Fake {
    name: &'static str,
    parent: Option<usize>,
    inputs: Vec<usize>,
    /// What it makes of its inputs; `None` is their concatenation behind the name.
    makes: Option<&'static str>,
    link: bool,
    fails: bool,
    /// Finds that what it stands on is gone.
    loses: bool,
    takes: Duration,
}

struct FakeOp {
    fake: Fake,
    ran: Arc<Mutex<Vec<&'static str>>>,
    at_once: Arc<(AtomicUsize, AtomicUsize)>,
}

#[async_trait]
impl Op for FakeOp {
    type Output = String;

    async fn operation_key(&self, _: &StepContext) -> Result<OperationKey, OpError> {
        Ok(OperationKey::of(serde_json::json!(self.fake.name)))
    }

    fn reads_parent(&self) -> bool {
        !self.fake.link
    }

    async fn inputs_digest(&self, inputs: &Inputs<String>) -> Result<Option<Digest>, OpError> {
        Ok(Some(Digest::of(inputs.inputs.join("|"))))
    }

    async fn execute(&self, step: &StepContext, inputs: &Inputs<String>) -> Result<String, OpError> {
        let now = self.at_once.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once.1.fetch_max(now, Ordering::SeqCst);
        let canceled = tokio::select! {
            () = tokio::time::sleep(self.fake.takes) => false,
            () = step.cancel.cancelled() => true,
        };
        self.at_once.0.fetch_sub(1, Ordering::SeqCst);
        if canceled {
            return Err("stopped".into());
        }
        self.ran.lock().unwrap().push(self.fake.name);
        if self.fake.loses {
            return Err(ResultLost("blob x".into()).into());
        }
        if self.fake.fails {
            return Err("exit code 7".into());
        }
        let parent = inputs.parent.clone().filter(|_| !self.fake.link).unwrap_or_default();
        let own = self.fake.makes.map_or_else(
            || format!("{}({})", self.fake.name, inputs.inputs.join(",").replace('/', ".")),
            Into::into,
        );
        Ok(format!("{parent}/{own}"))
    }

    fn stack(&self, parent: Option<&String>, own: String) -> String {
        if self.fake.link { format!("{}{own}", parent.cloned().unwrap_or_default()) } else { own }
    }
}

#[derive(Clone)]
struct Kept {
    operation: Digest,
    inputs: Option<Digest>,
    parent: Option<String>,
    output: String,
}

/// Parents are compared by text: equal text is equal content.
#[derive(Default)]
struct MemoryCache {
    kept: Mutex<HashMap<Digest, Kept>>,
    /// A cache elsewhere, and how often it was asked.
    elsewhere: Mutex<Option<Arc<MemoryCache>>>,
    asked: AtomicUsize,
    locks: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

fn parent_text(output: &str) -> Option<String> {
    output.rsplit_once('/').map(|(parent, _)| parent.to_owned()).filter(|parent| !parent.is_empty())
}

#[async_trait]
impl CacheStore<String> for MemoryCache {
    fn lookup(&self, keys: &[Digest]) -> Result<Vec<Option<String>>, OpError> {
        let kept = self.kept.lock().unwrap();
        Ok(keys.iter().map(|key| kept.get(key).map(|kept| kept.output.clone())).collect())
    }

    fn knows_operation(&self, operation: &Digest) -> Result<bool, OpError> {
        if let Some(elsewhere) = &*self.elsewhere.lock().unwrap() {
            return elsewhere.knows_operation(operation);
        }
        Ok(self.kept.lock().unwrap().values().any(|kept| kept.operation == *operation))
    }

    async fn lookup_content(
        &self,
        op: &Digest,
        inputs: &Digest,
        parent: Beneath<'_, String>,
    ) -> Result<Option<String>, OpError> {
        let kept = self.kept.lock().unwrap();
        let same = |kept: &&Kept| {
            let stands_on_it = match parent {
                Beneath::Anything => true,
                Beneath::Nothing => kept.parent.is_none(),
                Beneath::Root(parent) => kept.parent.as_ref() == Some(parent),
            };
            kept.operation == *op && kept.inputs == Some(*inputs) && stands_on_it
        };
        Ok(kept.values().find(same).map(|kept| kept.output.clone()))
    }

    async fn lookup_elsewhere(&self, keys: &[Digest]) -> Result<Vec<Option<Elsewhere<String>>>, OpError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let elsewhere = self.elsewhere.lock().unwrap();
        let Some(elsewhere) = &*elsewhere else { return Ok(vec![None; keys.len()]) };
        let found = elsewhere.lookup(keys)?.into_iter();
        Ok(found.map(|found| found.map(|output| Elsewhere { output, origin: "far".into() })).collect())
    }

    async fn lookup_content_elsewhere(
        &self,
        op: &Digest,
        inputs: &Digest,
        parent: Beneath<'_, String>,
    ) -> Result<Option<Elsewhere<String>>, OpError> {
        let elsewhere = self.elsewhere.lock().unwrap().clone();
        let Some(elsewhere) = elsewhere else { return Ok(None) };
        let found = elsewhere.lookup_content(op, inputs, parent).await?;
        Ok(found.map(|output| Elsewhere { output, origin: "far".into() }))
    }

    fn adopt(&self, key: &Digest) -> Result<(), OpError> {
        let elsewhere = self.elsewhere.lock().unwrap();
        let kept = elsewhere.as_ref().unwrap().kept.lock().unwrap()[key].clone();
        self.kept.lock().unwrap().insert(*key, kept);
        Ok(())
    }

    fn commit(&self, entry: CacheEntry<'_, String>) -> Result<(), OpError> {
        let parent = parent_text(entry.output).filter(|_| entry.reads_parent);
        let kept = Kept {
            operation: entry.operation.digest,
            inputs: entry.inputs_digest,
            parent,
            output: entry.output.clone(),
        };
        self.kept.lock().unwrap().insert(entry.key, kept);
        Ok(())
    }

    async fn lock(&self, key: &Digest, _: &CancellationToken) -> Result<KeyGuard, OpError> {
        let lock = self.locks.lock().unwrap().entry(*key).or_default().clone();
        Ok(Box::new(lock.lock_owned().await))
    }
}

struct Built {
    result: Result<Solved<String>, SolveError>,
    ran: Vec<&'static str>,
    most_at_once: usize,
}

mod elsewhere;

/// Builds the last of `fakes`; names decide the operation's key.
async fn build(cache: &Arc<MemoryCache>, fakes: &[Fake], options: SolveOptions) -> Built {
    build_watched(cache, fakes, options, Reporter::silent(), None).await
}

async fn build_watched(
    cache: &Arc<MemoryCache>,
    fakes: &[Fake],
    options: SolveOptions,
    reporter: Reporter,
    observer: Option<Arc<dyn Observer>>,
) -> Built {
    let mut vertices: Vec<Vertex> = Vec::new();
    for fake in fakes {
        let op = rbuild_ir::Op::Mkdir(MkdirOp { path: fake.name.into(), user: String::new(), epoch: None });
        let parent = fake.parent.map(|parent| vertices[parent].digest);
        let inputs = fake.inputs.iter().map(|input| vertices[*input].digest).collect();
        let vertex = Vertex::new(op, parent, inputs);
        vertices.push(Vertex { name: fake.name.into(), stage: fake.name.into(), ..vertex });
    }
    let root = vertices.last().map(|vertex| vertex.digest);
    let image = ImageResult {
        root,
        config: ImageConfig::default(),
        history: Vec::new(),
        origins: Vec::new(),
        platform: Platform::linux("amd64"),
        source_date_epoch: None,
    };
    let plan = Arc::new(Plan::new(&Definition { vertices, image }).unwrap());
    let (ran, at_once) = (Arc::default(), Arc::default());
    let ops = (plan.vertices().iter())
        .map(|vertex| {
            let fake = fakes.iter().find(|fake| fake.name == vertex.name).unwrap().clone();
            let op = FakeOp { fake, ran: Arc::clone(&ran), at_once: Arc::clone(&at_once) };
            Arc::new(op) as Arc<dyn Op<Output = String>>
        })
        .collect();
    let solver = Solver {
        cache: cache.clone(),
        options,
        reporter,
        observer,
        cancel: CancellationToken::new(),
        declared: Arc::default(),
    };
    let result = solver.solve(plan, ops, Arc::new(|_, _| {})).await;
    let ran = ran.lock().unwrap().clone();
    Built { result, ran, most_at_once: at_once.1.load(Ordering::SeqCst) }
}

fn step(name: &'static str, parent: Option<usize>, inputs: &[usize]) -> Fake {
    Fake { name, parent, inputs: inputs.to_vec(), ..Fake::default() }
}

fn target(built: &Built) -> &str {
    built.result.as_ref().unwrap().targets[0].as_deref().unwrap()
}

/// C-017: the definition key is enough.
#[tokio::test(start_paused = true)]
async fn a_second_build_executes_nothing() {
    let cache = Arc::default();
    let fakes = [step("base", None, &[]), step("run", Some(0), &[]), step("copy", Some(1), &[0])];
    let first = build(&cache, &fakes, SolveOptions::default()).await;
    assert_eq!(first.ran, ["base", "run", "copy"]);
    let second = build(&cache, &fakes, SolveOptions::default()).await;
    assert!(second.ran.is_empty(), "{:?}", second.ran);
    assert_eq!(target(&first), target(&second));
    assert!(second.result.unwrap().steps.iter().all(|step| step.outcome == Outcome::Cached));
}

/// C-018: the cache is searched from the target backwards.
#[tokio::test(start_paused = true)]
async fn intermediate_results_need_not_exist_when_a_later_one_does() {
    let cache: Arc<MemoryCache> = Arc::default();
    let fakes = [step("base", None, &[]), step("run", Some(0), &[]), step("last", Some(1), &[])];
    build(&cache, &fakes, SolveOptions::default()).await.result.unwrap();
    cache.kept.lock().unwrap().retain(|_, kept| kept.output.ends_with("last()"));
    assert!(build(&cache, &fakes, SolveOptions::default()).await.ran.is_empty());
}

/// C-017: results are found by the content of what a step reads, and are then linked to the new definition.
#[tokio::test(start_paused = true)]
async fn a_rebuilt_input_with_the_same_content_does_not_rebuild_what_reads_it() {
    let cache = Arc::default();
    let with_compiler = |compiler| {
        let compiled = Fake { makes: Some("same binary"), ..step(compiler, None, &[]) };
        [compiled, step("base", None, &[]), step("copy", Some(1), &[0])]
    };
    build(&cache, &with_compiler("gcc 12"), SolveOptions::default()).await.result.unwrap();
    let second = build(&cache, &with_compiler("gcc 13"), SolveOptions::default()).await;
    assert_eq!(second.ran, ["gcc 13"]);
    // The finding is kept: the next build does not even need the input.
    assert!(build(&cache, &with_compiler("gcc 13"), SolveOptions::default()).await.ran.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_changed_input_rebuilds_only_what_depends_on_it() {
    let cache = Arc::default();
    let with_source = |source| {
        [
            step("base", None, &[]),
            step("apt", Some(0), &[]),
            step(source, Some(1), &[]),
            step("make", Some(2), &[]),
        ]
    };
    build(&cache, &with_source("copy v1"), SolveOptions::default()).await.result.unwrap();
    let second = build(&cache, &with_source("copy v2"), SolveOptions::default()).await;
    assert_eq!(second.ran, ["copy v2", "make"]);
}

/// C-013: a linked copy does not have its parent in its key.
#[tokio::test(start_paused = true)]
async fn a_linked_copy_survives_a_changed_parent() {
    let cache = Arc::default();
    let with_base = |base| [step(base, None, &[]), Fake { link: true, ..step("copy", Some(0), &[]) }];
    build(&cache, &with_base("debian 11"), SolveOptions::default()).await.result.unwrap();
    let second = build(&cache, &with_base("debian 12"), SolveOptions::default()).await;
    assert_eq!(second.ran, ["debian 12"]);
    assert_eq!(target(&second), "/debian 12()/copy()");
}

/// C-019
#[tokio::test(start_paused = true)]
async fn no_cache_runs_all_and_a_filter_runs_its_stage() {
    let cache = Arc::default();
    let fakes = [step("base", None, &[]), step("run", Some(0), &[]), step("last", Some(1), &[])];
    build(&cache, &fakes, SolveOptions::default()).await.result.unwrap();
    let all = SolveOptions { no_cache: NoCache::All, ..SolveOptions::default() };
    assert_eq!(build(&cache, &fakes, all).await.ran, ["base", "run", "last"]);
    let stage = NoCache::Stages(["run".to_owned()].into());
    let filtered = build(&cache, &fakes, SolveOptions { no_cache: stage, ..SolveOptions::default() }).await;
    // `last` stands on what was made anew; its content did not change, so it is not.
    assert_eq!(filtered.ran, ["run"]);
}

/// C-019
#[tokio::test(start_paused = true)]
async fn what_changed_under_no_cache_is_never_answered_from_an_old_definition() {
    let cache = Arc::default();
    let with_clock = |made| {
        let clock = Fake { makes: Some(made), ..step("date", None, &[]) };
        [clock, step("last", Some(0), &[])]
    };
    build(&cache, &with_clock("monday"), SolveOptions::default()).await.result.unwrap();
    let stage = NoCache::Stages(["date".to_owned()].into());
    let options = SolveOptions { no_cache: stage, ..SolveOptions::default() };
    let second = build(&cache, &with_clock("tuesday"), options).await;
    assert_eq!((second.ran.clone(), target(&second)), (vec!["date", "last"], "/tuesday/last()"));
}

#[tokio::test(start_paused = true)]
async fn independent_steps_run_side_by_side_within_the_limit() {
    let second = Duration::from_secs(1);
    let slow = |name| Fake { takes: second, ..step(name, None, &[]) };
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut fakes: Vec<Fake> = names.into_iter().map(slow).collect();
    fakes.push(step("last", None, &[0, 1, 2, 3, 4, 5]));
    let begin = tokio::time::Instant::now();
    assert_eq!(build(&Arc::default(), &fakes, SolveOptions::default()).await.most_at_once, 6);
    assert_eq!(begin.elapsed(), second, "paused time: the steps overlap exactly");
    let limited = SolveOptions { max_parallelism: Some(2), ..SolveOptions::default() };
    assert_eq!(build(&Arc::default(), &fakes, limited).await.most_at_once, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_cancels_the_rest_and_names_the_step() {
    let slow = Fake { takes: Duration::from_secs(3600), ..step("slow", None, &[]) };
    let bad = Fake { fails: true, takes: Duration::from_secs(1), ..step("bad", None, &[]) };
    let begin = tokio::time::Instant::now();
    let built =
        build(&Arc::default(), &[slow, bad, step("last", Some(0), &[1])], SolveOptions::default()).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(1));
    assert_eq!(built.ran, ["bad"]);
    assert_eq!(built.result.unwrap_err().to_string(), "bad: exit code 7");
}

#[tokio::test(start_paused = true)]
async fn two_builds_of_one_cache_run_each_step_once() {
    let cache = Arc::default();
    let slow = |name, parent| Fake { takes: Duration::from_secs(1), ..step(name, parent, &[]) };
    let fakes = [slow("base", None), slow("run", Some(0)), slow("last", Some(1))];
    let builds = tokio::join!(
        build(&cache, &fakes, SolveOptions::default()),
        build(&cache, &fakes, SolveOptions::default())
    );
    assert_eq!(builds.0.ran.len() + builds.1.ran.len(), 3);
    assert_eq!(target(&builds.0), target(&builds.1));
}

/// Writes down what it hears; its reason is the step's number.
#[derive(Default)]
struct Watch {
    heard: Mutex<Vec<String>>,
}

impl Observer for Watch {
    fn keyed(&self, steps: &[Keyed<'_>]) {
        let told = steps.iter().map(|step| {
            let flag = |name: &'static str, is: bool| if is { name } else { "" };
            let flags =
                [flag(" hit", step.hit), flag(" needed", step.needed), flag(" ignored", step.ignored)];
            format!("{} on {:?}{}", step.operation.preimage, step.depends_on, flags.concat())
        });
        self.heard.lock().unwrap().extend(told);
    }

    fn missed(&self, step: usize) -> Option<Explanation> {
        self.heard.lock().unwrap().push(format!("missed {step}"));
        Some(Box::new(move || {
            Some(rbuild_event::Miss { text: format!("reason {step}"), ..rbuild_event::Miss::default() })
        }))
    }
}

/// What the observer heard, and the events but for declarations.
async fn watched(
    cache: &Arc<MemoryCache>,
    fakes: &[Fake],
    options: SolveOptions,
) -> (Vec<String>, Vec<String>) {
    use rbuild_event::Event;
    let watch = Arc::new(Watch::default());
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&events);
    let reporter = Reporter::new(move |event| {
        let text = match event {
            Event::Started { vertex, .. } => format!("started {vertex}"),
            Event::Completed { vertex, .. } => format!("completed {vertex}"),
            Event::Failed { vertex, .. } => format!("failed {vertex}"),
            Event::Cached { vertex, .. } => format!("cached {vertex}"),
            Event::Missed { vertex, miss } => format!("{vertex}: {}", miss.text),
            _ => return,
        };
        sink.lock().unwrap().push(text);
    });
    drop(build_watched(cache, fakes, options, reporter, Some(Arc::clone(&watch) as _)).await);
    let heard = watch.heard.lock().unwrap().clone();
    let events = events.lock().unwrap().clone();
    (heard, events)
}

#[tokio::test(start_paused = true)]
async fn an_observer_hears_of_keys_and_of_each_miss_before_its_end() {
    let cache = Arc::default();
    let fakes = [step("base", None, &[]), step("run", Some(0), &[]), step("copy", Some(1), &[0])];
    let (heard, events) = watched(&cache, &fakes, SolveOptions::default()).await;
    assert_eq!(
        heard,
        [
            "\"base\" on [] needed",
            "\"run\" on [0] needed",
            "\"copy\" on [1, 0] needed",
            "missed 0",
            "missed 1",
            "missed 2"
        ]
    );
    for step in 0..3 {
        let at =
            |text: String| events.iter().position(|event| *event == text).unwrap_or_else(|| panic!("{text}"));
        let places =
            [format!("started {step}"), format!("{step}: reason {step}"), format!("completed {step}")]
                .map(at);
        assert!(places.is_sorted(), "{events:?}");
    }
    let (heard, events) = watched(&cache, &fakes, SolveOptions::default()).await;
    assert_eq!(heard, ["\"base\" on [] hit", "\"run\" on [0] hit", "\"copy\" on [1, 0] hit needed"]);
    assert_eq!(events, ["cached 0", "cached 1", "cached 2"]);
    let all = SolveOptions { no_cache: NoCache::All, ..SolveOptions::default() };
    let (heard, _) = watched(&cache, &fakes, all).await;
    assert_eq!(heard[0], "\"base\" on [] needed ignored");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_was_explained() {
    let fakes = [Fake { fails: true, ..step("bad", None, &[]) }];
    let (_, events) = watched(&Arc::default(), &fakes, SolveOptions::default()).await;
    assert_eq!(events, ["started 0", "0: reason 0", "failed 0"]);
}
