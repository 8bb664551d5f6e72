//! Output of steps, whole, in files.
//!
//! A line of a log file is the time since the step began in seconds, the stream (`1` or `2`), and the bytes as they came:
//! `0.120 1 cc -c main.c`.

use rbuild_event::Stream;
use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of output that wait in memory, per step.
const BUFFER: usize = 64 << 10;
/// How long they wait.
const FLUSH: Duration = Duration::from_millis(100);

/// The log files of a running build. Made when the first line comes.
pub(crate) struct Logs {
    dir: PathBuf,
    shared: Arc<Shared>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    open: Mutex<Open>,
    wake: Condvar,
}

#[derive(Default)]
struct Open {
    files: HashMap<String, BufWriter<File>>,
    ended: bool,
    /// Bytes of all lines.
    written: u64,
    error: Option<io::Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logs {
    /// Logs in a directory that does not exist yet.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, shared: Arc::default(), flusher: Mutex::default() }
    }

    /// Adds a line to the log `name`. Errors are kept for [`Logs::finish`].
    pub(crate) fn line(&self, name: &str, since: Duration, stream: Stream, line: &[u8]) {
        let mut open = self.shared.lock();
        open.written += line.len() as u64;
        let (dir, flusher) = (&self.dir, &self.flusher);
        let written = (|| {
            if !open.files.contains_key(name) {
                let file = BufWriter::with_capacity(BUFFER, self.create(dir, name)?);
                open.files.insert(name.to_owned(), file);
                let mut flusher = flusher.lock().unwrap_or_else(PoisonError::into_inner);
                if flusher.is_none() {
                    let shared = Arc::clone(&self.shared);
                    *flusher =
                        std::thread::Builder::new().name("logs".into()).spawn(move || flush(&shared)).ok();
                }
            }
            let Some(file) = open.files.get_mut(name) else { return Ok(()) };
            let stream = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            write!(file, "{}.{:03} {stream} ", since.as_secs(), since.subsec_millis())?;
            file.write_all(line)?;
            file.write_all(b"\n")
        })();
        if let Err(error) = written {
            open.error.get_or_insert(error);
        }
    }

    /// Bytes of the output so far.
    pub(crate) fn written(&self) -> u64 {
        self.shared.lock().written
    }

    fn create(&self, dir: &PathBuf, name: &str) -> io::Result<File> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(name))
    }

    /// A log is complete. Says whether there is one.
    pub(crate) fn close(&self, name: &str) -> bool {
        let mut open = self.shared.lock();
        let Some(mut file) = open.files.remove(name) else { return false };
        if let Err(error) = file.flush() {
            open.error.get_or_insert(error);
        }
        true
    }

    /// Completes all logs; the first error that any of them met.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        {
            let mut open = self.shared.lock();
            open.ended = true;
            for (_, mut file) in std::mem::take(&mut open.files) {
                if let Err(error) = file.flush() {
                    open.error.get_or_insert(error);
                }
            }
        }
        self.shared.wake.notify_all();
        if let Some(flusher) = flusher {
            drop(flusher.join());
        }
        self.shared.lock().error.take().map_or(Ok(()), Err)
    }
}

/// Writes out what waits, so that little is lost when the builder is killed.
fn flush(shared: &Shared) {
    let mut open = shared.lock();
    while !open.ended {
        let files: Vec<io::Result<()>> = open.files.values_mut().map(BufWriter::flush).collect();
        if let Some(error) = files.into_iter().find_map(Result::err) {
            open.error.get_or_insert(error);
        }
        let waited = shared.wake.wait_timeout(open, FLUSH);
        open = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// Seconds since the step began, as text: `0.120`.
    pub time: &'a str,
    /// Whether it was written to standard error.
    pub stderr: bool,
    /// Its bytes, without the line end.
    pub text: &'a [u8],
}

/// Reads a line of a log file.
pub fn parse_line(line: &[u8]) -> Option<LogLine<'_>> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"1" => false,
        b"2" => true,
        _ => return None,
    };
    Some(LogLine { time, stderr, text: parts.next()? })
}
