//! Physical lines of a source text, and logical lines that know where each of their bytes came from.

use std::borrow::Cow;
use std::ops::Range;

use crate::ast::{Span, Word};

/// Longest physical line in bytes, without its line feed (features A-003).
pub const MAX_LINE_LENGTH: usize = 65535;

/// Largest file in bytes; larger ones are refused unread.
pub const MAX_FILE_SIZE: usize = 16 << 20;

/// Most instructions of a file. No image can have nearly as many layers.
pub const MAX_INSTRUCTIONS: usize = 100_000;

/// Most errors, and most warnings, that are reported of one step.
pub const MAX_DIAGNOSTICS: usize = 100;

/// The three bytes some editors put before UTF-8 text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a file. Every byte that is no UTF-8 becomes U+FFFD, one by one as Go does it: places in diagnostics refer to
/// this text.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Reads physical lines with their line ends.
pub(crate) struct LineReader<'a> {
    text: &'a str,
    position: usize,
    /// Number of lines read so far.
    pub(crate) number: usize,
    /// A line longer than [`MAX_LINE_LENGTH`] was met: reading ends there.
    pub(crate) too_long: bool,
}

/// One physical line.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The text with its line end.
    pub(crate) text: &'a str,
    /// Offset of its first byte.
    pub(crate) offset: usize,
}

impl<'a> LineReader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        LineReader { text, position: 0, number: 0, too_long: false }
    }

    /// The next line. `None` at the end and at a line that is too long.
    pub(crate) fn next_line(&mut self) -> Option<Line<'a>> {
        let rest = &self.text[self.position..];
        if rest.is_empty() || self.too_long {
            return None;
        }
        let length = memchr_newline(rest);
        let content = length.unwrap_or(rest.len());
        if content > MAX_LINE_LENGTH {
            self.too_long = true;
            return None;
        }
        let end = length.map_or(rest.len(), |at| at + 1);
        let mut line = Line { text: &rest[..end], offset: self.position };
        self.position += end;
        if self.number == 0
            && let Some(stripped) = line.text.strip_prefix(BYTE_ORDER_MARK)
        {
            line.offset += line.text.len() - stripped.len();
            line.text = stripped;
        }
        self.number += 1;
        Some(line)
    }
}

/// Looks no further than a line may be long, so that a file without line feeds is not scanned again and again.
fn memchr_newline(text: &str) -> Option<usize> {
    let limit = text.len().min(MAX_LINE_LENGTH + 1);
    text.as_bytes()[..limit].iter().position(|&byte| byte == b'\n')
}

impl<'a> Line<'a> {
    /// Without `\r` and `\n` at the end.
    pub(crate) fn without_end(self) -> Line<'a> {
        Line { text: self.text.trim_end_matches(['\r', '\n']), ..self }
    }

    /// Without blanks at the start.
    pub(crate) fn trim_start(self) -> Line<'a> {
        let text = self.text.trim_start();
        Line { text, offset: self.offset + (self.text.len() - text.len()) }
    }

    /// Its first non-blank character is `#`.
    pub(crate) fn is_comment(self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

/// Physical lines joined to one instruction.
#[derive(Default)]
pub(crate) struct Logical {
    /// The joined text.
    pub(crate) text: String,
    /// (offset in `text`, offset in the source), ascending.
    segments: Vec<(usize, usize)>,
}

impl Logical {
    /// Appends a piece of the source.
    pub(crate) fn push(&mut self, text: &str, source_offset: usize) {
        if !text.is_empty() {
            self.segments.push((self.text.len(), source_offset));
            self.text.push_str(text);
        }
    }

    fn source_offset(&self, offset: usize) -> usize {
        let index = self.segments.partition_point(|&(logical, _)| logical <= offset);
        match index.checked_sub(1).and_then(|i| self.segments.get(i)) {
            Some(&(logical, source)) => source + (offset - logical),
            None => 0,
        }
    }

    /// Where a range of `text` stands in the source.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.is_empty() {
            return Span::new(start, start);
        }
        Span::new(start, self.source_offset(range.end - 1) + 1)
    }

    /// All of it.
    pub(crate) fn all(&self) -> Fragment<'_> {
        Fragment { logical: self, start: 0, end: self.text.len() }
    }
}

/// A part of a logical line.
#[derive(Clone, Copy)]
pub(crate) struct Fragment<'a> {
    logical: &'a Logical,
    start: usize,
    end: usize,
}

impl<'a> Fragment<'a> {
    /// The text.
    pub(crate) fn text(&self) -> &'a str {
        &self.logical.text[self.start..self.end]
    }

    /// A part of this part.
    pub(crate) fn slice(&self, range: Range<usize>) -> Fragment<'a> {
        Fragment { logical: self.logical, start: self.start + range.start, end: self.start + range.end }
    }

    /// From an offset on.
    pub(crate) fn from(&self, start: usize) -> Fragment<'a> {
        self.slice(start..self.text().len())
    }

    /// Without blanks at both ends.
    pub(crate) fn trim(&self) -> Fragment<'a> {
        let text = self.text();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start + text.trim().len())
    }

    /// The place of a part.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        self.logical.span(self.start + range.start..self.start + range.end)
    }

    /// The whole part as a word.
    pub(crate) fn word(&self) -> Word {
        Word::new(self.text(), self.span(0..self.text().len()))
    }

    /// A word whose text is not just a copy of the source (quotes taken off).
    pub(crate) fn word_at(&self, value: impl Into<String>, range: Range<usize>) -> Word {
        Word::new(value, self.span(range))
    }
}
