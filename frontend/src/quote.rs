//! Go's `%q` quoting, which the texts of errors and history entries use.

/// Quotes `text` as Go's `strconv.Quote` does.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c if is_print(c) => out.push(c),
            c if (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// Quotes a list as Go's `%q` does: `["a" "b"]`.
pub fn go_quote_list<S: AsRef<str>>(items: &[S]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| go_quote(item.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

/// Whether Go counts a non-ASCII character as printable: no control, format, unassigned or separator character.
fn is_print(c: char) -> bool {
    if c < '\u{a0}' {
        return false;
    }
    // Combining characters are escaped only in front of a string, so one stands before.
    let text = format!("a{c}");
    !text.escape_debug().any(|escaped| escaped == '{')
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
