//! `WWW-Authenticate` (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// Longest header value that is looked at, in bytes.
const MAX_HEADER: usize = 16 * 1024;

/// One challenge: a scheme in lower case and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    pub(crate) params: BTreeMap<String, String>,
}

/// Splits one header value into its challenges. Garbage gives fewer challenges, never an error.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = Vec::new();
    let mut rest = header.get(..header.len().min(MAX_HEADER)).unwrap_or_default();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            // Not a token: skip one character, so that the loop always moves on.
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return out;
            }
            rest = chars.as_str();
            continue;
        }
        let (word, after) = rest.split_at(end);
        let spaced = after.trim_start_matches([' ', '\t']);
        match (spaced.strip_prefix('='), out.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
                challenge.params.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = after;
            }
            _ => {
                out.push(Challenge { scheme: word.to_ascii_lowercase(), params: BTreeMap::new() });
                rest = after;
            }
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(header: &str) -> String {
        parse(header)
            .iter()
            .map(|c| {
                let params: Vec<_> = c.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("{}[{}]", c.scheme, params.join(";"))
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn headers_are_split_into_challenges() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                "bearer[realm=https://auth.docker.io/token;scope=repository:a/b:pull,push;service=registry.docker.io]",
            ),
            (r#"Basic realm="Registry Realm""#, "basic[realm=Registry Realm]"),
            (r#"BASIC realm=x, Bearer realm="y" , service=z"#, "basic[realm=x] bearer[realm=y;service=z]"),
            (
                r#"Bearer realm="a\"b\\c", error="invalid_token""#,
                r#"bearer[error=invalid_token;realm=a"b\c]"#,
            ),
            (r#"Bearer realm = "spaced""#, "bearer[realm=spaced]"),
            ("Negotiate", "negotiate[]"),
            (r#"Bearer realm="unterminated"#, "bearer[realm=unterminated]"),
            (r#"Bearer realm="first",realm="second""#, "bearer[realm=first]"),
            ("", ""),
            ("=,=\"", ""),
            ("\u{e4}\u{f6}", ""),
        ] {
            assert_eq!(show(header), expected, "{header}");
        }
    }

    #[test]
    fn a_huge_header_is_cut() {
        assert!(parse(&"Basic ".repeat(100_000)).len() < 4096);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_survived(header in "(Bearer|Basic|[ ,=\"\\\\a-z\u{e4}]){0,20}") {
            for challenge in parse(&header) {
                proptest::prop_assert!(!challenge.scheme.is_empty());
            }
        }

        #[test]
        fn what_is_quoted_comes_back(realm in "[ -~]{0,30}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let found = parse(&format!("Basic realm=\"{quoted}\""));
            proptest::prop_assert_eq!(found[0].params.get("realm"), Some(&realm));
        }
    }
}
