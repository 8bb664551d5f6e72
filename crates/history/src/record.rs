//! What is known of one build.

use crate::cause::Cause;
use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the format below.
pub(crate) const VERSION: u32 = 1;

/// Milliseconds since 1970.
pub type Millis = u64;

/// What is built: builds of the same are compared with each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The main context: an absolute directory, a URL without credentials, or `-`.
    pub context: String,
    /// The Dockerfile: an absolute path, a URL, a path inside the context, or `<stdin>`.
    pub dockerfile: String,
    /// `--target` as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `--platform` as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Written when a build begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Version of the format.
    pub version: u32,
    /// The build's name.
    pub id: String,
    /// When it began.
    pub started: Millis,
    /// What is built.
    pub subject: Subject,
    /// Names of `--build-arg`, never the values.
    #[serde(default)]
    pub build_args: Vec<String>,
    /// `-t`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Process id of the builder.
    pub pid: u32,
}

/// A build argument that the build uses, or that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// Its value; masked when the name looks like that of a secret.
    pub value: String,
}

/// Written when all keys are known, before anything is executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// Digest of the Dockerfile's text.
    pub dockerfile: Digest,
    /// Platform of the result.
    pub platform: String,
    /// Digest of the ignore file's rules, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Digest>,
    /// Build arguments with their values in this build.
    #[serde(default)]
    pub args: Vec<Arg>,
    /// Every vertex, in the plan's order.
    pub steps: Vec<StepKey>,
}

/// A vertex and its structured key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepKey {
    /// As shown: `[build 2/5] RUN make`.
    pub name: String,
    /// Lower-case stage name or number.
    pub stage: String,
    /// 1-based lines of the Dockerfile, end exclusive; equal when there are none.
    pub lines: (u32, u32),
    /// Those lines.
    #[serde(default)]
    pub text: String,
    /// Digest of the operation alone.
    pub operation: Digest,
    /// The definition key.
    pub key: Digest,
    /// Places of the steps that its own result depends on: its parent, if it reads it, then its inputs.
    #[serde(default)]
    pub needs: Vec<usize>,
    /// Whether results of it are kept; a source's are not.
    pub cacheable: bool,
    /// Whether its cache was not read, because of --no-cache or --no-cache-filter.
    #[serde(default)]
    pub ignored: bool,
    /// Name of the base image as asked for, or another name that is not part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Everything that decides its result but what it depends on, masked.
    pub preimage: Value,
}

impl StepKey {
    /// The kind of operation: `exec`, `copy`, `image`, …
    pub fn kind(&self) -> &str {
        self.preimage["op"].as_str().unwrap_or_default()
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The build ended, or was killed, before the step did.
    #[default]
    Unfinished,
    /// Its result was in the cache.
    Cached,
    /// Nobody needed its result: what stands on it was in the cache.
    Skipped,
    /// It was executed.
    Executed,
    /// It was executed and failed.
    Failed,
    /// It was stopped because something else failed or the user stopped the build.
    Canceled,
}

/// Why a step was executed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Miss {
    /// Place of the step that it follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<usize>,
    /// What is different about the step itself.
    #[serde(default)]
    pub causes: Vec<Cause>,
    /// The build it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// The whole reason in one line.
    pub text: String,
}

/// What became of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// The cache elsewhere that had its result, if it was not the store's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_from: Option<String>,
    /// When its execution began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Millis>,
    /// How long it was executed, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<u64>,
    /// Why it was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miss: Option<Miss>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Name of its log file; `None` if it wrote nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// A piece of work that is no vertex: resolving, fetching, exporting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Other {
    /// As shown.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub end: StepEnd,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Well.
    Done,
    /// With an error.
    Failed,
    /// The user stopped it.
    Canceled,
}

/// What a build made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Digest of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Digest of the config: the image's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// Names it has in the store.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Written when a build ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub ended: Millis,
    /// How.
    pub status: Status,
    /// The exit code.
    pub exit: u8,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it made.
    #[serde(default)]
    pub image: ImageFacts,
    /// In the order of [`Keys::steps`].
    #[serde(default)]
    pub steps: Vec<StepEnd>,
    /// Work that is no vertex.
    #[serde(default)]
    pub other: Vec<Other>,
    /// Warnings that belong to no step.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// All that is known of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What is known from the beginning.
    pub begin: Begin,
    /// Missing if the build did not get that far.
    pub keys: Option<Keys>,
    /// Missing while the build runs, and if it was killed.
    pub end: Option<End>,
    /// What became of steps of a build that has not ended, by place.
    pub ended_steps: Vec<(usize, StepEnd)>,
    /// Whether the build is running now.
    pub running: bool,
}

impl Record {
    /// The vertices; none if the build did not get that far.
    pub fn steps(&self) -> &[StepKey] {
        self.keys.as_ref().map_or(&[], |keys| &keys.steps)
    }

    /// What became of a step, as far as it is known.
    pub fn step_end(&self, step: usize) -> Option<&StepEnd> {
        match &self.end {
            Some(end) => end.steps.get(step),
            None => self.ended_steps.iter().rev().find(|(place, _)| *place == step).map(|(_, end)| end),
        }
    }

    /// How the build ended, in a word.
    pub fn state(&self) -> &'static str {
        match self.end.as_ref().map(|end| end.status) {
            Some(Status::Done) => "done",
            Some(Status::Failed) => "failed",
            Some(Status::Canceled) => "canceled",
            None if self.running => "running",
            None => "did not end",
        }
    }
}
