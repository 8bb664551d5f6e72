//! Cutting a logical line into keyword, flags and words.

use crate::ast::Word;
use crate::source::Fragment;

/// The blanks that separate words.
pub(crate) fn is_separator(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// If the line ends in a continuation, its length without the escape character and the blanks behind it. An
/// escape character that follows another one does not continue (features A-007).
pub(crate) fn continuation(line: &str, escape: char) -> Option<usize> {
    let body = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!body.ends_with(escape)).then_some(body.len())
}

/// Keyword, flags and the rest of a line.
pub(crate) struct Command<'a> {
    pub(crate) keyword: Fragment<'a>,
    pub(crate) flags: Vec<Word>,
    pub(crate) rest: Fragment<'a>,
}

/// Splits off the keyword and the `--flags` behind it.
pub(crate) fn split_command<'a>(line: Fragment<'a>, escape: char) -> Command<'a> {
    let line = line.trim();
    let text = line.text();
    let end = text.find(is_separator).unwrap_or(text.len());
    let tail = line.from(end);
    let tail = tail.from(tail.text().len() - tail.text().trim_start_matches(is_separator).len());
    let (flags, rest) = split_flags(tail, escape);
    Command { keyword: line.slice(0..end), flags, rest: rest.trim() }
}

/// Takes leading words that start with `--`, quotes and escapes removed. A lone `--` ends them and vanishes.
fn split_flags<'a>(line: Fragment<'a>, escape: char) -> (Vec<Word>, Fragment<'a>) {
    let text = line.text();
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return (flags, line.from(at));
        }
        let (value, end) = flag_word(&text[at..], escape);
        let end = at + end;
        if value == "--" {
            return (flags, line.from(end));
        }
        flags.push(line.word_at(value, at..end));
        at = end;
    }
}

/// One flag word: its value without quotes and escapes, and its length in the text.
fn flag_word(text: &str, escape: char) -> (String, usize) {
    let mut value = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (value, at),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // An escape character at the very end is dropped.
            _ if c == escape => value.extend(chars.next().map(|(_, next)| next)),
            _ => value.push(c),
        }
    }
    (value, text.len())
}

/// Words separated by blanks; quotes mean nothing.
pub(crate) fn blank_separated(rest: Fragment<'_>) -> Vec<Word> {
    let text = rest.text();
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (is_separator(c), start) {
            (true, Some(from)) => {
                words.push(rest.slice(from..at).word());
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    if let Some(from) = start {
        words.push(rest.from(from).word());
    }
    words
}

/// Words separated by blanks outside quotes. Quotes and escapes stay in the words, as the expander reads them;
/// an escape character at the very end is dropped.
pub(crate) fn quoted_words(rest: Fragment<'_>, escape: char) -> Vec<Word> {
    let text = rest.text();
    let mut words = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(start, c)) = chars.peek() {
        if c.is_whitespace() {
            chars.next();
            continue;
        }
        let mut value = String::new();
        let mut quote: Option<char> = None;
        let mut end = text.len();
        while let Some(&(at, c)) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                end = at;
                break;
            }
            chars.next();
            if c == escape && quote != Some('\'') {
                if let Some((_, next)) = chars.next() {
                    value.push(c);
                    value.push(next);
                }
                continue;
            }
            match quote {
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ => {}
            }
            value.push(c);
        }
        if !value.is_empty() {
            words.push(rest.word_at(value, start..end));
        }
    }
    words
}
