//! Records made by hand, and what is said of them.

mod aligned;
mod causes;
mod kept;
mod reasons;

use crate::record::*;
use crate::*;
use rbuild_copy::{KeyEntry, KeyKind};
use rbuild_oci::Digest;
use serde_json::{Value, json};

/// A step of one stage that stands on the one before; its key follows from its operation and its parent's.
pub(crate) fn step(text: &str, preimage: Value) -> StepKey {
    StepKey {
        name: text.to_owned(),
        stage: "0".to_owned(),
        lines: (1, 2),
        text: text.to_owned(),
        operation: Digest::of(preimage.to_string()),
        key: Digest::of(""),
        needs: Vec::new(),
        cacheable: preimage["op"] != "image",
        ignored: false,
        reference: None,
        preimage,
    }
}

pub(crate) fn exec(text: &str) -> StepKey {
    exec_with(text, json!({}))
}

/// A RUN, with these fields in the preimage.
pub(crate) fn exec_with(text: &str, more: Value) -> StepKey {
    let command = text.strip_prefix("RUN ").unwrap_or(text);
    let mut preimage = json!({
        "op": "exec", "args": ["/bin/sh", "-c", command], "env": [["PATH", "/bin"]], "cwd": "/", "user": "",
        "network": "default", "security": "sandbox", "mounts": [], "pipes": [], "ulimits": [],
        "platform": {"architecture": "amd64", "os": "linux"},
    });
    for (name, value) in more.as_object().unwrap() {
        preimage[name] = value.clone();
    }
    step(text, preimage)
}

pub(crate) fn copy(text: &str, content: &str) -> StepKey {
    copy_with(text, content, json!({}))
}

pub(crate) fn copy_with(text: &str, content: &str, more: Value) -> StepKey {
    let mut preimage = json!({
        "op": "copy", "sources": ["context"], "context": Digest::of(content), "dest": "/x", "chown": null,
        "chmod": null, "link": false, "parents": false, "exclude": [], "unpack": "never",
    });
    for (name, value) in more.as_object().unwrap() {
        preimage[name] = value.clone();
    }
    step(text, preimage)
}

pub(crate) fn image(text: &str, name: &str, manifest: &str) -> StepKey {
    let platform = json!({"architecture": "amd64", "os": "linux"});
    let preimage = json!({"op": "image", "manifest": Digest::of(manifest), "platform": platform});
    StepKey { reference: Some(name.to_owned()), ..step(text, preimage) }
}

pub(crate) fn in_stage(stage: &str, step: StepKey) -> StepKey {
    StepKey { stage: stage.to_owned(), ..step }
}

/// A build of these steps; each stands on the one before it in its stage.
pub(crate) fn keys(mut steps: Vec<StepKey>) -> Keys {
    for place in 0..steps.len() {
        let parent = (0..place).rev().find(|other| steps[*other].stage == steps[place].stage);
        steps[place].needs = parent.into_iter().chain(steps[place].needs.clone()).collect();
        let mut text = steps[place].operation.to_string();
        for need in &steps[place].needs {
            text.push_str(&steps[*need].key.to_string());
        }
        steps[place].key = Digest::of(text);
    }
    let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
    let dockerfile = Digest::of(texts.join("\n"));
    Keys { dockerfile, platform: "linux/amd64".into(), ignore: None, args: Vec::new(), steps }
}

pub(crate) fn with_args(keys: Keys, args: &[(&str, &str)]) -> Keys {
    let args = args.iter().map(|(name, value)| Arg { name: (*name).into(), value: (*value).into() });
    Keys { args: args.collect(), ..keys }
}

pub(crate) fn begin() -> Begin {
    Begin {
        version: 1,
        id: "000000000000".into(),
        started: 1_700_000_000_000,
        subject: Subject {
            context: "/c".into(),
            dockerfile: "/c/Dockerfile".into(),
            target: None,
            platform: None,
        },
        build_args: Vec::new(),
        tags: Vec::new(),
        pid: 1,
    }
}

/// A build that ended well, all of its steps executed.
pub(crate) fn record(keys: Keys) -> Record {
    let executed = StepEnd { outcome: Outcome::Executed, ..StepEnd::default() };
    let end = End {
        ended: 1,
        status: Status::Done,
        exit: 0,
        error: None,
        image: ImageFacts::default(),
        steps: vec![executed; keys.steps.len()],
        other: Vec::new(),
        warnings: Vec::new(),
    };
    Record { begin: begin(), keys: Some(keys), end: Some(end), ended_steps: Vec::new(), running: false }
}

pub(crate) fn entry(path: &str, content: &str, mode: u32) -> KeyEntry {
    KeyEntry {
        path: path.into(),
        kind: KeyKind::File,
        mode,
        uid: 0,
        gid: 0,
        data: Some(Digest::of(content)),
        link: None,
        rdev: None,
        xattrs: None,
    }
}

/// No lists of files are kept.
pub(crate) fn no_files(_: &Digest) -> Option<Vec<KeyEntry>> {
    None
}
