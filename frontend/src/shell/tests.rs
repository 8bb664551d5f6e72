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

/// Whatever the word: an answer, and without variables, quotes and escapes the word itself.
#[test]
fn any_word_has_an_answer() {
    const ALPHABET: &[&str] = &[
        "$", "{", "}", ":", "-", "+", "?", "#", "%", "/", "\\", "'", "\"", "A", "é", " ", "*", "<", "0", "\n",
    ];
    let mut seed = 1_u64;
    for round in 0..20_000 {
        let mut word = String::new();
        for _ in 0..round % 24 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.push_str(ALPHABET[(seed >> 33) as usize % ALPHABET.len()]);
        }
        let lex =
            Lex { raw_quotes: seed & 1 << 40 > 0, skip_unset_env: seed & 1 << 41 > 0, ..Lex::new('\\') };
        let answer = lex.process(&word, &env());
        if !word.contains(['$', '\\', '\'', '"']) {
            assert_eq!(answer.map(|expansion| expansion.result), Ok(word));
        }
    }
}
