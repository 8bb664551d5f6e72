//! What is known at one point of a stage.

use super::config_env;
use crate::args::NOT_IN_ENV;
use crate::ast::{LineRange, Span};
use crate::env::{Env, Lookup, split_pair};
use crate::lint::Finding;
use crate::paths;
use crate::suggest::suggest;
use rbuild_ir::{HistoryEntry, NetworkMode, VertexDigest};
use rbuild_oci::{ImageConfig, Platform};
use std::collections::{BTreeSet, HashMap, HashSet};

/// PATH of an image that sets none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The same for Windows, on an empty root only: its images leave PATH to the system.
const WINDOWS_PATH: &str = "c:\\Windows\\System32;c:\\Windows";
/// Comment of history entries.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// The operating system that can be built for, but not run.
const WINDOWS: &str = "windows";

/// A root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    Empty,
    /// The result of a vertex.
    Vertex(usize),
    /// A local named context, not copied into a root yet.
    Context(String),
}

/// The state of a stage after some of its instructions.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) root: Root,
    /// Variables for expansion and RUN: the config's, then ARGs and ENVs in order.
    pub(super) env: Env,
    pub(super) config: ImageConfig,
    /// New entries, after the base's in `config`.
    pub(super) history: Vec<HistoryEntry>,
    pub(super) cwd: String,
    pub(super) platform: Platform,
    pub(super) network: NetworkMode,
    /// ARGs declared so far; a name may come twice.
    pub(super) build_args: Vec<(String, Option<String>)>,
    /// Steps numbered so far.
    pub(super) step: usize,
    /// CMD was given in this stage.
    pub(super) cmd_set: bool,
    /// The current instruction is a trigger.
    pub(super) on_build: bool,
    /// A WORKDIR was given in this stage or one that it stands on.
    pub(super) workdir_set: bool,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK of the stage.
    pub(super) seen: [Option<Seen>; 3],
    /// What the current instruction left for the checks.
    pub(super) findings: Vec<Finding>,
    /// Unset variables that the current instruction refers to.
    pub(super) unset: Vec<Unset>,
    /// How many more unset variables are worth noting.
    pub(super) unset_left: usize,
    /// The word that could not be expanded.
    pub(super) fault: Span,
    /// What to do about the current instruction's error.
    pub(super) remedy: Option<String>,
    /// Where a variable stands in the config's `Env`; made when it is first needed.
    places: Option<HashMap<String, usize>>,
    /// Names of `build_args`.
    declared: HashSet<String>,
}

/// An instruction that should come once.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) lines: LineRange,
    pub(super) comments: Vec<String>,
}

/// A variable that is not set.
#[derive(Debug, Clone)]
pub(super) struct Unset {
    pub(super) name: String,
    /// A name that is set and almost the same.
    pub(super) near: Option<String>,
    pub(super) span: Span,
}

impl State {
    /// The start of a stage on an image.
    pub(super) fn of_image(config: ImageConfig, platform: Platform) -> Self {
        Self {
            root: Root::Empty,
            env: Env::new(),
            config,
            history: Vec::new(),
            cwd: "/".into(),
            platform,
            network: NetworkMode::Default,
            build_args: Vec::new(),
            step: 0,
            cmd_set: false,
            on_build: false,
            workdir_set: false,
            seen: [const { None }; 3],
            findings: Vec::new(),
            unset: Vec::new(),
            unset_left: 0,
            fault: Span::default(),
            remedy: None,
            places: None,
            declared: HashSet::new(),
        }
    }

    /// The start of a stage without an image.
    pub(super) fn scratch(platform: Platform, root: Root) -> Self {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        let path = if platform.os == WINDOWS { WINDOWS_PATH } else { DEFAULT_PATH };
        config.config.env = Some(vec![format!("PATH={path}")]);
        config.config.working_dir = Some("/".into());
        if let Some(version) = &platform.os_version {
            config.other.insert("os.version".into(), version.as_str().into());
        }
        Self { root, ..Self::of_image(config, platform) }
    }

    /// A stage that a context without an image's config replaces: nothing is known but the platform. BuildKit leaves
    /// out the platform too and then refuses to export, unless `--platform` gives one.
    pub(super) fn replaced(platform: Platform, root: Root) -> Self {
        let mut state = Self::scratch(platform, root);
        state.config.config = Default::default();
        state
    }

    /// The start of a stage that stands on this one.
    pub(super) fn child(&self) -> Self {
        let mut child = Self { step: 0, cmd_set: false, seen: [const { None }; 3], ..self.clone() };
        child.config.config.on_build = None;
        child
    }

    /// What every stage does before its first instruction.
    pub(super) fn begin(&mut self, network: NetworkMode) {
        if self.platform.os != WINDOWS && !config_env(&self.config).any(|(name, _)| name == "PATH") {
            self.config.config.env.get_or_insert_default().push(format!("PATH={DEFAULT_PATH}"));
            self.places = None;
        }
        for (name, value) in config_env(&self.config) {
            self.env.set(name, value);
        }
        if let Some(dir) = self.config.config.working_dir.clone().filter(|dir| !dir.is_empty()) {
            self.set_dir(&paths::workdir(&dir, &dir));
        }
        self.network = network;
    }

    pub(super) fn set_dir(&mut self, dir: &str) {
        self.cwd = dir.to_owned();
        self.config.config.working_dir = Some(dir.to_owned());
    }

    /// Remembers names that a word refers to in vain. Declared ARGs without a value are no mistake.
    pub(super) fn note_unset(&mut self, names: &BTreeSet<String>, span: Span) {
        for name in names {
            if self.unset_left == 0 || self.declared.contains(name) || NOT_IN_ENV.contains(&name.as_str()) {
                continue;
            }
            self.unset_left -= 1;
            let near = suggest(name, self.env.names(), true);
            self.unset.push(Unset { name: name.clone(), near, span });
        }
    }

    /// ARG: `value` is `None` when it has none.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        self.declared.insert(name.to_owned());
        self.build_args.push((name.to_owned(), value));
    }

    pub(super) fn user(&self) -> &str {
        self.config.config.user.as_deref().unwrap_or_default()
    }

    /// ENV: sets a variable of the config and of later steps.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.env.set(name, value);
        let env = self.config.config.env.get_or_insert_default();
        let pair = format!("{name}={value}");
        let places = self.places.get_or_insert_with(|| {
            let mut places = HashMap::new();
            for (at, pair) in env.iter().enumerate() {
                places.entry(split_pair(pair).0.to_owned()).or_insert(at);
            }
            places
        });
        match places.get(name) {
            Some(&at) => env[at] = pair,
            None => {
                places.insert(name.to_owned(), env.len());
                env.push(pair);
            }
        }
    }

    /// SHELL, or the default one.
    pub(super) fn with_shell(&self, text: &str) -> Vec<String> {
        let mut argv = match &self.config.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ if self.config.os == WINDOWS => vec!["cmd".into(), "/S".into(), "/C".into()],
            _ => vec!["/bin/sh".into(), "-c".into()],
        };
        argv.push(text.to_owned());
        argv
    }

    /// Adds a history entry without a layer.
    pub(super) fn commit(&mut self, created_by: String) {
        self.commit_layer(created_by, None);
    }

    /// Adds a history entry; `vertex` made its layer.
    pub(super) fn commit_layer(&mut self, created_by: String, vertex: Option<VertexDigest>) {
        self.history.push(HistoryEntry { created_by, comment: COMMENT.into(), vertex });
    }

    /// `|N k=v …` of a RUN's history entry: declared ARGs with the values they have now.
    pub(super) fn arg_prefix(&self) -> String {
        // A name that was declared twice keeps its first place and has its last value.
        let last: HashMap<&str, Option<&str>> =
            self.build_args.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut seen = HashSet::new();
        let names = self.build_args.iter().map(|(name, _)| name.as_str()).filter(|name| seen.insert(*name));
        let value = |name: &str| self.env.get(name).or(last[name]).unwrap_or_default();
        let pairs: Vec<String> = names.map(|name| format!("{name}={} ", value(name))).collect();
        if pairs.is_empty() { String::new() } else { format!("|{} {}", pairs.len(), pairs.concat()) }
    }

    /// Roughly the memory that a copy of this state takes.
    pub(super) fn bytes(&self) -> usize {
        self.env.bytes() + self.history.iter().map(entry_bytes).sum::<usize>()
    }

    /// Roughly the memory that the last instruction took: its history entry, and a step's copy of the environment.
    pub(super) fn last_bytes(&self) -> usize {
        let Some(last) = self.history.last() else { return 0 };
        entry_bytes(last) + if last.vertex.is_some() { self.env.bytes() } else { 0 }
    }

    /// `--platform` decides what the image says it is for (B-003).
    pub(super) fn set_platform(&mut self, platform: &Platform) {
        let config = &mut self.config;
        let same = config.os == platform.os && config.architecture == platform.architecture;
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        if platform.variant.is_some() || !same {
            config.variant.clone_from(&platform.variant);
        }
        match &platform.os_version {
            Some(version) => {
                config.other.insert("os.version".into(), version.as_str().into());
            }
            None if !same => {
                config.other.remove("os.version");
            }
            None => {}
        }
    }
}

fn entry_bytes(entry: &HistoryEntry) -> usize {
    size_of::<HistoryEntry>() + entry.created_by.len() + entry.comment.len()
}
