//! JSON lines as BuildKit's `SolveStatus` (D-009): `{"vertexes":[…]}`, `{"statuses":[…]}`, `{"logs":[…]}`, `{"warnings":[…]}`.
//!
//! A vertex is known by a digest there. Ours are numbered within a build, and the number stands in the digest's place.

use crate::View;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_event::{Event, Stream, VertexId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::time::SystemTime;

/// Writes a time as RFC 3339 with nanoseconds.
pub(crate) type TimeFormat = fn(SystemTime) -> String;

pub(crate) struct RawJson<W> {
    out: W,
    time: TimeFormat,
    vertexes: HashMap<VertexId, Vertex>,
    /// When the parts of vertices began, by their names.
    started: HashMap<(VertexId, String), SystemTime>,
}

#[derive(Default)]
struct Vertex {
    name: String,
    started: Option<SystemTime>,
}

impl<W: Write> RawJson<W> {
    pub(crate) fn new(out: W, time: TimeFormat) -> Self {
        Self { out, time, vertexes: HashMap::new(), started: HashMap::new() }
    }

    fn line(&mut self, kind: &str, value: Value) {
        // A closed standard error must not stop the build.
        drop(writeln!(self.out, "{}", json!({ kind: [value] })));
    }

    /// Everything that is known about a vertex, and what is new.
    fn vertex(&mut self, id: VertexId, more: Value) {
        let vertex = self.vertexes.entry(id).or_default();
        let mut value = json!({"digest": digest(id), "name": vertex.name});
        if let Some(started) = vertex.started {
            value["started"] = (self.time)(started).into();
        }
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        self.line("vertexes", value);
    }

    fn log(&mut self, id: VertexId, stream: u8, text: &[u8], at: SystemTime) {
        let data = STANDARD.encode([text, b"\n"].concat());
        let value =
            json!({"vertex": digest(id), "stream": stream, "data": data, "timestamp": (self.time)(at)});
        self.line("logs", value);
    }
}

fn digest(id: VertexId) -> String {
    format!("sha256:{:064x}", u64::from(id) + 1)
}

impl<W: Write + Send> View for RawJson<W> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Declared { vertex, name } => {
                self.vertexes.entry(*vertex).or_default().name.clone_from(name);
                self.vertex(*vertex, json!({}));
            }
            Event::Started { vertex, at } => {
                self.vertexes.entry(*vertex).or_default().started = Some(*at);
                self.vertex(*vertex, json!({}));
            }
            Event::Cached { vertex, .. } => {
                let now = SystemTime::now();
                self.vertexes.entry(*vertex).or_default().started.get_or_insert(now);
                let completed = (self.time)(now);
                self.vertex(*vertex, json!({"completed": completed, "cached": true}));
            }
            Event::Completed { vertex, at } => {
                let completed = (self.time)(*at);
                self.vertex(*vertex, json!({"completed": completed}));
            }
            Event::Failed { vertex, at, error } => {
                let completed = (self.time)(*at);
                self.vertex(*vertex, json!({"completed": completed, "error": error}));
            }
            Event::Canceled { vertex, at } => {
                let completed = (self.time)(*at);
                self.vertex(*vertex, json!({"completed": completed, "error": "context canceled"}));
            }
            Event::Log { vertex, stream, line, at } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                self.log(*vertex, stream, line, *at);
            }
            // No field of BuildKit's: readers that do not know it pass over it.
            Event::Missed { vertex, miss } => {
                let causes = miss.causes.iter().map(|cause| json!({"kind": cause.kind, "text": cause.text}));
                let value = json!({
                    "text": miss.text,
                    "follows": miss.follows.map(digest),
                    "causes": causes.collect::<Vec<_>>(),
                });
                self.vertex(*vertex, json!({"cacheMiss": value}));
            }
            Event::Note { vertex, text } => self.log(*vertex, 2, text.as_bytes(), SystemTime::now()),
            Event::Status { vertex, name, current, total, done } => {
                let now = SystemTime::now();
                let started = *self.started.entry((*vertex, name.clone())).or_insert(now);
                let mut value = json!({
                    "id": name,
                    "vertex": digest(*vertex),
                    "total": total,
                    "current": current,
                    "timestamp": (self.time)(now),
                    "started": (self.time)(started),
                });
                if *done {
                    value["completed"] = (self.time)(now).into();
                }
                self.line("statuses", value);
            }
            Event::Warning { text } => {
                self.line("warnings", json!({"level": 1, "short": STANDARD.encode(text)}));
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
    use rbuild_event::{Miss, MissCause};
    use std::time::Duration;

    #[test]
    fn d_009_one_object_for_each_event() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let time: TimeFormat = |time| {
            let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            // What is dated now differs each time.
            if seconds > 100 { "now".into() } else { seconds.to_string() }
        };
        let mut view = RawJson::new(Vec::new(), time);
        let cause = MissCause { kind: "files", text: "main.c changed".into() };
        let text = "main.c changed".to_owned();
        let miss = Miss { text, follows: None, causes: vec![cause], expected: false };
        let log = |stream, line: &[u8]| Event::Log { vertex: 1, stream, line: line.to_vec(), at: at(2) };
        for event in [
            Event::Declared { vertex: 0, name: "[1/2] FROM debian".into() },
            Event::Declared { vertex: 1, name: "[2/2] RUN make".into() },
            Event::Cached { vertex: 0, from: None },
            Event::Started { vertex: 1, at: at(1) },
            log(Stream::Stdout, b"ok"),
            log(Stream::Stderr, b"\xff"),
            Event::Status { vertex: 1, name: "layer".into(), current: 1, total: 3, done: false },
            Event::Status { vertex: 1, name: "layer".into(), current: 3, total: 3, done: true },
            Event::Note { vertex: 1, text: "waiting".into() },
            Event::Missed { vertex: 1, miss },
            Event::Warning { text: "old flag".into() },
            Event::Failed { vertex: 1, at: at(3), error: "exit code: 1".into() },
            Event::Canceled { vertex: 0, at: at(4) },
        ] {
            view.event(&event);
        }
        let text = String::from_utf8(view.out).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).unwrap().is_object()));
        insta::assert_snapshot!(text);
    }
}
