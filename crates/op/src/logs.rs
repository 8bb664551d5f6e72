//! A step's output, line by line.

use rbuild_event::{Event, Stream};
use rbuild_solver::StepContext;
use std::os::fd::OwnedFd;
use std::time::SystemTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// A line longer than this is reported in pieces.
const MAX_LINE: usize = 64 << 10;

/// Reports what comes out of `fd` until its end.
pub(crate) async fn forward(fd: OwnedFd, stream: Stream, step: StepContext) -> std::io::Result<()> {
    let mut pipe = pipe::Receiver::from_owned_fd(fd)?;
    let mut buffer = vec![0; 16 << 10];
    let mut lines = Lines::default();
    loop {
        let n = pipe.read(&mut buffer).await?;
        let at = SystemTime::now();
        let mut report =
            |line: Vec<u8>| step.reporter.report(Event::Log { vertex: step.vertex, stream, line, at });
        if n == 0 {
            lines.end(&mut report);
            return Ok(());
        }
        lines.push(&buffer[..n], &mut report);
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], report: &mut impl FnMut(Vec<u8>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&bytes[..end]);
            report(std::mem::take(&mut self.rest));
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_LINE {
            report(std::mem::take(&mut self.rest));
        }
    }

    fn end(&mut self, report: &mut impl FnMut(Vec<u8>)) {
        if !self.rest.is_empty() {
            report(std::mem::take(&mut self.rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_reads_end() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for part in ["on", "e\n\ntw", "o\nthr", "ee"] {
            lines.push(part.as_bytes(), &mut |line| seen.push(String::from_utf8(line).unwrap()));
        }
        lines.end(&mut |line| seen.push(String::from_utf8(line).unwrap()));
        assert_eq!(seen, ["one", "", "two", "three"]);
    }

    #[test]
    fn an_endless_line_is_reported_in_pieces() {
        let mut pieces = 0;
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.push(&[b'x'; 4096], &mut |_| pieces += 1);
        }
        assert!(pieces >= 5 && lines.rest.len() <= MAX_LINE);
    }
}
