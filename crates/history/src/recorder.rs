//! A build that is being recorded.

mod reasons;

use crate::cause::Cause;
use crate::explain::{Fate, Reason};
use crate::file::{Part, append, create};
use crate::limits::Limits;
use crate::logs::Logs;
use crate::mask::Secrets;
use crate::record::{Begin, End, ImageFacts, Keys, Other, Outcome, Record, Status, StepEnd};
use crate::{History, id, millis};
use rbuild_event::{Event, VertexId};
use rbuild_oci::Digest;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Characters of a step's name in another step's reason.
const NAME: usize = 60;
/// Causes that a line names.
const CAUSES: usize = 3;
/// Times a name is tried when another build of the same millisecond has it.
const ATTEMPTS: usize = 8;

/// Files of a key, behind the digest that its preimage names.
#[derive(Clone)]
pub struct Detail {
    /// The digest.
    pub digest: Digest,
    /// Writes them in the form of [`rbuild_copy::write_listing`].
    pub write: Arc<WriteDetail>,
}

/// See [`Detail::write`].
pub type WriteDetail = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// What the cache had of a step before anything was executed.
#[derive(Debug, Clone, Copy)]
pub struct Hits {
    /// The step's number in events.
    pub vertex: VertexId,
    /// Whether there was a result under its definition key.
    pub hit: bool,
    /// Whether somebody needs its result.
    pub needed: bool,
}

/// How a build ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// In a word.
    pub status: Status,
    /// The exit code.
    pub exit: u8,
    /// Why it failed.
    pub error: Option<String>,
    /// What it made.
    pub image: ImageFacts,
}

/// Asks the store about a definition key.
pub type AskFate = dyn Fn(&Digest) -> Fate + Send + Sync;

/// Records one build and explains its misses. Clones record the same build.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    history: History,
    begin: Begin,
    secrets: Secrets,
    logs: Logs,
    fate: Box<AskFate>,
    state: Mutex<State>,
    /// Held while a reason is found: of two steps with the same cause only one is the root.
    explaining: Mutex<()>,
    build: OnceLock<Build>,
}

/// What is known when all keys are.
struct Build {
    keys: Keys,
    /// Of the last attempt: a build begins again when a cache elsewhere does not keep its word.
    hits: Mutex<Vec<Hits>>,
    details: HashMap<Digest, Detail>,
    no_cache_at_all: bool,
    against: OnceLock<(Option<Record>, Vec<Option<usize>>)>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    work: BTreeMap<VertexId, Work>,
    warnings: Vec<String>,
    failed_caches: Vec<String>,
    reasons: HashMap<usize, Known>,
    /// Places of steps that were executed, and of sources that changed.
    missed: BTreeSet<usize>,
    writer: Option<JoinHandle<io::Result<u64>>>,
    error: Option<String>,
}

/// A reason that was found.
#[derive(Clone)]
struct Known {
    step: usize,
    reason: Reason,
    /// The place of the root, and what is different there.
    root: (usize, Vec<Cause>),
}

#[derive(Default)]
struct Work {
    name: String,
    started: Option<SystemTime>,
    end: StepEnd,
}

impl Recorder {
    /// Begins a record. `id` and `version` of `begin` are filled in; `secrets` are masked in all that is told.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(history: History, begin: Begin, secrets: Secrets, fate: Box<AskFate>) -> io::Result<Self> {
        let (begin, mut file) = named(&history, begin)?;
        append(&mut file, &Part::Begin(&begin))?;
        let logs = Logs::new(history.logs_dir(&begin.id));
        let state = Mutex::new(State { file: Some(file), ..State::default() });
        Ok(Self {
            shared: Arc::new(Shared {
                history,
                begin,
                secrets,
                logs,
                fate,
                state,
                explaining: Mutex::default(),
                build: OnceLock::new(),
            }),
        })
    }

    /// The build's name.
    pub fn id(&self) -> &str {
        &self.shared.begin.id
    }

    /// Takes note of an event.
    pub fn event(&self, event: &Event) {
        self.shared.event(event);
    }

    /// All keys are known; `hits` and `details` are in the order of the steps. Lists of files that are not there yet are
    /// written by a thread.
    pub fn keys(&self, keys: Keys, hits: Vec<Hits>, details: Vec<Detail>, no_cache_at_all: bool) {
        self.shared.keys(keys, hits, details, no_cache_at_all);
    }

    /// A remote cache that might have had results could not be read.
    pub fn remote_cache_failed(&self, name: impl Into<String>) {
        self.shared.lock().failed_caches.push(name.into());
    }

    /// A step is about to be executed; what it depends on has been explained. The reason is found by calling the result,
    /// which reads files.
    pub fn missed(&self, step: usize) -> Option<Box<dyn FnOnce() -> Option<rbuild_event::Miss> + Send>> {
        let build = self.shared.build.get()?;
        if build.keys.steps.get(step)?.cacheable {
            self.shared.lock().missed.insert(step);
        }
        let shared = Arc::clone(&self.shared);
        Some(Box::new(move || shared.explain(step)))
    }

    /// Ends the record and removes old ones. Returns what went wrong with it, in a sentence for the user.
    pub fn finish(self, finished: Finished, limits: &Limits) -> Option<String> {
        self.shared.finish(finished, limits)
    }
}

/// A free name, and its file.
fn named(history: &History, begin: Begin) -> io::Result<(Begin, File)> {
    let mut attempts = 0;
    loop {
        let id = id::new(begin.started);
        match create(&history.record_path(&id)) {
            Ok(file) => return Ok((Begin { id, version: crate::record::VERSION, ..begin }, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < ATTEMPTS => {
                attempts += 1
            }
            Err(error) => return Err(error),
        }
    }
}

impl Build {
    fn hits(&self) -> MutexGuard<'_, Vec<Hits>> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of the step with this number.
    fn place(&self, vertex: VertexId) -> Option<usize> {
        self.hits().iter().position(|hit| hit.vertex == vertex)
    }

    /// The number of the step in this place.
    fn vertex(&self, place: usize) -> Option<VertexId> {
        self.hits().get(place).map(|hit| hit.vertex)
    }
}

fn since(started: Option<SystemTime>, at: SystemTime) -> Duration {
    started.and_then(|started| at.duration_since(started).ok()).unwrap_or_default()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, event: &Event) {
        match event {
            Event::Declared { vertex, name } => {
                self.lock().work.entry(*vertex).or_default().name = self.secrets.plain(name);
            }
            Event::Started { vertex, at } => {
                let mut state = self.lock();
                let work = state.work.entry(*vertex).or_default();
                work.started = Some(*at);
                work.end.started = Some(millis(*at));
            }
            Event::Log { vertex, stream, line, at } => {
                let started = self.lock().work.get(vertex).and_then(|work| work.started);
                self.logs.line(&vertex.to_string(), since(started, *at), *stream, line);
            }
            Event::Cached { vertex, from } => {
                let from = from.as_ref().map(ToString::to_string);
                self.lock().work.entry(*vertex).or_default().end.cached_from = from;
                self.ended(*vertex, Outcome::Cached, None, None);
            }
            Event::Completed { vertex, at } => self.ended(*vertex, Outcome::Executed, Some(*at), None),
            Event::Failed { vertex, at, error } => {
                self.ended(*vertex, Outcome::Failed, Some(*at), Some(self.secrets.plain(error)));
            }
            Event::Canceled { vertex, at } => self.ended(*vertex, Outcome::Canceled, Some(*at), None),
            Event::Note { vertex, text } => {
                self.lock().work.entry(*vertex).or_default().end.notes.push(self.secrets.plain(text));
            }
            Event::Warning { text } => self.lock().warnings.push(self.secrets.plain(text)),
            // Reasons are known here in more detail.
            Event::Missed { .. } | Event::Status { .. } => {}
        }
    }

    fn ended(&self, vertex: VertexId, outcome: Outcome, at: Option<SystemTime>, error: Option<String>) {
        let name = vertex.to_string();
        let log = at.is_some_and(|_| self.logs.close(&name));
        let place = self.build.get().and_then(|build| build.place(vertex));
        let mut state = self.lock();
        let reason = place.and_then(|place| state.reasons.get(&place).cloned());
        let work = state.work.entry(vertex).or_default();
        let took = at.filter(|_| work.started.is_some()).map(|at| since(work.started, at));
        work.end.took = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        work.end.outcome = outcome;
        work.end.error = error;
        work.end.log = log.then_some(name);
        if let (Some(build), Some(reason)) = (self.build.get(), reason) {
            work.end.miss = Some(self.miss(build, &reason));
        }
        if let (Some(place), true) = (place, at.is_some()) {
            let end = work.end.clone();
            state.write(&Part::Step(place, &end));
        }
    }

    fn keys(&self, keys: Keys, hits: Vec<Hits>, details: Vec<Detail>, no_cache_at_all: bool) {
        if let Some(build) = self.build.get() {
            // A second attempt, after a cached result was found to be gone: the keys are the same.
            *build.hits() = hits;
            let mut state = self.lock();
            state.missed.clear();
            state.reasons.clear();
            return;
        }
        let mut missing: BTreeMap<Digest, Detail> = BTreeMap::new();
        for detail in &details {
            if !missing.contains_key(&detail.digest) && !self.history.touch_listing(&detail.digest) {
                missing.insert(detail.digest, detail.clone());
            }
        }
        let mut state = self.lock();
        state.write(&Part::Keys(&keys));
        if !missing.is_empty() {
            let history = self.history.clone();
            let write = move || {
                let write = |detail: &Detail| history.write_listing(&detail.digest, &*detail.write);
                missing.values().map(write).sum()
            };
            // Without a thread the lists are missing, and later misses name no files.
            state.writer = std::thread::Builder::new().name("history".into()).spawn(write).ok();
        }
        let details = details.into_iter().map(|detail| (detail.digest, detail)).collect();
        let hits = Mutex::new(hits);
        let build = Build { keys, hits, details, no_cache_at_all, against: OnceLock::new() };
        drop(self.build.set(build));
    }

    fn finish(&self, finished: Finished, limits: &Limits) -> Option<String> {
        let logs = self.logs.finish();
        let mut state = self.lock();
        if let Err(error) = logs {
            state.failed(&error);
        }
        let mut listed = 0;
        match state.writer.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => state.failed(&error),
            Some(Err(_)) => state.failed(&io::Error::other("a thread ended early")),
            Some(Ok(Ok(bytes))) => listed = bytes,
            None => {}
        }
        let mut work = std::mem::take(&mut state.work);
        let hits = self.build.get().map(|build| build.hits().clone()).unwrap_or_default();
        let steps: Vec<StepEnd> = hits.iter().map(|hit| step_end(*hit, work.remove(&hit.vertex))).collect();
        let executed = steps.iter().any(|step| step.outcome == Outcome::Executed);
        let other = work.into_values().map(|work| Other { name: work.name, end: work.end }).collect();
        let Finished { status, exit, error, image } = finished;
        let error = error.map(|error| self.secrets.plain(&error));
        let warnings = std::mem::take(&mut state.warnings);
        let end =
            End { ended: millis(SystemTime::now()), status, exit, error, image, steps, other, warnings };
        state.write(&Part::End(&end));
        // Others may read it as ended now.
        state.file = None;
        let problem = state.error.take();
        drop(state);
        // Even listing names is much for a build of nothing, so that pays for it now and then.
        if executed || self.begin.id.ends_with(['0', '1']) {
            // What could not be removed now is met again.
            drop(self.history.trim_after_build(limits, end.ended, self.logs.written() + listed));
        }
        problem.map(|problem| format!("the record of this build is incomplete: {problem}"))
    }
}

fn step_end(hit: Hits, work: Option<Work>) -> StepEnd {
    let mut end = work.unwrap_or_default().end;
    let unused = !hit.needed && !hit.hit;
    if unused && matches!(end.outcome, Outcome::Cached | Outcome::Unfinished) {
        end.outcome = Outcome::Skipped;
    }
    end
}

impl State {
    fn write(&mut self, part: &Part<'_>) {
        if let Some(file) = &mut self.file
            && let Err(error) = append(file, part)
        {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.error.get_or_insert_with(|| error.to_string());
    }
}
