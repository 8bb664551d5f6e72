//! A live view: finished steps scroll away above, running ones stay below with their time and last lines.

use crate::color::{Color, painted};
use crate::state::{printable, seconds, since};
use crate::{TtyStyle, View};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rbuild_event::{Event, VertexId};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

/// Running steps that show their output; more would fill the screen.
const STEPS_WITH_LOG: usize = 3;

/// Columns when the terminal does not say.
const DEFAULT_WIDTH: usize = 80;

pub(crate) struct Tty {
    screen: MultiProgress,
    header: ProgressBar,
    /// Columns of the terminal, asked at every frame because windows change.
    width: fn() -> usize,
    steps: HashMap<VertexId, Step>,
    running: Vec<VertexId>,
    style: TtyStyle,
    begin: Instant,
    declared: usize,
    ended: usize,
}

#[derive(Default)]
struct Step {
    name: String,
    started: Option<SystemTime>,
    bar: Option<ProgressBar>,
    log: VecDeque<String>,
    status: Option<String>,
    /// Why it runs, if it is the root of what runs.
    miss: Option<String>,
}

fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").expect("the template is constant and valid")
}

impl Tty {
    pub(crate) fn on_stderr(style: TtyStyle) -> Self {
        Self::on(style, ProgressDrawTarget::stderr_with_hz(10), || {
            let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr());
            size.map_or(DEFAULT_WIDTH, |size| usize::from(size.ws_col).max(20))
        })
    }

    fn on(style: TtyStyle, target: ProgressDrawTarget, width: fn() -> usize) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        let header = screen.add(ProgressBar::new_spinner().with_style(line_style()));
        Self {
            screen,
            header,
            width,
            steps: HashMap::new(),
            running: Vec::new(),
            style,
            begin: Instant::now(),
            declared: 0,
            ended: 0,
        }
    }

    fn start(&mut self, vertex: VertexId, at: SystemTime) {
        let step = self.steps.entry(vertex).or_default();
        step.started = Some(at);
        step.bar = Some(self.screen.add(ProgressBar::new_spinner().with_style(line_style())));
        self.running.push(vertex);
    }

    fn end(&mut self, vertex: VertexId, mark: &str, color: Option<Color>, at: Option<SystemTime>) {
        self.ended += 1;
        self.running.retain(|running| *running != vertex);
        let Some(step) = self.steps.remove(&vertex) else { return };
        if let Some(bar) = step.bar {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
        let took = at.map(|at| format!("  {}", seconds(since(step.started, at)))).unwrap_or_default();
        // Nothing useful can be done when the terminal is gone.
        let miss = step.miss.map(|miss| format!("\n    cache miss: {miss}")).unwrap_or_default();
        let line = painted(&format!(" => {mark}{}{took}", step.name), color);
        drop(self.screen.println(format!("{line}{miss}")));
    }

    fn paint(&self) {
        let now = SystemTime::now();
        let width = (self.width)();
        let took = seconds(self.begin.elapsed());
        self.header.set_message(format!("[+] Building {took} ({}/{})", self.ended, self.declared));
        for (place, vertex) in self.running.iter().enumerate() {
            let Some(step) = self.steps.get(vertex) else { continue };
            let Some(bar) = &step.bar else { continue };
            let time = seconds(since(step.started, now));
            let mut lines =
                vec![format!("{}  {time}", cut(&format!(" => {}", step.name), width - time.len() - 2))];
            lines.extend(step.miss.iter().map(|miss| cut(&format!(" => => cache miss: {miss}"), width)));
            lines.extend(step.status.iter().map(|status| cut(&format!(" => => {status}"), width)));
            if place < STEPS_WITH_LOG {
                lines.extend(step.log.iter().map(|line| cut(&format!(" => => # {line}"), width)));
            }
            bar.set_message(lines.join("\n"));
        }
    }
}

/// The first `width` characters: a line that wraps would confuse the terminal's idea of where to repaint.
fn cut(line: &str, width: usize) -> String {
    line.replace('\t', " ").chars().take(width).collect()
}

impl View for Tty {
    fn event(&mut self, event: &Event) {
        let colors = self.style.colors;
        match event {
            Event::Declared { vertex, name } => {
                self.declared += 1;
                self.steps.insert(*vertex, Step { name: name.clone(), ..Step::default() });
            }
            Event::Started { vertex, at } => self.start(*vertex, *at),
            Event::Cached { vertex, from: None } => self.end(*vertex, "CACHED ", colors.run, None),
            Event::Cached { vertex, from: Some(cache) } => {
                self.end(*vertex, &format!("CACHED ({cache}) "), colors.run, None);
            }
            Event::Completed { vertex, at } => self.end(*vertex, "", colors.run, Some(*at)),
            Event::Failed { vertex, at, .. } => self.end(*vertex, "ERROR ", colors.error, Some(*at)),
            Event::Canceled { vertex, at } => {
                let ran = self.steps.get(vertex).is_some_and(|step| step.started.is_some());
                if ran {
                    self.end(*vertex, "CANCELED ", colors.cancel, Some(*at));
                }
            }
            Event::Log { vertex, line, .. } => {
                let log = &mut self.steps.entry(*vertex).or_default().log;
                log.push_back(printable(line));
                if log.len() > self.style.log_lines {
                    log.pop_front();
                }
            }
            Event::Status { vertex, name, current, total, done } => {
                let (current, total) = (indicatif::HumanBytes(*current), indicatif::HumanBytes(*total));
                let status = if *done { None } else { Some(format!("{name} {current} / {total}")) };
                self.steps.entry(*vertex).or_default().status = status;
            }
            Event::Missed { vertex, miss } if miss.follows.is_none() => {
                self.steps.entry(*vertex).or_default().miss = Some(printable(miss.text.as_bytes()));
            }
            Event::Missed { .. } => {}
            Event::Note { text, .. } => drop(self.screen.println(format!("    {text}"))),
            Event::Warning { text } => {
                drop(self.screen.println(painted(&format!("WARN: {text}"), colors.warning)));
            }
        }
    }

    fn tick(&mut self) {
        self.paint();
    }

    fn finish(&mut self) {
        let took = seconds(self.begin.elapsed().max(Duration::from_millis(1)));
        self.header.finish_and_clear();
        for step in self.steps.values() {
            if let Some(bar) = &step.bar {
                bar.finish_and_clear();
            }
        }
        drop(self.screen.println(format!("[+] Built in {took} ({}/{})", self.ended, self.declared)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;
    use rbuild_event::Stream;

    #[test]
    fn finished_steps_stay_above_and_running_ones_show_their_last_lines() {
        let term = InMemoryTerm::new(12, 60);
        let mut tty =
            Tty::on(TtyStyle::default(), ProgressDrawTarget::term_like(Box::new(term.clone())), || 60);
        let start = SystemTime::now();
        tty.event(&Event::Declared { vertex: 0, name: "[1/2] FROM debian".into() });
        tty.event(&Event::Declared { vertex: 1, name: "[2/2] RUN make".into() });
        tty.event(&Event::Cached { vertex: 0, from: None });
        tty.event(&Event::Started { vertex: 1, at: start });
        for (text, follows) in [("main.c changed", None), ("follows", Some(0))] {
            let miss = rbuild_event::Miss { text: text.into(), follows, ..rbuild_event::Miss::default() };
            tty.event(&Event::Missed { vertex: 1, miss });
        }
        for n in 0..8 {
            let line = format!("line {n}").into_bytes();
            tty.event(&Event::Log { vertex: 1, stream: Stream::Stderr, line, at: start });
        }
        tty.tick();
        let seen = term.contents();
        assert!(seen.contains(" => CACHED [1/2] FROM debian"), "{seen}");
        assert!(seen.contains("[+] Building") && seen.contains("(1/2)"), "{seen}");
        assert!(seen.contains(" => [2/2] RUN make"), "{seen}");
        assert!(
            !seen.contains("# line 1\n") && seen.contains("# line 2") && seen.contains("# line 7"),
            "{seen}"
        );
        tty.event(&Event::Completed { vertex: 1, at: start + Duration::from_secs(2) });
        tty.finish();
        let seen = term.contents();
        assert!(seen.contains("    cache miss: main.c changed"), "{seen}");
        assert!(seen.contains(" => [2/2] RUN make  2.0s") && !seen.contains("# line 7"), "{seen}");
    }

    /// D-008: BUILDKIT_TTY_LOG_LINES, BUILDKIT_COLORS.
    #[test]
    fn the_style_is_kept() {
        let term = InMemoryTerm::new(20, 60);
        let colors = crate::Colors { error: Some(Color::Own(35)), ..crate::Colors::NONE };
        let style = TtyStyle { colors, log_lines: 8 };
        let mut tty = Tty::on(style, ProgressDrawTarget::term_like(Box::new(term.clone())), || 60);
        let at = SystemTime::now();
        tty.event(&Event::Declared { vertex: 1, name: "RUN make".into() });
        tty.event(&Event::Started { vertex: 1, at });
        for n in 0..9 {
            let line = format!("line {n}").into_bytes();
            tty.event(&Event::Log { vertex: 1, stream: Stream::Stdout, line, at });
        }
        tty.tick();
        let seen = term.contents();
        assert!(!seen.contains("line 0") && seen.contains("line 1") && seen.contains("line 8"), "{seen}");
        tty.event(&Event::Warning { text: "plain".into() });
        tty.event(&Event::Failed { vertex: 1, at, error: "x".into() });
        tty.finish();
        let formatted = String::from_utf8(term.contents_formatted()).unwrap();
        assert!(formatted.contains("\x1b[35m => ERROR RUN make"), "{formatted:?}");
        assert!(!formatted.contains("\x1b[33m"), "{formatted:?}");
    }
}
