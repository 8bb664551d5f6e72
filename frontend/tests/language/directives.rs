//! A2: parser directives.

use crate::{build, options, refused, scratch, try_build, value_of};
use rbuild_frontend::{detect_syntax, parse};

///
#[test]
fn directives_stand_at_the_very_top() {
    let directives = |text: &str| {
        let (file, _) = parse(text.as_bytes());
        let value = |word: Option<rbuild_frontend::ast::Word>| word.map_or("-".to_owned(), |word| word.value);
        format!(
            "{} {} {}",
            value(file.directives.syntax),
            file.directives.escape,
            value(file.directives.check)
        )
    };
    assert_eq!(directives("# syntax=a\n# escape=`\n# check=skip=all\nFROM x\n"), "a ` skip=all");
    assert_eq!(
        directives("#sYNtax=a\n  #\t ESCAPE \t=\t ` \t\n#Check = error=true \nFROM x\n"),
        "a ` error=true"
    );
    assert_eq!(directives("\u{feff}# escape=`\r\nFROM x\n"), "- ` -");
    for first in ["", "# comment", "#", "# unknown=1", "# a.b=1", "# 1a=1", "FROM y", "ARG A", "# escape"] {
        assert_eq!(directives(&format!("{first}\n# escape=`\nFROM x\n")), "- \\ -", "{first:?}");
    }
    // What follows a directive that ends the block is a comment, also a known key.
    assert_eq!(directives("# syntax=a\n# x=1\n# escape=`\nFROM x\n"), "a \\ -");
}

///
#[test]
fn directives_come_once() {
    for (key, value) in [("escape", "`"), ("syntax", "a"), ("check", "skip=all")] {
        let text = format!("# {key}={value}\n# {key}={value}\nFROM scratch\n");
        assert_eq!(refused(&text), format!("only one {key} parser directive can be used"));
    }
    assert_eq!(refused("# escape=`\n# Escape=`\nFROM x\n"), "only one escape parser directive can be used");
}

///
#[test]
fn the_escape_character() {
    assert_eq!(refused("# escape=x\nFROM y\n"), "invalid escape token 'x' does not match ` or \\");
    assert_eq!(refused("# escape=``\nFROM y\n"), "invalid escape token '``' does not match ` or \\");
    assert_eq!(scratch("ENV A=a\\ b").env()[1], "A=a b");
    assert_eq!(build("# escape=\\\nFROM scratch\nENV A=a\\ b\n").env()[1], "A=a b");
    let head = "# escape=`\nFROM scratch";
    assert_eq!(build(&format!("{head}\nENV A=1 `\n B=2\n")).env()[1..], ["A=1", "B=2"], "continuation");
    assert_eq!(build(&format!("{head}\nENV A=a` b B=c\\d\n")).env()[1..], ["A=a b", "B=c\\d"], "words");
    let (file, _) = parse(format!("{head}\nRUN --a=b` c d\\\n").as_bytes());
    assert_eq!(
        (file.nodes[1].flags[0].value.as_str(), file.nodes[1].args[0].value.as_str()),
        ("--a=b c", "d\\"),
        "flags"
    );
    assert_eq!(value_of(&format!("{head}\nENV V=v"), "`$V-\\$V-\"`$V\""), "$V-\\v-$V", "expansion");
    // Heredocs keep the backslash.
    let text = format!("{head}\nENV V=v\nCOPY <<E /f\n\\$V `$V $V\nE\n");
    let definition = serde_json::to_string(&build(&text).definition.vertices).unwrap();
    assert!(definition.contains("$V `v v\\n"), "{definition}");
    let (file, diagnostics) = parse(format!("{head}\nCOPY <<E\\ F /f\nE F\n").as_bytes());
    assert!(diagnostics.iter().all(|d| !d.is_error()), "{diagnostics:?}");
    assert_eq!(file.nodes[1].heredocs[0].name, "E F");
}

/// what rbuild makes of the frontend's name is tested with the command line.
#[test]
fn syntax_lines() {
    for (text, syntax) in [
        ("# syntax=docker/dockerfile:1\nFROM x\n", Some("docker/dockerfile:1")),
        ("#syntax = a b c \nFROM x\n", Some("a b c")),
        ("#!/bin/x\n# syntax=a\nFROM x\n", Some("a")),
        ("// syntax=a b\nFROM x\n", Some("a b")),
        ("{\"syntax\": \"a b\", \"x\": 1}", Some("a b")),
        ("# check=skip=all\n# syntax=a\nFROM x\n", Some("a")),
        ("# comment\n# syntax=a\nFROM x\n", None),
        ("\n# syntax=a\nFROM x\n", None),
    ] {
        assert_eq!(detect_syntax(text).as_deref(), syntax, "{text:?}");
    }
}

///
#[test]
fn checks_are_controlled() {
    let warned = |text: &str| {
        let built = try_build(text, &options());
        built
            .map(|built| built.rules().into_iter().map(|(rule, _)| rule.to_owned()).collect::<Vec<_>>())
            .map_err(|error| error.message)
    };
    let file = "FROM scratch AS A\nMAINTAINER me\n";
    assert_eq!(warned(file).unwrap(), ["StageNameCasing", "MaintainerDeprecated"]);
    assert_eq!(warned(&format!("# check=skip=MaintainerDeprecated\n{file}")).unwrap(), ["StageNameCasing"]);
    assert_eq!(
        warned(&format!("# check = skip = StageNameCasing , MaintainerDeprecated\n{file}")).unwrap(),
        [""; 0]
    );
    assert_eq!(warned(&format!("# check=skip=all\n{file}")).unwrap(), [""; 0]);
    let message = warned(&format!("# check=skip=StageNameCasing;error=true\n{file}")).unwrap_err();
    assert!(message.contains("MaintainerDeprecated") && !message.contains("StageNameCasing"), "{message}");
    assert!(warned(&format!("# check=error=false\n{file}")).is_ok());
    let platform = "FROM --platform=linux/amd64 scratch\n# check\n#key comment\nARG B\n";
    assert!(!warned(platform).unwrap().contains(&"InvalidDefinitionDescription".to_owned()));
    for wide in ["InvalidDefinitionDescription", "all"] {
        let text =
            format!("# check=skip=none;experimental={wide}\n# other\nFROM scratch AS b\n# nothing\nARG B\n");
        assert!(warned(&text).unwrap().contains(&"InvalidDefinitionDescription".to_owned()), "{wide}");
    }
    for (check, message) in [
        ("foo=bar", "failed to parse check options: invalid check option \"foo\""),
        ("skip", "failed to parse check options: invalid check option \"skip\""),
        // The third part takes the rest.
        (
            "skip=a;experimental=b;error=true;skip=c",
            "failed to parse check options: failed to parse check option \"error=true;skip=c\": strconv.ParseBool: \
             parsing \"true;skip=c\": invalid syntax",
        ),
    ] {
        assert_eq!(warned(&format!("# check={check}\n{file}")).unwrap_err(), message);
    }
    // The comment directly above an instruction speaks for this one only.
    let both = "FROM scratch AS A\n# check=skip=StageNameCasing\nFROM scratch AS B\n";
    assert_eq!(build(both).rules(), [("StageNameCasing", 1)]);
    let apart = "FROM scratch AS a\n# check=skip=MaintainerDeprecated\n#\nMAINTAINER me\n";
    assert_eq!(build(apart).rules(), [("MaintainerDeprecated", 4)], "a blank comment ends the block");
}
