//! A6: ENV, LABEL, MAINTAINER.

use crate::{PATH, build, build_with, options, refused, scratch, with_args};
use rbuild_frontend::LowerOptions;
use serde_json::json;

///
#[test]
fn forms_of_env() {
    for (line, env) in [
        (
            "ENV A=1 B=\"two words\" C='three $words' D=four\\ words E=",
            vec!["A=1", "B=two words", "C=three $words", "D=four words", "E="],
        ),
        ("ENV A=a=b", vec!["A=a=b"]),
        ("ENV \"A\"=1", vec!["A=1"]),
        ("ENV A  the   rest 'of it' \"here\" ", vec!["A=the   rest of it here"]),
        ("ENV A b=c d", vec!["A=b=c d"]),
        ("ENV A\tb", vec!["A=b"]),
    ] {
        assert_eq!(scratch(line).env()[1..], env, "{line}");
    }
    assert_eq!(scratch("ENV A b").rules(), [("LegacyKeyValueFormat", 2)]);
    for (line, message) in [
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ("ENV A=1 B C=2", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ("ENV =1", "ENV names can not be blank"),
        ("ENV A=1 =2", "ENV names can not be blank"),
        ("ENV", "ENV requires at least one argument"),
        ("LABEL A", "LABEL must have two arguments"),
        ("LABEL A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ("LABEL =1", "LABEL names can not be blank"),
        ("LABEL", "LABEL requires at least one argument"),
    ] {
        assert_eq!(refused(&format!("FROM scratch\n{line}\n")), message, "{line}");
    }
}

///
#[test]
fn order_of_env() {
    assert_eq!(
        scratch("ENV A=1 B=2\nENV C=3 A=4\nENV PATH=/p:$PATH").env(),
        [
            format!("PATH=/p:{}", PATH.strip_prefix("PATH=").unwrap()),
            "A=4".into(),
            "B=2".into(),
            "C=3".into(),
        ]
    );
    assert_eq!(build("FROM rich\nENV N=1\nENV A=new\n").env(), ["A=new", "PATH=/bin", "N=1"]);
    assert_eq!(build("FROM bare\nENV N=1\n").env(), [PATH, "N=1"], "appended before the first instruction");
    assert_eq!(build("FROM bare\n").env(), [PATH]);
    assert_eq!(build("FROM rich\n").env(), ["A=base", "PATH=/bin"]);
}

///
#[test]
fn labels() {
    let built = build_with(
        "FROM rich\nLABEL \"a b\"='c d' empty= both=mine x=1\nLABEL x=2 legacy.y=$A\nLABEL old the rest\n",
        &LowerOptions {
            labels: vec![("x".into(), "cli".into()), ("new".into(), String::new())],
            ..options()
        },
    );
    let labels = json!({"base": "1", "both": "mine", "a b": "c d", "empty": "", "x": "cli", "legacy.y": "base",
        "old": "the rest", "new": ""});
    assert_eq!(built.config()["Labels"], labels);
    assert_eq!(built.history().len(), 3);
}

///
#[test]
fn maintainer() {
    let built =
        build_with("FROM rich\nARG X=1\nMAINTAINER  Jo \"$X\"  <jo@x>, 'and' others \n", &with_args(&[]));
    assert_eq!(built.document()["author"], "Jo \"$X\"  <jo@x>, 'and' others");
    assert_eq!(built.history()[1], "- MAINTAINER Jo \"$X\"  <jo@x>, 'and' others");
    assert_eq!(built.rules(), [("MaintainerDeprecated", 3)]);
}
