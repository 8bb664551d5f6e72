//! The whole output of the step that failed.

use crate::Summary;
use crate::state::{printable, since};
use rbuild_event::{Event, VertexId};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Output kept for one running step, in bytes; what is beyond it loses its middle.
const MAX_KEPT: usize = 16 << 20;

/// The step that failed first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedStep {
    /// As shown.
    pub name: String,
    /// Its output: time since its start, and the line.
    pub output: Vec<(Duration, String)>,
    /// How many lines were dropped because the output was too long.
    pub dropped: usize,
    /// How many lines of `output` come before the dropped ones.
    pub before_dropped: usize,
}

#[derive(Default)]
struct Step {
    name: String,
    started: Option<SystemTime>,
    head: Vec<(Duration, String)>,
    tail: VecDeque<(Duration, String)>,
    head_bytes: usize,
    tail_bytes: usize,
    dropped: usize,
}

impl Step {
    fn log(&mut self, at: SystemTime, line: &[u8]) {
        let line = printable(line);
        let entry = (since(self.started, at), line);
        if self.head_bytes + entry.1.len() <= MAX_KEPT / 2 && self.tail.is_empty() {
            self.head_bytes += entry.1.len();
            self.head.push(entry);
            return;
        }
        self.tail_bytes += entry.1.len();
        self.tail.push_back(entry);
        while self.tail_bytes > MAX_KEPT / 2 {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.1.len();
            self.dropped += 1;
        }
    }
}

/// Watches events for the first failure.
#[derive(Default)]
pub(crate) struct Collector {
    running: HashMap<VertexId, Step>,
    failed: Option<FailedStep>,
    cached: usize,
    executed: usize,
    warnings: Vec<String>,
}

impl Collector {
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Declared { vertex, name } => {
                self.running.insert(*vertex, Step { name: name.clone(), ..Step::default() });
            }
            Event::Started { vertex, at } => {
                self.running.entry(*vertex).or_default().started = Some(*at);
            }
            Event::Log { vertex, line, at, .. } => self.running.entry(*vertex).or_default().log(*at, line),
            Event::Failed { vertex, .. } => {
                let Some(step) = self.running.remove(vertex).filter(|_| self.failed.is_none()) else {
                    return;
                };
                let before_dropped = step.head.len();
                let mut output = step.head;
                output.extend(step.tail);
                self.failed =
                    Some(FailedStep { name: step.name, output, dropped: step.dropped, before_dropped });
            }
            Event::Warning { text } => self.warnings.push(text.clone()),
            Event::Cached { vertex, .. } => {
                self.cached += 1;
                self.running.remove(vertex);
            }
            Event::Completed { vertex, .. } => {
                self.executed += 1;
                self.running.remove(vertex);
            }
            Event::Canceled { vertex, .. } => {
                self.running.remove(vertex);
            }
            Event::Status { .. } | Event::Note { .. } | Event::Missed { .. } => {}
        }
    }

    pub(crate) fn summary(self) -> Summary {
        Summary { failed: self.failed, cached: self.cached, executed: self.executed, warnings: self.warnings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_event::Stream;

    fn log(vertex: VertexId, line: &[u8]) -> Event {
        Event::Log { vertex, stream: Stream::Stdout, line: line.to_vec(), at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn the_first_failure_keeps_its_whole_output() {
        let mut collector = Collector::default();
        for vertex in 0..2 {
            collector.event(&Event::Declared { vertex, name: format!("step {vertex}") });
        }
        collector.event(&log(1, b"first"));
        collector.event(&log(0, b"other"));
        collector.event(&log(1, b"second"));
        for vertex in [1, 0] {
            collector.event(&Event::Failed { vertex, at: SystemTime::UNIX_EPOCH, error: String::new() });
        }
        let failed = collector.summary().failed.unwrap();
        let lines: Vec<&str> = failed.output.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!((failed.name.as_str(), lines, failed.dropped), ("step 1", vec!["first", "second"], 0));
    }

    #[test]
    fn the_place_of_the_dropped_lines_is_known() {
        let mut collector = Collector::default();
        collector.event(&Event::Declared { vertex: 0, name: "step".into() });
        // The head takes few long lines, the tail many short ones: the gap is not in the middle of the lines.
        for line in
            std::iter::repeat_n(vec![b'x'; 1 << 20], 40).chain(std::iter::repeat_n(b"short".to_vec(), 100))
        {
            collector.event(&log(0, &line));
        }
        collector.event(&Event::Failed { vertex: 0, at: SystemTime::UNIX_EPOCH, error: String::new() });
        let failed = collector.summary().failed.unwrap();
        assert_eq!((failed.before_dropped, failed.dropped + failed.output.len()), (8, 140));
        assert!(failed.dropped > 0 && failed.output.len() > 100);
    }

    #[test]
    fn endless_output_loses_its_middle_only() {
        let mut step = Step::default();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            step.log(SystemTime::UNIX_EPOCH, &line);
        }
        step.log(SystemTime::UNIX_EPOCH, b"last");
        assert_eq!(step.head.len() + step.tail.len() + step.dropped, 41);
        assert_eq!(step.tail.back().unwrap().1, "last");
        assert!(step.head_bytes + step.tail_bytes <= MAX_KEPT && step.dropped > 0);
    }
}
