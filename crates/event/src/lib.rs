//! What a build tells about itself while it runs. Any room may report; only `progress` shows.

use std::sync::Arc;
use std::time::SystemTime;

/// Number of a vertex within one build, in the order of declaration.
pub type VertexId = u32;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A piece of work is known; it may never start.
    Declared {
        /// Its number.
        vertex: VertexId,
        /// As shown: `[build 2/5] RUN make`.
        name: String,
    },
    /// Work began.
    Started {
        /// Which.
        vertex: VertexId,
        /// When.
        at: SystemTime,
    },
    /// The result was in the cache; nothing was executed.
    Cached {
        /// Which.
        vertex: VertexId,
        /// The cache elsewhere that had it; `None` for the local one.
        from: Option<Arc<str>>,
    },
    /// Work ended well.
    Completed {
        /// Which.
        vertex: VertexId,
        /// When.
        at: SystemTime,
    },
    /// Work failed.
    Failed {
        /// Which.
        vertex: VertexId,
        /// When.
        at: SystemTime,
        /// Why, in one line.
        error: String,
    },
    /// Work was given up because something else failed or the user stopped the build.
    Canceled {
        /// Which.
        vertex: VertexId,
        /// When.
        at: SystemTime,
    },
    /// One line of a step's output, without its line end.
    Log {
        /// Which.
        vertex: VertexId,
        /// Where it was written.
        stream: Stream,
        /// The bytes of the line.
        line: Vec<u8>,
        /// When it was read.
        at: SystemTime,
    },
    /// Progress of a transfer or another countable part of a vertex.
    Status {
        /// Which.
        vertex: VertexId,
        /// `sha256:… extracting`, `exporting layers`.
        name: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all, 0 when unknown.
        total: u64,
        /// Whether this part is finished.
        done: bool,
    },
    /// A remark under a vertex: a miss reason, a note.
    Note {
        /// Which.
        vertex: VertexId,
        /// The text.
        text: String,
    },
    /// Why a step is executed although there is a cache; it comes before the step's end.
    Missed {
        /// Which.
        vertex: VertexId,
        /// The reason.
        miss: Miss,
    },
    /// A warning that belongs to no vertex.
    Warning {
        /// One line.
        text: String,
    },
}

/// Why a step was not answered from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Miss {
    /// The reason in one line: `src/main.c changed`, `follows from [2/4] COPY src: src/main.c changed`.
    pub text: String,
    /// The step whose result is another one, when that is the reason.
    pub follows: Option<VertexId>,
    /// What is different about the step itself, the most telling first; for a step that only follows, mostly nothing.
    pub causes: Vec<MissCause>,
    /// Whether it follows from a step that was never built before: true of every step of a first build, and not
    /// worth a line.
    pub expected: bool,
}

/// One cause of a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissCause {
    /// Its kind, for programs: `files`, `arg`, `env`, `base-image`, `evicted`, …
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

/// Output stream of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A cheap handle that anything can report through.
#[derive(Clone)]
pub struct Reporter {
    sink: Arc<dyn Fn(Event) + Send + Sync>,
    next: Arc<std::sync::atomic::AtomicU32>,
}

impl Reporter {
    /// Reports go to `sink`, which must not block for long.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink), next: Arc::default() }
    }

    /// Reports go nowhere.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Reports one event.
    pub fn report(&self, event: Event) {
        (self.sink)(event);
    }

    /// Declares a piece of work and returns its number.
    pub fn declare(&self, name: impl Into<String>) -> VertexId {
        let vertex = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.report(Event::Declared { vertex, name: name.into() });
        vertex
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}
