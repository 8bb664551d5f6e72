//! A3: variables.

use crate::{build, options, refused, scratch, try_build, value_of};
use rbuild_ir::{CopySource, Op};
use serde_json::json;

const HEAD: &str = "FROM scratch\nENV v=val e=\nARG unset\nENV path=a/b/c.tar.gz two=\"x  y\"";

fn v(word: &str) -> String {
    value_of(HEAD, word)
}

/// Why a word cannot be expanded.
fn wrong(word: &str) -> String {
    refused(&format!("{HEAD}\nLABEL value={word}\n"))
}

///
#[test]
fn where_variables_are_expanded() {
    let built = build(
        "ARG G=debian P=linux/amd64
FROM --platform=$P $G
ENV a=1 b=two
ARG d=<$b>
ENV k$a=$b$d
LABEL l$a=$b
EXPOSE ${a}00/udp
STOPSIGNAL ${a}5
USER u$a:$b
VOLUME /$a /v$b
WORKDIR /w$a
COPY --chown=$a:$b --chmod=u=rw$x /s$a /d$b/
ADD --checksum=sha256:${a}23456789012345678901234567890123456789012345678901234567890123$a https://h/$b /$b
COPY --exclude=$a --parents <<E /$a/
<$b>
E
RUN --mount=type=cache,id=$b,target=/$a,sharing=${lock:-locked} $a $b
CMD $a
ENTRYPOINT [\"$a\"]
SHELL [\"$a\"]
HEALTHCHECK CMD $a
ONBUILD RUN $a
",
    );
    let config = built.config();
    assert_eq!(built.asked[0], ("docker.io/library/debian:latest".into(), "linux/amd64".into()));
    assert!(built.env().contains(&"k1=two<two>".to_owned()));
    assert_eq!(config["Labels"], json!({"l1": "two"}));
    assert_eq!(config["ExposedPorts"], json!({"100/udp": {}}));
    assert_eq!((&config["StopSignal"], &config["User"]), (&json!("15"), &json!("u1:two")));
    assert_eq!(config["Volumes"], json!({"/1": {}, "/vtwo": {}}));
    assert_eq!(config["WorkingDir"], "/w1");
    let copies: Vec<_> = built
        .definition
        .vertices
        .iter()
        .filter_map(|vertex| if let Op::Copy(copy) = &vertex.op { Some(copy) } else { None })
        .collect();
    assert_eq!((copies[0].chown.as_deref(), copies[0].chmod.as_deref()), (Some("1:two"), Some("u=rw")));
    assert!(matches!(&copies[0].sources[0], CopySource::Path { path, .. } if path == "/s1"));
    assert_eq!((copies[0].dest.as_str(), copies[1].dest.as_str()), ("/dtwo/", "/two"));
    assert!(built.definition.vertices.iter().any(|vertex| matches!(&vertex.op, Op::Http(_))));
    assert_eq!(copies[2].exclude, ["$a"], "not in --exclude");
    assert!(matches!(&copies[2].sources[0], CopySource::Inline { data, .. } if data == "<two>\n"));
    let exec = serde_json::to_value(built.exec()).unwrap();
    assert_eq!(exec["args"], json!(["/bin/sh", "-c", "$a $b"]), "not in RUN");
    let mount = exec["mounts"][0].to_string();
    assert!(
        mount.contains("\"/1\"") && mount.contains("\"two\"") && mount.to_lowercase().contains("locked"),
        "{mount}"
    );
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "$a"]));
    assert_eq!((&config["Entrypoint"], &config["Shell"]), (&json!(["$a"]), &json!(["$a"])));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD-SHELL", "$a"]));
    assert_eq!(config["OnBuild"], json!(["RUN $a"]));
    assert_eq!(scratch("ENV a=1\nMAINTAINER $a").document()["author"], "$a");
    assert!(refused("FROM scratch\nENV a=true\nCOPY --link=$a x /\n").starts_with("expecting boolean value"));
    assert!(
        refused("FROM scratch\nENV a=true\nCOPY --parents=$a x /\n").starts_with("expecting boolean value")
    );
    // FROM sees the global scope only.
    assert!(
        refused("FROM scratch\nARG X=debian\nFROM $X\n").starts_with("base name ($X) should not be blank")
    );
}

///
#[test]
fn names() {
    for (word, value) in [
        ("$v-${v}", "val-val"),
        ("$vx", ""),
        ("${v}x", "valx"),
        ("$v.x", "val.x"),
        ("$1a-$12", "a-"),
        ("<$@$*$#$?$-$$$!$0>", "<>"),
        ("${@}${0}", ""),
        ("$", "$"),
        ("a$.b", "a$.b"),
        ("$%$/$=", "$%$/$="),
        ("$()", "$()"),
    ] {
        assert_eq!(v(word), value, "{word}");
    }
    assert_eq!(value_of("FROM scratch\nENV größe=3 _a1=4", "$größe-$_a1-${größe}"), "3-4-3");
    assert_eq!(value_of("FROM scratch\nENV 1=x", "$1-${1}"), "x-x");
}

///
#[test]
fn defaults_and_alternatives() {
    for (word, value) in [
        ("${v:-w}|${e:-w}|${unset:-w}", "val|w|w"),
        ("${v-w}|${e-w}|${unset-w}", "val||w"),
        ("${v:+w}|${e:+w}|${unset:+w}", "w||"),
        ("${v+w}|${e+w}|${unset+w}", "w|w|"),
        ("${unset:-${e:-<$v>}}", "<val>"),
        ("\"${unset:-a b}\"", "a b"),
        ("${unset:-'$v'\"$v\"\\$v}", "$vval$v"),
        ("${unset:-\\}}", "}"),
        ("${unset-}", ""),
    ] {
        assert_eq!(v(word), value, "{word}");
    }
}

///
#[test]
fn required_values() {
    assert_eq!(v("${v:?no}${v?no}${e?no}"), "valval");
    for (word, reason) in [
        ("${unset:?my-message}", "unset: my-message"),
        ("${unset?my-message}", "unset: my-message"),
        ("${e:?my-message}", "e: my-message"),
        ("${unset:?}", "unset: is not allowed to be unset"),
        ("${unset?}", "unset: is not allowed to be unset"),
        ("${e:?}", "e: is not allowed to be empty"),
        ("${unset:?\"see $v\"}", "unset: see val"),
    ] {
        assert!(wrong(word).ends_with(&format!(": {reason}")), "{word}: {}", wrong(word));
    }
}

///
#[test]
fn patterns() {
    for (word, value) in [
        ("${path#*/}|${path##*/}|${path%.*}|${path%%.*}", "b/c.tar.gz|c.tar.gz|a/b/c.tar|a/b/c"),
        ("${path#a?}|${path#b}|${path%[z]}", "b/c.tar.gz|a/b/c.tar.gz|a/b/c.tar.gz"),
        ("${v/a/-}|${path/\\//-}|${path//\\//-}", "v-l|a-b/c.tar.gz|a-b-c.tar.gz"),
        ("${path/b*/X}|${path//?\\//X}|${v/none/x}", "a/X|XXc.tar.gz|val"),
        ("${v/#v/x}|${v/%l/x}|${v/a}", "val|val|vl"),
        ("${unset#x}|${unset/x/y}|${e%x}", "||"),
        ("${v//(a)/x}|${v/./x}", "val|val"),
        ("${v//a/<$1>}", "v<>l"),
    ] {
        if word.ends_with("${v/a}") {
            // Without a second `/` the word is not complete.
            assert_eq!(v("${v/#v/x}|${v/%l/x}"), "val|val");
            assert!(wrong("${v/a}").ends_with("syntax error: missing '/' in ${}"));
            continue;
        }
        assert_eq!(v(word), value, "{word}");
    }
    let stars = "FROM scratch\nENV s=a*b?c\\\\d}e";
    assert_eq!(
        value_of(stars, "${s/\\*/-}|${s/\\?/-}|${s#a\\*}|${s/\\}/-}"),
        "a-b?c\\d}e|a*b-c\\d}e|b?c\\d}e|a*b?c\\d-e"
    );
    assert_eq!(value_of(stars, "${s/\\\\/-}"), "a*b?c-d}e");
}

///
#[test]
fn malformed_substitutions() {
    for (word, reason) in [
        ("${v:x}", "unsupported modifier (:x) in substitution"),
        ("${v!}", "unsupported modifier (!) in substitution"),
        ("${}", "syntax error: bad substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${{v}}", "syntax error: bad substitution"),
        ("${v", "unsupported modifier (\u{fffd}) in substitution"),
        ("${", "syntax error: missing '}'"),
        ("${v:-x", "syntax error: missing '}'"),
    ] {
        assert_eq!(wrong(word), format!("failed to process \"{word}\": {reason}"), "{word}");
    }
}

///
#[test]
fn quotes_and_escapes() {
    for (word, value) in [
        ("'$v \\x \"'", "$v \\x \""),
        ("\"$v '${v}'\"", "val 'val'"),
        ("\"\\\" \\$v \\\\ \\n \\' \\x\"", "\" $v \\ \\n \\' \\x"),
        ("\\a\\\"\\'\\$v\\\\\\ b", "a\"'$v\\ b"),
        ("a'b'\"c\"d", "abcd"),
        ("''\"\"", ""),
    ] {
        assert_eq!(v(word), value, "{word}");
    }
    assert_eq!(scratch("USER a\\ ").config()["User"], "a");
    assert_eq!(scratch("USER a\\ b\\\\").config()["User"], "a b\\");
    for (word, quote) in [("\"a", "double"), ("'a", "single"), ("\"a'", "double"), ("a\"b\\\"", "double")] {
        let reason = format!("unexpected end of statement while looking for matching {quote}-quote");
        assert!(wrong(word).ends_with(&reason), "{word}: {}", wrong(word));
    }
}

///
#[test]
fn quotes_in_the_json_form() {
    assert!(refused("FROM scratch\nCOPY [\"a\\\"q\", \"/x\"]\n").ends_with("matching double-quote"));
    assert!(refused("FROM scratch\nADD [\"a\", \"/x'\"]\n").ends_with("matching single-quote"));
    let built = scratch("ENV V=v\nCOPY [\"'a b'\", \"\\\\$V$V\", \"/x\\\\ y/\"]");
    let Op::Copy(copy) = &built.definition.vertices.last().unwrap().op else { panic!("no copy") };
    let paths: Vec<_> = copy
        .sources
        .iter()
        .map(|source| if let CopySource::Path { path, .. } = source { path.as_str() } else { "" })
        .collect();
    assert_eq!((paths, copy.dest.as_str()), (vec!["/a b", "/$Vv"], "/x y/"));
}

///
#[test]
fn values_from_before_the_instruction() {
    assert_eq!(
        scratch("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc").env()[1..],
        ["abc=bye", "def=hello", "ghi=bye"]
    );
    assert_eq!(value_of("FROM scratch\nLABEL a=1 b=$a", "x").as_str(), "x");
    assert_eq!(scratch("ENV a=1 b=<$a>").env()[1..], ["a=1", "b=<>"]);
    assert_eq!(value_of("FROM scratch\nARG a=1 b=<$a> a=2 c=$a", "$a$b$c"), "2<1>2");
    let given = crate::with_args(&[("a", "given")]);
    let built = crate::build_with("FROM scratch\nARG a=1 b=<$a>\nLABEL l=$b\n", &given);
    assert_eq!(built.label("l"), "<given>");
}

///
#[test]
fn unset_variables() {
    let built = scratch("LABEL a=<$nothing> b=<${nothing}>");
    assert_eq!((built.label("a"), built.label("b")), (json!("<>"), json!("<>")));
    assert_eq!(built.rules(), [("UndefinedVar", 2); 2]);
    assert_eq!(scratch("ARG A\nLABEL a=$A").rules(), [], "declared ones are no mistake");
    let ports = scratch("ARG P=\"80 90/udp\" Q=\nEXPOSE $P $Q 70");
    assert_eq!(ports.config()["ExposedPorts"], json!({"70/tcp": {}, "80/tcp": {}, "90/udp": {}}));
    assert!(try_build("FROM scratch\nUSER $nothing\n", &options()).is_ok());
}

///
#[test]
fn names_of_steps() {
    let built = build(
        "FROM debian\nENV A=value\nARG TOKEN=t\nWORKDIR /w$A\nRUN  echo \"$A\"   '$A' $none \\$A\nCOPY $A \"$A\" $none /${A}\n\
         RUN --mount=type=secret,id=s,env=TOKEN use $TOKEN\n",
    );
    let names: Vec<&str> = built.steps().into_iter().skip(1).collect();
    assert_eq!(
        names,
        [
            "[stage-0 2/5] WORKDIR /wvalue",
            "[stage-0 3/5] RUN  echo \"value\"   '$A' $none $A",
            "[stage-0 4/5] COPY value value  /value",
            "[stage-0 5/5] RUN --mount=type=secret,id=s,env=TOKEN use ****",
        ]
    );
}
