//! `rbuild.lock`: what the names that a Dockerfile uses were when somebody looked, so that they stay that.

use crate::build::Environment;
use crate::dockerfile::{Inputs, read_inputs};
use crate::error::BuildError;
use crate::images::Images;
use crate::request::{BuildRequest, ContextSource};
use rbuild_event::Reporter;
use rbuild_ir::{Op, is_commit};
use rbuild_oci::Digest;
use rbuild_op::{PinnedFile, Pins, Remote, Resolving, git_pin_name};
use rbuild_solver::StepContext;
use rbuild_store::Store;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The lock file's name; it stands beside the Dockerfile.
pub const LOCK_FILE: &str = "rbuild.lock";
/// The version of its format.
const VERSION: u32 = 1;
/// Longest lock file that is read.
const MAX_LOCK: u64 = 16 << 20;

/// The file's JSON.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(flatten)]
    pins: Pins,
}

/// Reads a lock file; `None` if there is none.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_lock(path: &Path) -> Result<Option<Pins>, BuildError> {
    let wrong = |problem: String| {
        BuildError::Request(format!("`{}`: {problem}: make a new one with `rbuild lock`", path.display()))
    };
    let text = match crate::dockerfile::read_bounded(path, MAX_LOCK) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Err(wrong(error.to_string())),
        Err(source) => {
            return Err(BuildError::Io { action: "cannot read", path: path.display().to_string(), source });
        }
        Ok(text) => text,
    };
    parse(&text).map(Some).map_err(wrong)
}

fn parse(text: &[u8]) -> Result<Pins, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } =
        serde_json::from_slice(text).map_err(|error| format!("no lock file: {error}"))?;
    if version != VERSION {
        return Err(format!("its format has version {version}, this rbuild knows {VERSION}"));
    }
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let pins = document.pins;
    match pins.git.iter().find(|(_, commit)| !is_commit(commit)) {
        Some((name, commit)) => Err(format!("{name}: `{commit}` is not the id of a commit")),
        None => Ok(pins),
    }
}

fn render(pins: &Pins) -> String {
    let document = Document { version: VERSION, pins: pins.clone() };
    serde_json::to_string_pretty(&document).expect("maps of strings serialise") + "\n"
}

/// Where the lock of a build is: named, else beside the Dockerfile.
pub(crate) fn path(request: &BuildRequest, inputs: &Inputs) -> Option<PathBuf> {
    request.lock_file.clone().or_else(|| inputs.dir.as_ref().map(|dir| dir.join(LOCK_FILE)))
}

/// How a build resolves names.
pub(crate) fn resolving(request: &BuildRequest, inputs: &Inputs) -> Result<Resolving, BuildError> {
    let path = path(request, inputs);
    let pins = path.as_deref().map(read_lock).transpose()?.flatten();
    if pins.is_none() && (request.locked || request.lock_file.is_some()) {
        let wanted = path.map_or_else(|| LOCK_FILE.to_owned(), |path| path.display().to_string());
        let problem = format!("there is no lock file `{wanted}`: make one with `rbuild lock`");
        return Err(BuildError::Request(problem));
    }
    Ok(Resolving {
        offline: request.offline,
        locked: request.locked,
        max_age: request.max_resolution_age,
        pins: pins.map(Arc::new),
    })
}

/// Which entries are looked up anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Only what is missing is added.
    Missing,
    /// Everything.
    All,
    /// Missing ones and those whose names contain one of these.
    Matching(Vec<String>),
}

/// What became of an entry of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It had another value, which is given.
    Updated(String),
    /// It was as it is, or was not looked at.
    Unchanged,
    /// The Dockerfile does not name it; it was removed, or may belong to another Dockerfile.
    Unused {
        /// Whether it was removed.
        removed: bool,
    },
}

/// One entry of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockEntry {
    /// `image`, `url` or `git`.
    pub kind: &'static str,
    /// The name that is pinned.
    pub name: String,
    /// Digest or commit.
    pub value: String,
    /// What happened to it.
    pub change: Change,
}

/// What [`lock`] found.
#[derive(Debug)]
pub struct Locked {
    /// The lock file.
    pub path: PathBuf,
    /// Its entries, by kind and name.
    pub entries: Vec<LockEntry>,
}

impl Locked {
    /// Whether the file is not what it was.
    pub fn changed(&self) -> bool {
        let same = |change: &Change| matches!(change, Change::Unchanged | Change::Unused { removed: false });
        !self.entries.iter().all(|entry| same(&entry.change))
    }
}

/// How to lock.
#[derive(Debug, Clone)]
pub struct LockOptions {
    /// Which entries are looked up anew.
    pub update: Update,
    /// Whether entries that the Dockerfile does not name are removed.
    pub prune: bool,
    /// Write nothing, and ask for nothing that is in the lock.
    pub check: bool,
}

/// Looks up every name that moves (tags, URLs, branches) in all stages of a Dockerfile and writes the lock file, whole or not
/// at all.
///
/// Must run on a multi-threaded tokio runtime.
///
/// # Errors
/// When something cannot be looked up, or the Dockerfile has errors; then the file stays as it was.
pub async fn lock(
    environment: &Environment,
    request: &BuildRequest,
    options: &LockOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Locked, BuildError> {
    if let ContextSource::Remote(url) = &request.context {
        let problem = format!("{url}: a lock belongs into the sources: clone them and lock there");
        return Err(BuildError::Request(problem));
    }
    let store = Store::open(&environment.store_root)?;
    let _lease = store.lease()?;
    let mut inputs = read_inputs(request, false, &store)?;
    // Whatever SOURCE_DATE_EPOCH names: its time changes nothing about what is locked.
    inputs.epoch = Some(0);
    let Some(path) = path(request, &inputs) else {
        let problem = "a Dockerfile from standard input has no place for a lock: name one with --lock-file";
        return Err(BuildError::Request(problem.into()));
    };
    let old = read_lock(&path)?.unwrap_or_default();
    let resolving = Resolving {
        offline: request.offline,
        pins: Some(Arc::new(kept(&old, &options.update))),
        locked: options.check,
        ..Resolving::default()
    };
    let remote = Remote::new(store.clone(), environment.registry.clone(), request.confidential.clone());
    let remote = remote.resolving(resolving.clone());
    let images =
        Images::new(store.clone(), environment.registry.clone(), request, resolving, reporter.clone());
    let images = Arc::new(images.asking());
    let found = look_up(request, &inputs, &images, &remote, reporter, cancel).await?;
    let (new, entries) = merged(&old, found, options.prune);
    if !options.check && new != old {
        write(&path, &render(&new))?;
    }
    Ok(Locked { path, entries })
}

/// The entries that are believed.
fn kept(old: &Pins, update: &Update) -> Pins {
    let stays = |name: &String| match update {
        Update::Missing => true,
        Update::All => false,
        Update::Matching(parts) => !parts.iter().any(|part| name.contains(part.as_str())),
    };
    let mut kept = old.clone();
    kept.images.retain(|name, _| stays(name));
    kept.urls.retain(|name, _| stays(name));
    kept.git.retain(|name, _| stays(name));
    kept
}

/// Every name that the Dockerfile uses and that has no digest of its own.
async fn look_up(
    request: &BuildRequest,
    inputs: &Inputs,
    images: &Arc<Images>,
    remote: &Remote,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Pins, BuildError> {
    let remote_ops = crate::lower::all_stages(request, inputs, images).await?;
    let mut pins = Pins { images: images.tags(), ..Pins::default() };
    let step =
        StepContext { vertex: reporter.declare("lock"), reporter: reporter.clone(), cancel: cancel.clone() };
    let failed = |name: String| move |source| BuildError::Step { name, excerpt: String::new(), source };
    for op in remote_ops {
        match op {
            Op::Http(op) if op.checksum.is_none() => {
                let url = op.url.redacted();
                let file = remote.file(&op, &step).await.map_err(failed(url.clone()))?;
                let pin = PinnedFile { digest: file.digest, size: file.size, modified: file.modified };
                pins.urls.insert(url, pin);
            }
            Op::Git(op) if !is_pinned(&op) => {
                let name = git_pin_name(&op);
                let commit = remote.commit_id(&op, &step).await.map_err(failed(name.clone()))?;
                pins.git.insert(name, commit);
            }
            _ => {}
        }
    }
    Ok(pins)
}

fn is_pinned(op: &rbuild_ir::GitOp) -> bool {
    is_commit(&op.reference) || op.checksum.as_deref().is_some_and(is_commit)
}

/// The new lock, and what is new in it.
fn merged(old: &Pins, found: Pins, prune: bool) -> (Pins, Vec<LockEntry>) {
    let mut entries = Vec::new();
    let mut section = |kind, old: BTreeMap<String, String>, found: BTreeMap<String, String>| {
        let names: BTreeSet<&String> = old.keys().chain(found.keys()).collect();
        for name in names {
            let (value, change) = match (old.get(name), found.get(name)) {
                (Some(was), None) => (was, Change::Unused { removed: prune }),
                (Some(was), Some(is)) if was != is => (is, Change::Updated(was.clone())),
                (None, Some(is)) => (is, Change::Added),
                (_, Some(is)) => (is, Change::Unchanged),
                (None, None) => continue,
            };
            entries.push(LockEntry { kind, name: name.clone(), value: value.clone(), change });
        }
    };
    let digests = |images: &BTreeMap<String, Digest>| {
        images.iter().map(|(name, digest)| (name.clone(), digest.to_string())).collect()
    };
    let files = |urls: &BTreeMap<String, PinnedFile>| {
        urls.iter().map(|(name, file)| (name.clone(), file.digest.to_string())).collect()
    };
    section("image", digests(&old.images), digests(&found.images));
    section("url", files(&old.urls), files(&found.urls));
    section("git", old.git.clone(), found.git.clone());
    let mut new = if prune { Pins::default() } else { old.clone() };
    new.images.extend(found.images);
    new.urls.extend(found.urls);
    new.git.extend(found.git);
    (new, entries)
}

fn write(path: &Path, text: &str) -> Result<(), BuildError> {
    let failed = |source| BuildError::Io { action: "cannot write", path: path.display().to_string(), source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".rbuild.lock.")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins() -> Pins {
        let mut pins = Pins::default();
        pins.images.insert("docker.io/library/debian:12".into(), Digest::of("debian"));
        let file = PinnedFile { digest: Digest::of("file"), size: 4, modified: Some(784_111_777) };
        pins.urls.insert("https://a/b".into(), file);
        pins.git.insert("https://g/r#main".into(), "a".repeat(40));
        pins
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        assert_eq!(parse(render(&pins()).as_bytes()).unwrap(), pins());
        assert_eq!(parse(br#"{"version": 1}"#).unwrap(), Pins::default());
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        for (text, message) in [
            ("", "no lock file"),
            ("{}", "no lock file"),
            (r#"{"version": 2}"#, "version 2"),
            (r#"{"version": 1, "images": {"a": "b"}}"#, "digest"),
            (r#"{"version": 1, "git": {"a#b": "main"}}"#, "`main` is not the id of a commit"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn unnamed_entries_go_only_when_they_are_pruned() {
        let mut found = pins();
        found.images.clear();
        found.images.insert("docker.io/library/busybox:latest".into(), Digest::of("busybox"));
        found.git.insert("https://g/r#main".into(), "b".repeat(40));
        let (new, entries) = merged(&pins(), found.clone(), false);
        assert_eq!(new.images.len(), 2);
        let changes: Vec<&Change> = entries.iter().map(|entry| &entry.change).collect();
        let updated = Change::Updated("a".repeat(40));
        assert_eq!(
            changes,
            [&Change::Added, &Change::Unused { removed: false }, &Change::Unchanged, &updated]
        );
        assert_eq!(merged(&pins(), found.clone(), true).0, found);
    }

    #[test]
    fn updates_are_chosen_by_a_part_of_the_name() {
        let matching = Update::Matching(vec!["debian".into()]);
        assert!(kept(&pins(), &matching).images.is_empty());
        assert_eq!(kept(&pins(), &matching).git.len(), 1);
        assert_eq!(kept(&pins(), &Update::All), Pins::default());
        assert_eq!(kept(&pins(), &Update::Missing), pins());
    }
}
