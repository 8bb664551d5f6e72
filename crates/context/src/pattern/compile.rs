//! From a pattern to something that matches.
//!
//! moby/patternmatcher turns a pattern into a Go regular expression character by character, so that what a pattern means is
//! what that expression means, oddities included. The same two steps are taken here: pattern to Go expression, and Go
//! expression to one of the `regex` crate, which differs in character classes and in a few escapes.

use super::MAX_COMPILED_BYTES;
use crate::glob::BadPattern;
use regex::{Regex, RegexBuilder};
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

/// How a pattern is matched; the first three need no expression.
#[derive(Debug, Clone)]
pub(super) enum Compiled {
    /// The pattern has no wildcard.
    Exact,
    /// A literal and `**`.
    Prefix,
    /// `**` and a literal.
    Suffix,
    /// Anything else. The expression also matches what is below a match.
    Expression(Box<Regex>),
}

/// Appended to an expression so that it matches everything below a match as well.
const OR_BELOW: &str = "(?:/(?s:.*))?$";

/// Compiles a cleaned pattern whose syntax was checked.
pub(super) fn compile(cleaned: &str) -> Result<Compiled, BadPattern> {
    let (kind, go) = to_go(cleaned);
    Ok(match kind {
        Kind::Exact => Compiled::Exact,
        Kind::Prefix => Compiled::Prefix,
        Kind::Suffix => Compiled::Suffix,
        Kind::Expression => {
            let text = format!("^(?:{}){OR_BELOW}", from_go(&go)?);
            let built = RegexBuilder::new(&text).size_limit(MAX_COMPILED_BYTES).build();
            Compiled::Expression(Box::new(built.map_err(|_| BadPattern)?))
        }
    })
}

impl Compiled {
    /// Whether the pattern matches `path` or a directory that holds it.
    pub(super) fn matches(&self, cleaned: &str, path: &str) -> bool {
        let at_or_below = |start: &str| {
            path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self {
            Self::Exact => at_or_below(cleaned),
            Self::Prefix => path.starts_with(&cleaned[..cleaned.len() - 2]),
            Self::Suffix => {
                let suffix = &cleaned[2..];
                path.ends_with(suffix)
                    || path.match_indices(suffix).any(|(at, found)| path[at + found.len()..].starts_with('/'))
                    || suffix.strip_prefix('/').is_some_and(at_or_below)
            }
            Self::Expression(expression) => expression.is_match(path),
        }
    }

    /// An expression equal to this.
    pub(super) fn expression(&self, cleaned: &str) -> String {
        match self {
            Self::Exact => format!("^{}{OR_BELOW}", regex::escape(cleaned)),
            Self::Prefix => format!("^{}", regex::escape(&cleaned[..cleaned.len() - 2])),
            Self::Suffix => {
                let suffix = &cleaned[2..];
                let whole = suffix.strip_prefix('/').map(|rest| format!("|^{}", regex::escape(rest)));
                format!("(?:{}{}){OR_BELOW}", regex::escape(suffix), whole.unwrap_or_default())
            }
            Self::Expression(expression) => expression.as_str().to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// The kind of a pattern and its Go expression, without the anchors at both ends.
pub(super) fn to_go(pattern: &str) -> (Kind, String) {
    let mut out = String::new();
    let mut kind = Kind::Exact;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    out.push_str("(.*/)?");
                    kind = Kind::Expression;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    out.push_str(".*");
                    kind = Kind::Expression;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' | '?' => {
                out.push_str(if c == '*' { "[^/]*" } else { "[^/]" });
                kind = Kind::Expression;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => out.extend(['\\', c]),
            '\\' => {
                out.push('\\');
                if let Some(escaped) = chars.next() {
                    out.push(escaped);
                    kind = Kind::Expression;
                }
            }
            '[' | ']' => {
                out.push(c);
                kind = Kind::Expression;
            }
            c => out.push(c),
        }
        first = false;
    }
    (kind, out)
}

/// Rewrites a Go expression for the `regex` crate. Escapes with a meaning that no file name pattern can intend
/// (`\b`, `\Q`, `\p`, `\x`…) are refused.
fn from_go(go: &str) -> Result<String, BadPattern> {
    let mut out = String::new();
    let mut chars = go.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '[' => class(&mut chars, &mut out)?,
            ']' => out.push_str("\\]"),
            '\\' => match escape(&mut chars)? {
                Escape::Char(c) => push_char(&mut out, c),
                Escape::Set(set, negated) => {
                    out.push_str(if negated { "[^" } else { "[" });
                    out.push_str(set);
                    out.push(']');
                }
            },
            // The operators that `to_go` writes, and `^`, which it leaves as it is.
            '(' | ')' | '.' | '*' | '?' | '^' => out.push(c),
            c => push_char(&mut out, c),
        }
    }
    Ok(out)
}

enum Escape {
    Char(char),
    /// Members of a class, and whether it is the others that match.
    Set(&'static str, bool),
}

fn escape(chars: &mut Peekable<Chars<'_>>) -> Result<Escape, BadPattern> {
    let c = chars.next().ok_or(BadPattern)?;
    Ok(match c {
        'a' => Escape::Char('\x07'),
        'f' => Escape::Char('\x0c'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        't' => Escape::Char('\t'),
        'v' => Escape::Char('\x0b'),
        'd' | 'D' => Escape::Set("0-9", c == 'D'),
        's' | 'S' => Escape::Set("\\t\\n\\x0c\\r ", c == 'S'),
        'w' | 'W' => Escape::Set("0-9A-Za-z_", c == 'W'),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Escape::Char(c),
        _ => return Err(BadPattern),
    })
}

/// Rewrites a class; its `[` has been read.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), BadPattern> {
    out.push_str(if chars.next_if_eq(&'^').is_some() { "[^" } else { "[" });
    let mut first = true;
    loop {
        let c = chars.next().ok_or(BadPattern)?;
        if c == ']' && !first {
            out.push(']');
            return Ok(());
        }
        first = false;
        if c == '[' && chars.peek() == Some(&':') {
            return Err(BadPattern);
        }
        let low = match member(c, chars)? {
            Escape::Set(_, true) => return Err(BadPattern),
            Escape::Set(set, false) => {
                out.push_str(set);
                continue;
            }
            Escape::Char(low) => low,
        };
        let mut high = low;
        let mut ahead = chars.clone();
        if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
            chars.next();
            let next = chars.next().ok_or(BadPattern)?;
            high = match member(next, chars)? {
                Escape::Char(high) if high >= low => high,
                Escape::Char(_) | Escape::Set(..) => return Err(BadPattern),
            };
        }
        push_char(out, low);
        out.push('-');
        push_char(out, high);
    }
}

fn member(c: char, chars: &mut Peekable<Chars<'_>>) -> Result<Escape, BadPattern> {
    if c == '\\' { escape(chars) } else { Ok(Escape::Char(c)) }
}

fn push_char(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        write!(out, "\\x{{{:x}}}", u32::from(c)).expect("writing to a string does not fail");
    }
}
