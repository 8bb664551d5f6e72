//! Wildcards of COPY and ADD sources: the rules of Go's `filepath.Match`.

use std::fmt;

/// A pattern whose syntax is wrong: an unclosed or empty `[…]`, a lone `-` or `]` in one, or a trailing `\`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// A compiled pattern: `*` and `?` match anything but `/`, `[a-c]` and `[^a-c]` one character, `\` escapes.
/// The whole name must match (A-098).
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// What has to follow one another, each preceded by a `*` or not.
    chunks: Vec<Chunk>,
}

#[derive(Clone, PartialEq, Eq, Default)]
struct Chunk {
    star: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// What an invalid UTF-8 byte counts as.
const INVALID: char = char::REPLACEMENT_CHARACTER;

impl Glob {
    /// Compiles `pattern`; all of it is checked.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let mut chunks = vec![Chunk::default()];
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let last = chunks.last_mut().expect("there is always a chunk");
            match c {
                '*' if last.tokens.is_empty() => last.star = true,
                '*' => chunks.push(Chunk { star: true, tokens: Vec::new() }),
                '?' => last.tokens.push(Token::Any),
                '[' => {
                    let (class, after) = class(rest)?;
                    last.tokens.push(class);
                    rest = after;
                }
                '\\' => {
                    let escaped = rest.chars().next().ok_or(BadPattern)?;
                    rest = &rest[escaped.len_utf8()..];
                    push_char(&mut last.tokens, escaped);
                }
                c => push_char(&mut last.tokens, c),
            }
        }
        Ok(Self { text: pattern.to_owned(), chunks })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `name` matches. Takes at most time proportional to the product of both lengths.
    pub fn matches(&self, name: impl AsRef<[u8]>) -> bool {
        let mut name = name.as_ref();
        for (i, chunk) in self.chunks.iter().enumerate() {
            let last = i + 1 == self.chunks.len();
            if chunk.star && chunk.tokens.is_empty() {
                return !name.contains(&b'/');
            }
            let fits = |rest: &&[u8]| !last || rest.is_empty();
            if let Some(rest) = chunk.prefix(name).filter(fits) {
                name = rest;
                continue;
            }
            if !chunk.star {
                return false;
            }
            let room = name.iter().position(|c| *c == b'/').unwrap_or(name.len());
            match (1..=room).find_map(|skip| chunk.prefix(&name[skip..]).filter(fits)) {
                Some(rest) => name = rest,
                None => return false,
            }
        }
        name.is_empty()
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Chunk {
    /// What is left of `name` when the tokens match at its start.
    fn prefix<'a>(&self, mut name: &'a [u8]) -> Option<&'a [u8]> {
        for token in &self.tokens {
            let first = *name.first()?;
            let (matched, length) = match token {
                Token::Byte(byte) => (first == *byte, 1),
                Token::Any => (first != b'/', decode(name).1),
                Token::Class { negated, ranges } => {
                    let (c, length) = decode(name);
                    (ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *negated, length)
                }
            };
            if !matched {
                return None;
            }
            name = &name[length..];
        }
        Some(name)
    }
}

fn push_char(tokens: &mut Vec<Token>, c: char) {
    tokens.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Token::Byte));
}

/// The first character and its length; an invalid byte counts as U+FFFD of length 1.
fn decode(bytes: &[u8]) -> (char, usize) {
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next();
    match chunk.and_then(|chunk| chunk.valid().chars().next()) {
        Some(c) => (c, c.len_utf8()),
        None => (INVALID, 1),
    }
}

/// Reads a class behind its `[`.
fn class(text: &str) -> Result<(Token, &str), BadPattern> {
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty()
            && let Some(after) = rest.strip_prefix(']')
        {
            return Ok((Token::Class { negated, ranges }, after));
        }
        let (low, after) = member(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix('-') {
            (high, rest) = member(after)?;
        }
        ranges.push((low, high));
    }
}

/// One character of a class. There must be more behind it.
fn member(text: &str) -> Result<(char, &str), BadPattern> {
    let text = match text.strip_prefix('\\') {
        Some(escaped) => escaped,
        None if text.starts_with(['-', ']']) => return Err(BadPattern),
        None => text,
    };
    let c = text.chars().next().ok_or(BadPattern)?;
    let rest = &text[c.len_utf8()..];
    if rest.is_empty() { Err(BadPattern) } else { Ok((c, rest)) }
}

/// Whether `text` has an unescaped `*`, `?` or `[`.
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_within_a_component() {
        for (pattern, name, want) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("d/*", "d/a", true),
            ("a?c", "a/c", false),
            ("[a-c]*", "bcd", true),
            (r"a\*", "a*", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("", "", true),
            ("?", "é", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), want, "{pattern} {name}");
        }
        assert!(Glob::new("?").unwrap().matches(b"\xff"));
        assert_eq!(Glob::new("[a"), Err(BadPattern));
        assert!(has_wildcards("a[") && !has_wildcards(r"a\*") && !has_wildcards(r"a\"));
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "a*".repeat(2000) + "b";
        assert!(!Glob::new(&pattern).unwrap().matches("a".repeat(4000)));
    }
}
