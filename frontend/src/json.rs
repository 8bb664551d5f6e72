//! The JSON arrays of exec forms, read with the rules of Go's `encoding/json`.

use crate::ast::Word;
use crate::source::Fragment;

/// Deepest nesting that is still JSON for Go; beyond it the text counts as shell form.
const MAX_DEPTH: usize = 10_000;

/// What a text that may be an exec form is.
pub(crate) enum ExecForm {
    /// Not a JSON array: shell form.
    No,
    /// A JSON array with something other than strings in it.
    NotStrings,
    /// The strings.
    Words(Vec<Word>),
}

/// Reads a JSON array of strings.
pub(crate) fn exec_form(rest: Fragment<'_>) -> ExecForm {
    let rest = rest.trim();
    if !rest.text().starts_with('[') {
        return ExecForm::No;
    }
    let mut scanner = Scanner { text: rest.text(), at: 0, words: Vec::new(), only_strings: true };
    match scanner.document() {
        None => ExecForm::No,
        Some(()) if !scanner.only_strings => ExecForm::NotStrings,
        Some(()) => {
            let words = scanner.words.into_iter();
            ExecForm::Words(words.map(|(value, start, end)| rest.word_at(value, start..end)).collect())
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Strings of the outer array: value and place.
    words: Vec<(String, usize, usize)>,
    only_strings: bool,
}

/// What is open around the scanner.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Array,
    Object,
}

impl Scanner<'_> {
    /// The whole text: one array and nothing behind it. No recursion, so that nesting costs no stack.
    fn document(&mut self) -> Option<()> {
        let mut open = Vec::new();
        loop {
            let closed = self.value(&mut open)?;
            if !closed {
                continue;
            }
            // A value is complete: close what ends here, or go on behind a comma.
            loop {
                self.blanks();
                let Some(&top) = open.last() else {
                    return (self.at == self.text.len()).then_some(());
                };
                match (self.next()?, top) {
                    (b',', Open::Array) => break,
                    (b',', Open::Object) => {
                        self.key()?;
                        break;
                    }
                    (b']', Open::Array) | (b'}', Open::Object) => open.pop(),
                    _ => return None,
                };
            }
        }
    }

    /// Reads a value or opens a container. True when the value is complete.
    fn value(&mut self, open: &mut Vec<Open>) -> Option<bool> {
        self.blanks();
        let start = self.at;
        let outer = open.len() == 1;
        match self.peek()? {
            b'"' => {
                let value = self.string()?;
                if outer {
                    self.words.push((value, start, self.at));
                }
                return Some(true);
            }
            b'[' => {
                self.only_strings &= open.is_empty();
                return self.open(open, Open::Array, b']');
            }
            b'{' => {
                self.only_strings = false;
                return self.open(open, Open::Object, b'}');
            }
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => self.number()?,
        }
        self.only_strings = false;
        Some(true)
    }

    fn open(&mut self, open: &mut Vec<Open>, kind: Open, close: u8) -> Option<bool> {
        self.at += 1;
        if open.len() >= MAX_DEPTH {
            return None;
        }
        self.blanks();
        if self.peek()? == close {
            self.at += 1;
            return Some(true);
        }
        open.push(kind);
        if kind == Open::Object {
            self.key()?;
        }
        Some(false)
    }

    fn key(&mut self) -> Option<()> {
        self.blanks();
        self.string()?;
        self.blanks();
        (self.next()? == b':').then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.text[start..self.at].parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| ())
    }

    /// A string with its quotes; half surrogates become U+FFFD.
    fn string(&mut self) -> Option<String> {
        (self.next()? == b'"').then_some(())?;
        let mut value = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            value.push_str(&rest[..plain]);
            self.at += plain;
            match self.next()? {
                b'"' => return Some(value),
                b'\\' => value.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                let Some(c) = char::from_u32(high) else {
                    return Some(self.low_surrogate(high).unwrap_or(char::REPLACEMENT_CHARACTER));
                };
                c
            }
            _ => return None,
        })
    }

    /// The second half of a pair, if it is there; else nothing is consumed.
    fn low_surrogate(&mut self, high: u32) -> Option<char> {
        let before = self.at;
        let pair = (|| {
            self.text[self.at..].starts_with("\\u").then(|| self.at += 2)?;
            let low = self.hex4()?;
            char::decode_utf16([high as u16, low as u16]).next()?.ok()
        })();
        if pair.is_none() {
            self.at = before;
        }
        pair
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}
