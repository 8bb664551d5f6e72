//! Parser directives: `# syntax=`, `# escape=`, `# check=` at the very top (features A2).

use crate::ast::{Directives, Word};
use crate::source::Line;

/// Reads directives until the first line that is none.
#[derive(Default)]
pub(crate) struct DirectiveReader {
    done: bool,
    seen: Vec<String>,
    /// What was read so far.
    pub(crate) directives: Directives,
}

impl DirectiveReader {
    /// Takes a line without its end and without leading blanks. True when it is a directive. An error says why
    /// a directive is wrong; reading may go on.
    pub(crate) fn line(&mut self, line: Line<'_>) -> Result<bool, (String, Word)> {
        if self.done {
            return Ok(false);
        }
        let Some((key, value)) = split(line) else {
            self.done = true;
            return Ok(false);
        };
        let name = key.value.to_ascii_lowercase();
        if !matches!(name.as_str(), "syntax" | "escape" | "check") {
            self.done = true;
            return Ok(false);
        }
        if self.seen.contains(&name) {
            return Err((format!("only one {name} parser directive can be used"), key));
        }
        match name.as_str() {
            "syntax" => self.directives.syntax = Some(value),
            "check" => self.directives.check = Some(value),
            _ => match value.as_str() {
                "\\" => self.directives.escape = '\\',
                "`" => self.directives.escape = '`',
                other => {
                    return Err((format!("invalid escape token '{other}' does not match ` or \\"), value));
                }
            },
        }
        self.seen.push(name);
        Ok(true)
    }
}

/// `# key = value` → key and value. Blanks around `=` and at the end are not part of the value, unless it has
/// nothing else.
fn split(line: Line<'_>) -> Option<(Word, Word)> {
    let body = line.text.strip_prefix('#')?.trim_start();
    let at = |part: &str| line.offset + (part.as_ptr() as usize - line.text.as_ptr() as usize);
    let key_end = body.find(|c: char| !c.is_ascii_alphanumeric())?;
    let key = &body[..key_end];
    if !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let raw = body[key_end..].trim_start_matches(is_blank).strip_prefix('=')?;
    let trimmed = raw.trim_matches(is_blank);
    let value = match (trimmed.is_empty(), raw.char_indices().last()) {
        (false, _) => trimmed,
        (true, Some((last, _))) => &raw[last..],
        (true, None) => return None,
    };
    let word = |part: &str| Word::new(part, crate::ast::Span::new(at(part), at(part) + part.len()));
    Some((word(key), word(value)))
}

/// `\s` of the directive grammar.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ')
}
