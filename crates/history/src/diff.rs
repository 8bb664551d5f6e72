//! What is different between two keys of the same step.

use crate::cause::{Cause, FileChange, FileChangeKind};
use crate::record::{Keys, StepKey};
use rbuild_copy::{KeyChangeKind, KeyEntry, key_changes};
use rbuild_oci::Digest;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Changes of files that are kept of one step.
pub const MAX_CHANGES: usize = 10_000;

/// Finds the files of a key by the digest that its preimage names.
pub type Listings<'a> = &'a dyn Fn(&Digest) -> Option<Vec<KeyEntry>>;

/// Two builds, as far as all their steps share it.
pub(crate) struct Surroundings<'a> {
    /// Build arguments whose value changed.
    changed_args: BTreeMap<&'a str, (Option<&'a str>, Option<&'a str>)>,
    /// Names of all build arguments.
    args: BTreeSet<&'a str>,
    ignore_changed: bool,
    listings: Listings<'a>,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn new(old: &'a Keys, new: &'a Keys, listings: Listings<'a>) -> Self {
        let values = |keys: &'a Keys| -> BTreeMap<&str, &str> {
            keys.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_str())).collect()
        };
        let (old_args, new_args) = (values(old), values(new));
        let args: BTreeSet<&str> = old_args.keys().chain(new_args.keys()).copied().collect();
        let pair = |name: &&'a str| (old_args.get(name).copied(), new_args.get(name).copied());
        let changed = args.iter().map(|name| (*name, pair(name))).filter(|(_, (old, new))| old != new);
        Self { changed_args: changed.collect(), args, ignore_changed: old.ignore != new.ignore, listings }
    }
}

/// What is different between the keys of one step in two builds, apart from what it depends on; the most telling cause
/// first, none if the operations are equal.
pub fn explain(old: (&Keys, &StepKey), new: (&Keys, &StepKey), listings: Listings<'_>) -> Vec<Cause> {
    differences(old.1, new.1, &Surroundings::new(old.0, new.0, listings))
}

pub(crate) fn differences(old: &StepKey, new: &StepKey, around: &Surroundings<'_>) -> Vec<Cause> {
    if old.operation == new.operation {
        return Vec::new();
    }
    let mut causes = match (old.kind(), new.kind()) {
        ("exec", "exec") => exec(old, new, around),
        ("copy", "copy") => or_argument(old, new, around, copy),
        ("image", "image") => or_argument(old, new, around, image),
        ("mkdir", "mkdir") => or_argument(old, new, around, mkdir),
        ("http", "http") | ("git", "git") => or_argument(old, new, around, remote),
        (old_kind, new_kind) if old_kind != new_kind => vec![instruction(old, new)],
        _ => or_argument(old, new, around, other),
    };
    if causes.is_empty() {
        causes.push(if same_text(old, new) { Cause::Hidden } else { instruction(old, new) });
    }
    causes
}

fn instruction(old: &StepKey, new: &StepKey) -> Cause {
    let text = |step: &StepKey| if step.text.is_empty() { step.name.clone() } else { step.text.clone() };
    Cause::Instruction { old: text(old), new: text(new) }
}

/// Whether the instruction is written as it was, but for blanks.
fn same_text(old: &StepKey, new: &StepKey) -> bool {
    old.text.split_whitespace().eq(new.text.split_whitespace())
}

/// A changed build argument that the instruction mentions explains all that is different about it.
fn or_argument(
    old: &StepKey,
    new: &StepKey,
    around: &Surroundings<'_>,
    differences: fn(&StepKey, &StepKey, &Surroundings<'_>) -> Vec<Cause>,
) -> Vec<Cause> {
    if same_text(old, new) {
        let mentioned = around.changed_args.iter().filter(|(name, _)| mentions(&new.text, name));
        let causes: Vec<Cause> = mentioned.map(|(name, values)| arg(name, *values)).collect();
        if !causes.is_empty() {
            return causes;
        }
    }
    differences(old, new, around)
}

/// Whether a text has `$name` or `${name`.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices('$').any(|(at, _)| {
        let rest = text[at + 1..].strip_prefix('{').unwrap_or(&text[at + 1..]);
        rest.strip_prefix(name)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    })
}

fn arg(name: &str, (old, new): (Option<&str>, Option<&str>)) -> Cause {
    Cause::Arg { name: name.to_owned(), old: old.map(str::to_owned), new: new.map(str::to_owned) }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A field that changed, under its name for people.
fn setting(name: &str, field: &str, old: &StepKey, new: &StepKey) -> Option<Cause> {
    let (old, new) = (&old.preimage[field], &new.preimage[field]);
    (old != new).then(|| Cause::Setting { name: name.to_owned(), old: plain(old), new: plain(new) })
}

fn exec(old: &StepKey, new: &StepKey, around: &Surroundings<'_>) -> Vec<Cause> {
    let differs = |field: &str| old.preimage[field] != new.preimage[field];
    let mut causes = Vec::new();
    if differs("args") || differs("pipes") {
        // The same text in another shell.
        let shell = same_text(old, new) && !new.text.is_empty() && !differs("pipes");
        causes.push(if shell { shell_cause(old, new) } else { instruction(old, new) });
    }
    if differs("platform") {
        let name = |step: &StepKey| platform(&step.preimage["platform"]);
        causes.push(Cause::Platform { old: name(old), new: name(new) });
    }
    causes.extend(variables(old, new, around));
    let settings = [
        ("WORKDIR", "cwd"),
        ("USER", "user"),
        ("network", "network"),
        ("security", "security"),
        ("--device", "devices"),
        ("hostname", "hostname"),
        ("--add-host", "extra_host_names"),
        ("--ulimit", "ulimits"),
    ];
    causes.extend(settings.iter().filter_map(|(name, field)| setting(name, field, old, new)));
    causes.extend(mounts(old, new, around));
    causes
}

/// The arguments before the command, which are the shell's.
fn shell_cause(old: &StepKey, new: &StepKey) -> Cause {
    let shell = |step: &StepKey| {
        let args = step.preimage["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        args[..args.len().saturating_sub(1)].iter().map(plain).collect::<Vec<_>>().join(" ")
    };
    match (shell(old), shell(new)) {
        (before, after) if before == after => instruction(old, new),
        (before, after) => Cause::Setting { name: "SHELL".into(), old: before, new: after },
    }
}

fn platform(value: &Value) -> String {
    let parts = ["os", "architecture", "variant"].iter().filter_map(|part| value[part].as_str());
    let text = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    if text.is_empty() { plain(value) } else { text }
}

fn variables(old: &StepKey, new: &StepKey, around: &Surroundings<'_>) -> Vec<Cause> {
    let environment = |step: &StepKey| -> BTreeMap<String, String> {
        let pairs = step.preimage["env"].as_array().into_iter().flatten();
        pairs.map(|pair| (plain(&pair[0]), plain(&pair[1]))).collect()
    };
    let (before, after) = (environment(old), environment(new));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let (mut args, mut env) = (Vec::new(), Vec::new());
    for name in names {
        let (old, new) = (before.get(name).cloned(), after.get(name).cloned());
        if old == new {
            continue;
        }
        // SOURCE_DATE_EPOCH comes out of the environment by itself.
        if around.args.contains(name.as_str()) || name == "SOURCE_DATE_EPOCH" {
            args.push((name.clone(), old, new));
        } else {
            env.push((name.clone(), old, new));
        }
    }
    // `ENV A=$B` changes with `ARG B`, which is the root.
    let derived = |old: &Option<String>, new: &Option<String>| {
        let (Some(old), Some(new)) = (old, new) else { return false };
        around.changed_args.values().any(|(from, to)| {
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
            !from.is_empty() && old.contains(from) && old.replace(from, to) == *new
        })
    };
    env.retain(|(_, old, new)| !derived(old, new));
    let args = args.into_iter().map(|(name, old, new)| Cause::Arg { name, old, new });
    args.chain(env.into_iter().map(|(name, old, new)| Cause::Env { name, old, new })).collect()
}

fn mounts(old: &StepKey, new: &StepKey, around: &Surroundings<'_>) -> Vec<Cause> {
    let by_target = |step: &StepKey| -> BTreeMap<String, Value> {
        let mounts = step.preimage["mounts"].as_array().into_iter().flatten();
        mounts.map(|mount| (plain(&mount["target"]), mount.clone())).collect()
    };
    let (before, after) = (by_target(old), by_target(new));
    let targets: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut causes = Vec::new();
    for target in targets {
        let (old, new) = (before.get(target), after.get(target));
        if old == new {
            continue;
        }
        let content = |mount: Option<&Value>| mount.and_then(|mount| find_content(&mount["kind"]));
        let rest = |mount: Option<&Value>| mount.map(without_content);
        if let (Some(from), Some(to)) = (content(old), content(new))
            && rest(old) == rest(new)
        {
            causes.push(files(Some(target.clone()), &from, &to, around));
            continue;
        }
        let text = |mount: Option<&Value>| mount.map(|mount| mount_text(&mount["kind"])).unwrap_or_default();
        causes.push(Cause::Setting { name: format!("mount {target}"), old: text(old), new: text(new) });
    }
    causes
}

/// The digest of what a mount shows of a context.
fn find_content(kind: &Value) -> Option<Digest> {
    let content = kind["content"].as_str().or_else(|| kind["from"]["content"].as_str());
    content?.parse().ok()
}

fn without_content(mount: &Value) -> Value {
    let mut mount = mount.clone();
    if mount["kind"]["from"]["content"].is_string() {
        mount["kind"]["from"]["content"] = Value::Null;
    }
    if mount["kind"]["content"].is_string() {
        mount["kind"]["content"] = Value::Null;
    }
    mount
}

/// `type=cache,sharing=locked`.
fn mount_text(kind: &Value) -> String {
    let fields = kind.as_object().into_iter().flatten();
    let shown = fields.filter(|(name, value)| !value.is_null() && *name != "content");
    let text = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("mode", mode) => format!("mode={:04o}", mode.as_u64().unwrap_or_default()),
        // Which input it is says nothing to whoever wrote the Dockerfile.
        ("from", from) if from["input"].is_u64() => "from a stage or an image".to_owned(),
        ("from", from) if from.is_object() => "from a build context".to_owned(),
        _ => format!("{name}={}", plain(value)),
    };
    shown.map(text).collect::<Vec<_>>().join(",")
}

fn copy(old: &StepKey, new: &StepKey, around: &Surroundings<'_>) -> Vec<Cause> {
    if !same_text(old, new) {
        // Other files are what the other instruction means.
        return vec![instruction(old, new)];
    }
    let names = ["sources", "dest", "chown", "chmod", "link", "parents", "exclude", "unpack"];
    let mut causes: Vec<Cause> =
        names.into_iter().filter_map(|name| setting(&option_name(name), name, old, new)).collect();
    let digest = |step: &StepKey| step.preimage["context"].as_str().and_then(|text| text.parse().ok());
    if let (Some(from), Some(to)) = (digest(old), digest(new))
        && from != to
    {
        causes.push(files(None, &from, &to, around));
    }
    causes
}

fn option_name(field: &str) -> String {
    match field {
        "sources" => "what is copied".into(),
        "dest" => "the destination".into(),
        option => format!("--{option}"),
    }
}

/// The files behind two digests.
fn files(mount: Option<String>, old: &Digest, new: &Digest, around: &Surroundings<'_>) -> Cause {
    let changes = match ((around.listings)(old), (around.listings)(new)) {
        (Some(old), Some(new)) => file_changes(&old, &new),
        _ => Vec::new(),
    };
    let came_or_went =
        |change: &FileChange| matches!(change.change, FileChangeKind::Added | FileChangeKind::Removed);
    let ignore_file = around.ignore_changed && !changes.is_empty() && changes.iter().all(came_or_went);
    let total = changes.iter().map(|change| &change.path).collect::<BTreeSet<_>>().len();
    Cause::Files { mount, changes, total, ignore_file }
}

/// Every change of a file, contents first.
pub fn file_changes(old: &[KeyEntry], new: &[KeyEntry]) -> Vec<FileChange> {
    let index = |entries: &[KeyEntry]| -> BTreeMap<String, KeyEntry> {
        entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
    };
    let changes = key_changes(old, new, MAX_CHANGES);
    let changed: BTreeSet<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    let of = |entries: &[KeyEntry]| {
        index(&entries.iter().filter(|entry| changed.contains(&*entry.path)).cloned().collect::<Vec<_>>())
    };
    let (before, after) = (of(old), of(new));
    changes
        .iter()
        .map(|change| file_change(change, before.get(&change.path), after.get(&change.path)))
        .collect()
}

fn file_change(
    change: &rbuild_copy::KeyChange,
    old: Option<&KeyEntry>,
    new: Option<&KeyEntry>,
) -> FileChange {
    let both = |value: fn(&KeyEntry) -> Option<String>| (old.and_then(value), new.and_then(value));
    let (kind, (old, new)) = match &change.kind {
        KeyChangeKind::Added => (FileChangeKind::Added, (None, None)),
        KeyChangeKind::Removed => (FileChangeKind::Removed, (None, None)),
        KeyChangeKind::Type => {
            (FileChangeKind::Type, both(|entry| Some(format!("{:?}", entry.kind).to_lowercase())))
        }
        KeyChangeKind::Content => {
            (FileChangeKind::Content, both(|entry| entry.data.map(|data| data.to_string())))
        }
        KeyChangeKind::Mode(old, new) => {
            (FileChangeKind::Mode, (Some(format!("{old:o}")), Some(format!("{new:o}"))))
        }
        KeyChangeKind::Owner(old, new) => {
            let owner = |(uid, gid): &(u32, u32)| Some(format!("{uid}:{gid}"));
            (FileChangeKind::Owner, (owner(old), owner(new)))
        }
        KeyChangeKind::Link => (FileChangeKind::Link, both(|entry| entry.link.clone())),
        KeyChangeKind::Device => (FileChangeKind::Device, (None, None)),
        KeyChangeKind::Xattrs => (FileChangeKind::Xattrs, (None, None)),
    };
    FileChange { path: change.path.clone(), change: kind, old, new }
}

fn image(old: &StepKey, new: &StepKey, _: &Surroundings<'_>) -> Vec<Cause> {
    let name = |step: &StepKey| step.reference.clone().unwrap_or_default();
    let digest = |step: &StepKey| step.preimage["manifest"].as_str().and_then(|text| text.parse().ok());
    let platforms = [old, new].map(|step| platform(&step.preimage["platform"]));
    if platforms[0] != platforms[1] {
        let [old, new] = platforms;
        return vec![Cause::Platform { old, new }];
    }
    vec![Cause::BaseImage { old_name: name(old), new_name: name(new), old: digest(old), new: digest(new) }]
}

fn mkdir(old: &StepKey, new: &StepKey, _: &Surroundings<'_>) -> Vec<Cause> {
    if !same_text(old, new) {
        return vec![instruction(old, new)];
    }
    let epoch = |step: &StepKey| step.preimage["epoch"].as_i64().map(|epoch| epoch.to_string());
    let (before, after) = (epoch(old), epoch(new));
    let epoch =
        (before != after).then(|| Cause::Arg { name: "SOURCE_DATE_EPOCH".into(), old: before, new: after });
    let settings = [("WORKDIR", "path"), ("USER", "user")];
    let settings = settings.iter().filter_map(|(name, field)| setting(name, field, old, new));
    epoch.into_iter().chain(settings).collect()
}

fn remote(old: &StepKey, new: &StepKey, around: &Surroundings<'_>) -> Vec<Cause> {
    if !same_text(old, new) {
        return vec![instruction(old, new)];
    }
    let what = |step: &StepKey| {
        ["digest", "commit"]
            .iter()
            .find_map(|field| step.preimage[*field].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let (before, after) = (what(old), what(new));
    if before == after {
        return other(old, new, around);
    }
    let name = new.reference.clone().unwrap_or_else(|| new.name.clone());
    vec![Cause::Remote { name, old: before, new: after }]
}

/// Every field that differs, under its own name.
fn other(old: &StepKey, new: &StepKey, _: &Surroundings<'_>) -> Vec<Cause> {
    let fields = |step: &StepKey| -> BTreeSet<String> {
        step.preimage.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let names = fields(old).into_iter().chain(fields(new)).collect::<BTreeSet<_>>();
    names.iter().filter_map(|name| setting(name, name, old, new)).collect()
}
