//! One line for each event (D-009): `#3 [build 2/5] RUN make`, `#3 0.120 output`, `#3 DONE 1.2s`.

use crate::View;
use crate::state::{printable, seconds, since};
use rbuild_event::{Event, VertexId};
use std::collections::HashMap;
use std::io::Write;
use std::time::SystemTime;

pub(crate) struct Plain<W> {
    out: W,
    steps: HashMap<VertexId, Step>,
    shown: usize,
    /// The step whose lines came last; a blank line separates it from the next.
    last: Option<VertexId>,
}

#[derive(Default)]
struct Step {
    name: String,
    number: Option<usize>,
    started: Option<SystemTime>,
}

impl<W: Write> Plain<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, steps: HashMap::new(), shown: 0, last: None }
    }

    /// Writes `text` below the step's number, which it gets with its first line.
    fn line(&mut self, vertex: VertexId, text: &str) {
        let step = self.steps.entry(vertex).or_default();
        let is_new = step.number.is_none();
        let number = *step.number.get_or_insert_with(|| {
            self.shown += 1;
            self.shown
        });
        let mut lines = String::new();
        if self.last.is_some_and(|last| last != vertex) {
            lines.push('\n');
        }
        if is_new || self.last != Some(vertex) {
            lines.push_str(&format!("#{number} {}\n", step.name));
        }
        if !text.is_empty() {
            lines.push_str(&format!("#{number} {text}\n"));
        }
        self.last = Some(vertex);
        // A closed standard error must not stop the build.
        drop(self.out.write_all(lines.as_bytes()));
    }

    fn elapsed(&self, vertex: VertexId, at: SystemTime) -> std::time::Duration {
        since(self.steps.get(&vertex).and_then(|step| step.started), at)
    }
}

impl<W: Write + Send> View for Plain<W> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Declared { vertex, name } => {
                self.steps.insert(*vertex, Step { name: name.clone(), ..Step::default() });
            }
            Event::Started { vertex, at } => {
                self.steps.entry(*vertex).or_default().started = Some(*at);
                self.line(*vertex, "");
            }
            Event::Cached { vertex, from: None } => self.line(*vertex, "CACHED"),
            Event::Cached { vertex, from: Some(cache) } => self.line(*vertex, &format!("CACHED ({cache})")),
            Event::Completed { vertex, at } => {
                let took = seconds(self.elapsed(*vertex, *at));
                self.line(*vertex, &format!("DONE {took}"));
            }
            Event::Failed { vertex, error, .. } => self.line(*vertex, &format!("ERROR: {error}")),
            Event::Canceled { vertex, .. } => {
                if self.steps.get(vertex).is_some_and(|step| step.started.is_some()) {
                    self.line(*vertex, "CANCELED");
                }
            }
            Event::Log { vertex, line, at, .. } => {
                let text = format!("{:.3} {}", self.elapsed(*vertex, *at).as_secs_f64(), printable(line));
                self.line(*vertex, &text);
            }
            Event::Status { vertex, name, current, total, done } if *done => {
                let size = indicatif::HumanBytes((*total).max(*current));
                self.line(*vertex, &format!("{name} {size} done"));
            }
            Event::Status { .. } => {}
            Event::Note { vertex, text } => self.line(*vertex, text),
            Event::Missed { miss, .. } if miss.expected => {}
            Event::Missed { vertex, miss } => {
                self.line(*vertex, &format!("cache miss: {}", printable(miss.text.as_bytes())));
            }
            Event::Warning { text } => {
                self.last = None;
                drop(writeln!(self.out, "WARN: {text}"));
            }
        }
    }

    fn finish(&mut self) {
        drop(self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_event::Stream;
    use std::time::{Duration, SystemTime};

    #[test]
    fn steps_are_numbered_as_they_appear_and_named_again_after_an_interruption() {
        let start = SystemTime::UNIX_EPOCH;
        let later = start + Duration::from_millis(1250);
        let log = |vertex, line: &str| {
            let line = line.as_bytes().to_vec();
            Event::Log { vertex, stream: Stream::Stdout, line, at: later }
        };
        let missed = |vertex, text: &str, expected| {
            let miss = rbuild_event::Miss { text: text.into(), expected, ..rbuild_event::Miss::default() };
            Event::Missed { vertex, miss }
        };
        let mut plain = Plain::new(Vec::new());
        for event in [
            Event::Declared { vertex: 0, name: "[1/3] FROM debian".into() },
            Event::Declared { vertex: 1, name: "[2/3] RUN make".into() },
            Event::Declared { vertex: 2, name: "[other 1/1] RUN test".into() },
            Event::Cached { vertex: 0, from: None },
            Event::Started { vertex: 2, at: start },
            Event::Started { vertex: 1, at: start },
            missed(1, "main.c changed", false),
            log(1, "cc main.c"),
            log(2, "ok"),
            missed(2, "follows from a first build", true),
            Event::Completed { vertex: 1, at: later },
            Event::Failed { vertex: 2, at: later, error: "exit code: 1".into() },
            Event::Warning { text: "legacy flag".into() },
        ] {
            plain.event(&event);
        }
        insta::assert_snapshot!(String::from_utf8(plain.out).unwrap());
    }
}
