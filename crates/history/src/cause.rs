//! Why a step was executed, in data and in words.

use crate::mask::{is_masked, shown};
use rbuild_oci::{Digest, time::format_seconds};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Changes of files that are named in a line; the others are counted.
const NAMED: usize = 3;
/// Changes of files that a record keeps; the lists of files have all.
const KEPT: usize = 20;
/// Characters of a value that are shown in a line.
const VALUE: usize = 40;

/// One cause of a miss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cause {
    /// No earlier build of this Dockerfile and target has the step.
    NeverBuilt,
    /// The instruction is new in the Dockerfile.
    Added,
    /// Instructions before it are gone, or come later now.
    Removed {
        /// The instructions.
        instructions: Vec<String>,
    },
    /// Files that it reads from a build context changed.
    Files {
        /// Where they are seen: nothing for COPY, else the target of the mount.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mount: Option<String>,
        /// What changed, by path; empty if the earlier list of files is not here any more. A record has only the first.
        changes: Vec<FileChange>,
        /// How many files changed.
        #[serde(default)]
        total: usize,
        /// Whether the ignore file changed too and explains it: files only came and went.
        #[serde(default)]
        ignore_file: bool,
    },
    /// A build argument has another value; `None` is not set.
    Arg {
        /// Its name.
        name: String,
        /// Value in the earlier build.
        old: Option<String>,
        /// Value now.
        new: Option<String>,
    },
    /// An environment variable has another value; `None` is not set.
    Env {
        /// Its name.
        name: String,
        /// Value in the earlier build.
        old: Option<String>,
        /// Value now.
        new: Option<String>,
    },
    /// The base image is another one.
    BaseImage {
        /// Its name in the earlier build.
        old_name: String,
        /// Its name now.
        new_name: String,
        /// Manifest of the earlier build.
        old: Option<Digest>,
        /// Manifest now.
        new: Option<Digest>,
    },
    /// What was fetched from a URL or a git repository is other content.
    Remote {
        /// The URL.
        name: String,
        /// Digest or commit of the earlier build.
        old: String,
        /// Digest or commit now.
        new: String,
    },
    /// The platform is another one.
    Platform {
        /// Of the earlier build.
        old: String,
        /// Now.
        new: String,
    },
    /// The text of the instruction changed.
    Instruction {
        /// In the earlier build.
        old: String,
        /// Now.
        new: String,
    },
    /// Something else that decides the step's result changed.
    Setting {
        /// `WORKDIR`, `USER`, `SHELL`, `network`, `security`, `mount /x`, `--chmod`, …
        name: String,
        /// In the earlier build; empty is not set.
        old: String,
        /// Now.
        new: String,
    },
    /// What changed is not shown because it looks like a secret.
    Hidden,
    /// The result was removed by prune.
    Evicted {
        /// When, seconds since 1970.
        at: i64,
    },
    /// The result is recorded, but its layers are gone from the store.
    LayersLost,
    /// The earlier build had the result and the cache does not: another store, or the index was rebuilt.
    NotInCache,
    /// The step did not come to a result in the earlier build either.
    Unfinished {
        /// `failed`, `canceled` or `did not end`.
        how: String,
    },
    /// `--no-cache`, or `--no-cache-filter` for the stage.
    NoCache {
        /// The stage that the filter names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
    },
    /// Remote caches that might have had the result could not be read.
    RemoteCache {
        /// Their names.
        names: Vec<String>,
    },
}

/// One change of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Path in the build context; below the mount for a mount.
    pub path: String,
    /// What is different.
    pub change: FileChangeKind,
    /// Before: mode, owner, digest of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// Now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// What is different about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another type.
    Type,
    /// Other bytes.
    Content,
    /// Other permission bits.
    Mode,
    /// Another owner.
    Owner,
    /// Another link target.
    Link,
    /// Another device.
    Device,
    /// Other extended attributes.
    Xattrs,
}

impl Cause {
    /// The kind as programs see it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NeverBuilt => "never-built",
            Self::Added => "added",
            Self::Removed { .. } => "removed",
            Self::Files { .. } => "files",
            Self::Arg { .. } => "arg",
            Self::Env { .. } => "env",
            Self::BaseImage { .. } => "base-image",
            Self::Remote { .. } => "remote",
            Self::Platform { .. } => "platform",
            Self::Instruction { .. } => "instruction",
            Self::Setting { .. } => "setting",
            Self::Hidden => "hidden",
            Self::Evicted { .. } => "evicted",
            Self::LayersLost => "layers-lost",
            Self::NotInCache => "not-in-cache",
            Self::Unfinished { .. } => "unfinished",
            Self::NoCache { .. } => "no-cache",
            Self::RemoteCache { .. } => "remote-cache",
        }
    }

    /// Whether it is about one step's instruction or files, rather than about what many steps share.
    pub(crate) fn is_of_one_step(&self) -> bool {
        match self {
            Self::Files { .. }
            | Self::Instruction { .. }
            | Self::Added
            | Self::Removed { .. }
            | Self::Hidden => true,
            Self::Unfinished { .. } | Self::Remote { .. } => true,
            Self::Setting { name, .. } => !["WORKDIR", "USER", "SHELL"].contains(&name.as_str()),
            _ => false,
        }
    }

    /// The cause with no more changes of files than a record keeps.
    pub(crate) fn shortened(mut self) -> Self {
        if let Self::Files { changes, .. } = &mut self {
            // Whether all of them are changes of modes must still be seen.
            if changes.len() > KEPT && !changes.iter().all(|change| change.change == FileChangeKind::Mode) {
                changes.sort_by_key(|change| change.change == FileChangeKind::Mode);
            }
            changes.truncate(KEPT);
        }
        self
    }

    /// Whether only modes of files are different, which `--context-modes=git` levels out.
    pub fn is_modes_only(&self) -> bool {
        matches!(self, Self::Files { changes, .. } if !changes.is_empty()
            && changes.iter().all(|change| change.change == FileChangeKind::Mode))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBuilt => f.write_str("never built here"),
            Self::Added => f.write_str("instruction added"),
            Self::Removed { instructions } => write!(f, "instruction removed: {}", instructions.join(", ")),
            Self::Files { mount, changes, total, ignore_file } => {
                if let Some(mount) = mount {
                    write!(f, "mount {mount}: ")?;
                }
                write_changes(f, changes, *total)?;
                if *ignore_file {
                    f.write_str(" (the ignore file changed)")?;
                }
                match self.is_modes_only() {
                    false => Ok(()),
                    // What git does not know about a mode is levelled out.
                    true if changes.iter().all(keeps_executable_bit) => {
                        f.write_str(" (only modes: --context-modes=git would level them out)")
                    }
                    true => {
                        f.write_str(" (only modes: --context-modes=git would keep but the executable bit)")
                    }
                }
            }
            Self::Arg { name, old, new } => variable(f, "ARG", name, old.as_deref(), new.as_deref()),
            Self::Env { name, old, new } => variable(f, "ENV", name, old.as_deref(), new.as_deref()),
            Self::BaseImage { old_name, new_name, old, new } => {
                if old_name != new_name {
                    return write!(f, "base image changed: {old_name} → {new_name}");
                }
                let short = |digest: &Option<Digest>| digest.map_or("?".into(), |digest| digest.short());
                write!(f, "base image {new_name} moved: {} → {}", short(old), short(new))
            }
            Self::Remote { name, old, new } => {
                let short =
                    |text: &str| text.trim_start_matches("sha256:").chars().take(12).collect::<String>();
                write!(f, "{name} changed: {} → {}", short(old), short(new))
            }
            Self::Platform { old, new } => write!(f, "platform changed: {old} → {new}"),
            Self::Instruction { .. } => f.write_str("instruction changed"),
            Self::Setting { name, old, new } => {
                let quiet = old.chars().count() > VALUE || new.chars().count() > VALUE;
                match (old.as_str(), new.as_str()) {
                    _ if quiet => write!(f, "{name} changed"),
                    ("", new) => write!(f, "{name} added: {new}"),
                    (_, "") => write!(f, "{name} removed"),
                    (old, new) => write!(f, "{name} changed: {old} → {new}"),
                }
            }
            Self::Hidden => f.write_str("a value that is not shown changed"),
            Self::Evicted { at } => write!(f, "evicted at {}", format_seconds(*at, 0)),
            Self::LayersLost => f.write_str("its layers are gone from the store"),
            Self::NotInCache => f.write_str("its result is not in this cache any more"),
            Self::Unfinished { how } => write!(f, "it {how} in the build before"),
            Self::NoCache { stage: None } => f.write_str("--no-cache"),
            Self::NoCache { stage: Some(stage) } => write!(f, "--no-cache-filter={stage}"),
            Self::RemoteCache { names } => write!(f, "remote cache unreachable: {}", names.join(", ")),
        }
    }
}

/// Whether a change of modes is none for git.
fn keeps_executable_bit(change: &FileChange) -> bool {
    let executable = |mode: &Option<String>| {
        let mode = mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        mode.map(|mode| mode & 0o100 != 0)
    };
    executable(&change.old) == executable(&change.new)
}

fn variable(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    name: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> fmt::Result {
    let quiet = |value: &str| is_masked(value) || value.chars().count() > VALUE;
    match (old, new) {
        (None, Some(new)) if quiet(new) => write!(f, "{what} {name} is set"),
        (None, Some(new)) => write!(f, "{what} {name} is set: {new}"),
        (_, None) => write!(f, "{what} {name} is not set any more"),
        (Some(old), Some(new)) if quiet(old) || quiet(new) => write!(f, "{what} {name} changed"),
        (Some(old), Some(new)) => write!(f, "{what} {name} changed: {} → {}", shown(old), shown(new)),
    }
}

fn write_changes(f: &mut fmt::Formatter<'_>, changes: &[FileChange], total: usize) -> fmt::Result {
    if changes.is_empty() {
        return f.write_str("files of the build context changed");
    }
    // One file may have several changes; its first counts here.
    let mut files: Vec<&FileChange> = Vec::new();
    for change in changes {
        if files.last().is_none_or(|last| last.path != change.path) {
            files.push(change);
        }
    }
    for (place, change) in files.iter().take(NAMED).enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        write!(f, "{comma}{change}")?;
    }
    match total.max(files.len()).saturating_sub(NAMED) {
        0 => Ok(()),
        1 => f.write_str(" and 1 more file"),
        more => write!(f, " and {more} more files"),
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        let values = || (self.old.as_deref().unwrap_or("?"), self.new.as_deref().unwrap_or("?"));
        match self.change {
            FileChangeKind::Added => write!(f, "{path} added"),
            FileChangeKind::Removed => write!(f, "{path} removed"),
            FileChangeKind::Type => write!(f, "{path} is of another type"),
            FileChangeKind::Content => write!(f, "{path} changed"),
            FileChangeKind::Mode => write!(f, "mode of {path} {}→{}", values().0, values().1),
            FileChangeKind::Owner => write!(f, "owner of {path} {}→{}", values().0, values().1),
            FileChangeKind::Link => write!(f, "{path} links elsewhere"),
            FileChangeKind::Device => write!(f, "{path} is another device"),
            FileChangeKind::Xattrs => write!(f, "extended attributes of {path} changed"),
        }
    }
}
