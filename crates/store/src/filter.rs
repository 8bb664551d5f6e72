//! `--filter` of du and prune (C-021): `key=value`, `key==value`, `key!=value`, `key~=pattern`, or `key` alone.

use crate::error::{Result, StoreError};

/// Most alternatives and characters of a pattern that are compared.
const MAX_PATTERN: usize = 1024;

/// What filters look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) id: &'a str,
    pub(crate) parents: Vec<&'a str>,
    pub(crate) kind: &'a str,
    pub(crate) record_type: &'a str,
    pub(crate) description: &'a str,
    pub(crate) last_used: i64,
    pub(crate) in_use: bool,
    pub(crate) shared: bool,
    pub(crate) mutable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Is,
    IsNot,
    Matches,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Parents,
    Type,
    Description,
    InUse,
    Shared,
    Private,
    Mutable,
    Immutable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// Last used before this time, seconds since 1970.
    Until(i64),
    Compare(Key, Relation, String),
}

/// One or several conditions, separated by commas, that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Vec<Test>);

impl Filter {
    /// Reads a filter. `until` is turned into a time by `until`, which knows what is now and how durations are written.
    pub fn parse(text: &str, until: impl Fn(&str) -> std::result::Result<i64, String>) -> Result<Self> {
        let bad = |reason: String| StoreError::BadFilter { filter: text.to_owned(), reason };
        if text.len() > MAX_PATTERN {
            return Err(bad(format!("it is longer than {MAX_PATTERN} bytes")));
        }
        let mut tests = Vec::new();
        for part in text.split(',') {
            let (key, relation, value) = split(part.trim());
            if key == "until" {
                if relation != Relation::Is {
                    return Err(bad("`until` is compared with `=`".to_owned()));
                }
                tests.push(Test::Until(until(value).map_err(bad)?));
                continue;
            }
            let key = match key {
                "id" => Key::Id,
                "parents" => Key::Parents,
                "type" => Key::Type,
                "description" => Key::Description,
                "inuse" => Key::InUse,
                "shared" => Key::Shared,
                "private" => Key::Private,
                "mutable" => Key::Mutable,
                "immutable" => Key::Immutable,
                _ => {
                    return Err(bad(format!(
                        "there is no `{key}`: use until, id, parents, type, description, inuse, shared, private, mutable or immutable"
                    )));
                }
            };
            tests.push(Test::Compare(key, relation, value.to_owned()));
        }
        Ok(Self(tests))
    }

    pub(crate) fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().all(|test| test.holds(facts))
    }
}

fn split(part: &str) -> (&str, Relation, &str) {
    for (sign, relation) in
        [("!=", Relation::IsNot), ("~=", Relation::Matches), ("==", Relation::Is), ("=", Relation::Is)]
    {
        // The first sign counts, so that values may have signs in them.
        if let Some((key, value)) = part.split_once(sign)
            && !key.contains(['=', '!', '~'])
        {
            return (key.trim(), relation, value.trim());
        }
    }
    (part, Relation::Is, "true")
}

impl Test {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        let (key, relation, value) = match self {
            Self::Until(time) => return facts.last_used < *time,
            Self::Compare(key, relation, value) => (key, *relation, value.as_str()),
        };
        let flag = |set: bool| vec![if set { "true" } else { "false" }];
        let found = match key {
            Key::Id => vec![facts.id],
            Key::Parents => facts.parents.clone(),
            Key::Type => vec![facts.record_type, facts.kind],
            Key::Description => vec![facts.description],
            Key::InUse => flag(facts.in_use),
            Key::Shared => flag(facts.shared),
            Key::Private => flag(!facts.shared),
            Key::Mutable => flag(facts.mutable),
            Key::Immutable => flag(!facts.mutable),
        };
        let is_id = matches!(key, Key::Id | Key::Parents);
        let equal = |text: &&str| match is_id {
            // An id is recognised by its beginning, with or without `sha256:`.
            true => {
                let value = value.strip_prefix("sha256:").unwrap_or(value);
                !value.is_empty() && text.strip_prefix("sha256:").unwrap_or(text).starts_with(value)
            }
            false => *text == value,
        };
        match relation {
            Relation::Is => found.iter().any(equal),
            Relation::IsNot => !found.iter().any(equal),
            Relation::Matches => found.iter().any(|text| contains(text, value)),
        }
    }
}

/// `~=`: `^` and `$` anchor, `*` and `.*` stand for anything, `|` separates alternatives; all else means itself.
fn contains(text: &str, pattern: &str) -> bool {
    pattern.split('|').any(|pattern| {
        let (start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
        let (end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |rest| (true, rest));
        let pattern = pattern.replace(".*", "*");
        let pieces: Vec<&str> = pattern.split('*').collect();
        let mut at = 0;
        for (number, piece) in pieces.iter().enumerate() {
            let last = number + 1 == pieces.len();
            let rest = &text[at..];
            let found = match (number == 0 && start, last && end) {
                (true, true) => (rest == *piece).then_some(0),
                (true, false) => rest.starts_with(piece).then_some(0),
                (false, true) => rest.ends_with(piece).then(|| rest.len() - piece.len()),
                (false, false) => rest.find(piece),
            };
            let Some(found) = found else { return false };
            at += found + piece.len();
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            id: "sha256:abcdef",
            parents: vec!["sha256:0123"],
            kind: "layer",
            record_type: "regular",
            description: "[build 2/3] RUN make all",
            last_used: 100,
            in_use: false,
            shared: true,
            mutable: false,
        }
    }

    #[test]
    fn filters_compare_what_is_known() {
        let until = |text: &str| text.parse::<i64>().map_err(|e| e.to_string());
        let cases = [
            ("until=101", true),
            ("until=100", false),
            ("id=sha256:abc", true),
            ("id=abc", true),
            ("id==abcdef", true),
            ("id=abd", false),
            ("id!=abc", false),
            ("id~=bcd", true),
            ("id~=^bcd", false),
            ("parents=0123", true),
            ("parents!=0123", false),
            ("type=regular", true),
            ("type=layer", true),
            ("type=exec.cachemount", false),
            ("type!=exec.cachemount", true),
            ("description~=RUN make", true),
            ("description~=^\\[", false),
            ("description~=^[build.*all$", true),
            ("description~=npm|make", true),
            ("description~=^RUN", false),
            ("description~=all$", true),
            ("description=x=y", false),
            ("inuse", false),
            ("inuse=false", true),
            ("shared", true),
            ("shared=true", true),
            ("private", false),
            ("mutable", false),
            ("immutable", true),
            ("immutable,shared", true),
            ("immutable,private", false),
        ];
        for (text, expected) in cases {
            let filter = Filter::parse(text, until).unwrap();
            assert_eq!(filter.matches(&facts()), expected, "{text}");
        }
        for bad in ["", "foo=1", "until=soon", "until!=3", &"x".repeat(2000)] {
            assert!(Filter::parse(bad, until).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_are_anchored_and_have_gaps() {
        let cases = [
            ("abc", "", true),
            ("abc", "b", true),
            ("abc", "^b", false),
            ("abc", "b$", false),
            ("abc", "^abc$", true),
            ("abcabc", "^abc$", false),
            ("abcabc", "^abc*abc$", true),
            ("abc", "^abc*abc$", false),
            ("aéc", "a*c", true),
            ("abab", "a*b$", true),
        ];
        for (text, pattern, expected) in cases {
            assert_eq!(contains(text, pattern), expected, "{text} {pattern}");
        }
    }
}
