use super::*;
use crate::env::Env;

fn env() -> Env {
    [("A", "a"), ("E", ""), ("SP", "x  y"), ("P", "/a/b.tar.gz")].into_iter().collect()
}

#[test]
fn words_and_values() {
    let lex = Lex::new('\\');
    for (word, result) in [
        ("$A-${A}-${U}", "a-a-"),
        ("${U:-${A:-x}y}", "ay"),
        ("${E:-d} ${E-d} ${E:+n} ${E+n}", "d   n"),
        ("'$A' \"$A\" \\$A", "$A a $A"),
        ("${P##*/} ${P%.*} ${P%%.*} ${P/b/c}", "b.tar.gz /a/b.tar /a/b /a/c.tar.gz"),
        ("trail\\", "trail"),
        ("$", "$"),
    ] {
        assert_eq!(lex.word(word, &env()).as_deref(), Ok(result), "{word}");
    }
    assert_eq!(lex.words("p$SP\" \"q", &env()).unwrap(), ["px", "y q"]);
}

#[test]
fn errors_name_the_word() {
    let lex = Lex::new('\\');
    for (word, reason) in [
        ("${U:?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${U?no}", "U: no"),
        ("${}", "syntax error: bad substitution"),
        ("${A-'", "syntax error: missing '}'"),
        ("\"", "unexpected end of statement while looking for matching double-quote"),
    ] {
        assert_eq!(lex.word(word, &env()).unwrap_err().reason, reason, "{word}");
    }
    let error = lex.word("a\"", &env()).unwrap_err().to_string();
    assert!(error.starts_with("failed to process \"a\\\"\": "), "{error}");
}

#[test]
fn deep_nesting_takes_no_stack_and_growth_is_bounded() {
    let lex = Lex::new('\\');
    let depth = 200_000;
    let nested = format!("{}x{}", "${U:-".repeat(depth), "}".repeat(depth));
    assert_eq!(lex.word(&nested, &env()).as_deref(), Ok("x"));
    let quotes = format!("{}x{}", "${U:-\"".repeat(depth), "\"}".repeat(depth));
    assert_eq!(lex.word(&quotes, &env()).as_deref(), Ok("x"));
    let big: Env = [("B", "b".repeat(1 << 20).as_str())].into_iter().collect();
    let error = lex.word(&"$B".repeat(100), &big).unwrap_err();
    assert!(error.reason.contains("expands to more than"), "{}", error.reason);
}
