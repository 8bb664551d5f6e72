//! Names of variables (A-022).

use regex::Regex;
use std::sync::LazyLock;

/// Special parameters of a POSIX shell: one character, looked up as a name.
const SPECIAL: &[char] = &['@', '*', '#', '?', '-', '$', '!', '0'];

static DIGIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d").expect("the pattern is valid"));

/// Decimal digits of all scripts.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric() && DIGIT.is_match(c.encode_utf8(&mut [0; 4])))
}

/// The name at the start of `text`; empty when there is none.
pub(super) fn read(text: &str) -> &str {
    let Some(first) = text.chars().next() else { return "" };
    let end = if is_digit(first) {
        text.find(|c| !is_digit(c))
    } else if SPECIAL.contains(&first) {
        Some(first.len_utf8())
    } else {
        text.find(|c: char| !(c.is_alphabetic() || is_digit(c) || c == '_'))
    };
    &text[..end.unwrap_or(text.len())]
}
