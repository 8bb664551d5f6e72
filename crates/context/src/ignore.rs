//! .dockerignore files.

use crate::filter::Filter;
use crate::pattern::{MAX_PATTERN_BYTES, MAX_PATTERNS, Matcher, PatternError, clean};
use rbuild_tree::TreePath;

/// Largest .dockerignore that is read, in bytes.
pub const MAX_IGNORE_BYTES: usize = 1 << 20;

/// What is wrong with a .dockerignore.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A line holds no usable pattern.
    #[error("{file}:{line}: {source} `{pattern}`")]
    Pattern {
        /// Name of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// The file is larger than [`MAX_IGNORE_BYTES`].
    #[error("{file} is {size} bytes long; at most {MAX_IGNORE_BYTES} are read: use fewer, wider patterns")]
    TooLarge {
        /// Name of the file.
        file: String,
        /// Its length.
        size: usize,
    },
}

/// A line of a .dockerignore that holds a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Line, from 1.
    pub line: usize,
    /// The pattern after cleaning, with its `!`.
    pub pattern: String,
}

/// The patterns of a .dockerignore: a byte order mark is skipped, lines with `#` in the first column are comments,
/// blank lines are skipped, paths are cleaned and lose a leading `/`.
pub fn read_rules(content: &[u8]) -> Vec<Rule> {
    let content = String::from_utf8_lossy(content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content));
    let lines = content.split('\n').enumerate();
    lines.filter_map(|(i, line)| Some(Rule { line: i + 1, pattern: read_line(line)? })).collect()
}

fn read_line(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (mark, path) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if line.is_empty() || path.is_empty() {
        return (!line.is_empty()).then(|| mark.to_owned());
    }
    let cleaned = clean(path);
    let relative = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
    Some(format!("{mark}{relative}"))
}

/// A .dockerignore, compiled.
#[derive(Debug, Clone)]
pub struct Ignore {
    file: String,
    rules: Vec<Rule>,
    matcher: Matcher,
}

impl Ignore {
    /// Compiles the content of the ignore file called `file`, the name that messages show.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, IgnoreError> {
        if content.len() > MAX_IGNORE_BYTES {
            return Err(IgnoreError::TooLarge { file: file.to_owned(), size: content.len() });
        }
        let rules = read_rules(content);
        let matcher = Matcher::new(rules.iter().map(|rule| &rule.pattern)).map_err(|source| {
            let rule = &rules[source.index()];
            let mut pattern = rule.pattern.clone();
            pattern.truncate(pattern.floor_char_boundary(80));
            IgnoreError::Pattern { file: file.to_owned(), line: rule.line, pattern, source }
        })?;
        Ok(Self { file: file.to_owned(), rules, matcher })
    }

    /// Excludes nothing.
    pub fn none() -> Self {
        Self {
            file: String::new(),
            rules: Vec::new(),
            matcher: Matcher::new([""; 0]).expect("an empty list of patterns is valid"),
        }
    }

    /// Name of the file, as given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Its patterns in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether it has no patterns.
    pub fn is_empty(&self) -> bool {
        self.matcher.is_empty()
    }

    /// The rule that excludes `path`, for "excluded by .dockerignore:3"; `None` when it is not excluded.
    pub fn rule(&self, path: &TreePath) -> Option<&Rule> {
        if path.is_root() {
            return None;
        }
        self.matcher.decided_by(path.as_bytes()).map(|index| &self.rules[index])
    }
}

impl Filter for Ignore {
    fn excluded(&self, path: &TreePath) -> bool {
        !path.is_root() && self.matcher.matches(path.as_bytes())
    }

    fn may_include_below(&self, dir: &TreePath) -> bool {
        dir.is_root() || self.matcher.may_miss_below(dir.as_bytes())
    }
}

const _: () = assert!(MAX_PATTERNS * MAX_PATTERN_BYTES >= MAX_IGNORE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::clamped(text).unwrap()
    }

    ///
    #[test]
    fn lines_are_read_and_numbered() {
        let content = "\u{feff}# comment\n\n  /a/../b/ \r\n !  ./c\n #d\n";
        let rules: Vec<_> = read_rules(content.as_bytes()).into_iter().map(|r| (r.line, r.pattern)).collect();
        assert_eq!(rules, [(3, "b".to_owned()), (4, "!c".to_owned()), (5, "#d".to_owned())]);
    }

    ///
    #[test]
    fn a_bad_line_is_named() {
        for (content, want) in [
            ("a\n!\n", ".dockerignore:2: illegal exclusion pattern: \"!\" `!`"),
            ("\n\n[x\n", ".dockerignore:3: syntax error in pattern `[x`"),
        ] {
            assert_eq!(Ignore::parse(".dockerignore", content.as_bytes()).unwrap_err().to_string(), want);
        }
        assert!(matches!(
            Ignore::parse("i", &vec![b'\n'; MAX_IGNORE_BYTES + 1]),
            Err(IgnoreError::TooLarge { .. })
        ));
        assert!(Ignore::parse("i", &b"a\n".repeat(MAX_PATTERNS + 1)).is_err());
    }

    /// the last match wins and is what a message names.
    #[test]
    fn the_deciding_rule_is_known() {
        let ignore = Ignore::parse(".dockerignore", b"# x\n*.md\n!README*.md\nREADME-secret.md\n").unwrap();
        let line = |text: &str| ignore.rule(&path(text)).map(|rule| rule.line);
        assert_eq!((line("a.md"), line("README.md"), line("README-secret.md")), (Some(2), None, Some(4)));
        assert_eq!(line("a.md/below"), Some(2));
    }

    ///
    #[test]
    fn excluded_directories_are_entered_only_for_something() {
        let ignore = Ignore::parse("i", b"*\n!src\n!docs/*/keep\n").unwrap();
        assert!(!ignore.excluded(&path("src")) && !ignore.excluded(&path("src/x")));
        assert!(ignore.excluded(&path("docs")) && ignore.excluded(&path("node_modules")));
        assert!(ignore.may_include_below(&path("docs")) && ignore.may_include_below(&path("docs/a")));
        assert!(!ignore.may_include_below(&path("node_modules")));
        assert!(!ignore.may_include_below(&path("docs/a/b")));
        assert!(!ignore.excluded(&TreePath::root()));
        assert!(!Ignore::none().excluded(&path("x")));
    }
}
