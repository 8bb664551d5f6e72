//! A5: ARG.

use crate::{build, build_with, for_platform, options, refused, refused_with, scratch, value_of, with_args};
use rbuild_frontend::LowerOptions;
use serde_json::json;

///
#[test]
fn forms_of_arg() {
    assert_eq!(
        value_of("FROM scratch\nARG a=1 b c=\"x y\" d='$a' e=p\\ q f=", "<$a$b|$c|$d|$e|$f>"),
        "<1|x y|$a|p q|>"
    );
    for (line, message) in [
        ("ARG", "ARG requires at least one argument"),
        ("ARG =1", "ARG names can not be blank"),
        ("ARG a =1", "ARG names can not be blank"),
    ] {
        assert_eq!(refused(&format!("FROM scratch\n{line}\n")), message);
        assert_eq!(refused(&format!("{line}\nFROM scratch\n")), message);
    }
}

///
#[test]
fn scopes() {
    let head = "ARG g=global\nARG h=$g-$later i\nARG later=x\n";
    assert_eq!(build(&format!("{head}FROM img:$h\n")).asked[0].0, "docker.io/library/img:global-");
    let stage = format!("{head}FROM scratch");
    assert_eq!(value_of(&stage, "<$g$h$later>"), "<>", "not inside a stage");
    assert_eq!(value_of(&format!("{stage}\nARG g h"), "$g,$h"), "global,global-");
    assert_eq!(value_of(&format!("{stage}\nARG g=own"), "$g"), "own");
    assert_eq!(value_of(&format!("{stage}\nARG i"), "<${i-unset}>"), "<unset>");
    let given = with_args(&[("i", "1"), ("g", "2"), ("own", "3")]);
    let built = build_with(&format!("{stage}\nARG g i own h\nLABEL l=$g,$i,$own,$h\n"), &given);
    assert_eq!(built.label("l"), "2,1,3,2-");
    assert_eq!(
        value_of("FROM scratch AS a\nARG x=1\nFROM scratch\nARG x", "<$x>"),
        "<>",
        "not in the next stage"
    );
}

///
#[test]
fn build_arguments() {
    let given = with_args(&[("a", "given"), ("none", "x"), ("a", "last")]);
    let built = build_with("FROM scratch\nARG a=default\nLABEL l=$a-$none\n", &given);
    assert_eq!(built.label("l"), "last-");
    assert!(!built.warnings.iter().any(|warning| warning.is_error()));
    let built = build_with("FROM debian\nRUN x\n", &with_args(&[("HTTP_PROXY", "p"), ("none", "x")]));
    assert_eq!(
        built.exec().proxy_env,
        [("HTTP_PROXY".into(), "p".into()), ("http_proxy".into(), "p".into())]
    );
    assert_eq!(built.run_env("none"), None);
}

///
#[test]
fn arguments_without_a_value() {
    let text = "FROM scratch\nARG A\nLABEL l=${A-e}${A:-f}\nRUN x\n";
    let built = build(text);
    assert_eq!((built.label("l"), built.run_env("A")), (json!("ef"), None));
    assert_eq!(built.history()[0], "- ARG A");
    let built = build_with(text, &with_args(&[("A", "")]));
    assert_eq!((built.label("l"), built.run_env("A")), (json!("f"), Some("")));
    assert_eq!(built.history()[0], "- ARG A=");
}

///
#[test]
fn arguments_and_variables_of_one_name() {
    for (lines, value) in [
        ("ENV A=env\nARG A=arg", "arg"),
        ("ARG A=arg\nENV A=env", "env"),
        ("ARG A=arg\nENV A=env\nARG A=again", "again"),
        ("ENV A=env\nARG A", "env"),
    ] {
        let built = build(&format!("FROM debian\nLABEL before=<$A>\n{lines}\nRUN x\nLABEL l=$A\n"));
        assert_eq!((built.label("before"), built.label("l")), (json!("<>"), json!(value)), "{lines}");
        assert_eq!(built.run_env("A"), Some(value), "{lines}");
        assert!(built.env().contains(&"A=env".to_owned()), "{lines}");
    }
    let built = build_with("FROM debian\nENV A=env\nARG A=arg\nRUN x\n", &with_args(&[("A", "given")]));
    assert_eq!(built.run_env("A"), Some("given"));
}

///
#[test]
fn arguments_reach_run_and_history() {
    let text =
        "FROM debian\nARG a=1\nARG b c=3\nENV a=env\nARG a=again d\nRUN x\nENV d=later\nRUN [\"y\", \"z\"]\n";
    let built = build(text);
    assert_eq!(built.env(), ["PATH=/bin", "a=env", "d=later"]);
    assert_eq!(
        built.history(),
        [
            "- ARG a=1",
            "- ARG b c=3",
            "- ENV a=env",
            "- ARG a=again d",
            "RUN |4 a=again b= c=3 d= /bin/sh -c x # buildkit",
            "- ENV d=later",
            "RUN |4 a=again b= c=3 d=later y z # buildkit",
        ]
    );
    assert_eq!((built.run_env("c"), built.run_env("d")), (Some("3"), Some("later")));
    let root = |value: &str| build_with(text, &with_args(&[("c", value)])).definition.image.root;
    assert_ne!(root("1"), root("2"), "the key of later steps");
    assert_eq!(root("1"), root("1"));
}

///
#[test]
fn proxies() {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    let plain = build("FROM debian\nRUN x\n").definition;
    for name in names {
        for spelled in [name.to_owned(), name.to_lowercase()] {
            let built = build_with("FROM debian\nRUN x\n", &with_args(&[(&spelled, "p")]));
            let both = [(name.to_owned(), "p".to_owned()), (name.to_lowercase(), "p".to_owned())];
            assert_eq!(built.exec().proxy_env, both, "{spelled}");
            assert_eq!(built.definition.image.root, plain.image.root, "not in the key");
            assert_eq!(built.history(), ["RUN /bin/sh -c x # buildkit"]);
            assert_eq!(built.env(), ["PATH=/bin"]);
            let declared =
                build_with(&format!("FROM debian\nARG {spelled}\nRUN x\n"), &with_args(&[(&spelled, "p")]));
            assert_eq!(declared.history()[1], format!("RUN |1 {spelled}=p /bin/sh -c x # buildkit"));
            assert_ne!(declared.definition.image.root, plain.image.root);
            assert_eq!(declared.run_env(&spelled), Some("p"));
        }
    }
}

///
#[test]
fn platform_arguments() {
    let names = ["PLATFORM", "OS", "ARCH", "VARIANT", "OSVERSION"];
    let options = LowerOptions { target: Some("t".into()), ..for_platform("linux/arm/v6") };
    for (prefix, values) in [
        ("BUILD", ["linux/amd64", "linux", "amd64", "", ""]),
        ("TARGET", ["linux/arm/v6", "linux", "arm", "v6", ""]),
    ] {
        for (name, value) in names.iter().zip(values) {
            let name = format!("{prefix}{name}");
            let text =
                format!("FROM scratch AS t\nLABEL before=<${name}>\nARG {name}\nLABEL l=${{{name}-unset}}\n");
            let built = build_with(&text, &options);
            assert_eq!((built.label("before"), built.label("l")), (json!("<>"), json!(value)), "{name}");
            // In the global scope they need no ARG.
            let text = format!("FROM img:x${{{name}//\\//-}} AS t\n");
            assert!(
                build_with(&text, &options).asked[0].0.ends_with(&format!(":x{}", value.replace('/', "-"))),
                "{name}"
            );
        }
    }
    assert_eq!(
        build_with("FROM scratch AS t\nARG TARGETSTAGE\nLABEL l=$TARGETSTAGE\n", &options).label("l"),
        "t"
    );
    assert_eq!(value_of("FROM scratch\nARG TARGETSTAGE", "$TARGETSTAGE"), "default");
    assert_eq!(value_of("FROM scratch\nARG TARGETARCH=foo", "$TARGETARCH"), "foo");
    let given = with_args(&[("TARGETARCH", "mine")]);
    assert_eq!(
        build_with("FROM scratch\nARG TARGETARCH=foo\nLABEL l=$TARGETARCH\n", &given).label("l"),
        "mine"
    );
    assert_eq!(build_with("FROM scratch\nARG TARGETARCH\nLABEL l=$TARGETARCH\n", &given).label("l"), "mine");
}

/// a number, or a stage that cannot give the time. What fetched sources give is tested with the command.
#[test]
fn source_date_epoch() {
    let epoch =
        |text: &str, options: &LowerOptions| build_with(text, options).definition.image.source_date_epoch;
    assert_eq!(epoch("FROM scratch\n", &options()), None);
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=12\nFROM scratch\n", &options()), Some(12));
    assert_eq!(
        epoch("ARG SOURCE_DATE_EPOCH=12\nFROM scratch\n", &with_args(&[("SOURCE_DATE_EPOCH", "34")])),
        Some(34)
    );
    assert_eq!(epoch("FROM scratch\n", &with_args(&[("SOURCE_DATE_EPOCH", "34")])), Some(34));
    assert_eq!(epoch("FROM scratch\nARG SOURCE_DATE_EPOCH=12\n", &options()), None, "not in a stage");
    assert_eq!(epoch("ARG N=7\nARG SOURCE_DATE_EPOCH=1$N\nFROM scratch\n", &options()), Some(17));
    for (lines, message) in [
        ("FROM debian AS src\nADD https://h/a /", "must use FROM scratch"),
        ("FROM scratch AS src", "must contain exactly one remote ADD"),
        ("FROM scratch AS src\nADD https://h/a /\nADD https://h/b /", "must contain exactly one remote ADD"),
        ("FROM scratch AS src\nADD https://h/a https://h/b /", "must contain exactly one remote ADD source"),
        ("FROM scratch AS src\nADD local /", "source must be a single HTTP(S) or Git ADD"),
        (
            "FROM scratch AS src\nCOPY a /",
            "does not meet source-only requirements: unsupported COPY instruction",
        ),
    ] {
        let text = format!("ARG SOURCE_DATE_EPOCH=SRC\n{lines}\nFROM scratch\n");
        assert_eq!(refused(&text), format!("SOURCE_DATE_EPOCH stage {message}"), "{lines}");
    }
    let text =
        "ARG SOURCE_DATE_EPOCH=src U=h\nFROM scratch AS src\nARG F=a\nADD https://$U/$F /\nFROM scratch\n";
    assert_eq!(epoch(text, &options()), None, "what has no time leaves it unset");
    assert_eq!(epoch(text, &LowerOptions { epoch: Some(99), ..options() }), Some(99));
    assert_eq!(refused("ARG SOURCE_DATE_EPOCH=abc\nFROM scratch\n"), "invalid SOURCE_DATE_EPOCH: abc");
    let given = with_args(&[("SOURCE_DATE_EPOCH", "abc")]);
    assert_eq!(refused_with("FROM scratch\n", &given), "invalid SOURCE_DATE_EPOCH: abc");
    assert_eq!(scratch("ARG SOURCE_DATE_EPOCH\nLABEL l=<$SOURCE_DATE_EPOCH>").label("l"), "<>");
}

/// a stage sees the time that SOURCE_DATE_EPOCH means, not the name it was given by; what has no time is not set.
#[test]
fn the_epoch_by_name() {
    let text =
        "ARG SOURCE_DATE_EPOCH\nFROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL e=${SOURCE_DATE_EPOCH-unset}\n";
    let default = text.replacen("EPOCH\n", "EPOCH=context\n", 1);
    for (text, given, resolved, seen) in [
        (text, &[][..], None, "unset"),
        (text, &["context"], Some(7), "7"),
        (text, &["context"], None, "unset"),
        (text, &[""], None, "unset"),
        (text, &["+12"], None, "12"),
        (&default, &[], Some(7), "7"),
        (&default, &[], None, "unset"),
        (&default, &["5"], None, "5"),
        (&default, &[""], None, "unset"),
    ] {
        let args: Vec<_> = given.iter().map(|value| ("SOURCE_DATE_EPOCH", *value)).collect();
        let options = LowerOptions { epoch: resolved, ..with_args(&args) };
        assert_eq!(build_with(text, &options).label("e"), seen, "{given:?} {resolved:?}");
    }
    // The stage's own default counts where there is no time.
    let text = "FROM scratch\nARG SOURCE_DATE_EPOCH=5\nLABEL e=$SOURCE_DATE_EPOCH\n";
    assert_eq!(build_with(text, &with_args(&[("SOURCE_DATE_EPOCH", "context")])).label("e"), "5");
}
