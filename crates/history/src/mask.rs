//! What history must not keep: values of variables that are named like secrets, and credentials in URLs.

use rbuild_oci::Digest;
use serde_json::Value;

/// In the place of a hidden value, before eight digits that tell two of them apart.
const MASK: &str = "****";

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
    format!("{MASK}{}", &Digest::of(format!("rbuild.mask.v1\n{name}\n{value}")).hex()[..8])
}

/// Whether a value is hidden.
pub fn is_masked(value: &str) -> bool {
    value
        .strip_prefix(MASK)
        .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A value as people see it.
pub fn shown(value: &str) -> &str {
    if is_masked(value) { "(hidden)" } else { value }
}

/// A preimage as history keeps it: in `env`, a list of pairs, by name; everywhere without credentials in URLs.
pub fn preimage(mut value: Value) -> Value {
    redact(&mut value);
    for pair in value.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some([Value::String(name), Value::String(text)]) = pair.as_array_mut().map(Vec::as_mut_slice) {
            *text = self::value(name, text);
        }
    }
    value
}

/// A value for others: what is masked is not even told apart.
pub fn hidden(mut value: Value) -> Value {
    hide(&mut value);
    value
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) if is_masked(text) => *text = "(hidden)".to_owned(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(map) => map.values_mut().for_each(hide),
        _ => {}
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("://") => *text = rbuild_ir::redacted(text),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(map) => map.values_mut().for_each(redact),
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
        let masked = |value| preimage(json!({"env": [["TOKEN", value], ["A", "1"]], "args": ["x"]}));
        assert!(!masked("s3cret").to_string().contains("s3cret"));
        assert_ne!(masked("s3cret"), masked("other"));
        assert_eq!(masked("x")["env"][1][1], "1");
        assert!(is_masked(&value("TOKEN", "x")) && shown(&value("TOKEN", "x")) == "(hidden)");
        assert!(!is_masked("****") && !is_masked("plain"));
    }

    #[test]
    fn credentials_in_urls_are_not_kept() {
        let kept = preimage(json!({"args": ["sh", "-c", "git clone https://me:hunter2@host/x"]})).to_string();
        assert!(!kept.contains("hunter2") && kept.contains("host/x"), "{kept}");
    }
}
