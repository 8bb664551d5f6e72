//! `rbuild why`: why a step was executed, in full, or since when it is cached. Looks at history alone.

use crate::args::{TextOrJson, WhyArgs};
use crate::command::builds::{find, history, step_value};
use crate::exit::Usage;
use crate::output::print;
use anyhow::Result;
use rbuild_history::{
    Cause, Comparison, Facts, Fate, FileChange, FileChangeKind, History, Outcome, Reason, Record, mask,
};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &WhyArgs) -> Result<ExitCode> {
    let history = history(root);
    let record = find(&history, &args.build)?;
    if record.keys.is_none() {
        let error =
            record.end.as_ref().and_then(|end| end.error.as_deref()).unwrap_or("it did not get that far");
        return Err(Usage::new(format!("build {} has no steps: {error}", record.begin.id)).into());
    }
    let against = match &args.against {
        Some(text) => Some(find(&history, text)?),
        None => recorded_against(&history, &record),
    };
    let places = match &args.step {
        Some(step) => matching(&record, step)?,
        None => (0..record.steps().len()).filter(|place| is_miss(&record, *place)).collect(),
    };
    let asked = Asked { history: &history, record: &record, against, given: args.against.is_some() };
    let answers: Vec<Answer> = places.into_iter().map(|place| asked.answer(place)).collect();
    print(&match args.format {
        TextOrJson::Json => serde_json::to_string_pretty(&asked.document(&answers))? + "\n",
        TextOrJson::Text => mask::stripped(&asked.text(&answers)),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The places of the steps that are meant: a number from 1 on, or a part of the name.
pub(crate) fn matching(record: &Record, text: &str) -> Result<Vec<usize>> {
    let steps = record.steps();
    if let Ok(number) = text.trim_start_matches('#').parse::<usize>()
        && (1..=steps.len()).contains(&number)
    {
        return Ok(vec![number - 1]);
    }
    let lower = text.to_lowercase();
    let found = |place: &usize| steps[*place].name.to_lowercase().contains(&lower);
    let places: Vec<usize> = (0..steps.len()).filter(found).collect();
    if places.is_empty() {
        let known: Vec<String> =
            steps.iter().enumerate().map(|(place, step)| format!("  {} {}", place + 1, step.name)).collect();
        let message =
            format!("build {} has no step `{text}`; it has:\n{}", record.begin.id, known.join("\n"));
        return Err(Usage::new(message).into());
    }
    Ok(places)
}

fn outcome(record: &Record, place: usize) -> Outcome {
    record.step_end(place).map(|end| end.outcome).unwrap_or_default()
}

fn is_miss(record: &Record, place: usize) -> bool {
    let executed = matches!(outcome(record, place), Outcome::Executed | Outcome::Failed | Outcome::Canceled);
    executed && record.step_end(place).is_some_and(|end| end.miss.is_some())
}

/// The build that this one was compared with then, else the one it would be compared with.
fn recorded_against(history: &History, record: &Record) -> Option<Record> {
    let ends = (0..record.steps().len()).filter_map(|place| record.step_end(place)?.miss.as_ref());
    let named = ends.filter_map(|miss| miss.against.as_deref()).next();
    let named = named.and_then(|id| history.read(id).ok());
    named.or_else(|| {
        let dockerfile = record.keys.as_ref()?.dockerfile;
        history.previous(&record.begin.id, &record.begin.subject, &dockerfile)
    })
}

/// What was asked.
struct Asked<'a> {
    history: &'a History,
    record: &'a Record,
    against: Option<Record>,
    /// Whether the user named it.
    given: bool,
}

/// What is known of one step.
struct Answer {
    place: usize,
    outcome: Outcome,
    /// Of a miss.
    reason: Option<Reason>,
    /// Steps from the one it follows from to the root.
    chain: Vec<usize>,
    /// What is different about the root.
    root: Vec<Cause>,
    /// The build that made a cached result.
    since: Option<String>,
}

impl Asked<'_> {
    fn answer(&self, place: usize) -> Answer {
        let outcome = outcome(self.record, place);
        let step = &self.record.steps()[place];
        if !self.given && !is_miss(self.record, place) {
            let cached = matches!(outcome, Outcome::Cached | Outcome::Skipped) && step.cacheable;
            let since =
                if cached { self.history.executed_in(&step.key, &self.record.begin.id) } else { None };
            return Answer { place, outcome, reason: None, chain: Vec::new(), root: Vec::new(), since };
        }
        let reason = self.reason(place);
        let mut chain = Vec::new();
        let mut root = reason.clone();
        while let Some(need) = root.follows.filter(|need| *need != place && !chain.contains(need)) {
            chain.push(need);
            root = self.reason(need);
        }
        Answer { place, outcome, reason: Some(reason), chain, root: root.causes, since: None }
    }

    /// The reason of a step: what was recorded, with differences in full, or what a comparison with the build that was
    /// asked for gives.
    fn reason(&self, place: usize) -> Reason {
        let Some(keys) = &self.record.keys else { return Reason::default() };
        let comparison = Comparison::new(self.against.as_ref(), keys);
        let listings = |digest: &rbuild_oci::Digest| self.history.listing(digest);
        let own = comparison.own_causes(place, &listings);
        let recorded = self.record.step_end(place).and_then(|end| end.miss.as_ref());
        if let Some(miss) = recorded.filter(|_| !self.given) {
            let causes = if miss.follows.is_none() && !own.is_empty() && miss.causes.iter().any(in_keys) {
                own
            } else {
                miss.causes.clone()
            };
            return Reason { follows: miss.follows, causes };
        }
        let facts = Facts {
            fate: &|_| Fate::Unknown,
            missed: &|need| !comparison.is_same(need),
            no_cache_at_all: true,
            failed_caches: &[],
            listings: &listings,
        };
        if comparison.is_same(place) {
            return Reason::default();
        }
        comparison.reason(place, &facts).unwrap_or_default()
    }

    fn document(&self, answers: &[Answer]) -> Value {
        let steps = answers.iter().map(|answer| {
            let mut value = step_value(self.record, answer.place);
            if let Some(object) = value.as_object_mut() {
                object.remove("miss");
                object.remove("preimage");
            }
            let causes = |causes: &[Cause]| mask::hidden(serde_json::to_value(causes).unwrap_or_default());
            if let Some(reason) = &answer.reason {
                value["follows"] = json!(reason.follows.map(|place| place + 1));
                value["causes"] = causes(&reason.causes);
                value["root"] = json!(answer.chain.last().unwrap_or(&answer.place) + 1);
                value["root_causes"] = causes(&answer.root);
            }
            value["cached_since"] = json!(answer.since);
            value
        });
        json!({
            "build": self.record.begin.id,
            "against": self.against.as_ref().map(|record| &record.begin.id),
            "steps": steps.collect::<Vec<_>>(),
        })
    }

    fn text(&self, answers: &[Answer]) -> String {
        let mut out = match &self.against {
            Some(against) => format!("build {} compared with {}\n", self.record.begin.id, against.begin.id),
            None => format!("build {}; there is no earlier one to compare with\n", self.record.begin.id),
        };
        if answers.is_empty() {
            out.push_str("every step was cached\n");
        }
        for answer in answers {
            out.push('\n');
            self.describe(answer, &mut out);
        }
        out
    }

    fn describe(&self, answer: &Answer, out: &mut String) {
        let name = |place: usize| format!("{} {}", place + 1, self.record.steps()[place].name);
        out.push_str(&format!("{}\n", name(answer.place)));
        let Some(reason) = &answer.reason else {
            out.push_str(&format!("  {}\n", self.no_miss(answer)));
            return;
        };
        for cause in &reason.causes {
            describe_cause(cause, "  ", out);
        }
        for need in &answer.chain {
            out.push_str(&format!("  follows from {}\n", name(*need)));
        }
        if !answer.chain.is_empty() {
            for cause in &answer.root {
                describe_cause(cause, "    ", out);
            }
        }
        if reason.causes.is_empty() && answer.chain.is_empty() {
            out.push_str("  nothing is different\n");
        }
    }

    fn no_miss(&self, answer: &Answer) -> String {
        if let Some(cache) = self.record.step_end(answer.place).and_then(|end| end.cached_from.as_ref()) {
            return format!("cached: its result came from {cache}");
        }
        match (answer.outcome, &answer.since) {
            (Outcome::Cached | Outcome::Skipped, Some(id)) => format!("cached since build {id}"),
            (Outcome::Cached, None) => "cached; the build that made it is not in the history any more".into(),
            (Outcome::Skipped, None) => "not needed: what stands on it was cached".into(),
            (Outcome::Unfinished, _) => "it did not end".into(),
            (Outcome::Executed | Outcome::Failed | Outcome::Canceled, _) => {
                "executed in every build: nothing of it is cached".into()
            }
        }
    }
}

/// Whether a cause is found by comparing keys, rather than in the cache.
fn in_keys(cause: &Cause) -> bool {
    !matches!(
        cause,
        Cause::NeverBuilt
            | Cause::Added
            | Cause::Removed { .. }
            | Cause::Evicted { .. }
            | Cause::LayersLost
            | Cause::NotInCache
            | Cause::Unfinished { .. }
            | Cause::NoCache { .. }
            | Cause::RemoteCache { .. }
    )
}

/// A cause with all that is different.
fn describe_cause(cause: &Cause, indent: &str, out: &mut String) {
    match cause {
        Cause::Files { changes, .. } => {
            out.push_str(&format!("{indent}{cause}\n"));
            for change in changes {
                out.push_str(&format!("{indent}  {}\n", file(change)));
            }
        }
        Cause::Instruction { old, new } => {
            out.push_str(&format!("{indent}{cause}\n"));
            for (sign, text) in [('-', old), ('+', new)] {
                for line in text.lines() {
                    out.push_str(&format!(
                        "{indent}  {sign} {}\n",
                        rbuild_progress::printable(line.as_bytes())
                    ));
                }
            }
        }
        Cause::Arg { old, new, .. } | Cause::Env { old, new, .. } => {
            out.push_str(&format!("{indent}{cause}\n"));
            values(old.as_deref(), new.as_deref(), indent, out);
        }
        Cause::Setting { old, new, .. } => {
            out.push_str(&format!("{indent}{cause}\n"));
            values(Some(old), Some(new), indent, out);
        }
        Cause::BaseImage { old, new, .. } => {
            out.push_str(&format!("{indent}{cause}\n"));
            let text = |digest: &Option<rbuild_oci::Digest>| digest.map(|digest| digest.to_string());
            values(text(old).as_deref(), text(new).as_deref(), indent, out);
        }
        other => out.push_str(&format!("{indent}{other}\n")),
    }
}

fn values(old: Option<&str>, new: Option<&str>, indent: &str, out: &mut String) {
    for (sign, value) in [('-', old), ('+', new)] {
        if let Some(value) = value {
            let shown = rbuild_progress::printable(mask::shown(value).as_bytes());
            out.push_str(&format!("{indent}  {sign} {shown}\n"));
        }
    }
}

fn file(change: &FileChange) -> String {
    match (&change.old, &change.new) {
        // Their names have the values already.
        _ if matches!(change.change, FileChangeKind::Mode | FileChangeKind::Owner) => change.to_string(),
        (Some(old), Some(new)) => format!("{change}: {old} → {new}"),
        _ => change.to_string(),
    }
}
