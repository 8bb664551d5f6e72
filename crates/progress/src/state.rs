//! Text that all views share.

use std::time::{Duration, SystemTime};

/// `3.2s`, `1m 04.0s`.
pub(crate) fn seconds(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    format!("{}m {:04.1}s", took.as_secs() / 60, seconds % 60.0)
}

/// Time from `start` to `at`; zero if the clock was set back in between.
pub(crate) fn since(start: Option<SystemTime>, at: SystemTime) -> Duration {
    start.and_then(|start| at.duration_since(start).ok()).unwrap_or_default()
}

/// A line of output as text: invalid UTF-8 replaced, a trailing CR and what a progress bar overwrote removed,
/// control characters dropped so that a step cannot repaint the terminal.
pub fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let shown = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(shown.len());
    let mut chars = shown.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape_sequence(&mut chars),
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips a CSI or OSC sequence (ECMA-48) or a two-character escape.
fn skip_escape_sequence(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
        Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.2s");
        assert_eq!(seconds(Duration::from_millis(64_000)), "1m 04.0s");
    }

    #[test]
    fn a_step_cannot_repaint_the_terminal() {
        assert_eq!(printable(b"10%\r50%\r100%\r"), "100%");
        assert_eq!(printable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07x\x08"), "red x");
        assert_eq!(printable(b"\xff\tok"), "\u{fffd}\tok");
        assert_eq!(printable(b"\x1b"), "");
    }
}
