//! A step's output, line by line.

use crate::secret::Redactor;
use rbuild_event::{Event, Stream};
use rbuild_solver::StepContext;
use std::os::fd::OwnedFd;
use std::time::SystemTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// A line longer than this is reported in pieces.
const MAX_LINE: usize = 64 << 10;

/// Reports what comes out of `fd` until its end, without the secrets that the redactor knows.
pub(crate) async fn forward(
    fd: OwnedFd,
    stream: Stream,
    step: StepContext,
    redactor: &Redactor,
) -> std::io::Result<()> {
    let mut pipe = pipe::Receiver::from_owned_fd(fd)?;
    let mut buffer = vec![0; 16 << 10];
    let mut lines = Lines { redactor: redactor.clone(), ..Lines::default() };
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
    redactor: Redactor,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], report: &mut impl FnMut(Vec<u8>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&bytes[..end]);
            report(self.redactor.redact(std::mem::take(&mut self.rest)));
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        // What may be the beginning of a secret stays, lest it be cut in two and not be found.
        let kept = self.redactor.longest().saturating_sub(1);
        if self.rest.len() > MAX_LINE + kept {
            let mut piece = self.redactor.redact(std::mem::take(&mut self.rest));
            self.rest = piece.split_off(piece.len().saturating_sub(kept));
            report(piece);
        }
    }

    fn end(&mut self, report: &mut impl FnMut(Vec<u8>)) {
        if !self.rest.is_empty() {
            report(self.redactor.redact(std::mem::take(&mut self.rest)));
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
    fn no_secret_is_cut_in_two() {
        let secret = crate::Secret::new(b"tops3cret".to_vec()).unwrap();
        for before in MAX_LINE - 20..MAX_LINE + 20 {
            let mut seen = Vec::new();
            let mut lines = Lines { redactor: Redactor::new([&secret]), ..Lines::default() };
            let mut text = vec![b'x'; before];
            text.extend_from_slice(b"tops3cret and more");
            for part in text.chunks(7) {
                lines.push(part, &mut |piece| seen.extend(piece));
            }
            lines.end(&mut |piece| seen.extend(piece));
            let seen = String::from_utf8(seen).unwrap();
            assert!(seen.ends_with("x**** and more"), "{before}: {}", &seen[seen.len() - 30..]);
        }
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
