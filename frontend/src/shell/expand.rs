//! The expander: one pass over the word, with an explicit stack of open constructs.

use super::words::Words;
use super::{Expansion, Lex, MAX_EXPANSION, name, pattern};
use crate::env::Lookup;
use std::collections::BTreeSet;

/// What is open around the current position. All of them append to the same output; a frame remembers where
/// its own output began, so that an operand that is used needs no copy.
enum Frame<'e> {
    /// Inside `"…"`, begun at this length of the output.
    Quote { start: usize },
    /// Inside the operand of `${name<op>…}`.
    Operand(Substitution<'e>),
}

/// An open `${name…`.
struct Substitution<'e> {
    name: String,
    /// Operator as written: `-`, `:-`, `#`, …, or `/`.
    op: String,
    /// Last character of the operator.
    kind: char,
    value: Option<&'e str>,
    /// Length of the output before this construct.
    start: usize,
    /// Length of the output before the current operand.
    operand: usize,
    /// First operand of `/`, when it is complete; whether all matches are replaced.
    pattern: Option<String>,
    all: bool,
}

impl Substitution<'_> {
    /// `#`, `%` and `/` keep escapes in their operands for the pattern.
    fn raw_escapes(&self) -> bool {
        matches!(self.kind, '#' | '%' | '/')
    }

    /// The character that ends the current operand.
    fn stop(&self) -> char {
        if self.kind == '/' && self.pattern.is_none() { '/' } else { '}' }
    }

    fn at_end(&self) -> &'static str {
        match self.stop() {
            '/' => "syntax error: missing '/' in ${}",
            _ => "syntax error: missing '}'",
        }
    }
}

pub(super) struct Expander<'a, 'e> {
    lex: &'a Lex,
    rest: &'a str,
    env: &'e dyn Lookup,
    limit: usize,
    out: String,
    words: Words,
    frames: Vec<Frame<'e>>,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl<'a, 'e> Expander<'a, 'e> {
    pub(super) fn new(lex: &'a Lex, word: &'a str, env: &'e dyn Lookup) -> Self {
        Self {
            lex,
            rest: word.strip_prefix('\u{feff}').unwrap_or(word),
            env,
            limit: word.len() + MAX_EXPANSION,
            out: String::new(),
            words: Words::default(),
            frames: Vec::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    /// The error comes with the names that were found unset before it.
    pub(super) fn run(mut self) -> Result<Expansion, (String, BTreeSet<String>)> {
        match self.expand() {
            Ok(()) => Ok(Expansion {
                result: self.out,
                words: self.words.finish(),
                matched: self.matched,
                unmatched: self.unmatched,
            }),
            // An error at the end of the word inside an operand is reported as the missing end of the outermost one.
            Err(error) => {
                let missing_end = self.frames.iter().find_map(|frame| match frame {
                    Frame::Operand(open) if self.rest.is_empty() => Some(open.at_end().to_owned()),
                    _ => None,
                });
                Err((missing_end.unwrap_or(error), self.unmatched))
            }
        }
    }

    fn expand(&mut self) -> Result<(), String> {
        while let Some(c) = self.peek() {
            if self.out.len() > self.limit {
                return Err(format!("expands to more than {} bytes", self.limit));
            }
            match self.frames.last() {
                Some(Frame::Quote { .. }) => self.in_quote(c)?,
                Some(Frame::Operand(open)) if c == open.stop() => {
                    self.next();
                    self.end_operand()?;
                }
                _ => self.in_text(c)?,
            }
        }
        match self.frames.last() {
            None => Ok(()),
            Some(Frame::Quote { .. }) => {
                Err("unexpected end of statement while looking for matching double-quote".into())
            }
            Some(Frame::Operand(open)) => Err(open.at_end().into()),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Whether escape characters are kept here: the innermost operand decides, quotes don't.
    fn raw_escapes(&self) -> bool {
        self.frames
            .iter()
            .rev()
            .find_map(|frame| match frame {
                Frame::Operand(open) => Some(open.raw_escapes()),
                Frame::Quote { .. } => None,
            })
            .unwrap_or(self.lex.raw_escapes)
    }

    /// Text outside double quotes.
    fn in_text(&mut self, c: char) -> Result<(), String> {
        match c {
            '$' => self.dollar(),
            '\'' if !self.lex.skip_process_quotes => self.single_quote(),
            '"' if !self.lex.skip_process_quotes => {
                self.next();
                self.frames.push(Frame::Quote { start: self.out.len() });
                if self.lex.raw_quotes {
                    self.out.push('"');
                }
                Ok(())
            }
            '<' if self.rest.starts_with("<<") => {
                // Blanks between the operator of a heredoc and its word don't separate words.
                let end = 2 + self.rest[2..].len() - self.rest[2..].trim_start().len();
                self.rest[..end].chars().for_each(|c| self.plain(c, true));
                self.rest = &self.rest[end..];
                Ok(())
            }
            _ => {
                self.next();
                if c != self.lex.escape {
                    self.plain(c, false);
                    return Ok(());
                }
                if self.raw_escapes() {
                    self.plain(c, true);
                }
                if let Some(escaped) = self.next() {
                    self.plain(escaped, true);
                }
                Ok(())
            }
        }
    }

    fn plain(&mut self, c: char, escaped: bool) {
        self.out.push(c);
        match (self.frames.is_empty(), escaped) {
            (true, true) => self.words.push_raw(c),
            (true, false) => self.words.push(c),
            _ => {}
        }
    }

    fn single_quote(&mut self) -> Result<(), String> {
        self.next();
        let Some(end) = self.rest.find('\'') else {
            self.rest = "";
            return Err("unexpected end of statement while looking for matching single-quote".into());
        };
        let start = self.out.len();
        let mark = if self.lex.raw_quotes { "'" } else { "" };
        self.out.push_str(mark);
        self.out.push_str(&self.rest[..end]);
        self.out.push_str(mark);
        self.rest = &self.rest[end + 1..];
        self.quoted_ends(start);
        Ok(())
    }

    fn in_quote(&mut self, c: char) -> Result<(), String> {
        if c == '$' {
            return self.dollar();
        }
        self.next();
        if c == '"' {
            if self.lex.raw_quotes {
                self.out.push(c);
            }
            if let Some(Frame::Quote { start }) = self.frames.pop() {
                self.quoted_ends(start);
            }
            return Ok(());
        }
        if c != self.lex.escape {
            self.out.push(c);
            return Ok(());
        }
        if self.raw_escapes() {
            self.out.push(c);
        }
        match self.peek() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == self.lex.escape => {
                self.next();
                self.out.push(next);
            }
            Some(_) => self.out.push(c),
        }
        Ok(())
    }

    fn quoted_ends(&mut self, start: usize) {
        if self.frames.is_empty() {
            self.words.push_quoted(&self.out[start..]);
        }
    }

    /// A value or a `$` that stands for itself is complete in the output.
    fn value_ends(&mut self, start: usize) {
        if self.frames.is_empty() {
            self.words.push_value(&self.out[start..]);
        }
    }

    fn lookup(&mut self, name: &str) -> Option<&'e str> {
        let value = self.env.get(name);
        let seen = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }

    fn dollar(&mut self) -> Result<(), String> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.brace();
        }
        let start = self.out.len();
        let name = name::read(self.rest);
        self.rest = &self.rest[name.len()..];
        if name.is_empty() {
            self.out.push('$');
        } else {
            match self.lookup(name) {
                Some(value) => self.out.push_str(value),
                None if self.lex.skip_unset_env => {
                    self.out.push('$');
                    self.out.push_str(name);
                }
                None => {}
            }
        }
        self.value_ends(start);
        Ok(())
    }

    /// After `${`.
    fn brace(&mut self) -> Result<(), String> {
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = name::read(self.rest);
        self.rest = &self.rest[name.len()..];
        let start = self.out.len();
        let unsupported = |op: &str| format!("unsupported modifier ({op}) in substitution");
        match self.next() {
            Some('}') => {
                match self.lookup(name) {
                    Some(value) => self.out.push_str(value),
                    None if self.lex.skip_unset_env => self.out.push_str(&format!("${{{name}}}")),
                    None => {}
                }
                self.value_ends(start);
                Ok(())
            }
            Some(':') => {
                let kind = self.next().unwrap_or('\u{fffd}');
                self.begin_operand(name, format!(":{kind}"), kind, start);
                Ok(())
            }
            Some(kind @ ('+' | '-' | '?' | '#' | '%')) => {
                self.begin_operand(name, kind.to_string(), kind, start);
                Ok(())
            }
            Some('/') => {
                self.begin_operand(name, "/".into(), '/', start);
                Ok(())
            }
            Some(other) => Err(unsupported(&other.to_string())),
            None => Err(unsupported("\u{fffd}")),
        }
    }

    fn begin_operand(&mut self, name: &str, op: String, kind: char, start: usize) {
        let value = self.lookup(name);
        let all = kind == '/' && self.peek() == Some('/');
        if all {
            self.next();
        }
        if value.is_none() && self.lex.skip_unset_env {
            self.out.push_str(&format!("${{{name}{op}"));
        }
        self.frames.push(Frame::Operand(Substitution {
            name: name.to_owned(),
            op,
            kind,
            value,
            start,
            operand: self.out.len(),
            pattern: None,
            all,
        }));
    }

    /// After the character that ends an operand.
    fn end_operand(&mut self) -> Result<(), String> {
        let Some(Frame::Operand(mut open)) = self.frames.pop() else { return Ok(()) };
        let untouched = open.value.is_none() && self.lex.skip_unset_env;
        if open.kind == '/' && open.pattern.is_none() {
            open.pattern = Some(self.out[open.operand..].to_owned());
            if untouched {
                self.out.push('/');
            } else {
                self.out.truncate(open.start);
            }
            open.operand = self.out.len();
            self.frames.push(Frame::Operand(open));
            return Ok(());
        }
        if untouched {
            self.out.push('}');
        } else {
            self.substitute(&open)?;
        }
        self.value_ends(open.start);
        Ok(())
    }

    /// Replaces the operand, which is the end of the output, by what the substitution gives.
    fn substitute(&mut self, open: &Substitution<'e>) -> Result<(), String> {
        let colon = open.op.starts_with(':');
        let counts = open.value.is_some_and(|value| !(colon && value.is_empty()));
        let value = open.value.unwrap_or_default();
        match open.kind {
            '-' if !counts => return Ok(()),
            '+' if counts => return Ok(()),
            '+' => self.out.truncate(open.start),
            '?' if !counts => {
                let operand = self.out.split_off(open.start);
                let why = if open.value.is_none() { "unset" } else { "empty" };
                let message =
                    if operand.is_empty() { format!("is not allowed to be {why}") } else { operand };
                return Err(format!("{}: {message}", open.name));
            }
            '-' | '?' => {
                self.out.truncate(open.start);
                self.out.push_str(value);
            }
            '#' | '%' if !colon => {
                let operand = self.out.split_off(open.start);
                self.out.push_str(&trim(open.kind, &operand, value)?);
            }
            '/' if !colon => {
                let with = self.out.split_off(open.start);
                let pattern = open.pattern.as_deref().unwrap_or_default();
                self.out.push_str(&pattern::replace(pattern, value, &with, open.all)?);
            }
            _ => return Err(format!("unsupported modifier ({}) in substitution", open.op)),
        }
        Ok(())
    }
}

fn trim(kind: char, operand: &str, value: &str) -> Result<String, String> {
    let (pattern, greedy) = match operand.strip_prefix(kind) {
        Some(pattern) => (pattern, true),
        None => (operand, false),
    };
    match kind {
        '%' => pattern::trim_suffix(pattern, value, greedy),
        _ => pattern::trim_prefix(pattern, value, greedy),
    }
}
