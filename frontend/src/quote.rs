//! Go's `%q` quoting, which the texts of errors and history entries use.

pub use crate::dump::go_quote;

/// Quotes a list as Go's `%q` does: `["a" "b"]`.
pub fn go_quote_list<S: AsRef<str>>(items: &[S]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| go_quote(item.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_go() {
        for (text, quoted) in [
            ("a b", r#""a b""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\t\n\u{7}\u{1}\u{7f}", r#""\t\n\a\x01\x7f""#),
            ("한é\u{301}☃{", "\"한é\u{301}☃{\""),
            ("\u{200b}\u{a0}\u{fffd}", "\"\\u200b\\u00a0\u{fffd}\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(go_quote(text), quoted);
        }
        assert_eq!(go_quote_list(&["a", "b c"]), r#"["a" "b c"]"#);
        assert_eq!(go_quote_list::<&str>(&[]), "[]");
    }
}
