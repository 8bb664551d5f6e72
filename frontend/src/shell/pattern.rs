//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, no brackets.

use regex::{Regex, RegexBuilder};

/// Longest pattern in characters; bounds the time that matching takes.
const MAX_PATTERN: usize = 1024;
/// Longest value in bytes that a pattern is matched against.
const MAX_VALUE: usize = 128 << 10;
/// Bound of a compiled pattern in bytes.
const MAX_COMPILED: usize = 1 << 20;

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, String> {
    if pattern.chars().count() > MAX_PATTERN {
        return Err(format!("pattern in substitution is longer than {MAX_PATTERN} characters"));
    }
    let invalid = |reason: String| format!("invalid pattern ({pattern}) in substitution: {reason}");
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut buffer = [0; 4];
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            // `\}` and `\/` were needed to get through the expander; they are no part of the pattern.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => out.push_str(&regex::escape(c.encode_utf8(&mut buffer))),
                other => {
                    return Err(invalid(format!("invalid escape '\\{}'", other.unwrap_or('\u{fffd}'))));
                }
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut buffer))),
        }
    }
    RegexBuilder::new(&out).size_limit(MAX_COMPILED).build().map_err(|error| invalid(error.to_string()))
}

fn bounded(value: &str) -> Result<(), String> {
    match value.len() > MAX_VALUE {
        true => Err(format!("value in substitution with a pattern is longer than {MAX_VALUE} bytes")),
        false => Ok(()),
    }
}

/// Removes the shortest or longest (`greedy`) match of `pattern` from the front of `value`.
pub(super) fn trim_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    bounded(value)?;
    let end = compile(pattern, greedy, true)?.find(value).map_or(0, |found| found.end());
    Ok(value[end..].to_owned())
}

/// The same from the end. A leftmost search cannot find the shortest suffix, so both are reversed.
pub(super) fn trim_suffix(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    let value: String = value.chars().rev().collect();
    Ok(trim_prefix(&reversed_pattern(pattern), &value, greedy)?.chars().rev().collect())
}

/// Reverses a pattern but keeps escapes in front of what they escape.
fn reversed_pattern(pattern: &str) -> String {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(escaped)) => {
                parts.extend([escaped, '\\']);
                chars.next();
            }
            _ => parts.push(c),
        }
    }
    parts.into_iter().rev().collect()
}

/// Replaces the first match or all of them. In all of them `$1` in the replacement refers to a group, as in BuildKit.
pub(super) fn replace(pattern: &str, value: &str, with: &str, all: bool) -> Result<String, String> {
    bounded(value)?;
    let regex = compile(pattern, true, false)?;
    if all {
        return Ok(regex.replace_all(value, with).into_owned());
    }
    Ok(match regex.find(value) {
        Some(found) => format!("{}{with}{}", &value[..found.start()], &value[found.end()..]),
        None => value.to_owned(),
    })
}
