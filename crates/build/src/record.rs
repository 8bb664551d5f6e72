//! The record of a build in the store's history: what the rooms know, in history's words.

use crate::build::{BuildResult, Environment};
use crate::dockerfile::Inputs;
use crate::error::{BuildError, ErrorKind};
use crate::request::{BuildRequest, ContextSource, DockerfileSource};
use rbuild_cache::OnFailure;
use rbuild_event::{Event, Miss, Reporter};
use rbuild_graph::{Plan, Step};
use rbuild_history::{
    Arg, Begin, Detail, Fate, Finished, History, Hits, ImageFacts, Keys, Limits, Recorder, Status, StepKey,
    Subject,
    mask::{self, Secrets},
    millis,
};
use rbuild_ir::{Op, Vertex};
use rbuild_oci::{Digest, Platform};
use rbuild_solver::{Explanation, Keyed, NoCache, Observer};
use rbuild_store::Store;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Characters of an instruction that are kept; of a longer one a digest tells whether it changed.
const MAX_TEXT: usize = 4096;

/// A build that is being recorded, unless history is turned off or cannot be written.
pub(crate) struct Recording {
    recorder: Option<Recorder>,
    limits: Limits,
    reporter: Reporter,
}

impl Recording {
    /// Begins a record. What is reported to [`Recording::reporter`] goes into it.
    pub(crate) fn begin(
        environment: &Environment,
        request: &BuildRequest,
        store: &Store,
        reporter: Reporter,
    ) -> Self {
        let limits = environment.history;
        if limits.entries == 0 {
            return Self { recorder: None, limits, reporter };
        }
        let asked = store.clone();
        let fate = move |key: &Digest| match (asked.lost(key), asked.evicted(key)) {
            (true, _) => Fate::LayersLost,
            (false, Ok(Some(at))) => Fate::Evicted(at),
            (false, _) => Fate::Unknown,
        };
        let history = History::new(store.history_dir());
        match Recorder::begin(history, beginning(request), secrets(request), Box::new(fate)) {
            Ok(recorder) => {
                let (recorded, shown) = (recorder.clone(), reporter.clone());
                let reporter = Reporter::new(move |event| {
                    recorded.event(&event);
                    shown.report(event);
                });
                Self { recorder: Some(recorder), limits, reporter }
            }
            Err(error) => {
                let text = format!("this build is not recorded: {error}");
                reporter.report(Event::Warning { text });
                Self { recorder: None, limits, reporter }
            }
        }
    }

    /// Where the build reports.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Who is told of caches that could not be read.
    pub(crate) fn on_cache_failure(&self) -> OnFailure {
        let recorder = self.recorder.clone();
        Box::new(move |failure| {
            if let Some(recorder) = &recorder {
                recorder.remote_cache_failed(&failure.cache);
            }
        })
    }

    /// Who is told of keys and misses.
    pub(crate) fn observer(&self, told: Told) -> Option<Arc<dyn Observer>> {
        let recorder = self.recorder.clone()?;
        Some(Arc::new(Watch { recorder, told }))
    }

    /// Ends the record; gives the build's name to the result.
    pub(crate) fn finish(self, built: &mut Result<BuildResult, BuildError>) {
        let Some(recorder) = self.recorder else { return };
        let id = recorder.id().to_owned();
        let finished = match built {
            Ok(result) => {
                result.build = Some(id);
                Finished {
                    status: Status::Done,
                    exit: 0,
                    error: None,
                    image: ImageFacts {
                        manifest: result.manifest.as_ref().map(|manifest| manifest.digest),
                        config: result.config,
                        names: result.names.iter().map(ToString::to_string).collect(),
                    },
                }
            }
            Err(error) => {
                let kind = error.kind();
                let canceled = kind == ErrorKind::Canceled;
                Finished {
                    status: if canceled { Status::Canceled } else { Status::Failed },
                    exit: kind.exit_code(),
                    error: Some(error.to_string()),
                    image: ImageFacts::default(),
                }
            }
        };
        if let Some(text) = recorder.finish(finished, &self.limits) {
            self.reporter.report(Event::Warning { text });
        }
    }
}

/// Build arguments that are named like secrets.
fn secrets(request: &BuildRequest) -> Secrets {
    Secrets::of(request.build_args.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

fn beginning(request: &BuildRequest) -> Begin {
    Begin {
        version: 0,
        id: String::new(),
        started: millis(SystemTime::now()),
        subject: subject(request),
        build_args: request.build_args.iter().map(|(name, _)| name.clone()).collect(),
        tags: request.tags.iter().map(|tag| tag.familiar()).collect(),
        pid: std::process::id(),
    }
}

/// What is built, so that two builds of it can be told.
fn subject(request: &BuildRequest) -> Subject {
    let context = match &request.context {
        ContextSource::Directory(dir) => whole(dir),
        ContextSource::Archive(_) => "-".to_owned(),
        ContextSource::Empty => String::new(),
        ContextSource::Remote(url) => url.redacted(),
    };
    let dockerfile = match &request.dockerfile {
        DockerfileSource::Default => match &request.context {
            // By its path, so that `-f Dockerfile` is the same.
            ContextSource::Directory(dir) => whole(&dir.join("Dockerfile")),
            _ => "Dockerfile".to_owned(),
        },
        DockerfileSource::Path(path) => match &request.context {
            ContextSource::Directory(_) | ContextSource::Empty => whole(path),
            ContextSource::Archive(_) | ContextSource::Remote(_) => path.display().to_string(),
        },
        DockerfileSource::Url(url) => url.redacted(),
        DockerfileSource::Text { name, .. } => name.clone(),
    };
    let platform = Some(joined(&request.platforms)).filter(|_| !request.platforms.is_empty());
    Subject { context, dockerfile, target: request.target.clone(), platform }
}

/// `linux/amd64,linux/arm64`
pub(crate) fn joined(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The path without links, as far as it is there.
fn whole(path: &Path) -> String {
    let path = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

/// What the keys of a build are told with.
pub(crate) struct Told {
    plan: Arc<Plan>,
    dockerfile: Digest,
    lines: Vec<String>,
    ignore: Option<Digest>,
    args: Vec<Arg>,
    platform: String,
    no_cache: NoCache,
    secrets: Secrets,
}

impl Told {
    /// `outline` has the values of build arguments that the Dockerfile declares; the ignore rules are not taken yet.
    pub(crate) fn new(
        plan: Arc<Plan>,
        inputs: &Inputs,
        request: &BuildRequest,
        outline: Vec<(String, String)>,
        platform: String,
    ) -> Self {
        let given = request.build_args.iter().cloned();
        let args: BTreeMap<String, String> = given.chain(outline).collect();
        let ignore = inputs.ignore.as_ref().map(|ignore| {
            let rules: Vec<&str> = ignore.rules().iter().map(|rule| rule.pattern.as_str()).collect();
            Digest::of(rules.join("\n"))
        });
        Self {
            plan,
            dockerfile: Digest::of(&inputs.text),
            lines: String::from_utf8_lossy(&inputs.text).lines().map(str::to_owned).collect(),
            ignore,
            args: (args.into_iter())
                .map(|(name, value)| Arg { value: mask::value(&name, &value), name })
                .collect(),
            platform,
            no_cache: request.no_cache.clone(),
            secrets: secrets(request),
        }
    }

    /// The lines of an instruction.
    fn text(&self, vertex: &Vertex) -> String {
        let (start, end) =
            (vertex.lines.start.saturating_sub(1) as usize, vertex.lines.end.saturating_sub(1) as usize);
        let lines =
            if vertex.lines.start == 0 { &[] } else { self.lines.get(start..end).unwrap_or_default() };
        let text = self.secrets.plain(&lines.join("\n"));
        if text.len() <= MAX_TEXT {
            return text;
        }
        let short: String = text.chars().take(MAX_TEXT / 4).collect();
        format!("{short}… ({})", Digest::of(&text).short())
    }

    fn step(&self, vertex: &Vertex, keyed: &Keyed<'_>) -> StepKey {
        StepKey {
            name: self.secrets.plain(&vertex.name),
            stage: vertex.stage.clone(),
            lines: (vertex.lines.start, vertex.lines.end),
            text: self.text(vertex),
            operation: keyed.operation.digest,
            key: *keyed.key,
            needs: keyed.depends_on.to_vec(),
            cacheable: keyed.cacheable,
            ignored: keyed.ignored,
            reference: reference(&vertex.op),
            preimage: mask::preimage(keyed.operation.preimage.clone(), &self.secrets),
        }
    }
}

/// What people call a source, where the key knows only its content.
fn reference(op: &Op) -> Option<String> {
    match op {
        Op::Image(image) => Some(image.reference.clone()),
        Op::Http(http) => Some(http.url.redacted()),
        Op::Git(git) => Some(git.remote.redacted()),
        _ => None,
    }
}

/// Passes keys and misses on to the record.
struct Watch {
    recorder: Recorder,
    told: Told,
}

impl Observer for Watch {
    fn keyed(&self, steps: &[Keyed<'_>]) {
        let told = &self.told;
        let keys = Keys {
            dockerfile: told.dockerfile,
            platform: told.platform.clone(),
            ignore: told.ignore,
            args: told.args.clone(),
            steps: told
                .plan
                .vertices()
                .iter()
                .zip(steps)
                .map(|(vertex, keyed)| told.step(vertex, keyed))
                .collect(),
        };
        let hits =
            steps.iter().map(|keyed| Hits { vertex: keyed.vertex, hit: keyed.hit, needed: keyed.needed });
        let details = steps.iter().flat_map(|keyed| &keyed.operation.details);
        let details =
            details.map(|detail| Detail { digest: detail.digest, write: Arc::clone(&detail.write) });
        let all = matches!(told.no_cache, NoCache::All);
        self.recorder.keys(keys, hits.collect(), details.collect(), all);
    }

    fn missed(&self, step: Step) -> Option<Explanation> {
        let explain = self.recorder.missed(step)?;
        Some(Box::new(move || -> Option<Miss> { explain() }))
    }
}
