//! Options of the build checks: `# check=`, a comment above an instruction, `BUILDKIT_DOCKERFILE_CHECK`.

use crate::dump::go_quote;
use crate::number::parse_bool;

/// Most parts between semicolons; the last one takes the rest.
const MAX_PARTS: usize = 3;

/// Which rules are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// Every rule.
    All,
    /// Rules by name.
    Named(Vec<String>),
}

impl Default for Rules {
    fn default() -> Self {
        Rules::Named(Vec::new())
    }
}

impl Rules {
    /// True when the rule is meant.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Rules::All => true,
            Rules::Named(names) => names.iter().any(|name| name == rule),
        }
    }
}

/// `skip=…;error=…;experimental=…` (features A-020).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Rules that are not reported.
    pub skip: Rules,
    /// Warnings make the build fail.
    pub error: bool,
    /// Experimental rules that are reported.
    pub experimental: Rules,
}

impl CheckOptions {
    /// Reads the text behind `check=`. The error is BuildKit's, without `failed to parse check options: `.
    pub fn parse(text: &str) -> Result<CheckOptions, String> {
        let mut options = CheckOptions::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(MAX_PARTS, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {}", go_quote(part)));
            };
            let value = value.trim();
            match key.trim() {
                "skip" => options.skip = rules(value),
                "experimental" => options.experimental = rules(value),
                "error" => {
                    options.error = parse_bool(value).ok_or_else(|| {
                        let (part, value) = (go_quote(part), go_quote(value));
                        format!("failed to parse check option {part}: strconv.ParseBool: parsing {value}: invalid syntax")
                    })?;
                }
                other => return Err(format!("invalid check option {}", go_quote(other))),
            }
        }
        Ok(options)
    }
}

impl CheckOptions {
    /// Options for one instruction: the first `check=` in the comment above it, up to a blank. One that cannot be read is
    /// an ordinary comment.
    pub fn of_comments(comments: &[String]) -> CheckOptions {
        let mut values = comments.iter().filter_map(|comment| {
            let (key, value) = comment.split_once('=')?;
            key.trim().eq_ignore_ascii_case("check").then(|| value.trim())
        });
        let value = values.next().and_then(|value| value.split(' ').next()).unwrap_or_default();
        CheckOptions::parse(value).unwrap_or_default()
    }
}

fn rules(value: &str) -> Rules {
    match value {
        "all" => Rules::All,
        names => Rules::Named(names.split(',').map(|name| name.trim().to_owned()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let named = |names: &[&str]| Rules::Named(names.iter().map(|&name| name.to_owned()).collect());
        let options = CheckOptions::parse(" skip=A, B ; error=true;experimental=all").expect("valid");
        let want = CheckOptions { skip: named(&["A", "B"]), error: true, experimental: Rules::All };
        assert_eq!(options, want);
        assert!(
            options.skip.contains("B") && !options.skip.contains("C") && options.experimental.contains("C")
        );
        assert_eq!(CheckOptions::parse("").expect("empty"), CheckOptions::default());
        let comments = |lines: &[&str]| {
            CheckOptions::of_comments(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(comments(&["about it", "Check = skip=A // why", "check=skip=B"]).skip, named(&["A"]));
        assert_eq!(comments(&["check=nonsense", "check=skip=B"]), CheckOptions::default());
        for (text, error) in [
            ("foo=bar", "invalid check option \"foo\""),
            ("skip", "invalid check option \"skip\""),
            (
                "error=x",
                "failed to parse check option \"error=x\": strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(CheckOptions::parse(text).expect_err(text), error);
        }
    }
}
