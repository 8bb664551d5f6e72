//! Patterns of .dockerignore and `--exclude`: the rules of moby/patternmatcher.

mod compile;

use crate::glob::Glob;
use compile::{Compiled, compile};
pub use rbuild_oci::clean_path as clean;
use regex::Regex;

/// Most patterns one matcher takes.
pub const MAX_PATTERNS: usize = 4096;

/// Longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// Memory one compiled pattern may take, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Memory of the expression that answers for all patterns at once; without it matching is only slower.
const MAX_COMBINED_BYTES: usize = 4 << 20;

/// A list of patterns that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation {
        /// Position in the list.
        index: usize,
    },
    /// The syntax is wrong: see [`crate::glob::BadPattern`]; or the pattern is not a regular expression once
    /// translated, such as an inverted range.
    #[error("syntax error in pattern")]
    Syntax {
        /// Position in the list.
        index: usize,
    },
    /// More than [`MAX_PATTERNS`], or one longer than [`MAX_PATTERN_BYTES`].
    #[error("too many or too long patterns: at most {MAX_PATTERNS} of {MAX_PATTERN_BYTES} bytes each")]
    TooLarge {
        /// Position in the list.
        index: usize,
    },
}

impl PatternError {
    /// Which pattern of the list is at fault.
    pub fn index(&self) -> usize {
        match self {
            Self::LoneExclamation { index } | Self::Syntax { index } | Self::TooLarge { index } => *index,
        }
    }
}

/// An ordered list of patterns, of which the last one that matches a path decides.
///
/// A pattern also matches everything below what it matches. `*` and `?` stay within a path component, `**` does not,
/// `!` takes out again what earlier patterns matched.
#[derive(Debug, Clone)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    /// Matches whatever any pattern without `!` matches.
    any: Option<Regex>,
    exclusions: bool,
}

#[derive(Debug, Clone)]
struct Pattern {
    index: usize,
    exclusion: bool,
    cleaned: String,
    compiled: Compiled,
}

impl Matcher {
    /// Compiles `patterns`. Blank ones are skipped, white space around them is dropped, paths are cleaned.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut out = Vec::new();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            if index >= MAX_PATTERNS || pattern.len() > MAX_PATTERN_BYTES {
                return Err(PatternError::TooLarge { index });
            }
            out.push(Pattern::new(index, &clean(pattern))?);
        }
        let exclusions = out.iter().any(|pattern: &Pattern| pattern.exclusion);
        Ok(Self { any: combined(&out), patterns: out, exclusions })
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern begins with `!`.
    pub fn has_exclusions(&self) -> bool {
        self.exclusions
    }

    /// Whether the patterns match `path`, which has `/` between its components and none at its start.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        self.decided_by(path).is_some()
    }

    /// The position in the list of the pattern that makes `path` match; `None` when it does not match.
    pub fn decided_by(&self, path: impl AsRef<[u8]>) -> Option<usize> {
        let path = String::from_utf8_lossy(path.as_ref());
        self.last(&path).filter(|pattern| !pattern.exclusion).map(|pattern| pattern.index)
    }

    /// Whether something below the directory `dir`, which matches, may not match. `false` is certain, `true` is not.
    pub fn may_miss_below(&self, dir: impl AsRef<[u8]>) -> bool {
        if !self.exclusions {
            return false;
        }
        let dir = String::from_utf8_lossy(dir.as_ref());
        match self.last(&dir) {
            Some(last) if !last.exclusion => {
                let later = self.patterns.iter().rev().take_while(|pattern| pattern.index > last.index);
                later.filter(|pattern| pattern.exclusion).any(|pattern| pattern.may_match_below(&dir))
            }
            _ => true,
        }
    }

    /// Whether something below the directory `dir` may match. `false` is certain, `true` is not.
    pub fn may_match_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let dir = String::from_utf8_lossy(dir.as_ref());
        self.patterns
            .iter()
            .filter(|pattern| !pattern.exclusion)
            .any(|pattern| pattern.compiled.matches(&pattern.cleaned, &dir) || pattern.may_match_below(&dir))
    }

    fn last(&self, path: &str) -> Option<&Pattern> {
        if self.any.as_ref().is_some_and(|any| !any.is_match(path)) {
            return None;
        }
        self.patterns.iter().rev().find(|pattern| pattern.compiled.matches(&pattern.cleaned, path))
    }
}

/// One expression for all patterns without `!`, so that the many paths that nothing excludes cost one scan.
fn combined(patterns: &[Pattern]) -> Option<Regex> {
    let expressions = patterns.iter().filter(|pattern| !pattern.exclusion);
    let expressions: Vec<_> =
        expressions.map(|pattern| pattern.compiled.expression(&pattern.cleaned)).collect();
    if expressions.is_empty() {
        return None;
    }
    regex::RegexBuilder::new(&expressions.join("|")).size_limit(MAX_COMBINED_BYTES).build().ok()
}

impl Pattern {
    fn new(index: usize, cleaned: &str) -> Result<Self, PatternError> {
        let (exclusion, cleaned) = match cleaned.strip_prefix('!') {
            Some("") => return Err(PatternError::LoneExclamation { index }),
            Some(rest) => (true, rest),
            None => (false, cleaned),
        };
        let syntax = |_| PatternError::Syntax { index };
        Glob::new(cleaned).map_err(syntax)?;
        let compiled = compile(cleaned).map_err(syntax)?;
        Ok(Self { index, exclusion, cleaned: cleaned.to_owned(), compiled })
    }

    /// Whether this could match a path below `dir` without matching `dir` itself or what holds it.
    fn may_match_below(&self, dir: &str) -> bool {
        let mut pattern = self.cleaned.split('/');
        for component in dir.split('/').filter(|component| !component.is_empty()) {
            match pattern.next() {
                None => return false,
                // A class may hold a `/`, an escape may be one for the expression only.
                Some(part) if part.contains("**") || part.contains(['[', '\\', '^']) => return true,
                Some(part) if part == component => {}
                Some(part) if part.contains(['*', '?']) => match Glob::new(part) {
                    Ok(glob) if !glob.matches(component) => return false,
                    Ok(_) | Err(_) => {}
                },
                Some(_) => return false,
            }
        }
        pattern.next().is_some()
    }
}

#[cfg(test)]
mod tests;
