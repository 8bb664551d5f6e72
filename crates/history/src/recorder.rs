//! A build that is being recorded.

use crate::cause::Cause;
use crate::explain::{Comparison, Facts, Fate, Reason};
use crate::file::{Part, append, create};
use crate::limits::Limits;
use crate::logs::Logs;
use crate::record::{Begin, End, ImageFacts, Keys, Miss, Other, Outcome, Record, Status, StepEnd};
use crate::{History, id, millis};
use rbuild_copy::KeyEntry;
use rbuild_event::{Event, MissCause, VertexId};
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
    logs: Logs,
    fate: Box<AskFate>,
    state: Mutex<State>,
    build: OnceLock<Build>,
}

/// What is known when all keys are.
struct Build {
    keys: Keys,
    hits: Vec<Hits>,
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
    writer: Option<JoinHandle<io::Result<()>>>,
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
    /// Begins a record. `id` and `version` of `begin` are filled in.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(history: History, begin: Begin, fate: Box<AskFate>) -> io::Result<Self> {
        let (begin, mut file) = named(&history, begin)?;
        append(&mut file, &Part::Begin(&begin))?;
        let logs = Logs::new(history.logs_dir(&begin.id));
        let state = Mutex::new(State { file: Some(file), ..State::default() });
        Ok(Self { shared: Arc::new(Shared { history, begin, logs, fate, state, build: OnceLock::new() }) })
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
                self.lock().work.entry(*vertex).or_default().name.clone_from(name);
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
            Event::Cached { vertex, .. } => self.ended(*vertex, Outcome::Cached, None, None),
            Event::Completed { vertex, at } => self.ended(*vertex, Outcome::Executed, Some(*at), None),
            Event::Failed { vertex, at, error } => {
                self.ended(*vertex, Outcome::Failed, Some(*at), Some(error.clone()));
            }
            Event::Canceled { vertex, at } => self.ended(*vertex, Outcome::Canceled, Some(*at), None),
            Event::Note { vertex, text } => {
                self.lock().work.entry(*vertex).or_default().end.notes.push(text.clone());
            }
            Event::Warning { text } => self.lock().warnings.push(text.clone()),
            // Reasons are known here in more detail.
            Event::Missed { .. } | Event::Status { .. } => {}
        }
    }

    fn ended(&self, vertex: VertexId, outcome: Outcome, at: Option<SystemTime>, error: Option<String>) {
        let name = vertex.to_string();
        let log = at.is_some_and(|_| self.logs.close(&name));
        let place = self.build.get().and_then(|build| build.hits.iter().position(|hit| hit.vertex == vertex));
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
                missing.values().try_for_each(|detail| history.write_listing(&detail.digest, &*detail.write))
            };
            // Without a thread the lists are missing, and later misses name no files.
            state.writer = std::thread::Builder::new().name("history".into()).spawn(write).ok();
        }
        let details = details.into_iter().map(|detail| (detail.digest, detail)).collect();
        let build = Build { keys, hits, details, no_cache_at_all, against: OnceLock::new() };
        // The keys of a build are told once.
        drop(self.build.set(build));
    }

    /// The files behind a digest, also while they are still being written.
    fn listing(&self, build: &Build, digest: &Digest) -> Option<Vec<KeyEntry>> {
        if let Some(listing) = self.history.listing(digest) {
            return Some(listing);
        }
        let mut bytes = Vec::new();
        (build.details.get(digest)?.write)(&mut bytes).ok()?;
        rbuild_copy::read_listing(&*bytes, usize::MAX).ok()
    }

    fn explain(&self, step: usize) -> Option<rbuild_event::Miss> {
        let build = self.build.get()?;
        let (previous, matched) = build.against.get_or_init(|| {
            let found = self.history.previous(&self.begin.id, &self.begin.subject, &build.keys.dockerfile);
            let matched = match found.as_ref().and_then(|record| record.keys.as_ref()) {
                Some(keys) => {
                    let same_file = keys.dockerfile == build.keys.dockerfile;
                    crate::align(&keys.steps, &build.keys.steps, same_file)
                }
                None => vec![None; build.keys.steps.len()],
            };
            (found, matched)
        });
        let comparison = Comparison::aligned(previous.as_ref(), &build.keys, matched.as_slice());
        let listings = |digest: &Digest| self.listing(build, digest);
        let reason = if build.keys.steps.get(step)?.cacheable {
            let failed_caches = self.lock().failed_caches.clone();
            let facts = Facts {
                fate: &*self.fate,
                missed: &|place| self.lock().missed.contains(&place),
                no_cache_at_all: build.no_cache_at_all,
                failed_caches: &failed_caches,
                listings: &listings,
            };
            comparison.reason(step, &facts)?
        } else if comparison.source_changed(step) {
            Reason { follows: None, causes: comparison.own_causes(step, &listings) }
        } else {
            return None;
        };
        let causes = reason.causes.into_iter().map(Cause::shortened).collect();
        let mut reason = Reason { causes, ..reason };
        if reason.follows.is_none() {
            reason.follows = self.same_root(step, &reason.causes);
        }
        let root = match reason.follows {
            None => (step, reason.causes.clone()),
            Some(need) => {
                let known = self.lock().reasons.get(&need).map(|known| known.root.clone());
                known.unwrap_or_else(|| (need, comparison.changes_below(need, &listings)))
            }
        };
        let known = Known { step, reason, root };
        let miss = self.miss(build, &known);
        let event = rbuild_event::Miss {
            text: miss.text,
            follows: miss.follows.and_then(|need| build.hits.get(need)).map(|hit| hit.vertex),
            causes: miss
                .causes
                .iter()
                .map(|cause| MissCause { kind: cause.kind(), text: cause.to_string() })
                .collect(),
            expected: miss.follows.is_some() && known.root.1.contains(&Cause::NeverBuilt),
        };
        let mut state = self.lock();
        state.missed.insert(step);
        state.reasons.insert(step, known);
        Some(event)
    }

    /// One changed ARG, ENV or --no-cache meets many steps. The first of them is the root of all.
    fn same_root(&self, step: usize, causes: &[Cause]) -> Option<usize> {
        let state = self.lock();
        let others = state.reasons.values().filter(|other| other.step != step);
        let roots = others.filter(|other| other.root.0 == other.step);
        let same = roots.filter(|root| {
            !causes.is_empty()
                && causes.iter().all(|cause| !cause.is_of_one_step() && root.root.1.contains(cause))
        });
        same.map(|root| root.step).min()
    }

    fn miss(&self, build: &Build, known: &Known) -> Miss {
        let against = build.against.get().and_then(|(record, _)| record.as_ref());
        Miss {
            follows: known.reason.follows,
            causes: known.reason.causes.clone(),
            against: against.map(|record| record.begin.id.clone()),
            text: text(&build.keys, known),
        }
    }

    fn finish(&self, finished: Finished, limits: &Limits) -> Option<String> {
        let logs = self.logs.finish();
        let mut state = self.lock();
        if let Err(error) = logs {
            state.failed(&error);
        }
        match state.writer.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => state.failed(&error),
            Some(Err(_)) => state.failed(&io::Error::other("a thread ended early")),
            Some(Ok(Ok(()))) | None => {}
        }
        let mut work = std::mem::take(&mut state.work);
        let hits = self.build.get().map_or(&[][..], |build| &build.hits);
        let steps: Vec<StepEnd> = hits.iter().map(|hit| step_end(*hit, work.remove(&hit.vertex))).collect();
        let executed = steps.iter().any(|step| step.outcome == Outcome::Executed);
        let other = work.into_values().map(|work| Other { name: work.name, end: work.end }).collect();
        let Finished { status, exit, error, image } = finished;
        let warnings = std::mem::take(&mut state.warnings);
        let end =
            End { ended: millis(SystemTime::now()), status, exit, error, image, steps, other, warnings };
        state.write(&Part::End(&end));
        // Others may read it as ended now.
        state.file = None;
        let problem = state.error.take();
        drop(state);
        // Counting costs more than a build of nothing, so that pays for it now and then.
        if executed || self.begin.id.ends_with(['0', '1']) {
            drop(self.history.trim(limits, end.ended));
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

/// The whole reason in one line.
fn text(keys: &Keys, known: &Known) -> String {
    let (root, causes) = &known.root;
    let Some(need) = known.reason.follows else { return joined(&known.reason.causes) };
    let name = |step: usize| {
        let name = keys.steps.get(step).map_or("", |step| &step.name);
        let short: String = name.chars().take(NAME).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if short.len() < name.len() { short + "…" } else { short }
    };
    let depends = keys.steps.get(known.step).is_some_and(|step| step.needs.contains(&need));
    let mut text = format!("{} {}", if depends { "follows from" } else { "same as" }, name(need));
    if *root != need {
        text.push_str(&format!(", from {}", name(*root)));
    }
    if !causes.is_empty() {
        text.push_str(&format!(": {}", joined(causes)));
    }
    // A new base image brings its own environment.
    let based = causes.iter().any(|cause| matches!(cause, Cause::BaseImage { .. } | Cause::Platform { .. }));
    let own = known.reason.causes.iter().filter(|own| !causes.contains(own));
    let own: Vec<Cause> = own
        .filter(|own| !based || matches!(own, Cause::Instruction { .. } | Cause::Files { .. }))
        .cloned()
        .collect();
    if !own.is_empty() {
        text.push_str(&format!("; also: {}", joined(&own)));
    }
    text
}

fn joined(causes: &[Cause]) -> String {
    let shown: Vec<String> = causes.iter().take(CAUSES).map(ToString::to_string).collect();
    let more = causes.len().saturating_sub(CAUSES);
    shown.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() }
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
