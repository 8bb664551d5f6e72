//! Events of a build, shown to people: `plain` for logs, `tty` for terminals, `quiet` for scripts, JSON for
//! programs.
//!
//! A thread of its own draws, so that a slow terminal never slows a build. Only this room knows indicatif.

mod color;
mod failure;
mod plain;
mod rawjson;
mod state;
mod tty;

pub use color::{Color, Colors};
pub use failure::FailedStep;
pub use state::printable;

use rbuild_event::{Event, Reporter};
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How to show a build.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// A live view on a terminal.
    Tty(TtyStyle),
    /// One line for each event, numbered by step.
    Plain,
    /// Nothing until something fails.
    Quiet,
    /// BuildKit's status messages, one JSON object on each line.
    RawJson {
        /// Writes a time as RFC 3339 with up to nine digits of the second.
        time: fn(SystemTime) -> String,
    },
}

/// How the live view looks.
#[derive(Debug, Clone, Copy)]
pub struct TtyStyle {
    /// Colours of lines that stay.
    pub colors: Colors,
    /// Most lines of output that are shown below a running step, at least 1.
    pub log_lines: usize,
}

impl Default for TtyStyle {
    fn default() -> Self {
        TtyStyle { colors: Colors::default(), log_lines: 6 }
    }
}

/// What draws one kind of view. Called from one thread.
trait View: Send {
    /// Takes note of an event.
    fn event(&mut self, event: &Event);
    /// Called about ten times a second while nothing else happens, and after bursts of events.
    fn tick(&mut self) {}
    /// The build has ended; leave the screen tidy.
    fn finish(&mut self) {}
}

/// A running view. Dropping it without [`Progress::finish`] leaves the last frame as it is.
pub struct Progress {
    sender: Sender<Message>,
    thread: JoinHandle<Summary>,
}

enum Message {
    Event(Event),
    Finish,
}

/// What was seen in a whole build.
#[derive(Debug, Default)]
pub struct Summary {
    /// The first step that failed, with its whole output.
    pub failed: Option<FailedStep>,
    /// Steps that were answered from the cache.
    pub cached: usize,
    /// Steps that were executed.
    pub executed: usize,
    /// Texts of all warnings.
    pub warnings: Vec<String>,
}

impl Progress {
    /// Starts drawing on `out` (normally standard error).
    pub fn start(mode: Mode, out: impl Write + Send + 'static) -> (Self, Reporter) {
        let view: Box<dyn View> = match mode {
            Mode::Tty(style) => Box::new(tty::Tty::on_stderr(style)),
            Mode::Plain => Box::new(plain::Plain::new(out)),
            Mode::Quiet => Box::new(Silent),
            Mode::RawJson { time } => Box::new(rawjson::RawJson::new(out, time)),
        };
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || draw(view, &receiver));
        let thread = thread.expect("a process that builds can start a thread");
        let events = sender.clone();
        // A send fails only after `finish`; nobody is interested then.
        let reporter = Reporter::new(move |event| drop(events.send(Message::Event(event))));
        (Self { sender, thread }, reporter)
    }

    /// Draws what is left, tidies up, and says what was seen.
    pub fn finish(self) -> Summary {
        drop(self.sender.send(Message::Finish));
        self.thread.join().unwrap_or_default()
    }
}

/// Ten frames a second are enough for a person and cost nothing.
const FRAME: Duration = Duration::from_millis(100);

fn draw(mut view: Box<dyn View>, receiver: &Receiver<Message>) -> Summary {
    let mut collector = failure::Collector::default();
    let mut drawn = Instant::now();
    loop {
        match receiver.recv_timeout(FRAME) {
            Ok(Message::Event(event)) => {
                collector.event(&event);
                view.event(&event);
            }
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if drawn.elapsed() >= FRAME {
            view.tick();
            drawn = Instant::now();
        }
    }
    view.finish();
    collector.summary()
}

struct Silent;

impl View for Silent {
    fn event(&mut self, _: &Event) {}
}
