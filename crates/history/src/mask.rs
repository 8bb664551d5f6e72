//! What history must not keep: values of variables that are named like secrets, and credentials in URLs.

use rbuild_oci::Digest;
use serde_json::Value;

/// In the place of a hidden value, before eight digits that tell two of them apart.
const MASK: &str = "****";
const DIGITS: usize = 8;
/// Shortest value that is looked for in texts, in bytes.
const SHORTEST: usize = 4;

/// Parts of names whose values are hidden, upper case. BuildKit's check SecretsUsedInArgOrEnv looks for the same.
const SECRET_WORDS: [&str; 9] =
    ["PASSWORD", "PASSWD", "PWD", "SECRET", "TOKEN", "APIKEY", "CREDENTIAL", "AUTH", "PRIVATE"];
/// Whole words, between underscores.
const SECRET_PARTS: [&str; 4] = ["KEY", "PASS", "PAT", "CRED"];

/// Whether a variable of this name may hold a secret.
pub fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // The working directory is everybody's business.
    if name == "PWD" || name == "OLDPWD" {
        return false;
    }
    SECRET_WORDS.iter().any(|word| name.contains(word))
        || name.split(['_', '-']).any(|part| SECRET_PARTS.contains(&part))
}

/// The value as history keeps it.
pub fn value(name: &str, value: &str) -> String {
    if value.is_empty() || !looks_secret(name) {
        return rbuild_ir::redacted(value);
    }
    format!("{MASK}{}", &Digest::of(format!("rbuild.mask.v1\n{name}\n{value}")).hex()[..DIGITS])
}

/// Whether a value is hidden.
pub fn is_masked(value: &str) -> bool {
    value.strip_prefix(MASK).is_some_and(|rest| rest.len() == DIGITS && is_hex(rest))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A value as people see it.
pub fn shown(value: &str) -> &str {
    if is_masked(value) { "(hidden)" } else { value }
}

/// A text without the digits that tell hidden values apart.
pub fn stripped(text: &str) -> String {
    let mut parts = text.split(MASK);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(MASK);
        let digits = part.get(..DIGITS).filter(|digits| is_hex(digits));
        out.push_str(&part[digits.map_or(0, str::len)..]);
    }
    out
}

/// A value for others: what is masked is not even told apart.
pub fn hidden(mut value: Value) -> Value {
    each_text(&mut value, &|text| if is_masked(text) { "(hidden)".to_owned() } else { stripped(text) });
    value
}

fn each_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(map) => map.values_mut().for_each(|item| each_text(item, change)),
        _ => {}
    }
}

/// Values of build arguments that are named like secrets: wherever an argument is expanded, history has a mask.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The value, and what stands in its place.
    values: Vec<(String, String)>,
}

impl Secrets {
    /// Of these arguments, those that are named like secrets. Very short values are not looked for: they are everywhere.
    pub fn of<'a>(args: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let secret = args.into_iter().filter(|(name, text)| looks_secret(name) && text.len() >= SHORTEST);
        let mut values: Vec<(String, String)> =
            secret.map(|(name, text)| (text.to_owned(), value(name, text))).collect();
        // One may be a part of another.
        values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// A text with masks that are told apart.
    fn masked(&self, text: &str) -> String {
        self.values.iter().fold(rbuild_ir::redacted(text), |text, (value, mask)| text.replace(value, mask))
    }

    /// A text for people.
    pub fn plain(&self, text: &str) -> String {
        self.values.iter().fold(rbuild_ir::redacted(text), |text, (value, _)| text.replace(value, MASK))
    }
}

/// A preimage as history keeps it: values of `env`, a list of pairs, by name; everywhere without these secrets and without
/// credentials in URLs.
pub fn preimage(mut value: Value, secrets: &Secrets) -> Value {
    for pair in value.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some([Value::String(name), Value::String(text)]) = pair.as_array_mut().map(Vec::as_mut_slice) {
            *text = self::value(name, text);
        }
    }
    redact(&mut value, secrets);
    value
}

fn redact(value: &mut Value, secrets: &Secrets) {
    match value {
        Value::String(text) if text.contains("://") || !secrets.values.is_empty() => {
            *text = secrets.masked(text)
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, secrets)),
        Value::Object(map) => map.values_mut().for_each(|item| redact(item, secrets)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_secrets_are_recognised() {
        for name in
            ["NPM_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY", "API_KEY", "apikey", "GH_PAT", "BASIC_AUTH"]
        {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["VERSION", "PATH", "KEYBOARD", "PWD", "PATTERN", "MONKEY", "HOME"] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_hidden_and_still_differ() {
        let masked = |value| {
            preimage(json!({"env": [["TOKEN", value], ["A", "1"]], "args": ["x"]}), &Secrets::default())
        };
        assert!(!masked("s3cret").to_string().contains("s3cret"));
        assert_ne!(masked("s3cret"), masked("other"));
        assert_eq!(masked("x")["env"][1][1], "1");
        assert!(is_masked(&value("TOKEN", "x")) && shown(&value("TOKEN", "x")) == "(hidden)");
        assert!(!is_masked("****") && !is_masked("plain"));
    }

    #[test]
    fn credentials_in_urls_are_not_kept() {
        let args = json!({"args": ["sh", "-c", "git clone https://me:hunter2@host/x"]});
        let kept = preimage(args, &Secrets::default()).to_string();
        assert!(!kept.contains("hunter2") && kept.contains("host/x"), "{kept}");
    }

    #[test]
    fn secrets_are_found_where_they_are_expanded() {
        let secrets =
            Secrets::of([("TOKEN", "s3cret"), ("VERSION", "1.2.3"), ("KEY", "s3cretmore"), ("PASS", "x")]);
        let kept = preimage(
            json!({"env": [["URL", "http://h/s3cret?v=1.2.3"]], "args": ["s3cretmore x"]}),
            &secrets,
        );
        let text = kept.to_string();
        assert!(!text.contains("s3cret") && text.contains("1.2.3") && text.contains(" x"), "{text}");
        assert_eq!(hidden(kept), json!({"env": [["URL", "http://h/****?v=1.2.3"]], "args": ["**** x"]}));
        assert_eq!(secrets.plain("RUN curl s3cret"), "RUN curl ****");
        assert_eq!(stripped("a ****0123abcd b **** ****01é"), "a **** b **** ****01é");
    }
}
