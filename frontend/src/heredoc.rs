//! Heredocs: finding `<<WORD` in a line, and the text that follows (features A13).
//!
//! The words of the line are cut as the expander would cut them, but with quotes, escapes and variables left as
//! they are; the escape character is always `\` here, whatever the directive says.

use std::iter::Peekable;
use std::str::Chars;

use crate::ast::Heredoc;

/// Deepest nesting of `${…${…}}` in a line with heredocs; deeper lines have none.
const MAX_NESTING: usize = 64;

impl Heredoc {
    /// The body as the reader of the heredoc sees it: without leading tabs if `<<-` was written.
    pub fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// As [`Heredoc::body`], of `raw`.
    pub(crate) fn raw_body(&self) -> Option<Vec<u8>> {
        let raw = self.raw.as_ref()?;
        let lines = raw.split_inclusive(|&byte| byte == b'\n');
        let tabs = |line: &[u8]| line.iter().take_while(|&&byte| self.chomp && byte == b'\t').count();
        Some(lines.flat_map(|line| &line[tabs(line)..]).copied().collect())
    }
}

/// The heredocs that a logical line announces, without their bodies. A line with an unfinished quote or
/// substitution has none.
pub(crate) fn announced(line: &str) -> Vec<Heredoc> {
    raw_words(line).unwrap_or_default().iter().filter_map(|word| parse_heredoc(word)).collect()
}

/// Reads one word as `[fd]<<[-]WORD`. The result has no content.
pub fn parse_heredoc(word: &str) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let fd = match &word[..digits] {
        "" => 0,
        digits => digits.parse().unwrap_or(u64::MAX),
    };
    let (name, quoted) = unquote(rest)?;
    Some(Heredoc { name, expand: !quoted, chomp, fd, ..Heredoc::default() })
}

/// The delimiter without quotes and escapes, and whether it had quotes. `None` if it is not one word.
fn unquote(text: &str) -> Option<(String, bool)> {
    let mut words = Words::default();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                quoted = true;
                let mut inner = String::new();
                copy_quoted(c, &mut chars, &mut inner, 0)?;
                inner.pop();
                words.raw(&if c == '"' { unescape(&inner) } else { inner });
            }
            '\\' => {
                if let Some(next) = chars.next() {
                    words.raw(next.encode_utf8(&mut [0; 4]));
                }
            }
            '$' => {
                let mut inner = String::new();
                copy_dollar(&mut chars, &mut inner, 0)?;
                inner.chars().for_each(|c| words.plain(c));
            }
            _ => words.plain(c),
        }
    }
    let mut words = words.finish();
    match words.len() {
        1 => words.pop().map(|word| (word, quoted)),
        _ => None,
    }
}

/// Inside double quotes `\` escapes only `"`, `$` and itself.
fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            result.push(c);
            continue;
        }
        match chars.next() {
            Some(next @ ('"' | '$' | '\\')) => result.push(next),
            Some(next) => result.extend(['\\', next]),
            None => {}
        }
    }
    result
}

/// Collects words the way the expander does: a blank outside quotes ends a word that has something in it.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
    begun: bool,
}

impl Words {
    fn plain(&mut self, c: char) {
        if !c.is_whitespace() {
            self.raw(c.encode_utf8(&mut [0; 4]));
        } else if self.begun && !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
            self.begun = false;
        }
    }

    fn raw(&mut self, text: &str) {
        self.begun = true;
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if self.begun {
            self.done.push(self.word);
        }
        self.done
    }
}

fn raw_words(line: &str) -> Option<Vec<String>> {
    let mut words = Words::default();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let mut inner = String::from(c);
                copy_quoted(c, &mut chars, &mut inner, 0)?;
                words.raw(&inner);
            }
            '$' => {
                let mut inner = String::new();
                copy_dollar(&mut chars, &mut inner, 0)?;
                inner.chars().for_each(|c| words.plain(c));
            }
            '\\' => {
                words.raw("\\");
                if let Some(next) = chars.next() {
                    words.raw(next.encode_utf8(&mut [0; 4]));
                }
            }
            '<' if chars.next_if_eq(&'<').is_some() => {
                words.raw("<<");
                // Blanks between `<<` and its word belong to the word.
                while let Some(blank) = chars.next_if(|c| c.is_whitespace()) {
                    words.raw(blank.encode_utf8(&mut [0; 4]));
                }
            }
            '<' => words.raw("<"),
            _ => words.plain(c),
        }
    }
    Some(words.finish())
}

/// Copies up to and with the closing quote. `None` if there is none.
fn copy_quoted(quote: char, chars: &mut Peekable<Chars<'_>>, into: &mut String, depth: usize) -> Option<()> {
    loop {
        let c = chars.next()?;
        match c {
            '$' if quote == '"' => {
                copy_dollar(chars, into, depth)?;
                continue;
            }
            '\\' if quote == '"' => {
                into.push(c);
                into.push(chars.next()?);
                continue;
            }
            _ => into.push(c),
        }
        if c == quote {
            return Some(());
        }
    }
}

/// Copies what follows a `$`, together with it: `${…}` as a whole, else nothing more. `None` if it is no valid
/// substitution.
fn copy_dollar(chars: &mut Peekable<Chars<'_>>, into: &mut String, depth: usize) -> Option<()> {
    into.push('$');
    if chars.next_if_eq(&'{').is_none() {
        return Some(());
    }
    into.push('{');
    if depth >= MAX_NESTING || matches!(chars.peek(), None | Some('{' | '}' | ':')) {
        return None;
    }
    if let Some(special) = chars.next_if(|&c| "@*#?-$!0".contains(c)) {
        into.push(special);
    } else {
        while let Some(c) = chars.next_if(|&c| c.is_alphanumeric() || c == '_') {
            into.push(c);
        }
    }
    let modifier = chars.next()?;
    into.push(modifier);
    match modifier {
        '}' => return Some(()),
        ':' => into.push(chars.next()?),
        '+' | '-' | '?' | '#' | '%' | '/' => {}
        _ => return None,
    }
    loop {
        let c = chars.next()?;
        match c {
            '$' => copy_dollar(chars, into, depth + 1)?,
            '\'' | '"' => {
                into.push(c);
                copy_quoted(c, chars, into, depth + 1)?;
            }
            '\\' => {
                into.push(c);
                into.push(chars.next()?);
            }
            _ => into.push(c),
        }
        if c == '}' {
            return Some(());
        }
    }
}
