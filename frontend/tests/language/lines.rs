//! A1: the file, its lines, comments, continuations, flags and the JSON form.

use crate::{build, options, refused, scratch, try_build, try_build_bytes};
use rbuild_frontend::ast::Node;
use rbuild_frontend::parse;
use serde_json::json;

/// Keyword, flags and words of every instruction.
fn nodes(text: &str) -> Vec<String> {
    let (file, diagnostics) = parse(text.as_bytes());
    assert!(!diagnostics.iter().any(|d| d.is_error()), "{text}: {diagnostics:?}");
    file.nodes.iter().map(shown).collect()
}

fn shown(node: &Node) -> String {
    let words: Vec<&str> = node.args.iter().map(|word| word.value.as_str()).collect();
    let flags: Vec<&str> = node.flags.iter().map(|word| word.value.as_str()).collect();
    format!("{} {flags:?} {words:?}", node.keyword.value)
}

/// The only instruction behind a FROM, whether its flags are known or not.
fn run(text: &str) -> String {
    let (file, _) = parse(format!("FROM x\n{text}").as_bytes());
    assert_eq!(file.nodes.len(), 2, "{text:?}");
    shown(&file.nodes[1])
}

/// A-002: what a user of BuildKit sees of bytes that are no UTF-8. Go's words and documents have U+FFFD for each of them;
/// a command with them cannot be sent to the solver; comments are never looked at.
#[test]
fn bytes_that_are_no_utf8() {
    let text = b"FROM scratch\n# caf\xe9\nENV a=\xe9 b=\xe2\x82x c=\"\xf0\x9f\x98\"\nLABEL caf\xe9=\xff\xfe\nMAINTAINER J\xe9\n\
                 RUN a \\\n# \xe9\n b $a\nCMD [\"\xe9\", \"\xc3\xa9\"]\n";
    let built = try_build_bytes(text, &options()).unwrap();
    assert_eq!(built.env()[1..], ["a=\u{fffd}", "b=\u{fffd}\u{fffd}x", "c=\u{fffd}\u{fffd}\u{fffd}"]);
    assert_eq!(built.label("caf\u{fffd}"), "\u{fffd}\u{fffd}");
    assert_eq!(built.document()["author"], "J\u{fffd}");
    assert_eq!(built.config()["Cmd"], json!(["\u{fffd}", "é"]));
    assert_eq!(built.exec().args[2], "a  b $a");
    assert_eq!(built.run_env("a"), Some("\u{fffd}"), "what reaches a command was a word before");
    for text in [
        &b"FROM x\nRUN echo \xe9\n"[..],
        b"FROM x\nRUN [\"\xe9\"]\n",
        b"FROM x\nRUN <<E\n\xe9\nE\n",
        b"FROM x\nRUN <<E\n#!/a\n\xe9\nE\n",
    ] {
        let error = try_build_bytes(text, &options()).err().unwrap();
        assert_eq!(
            (error.message.split(':').next(), error.lines.start),
            (Some("the command is not UTF-8"), 2)
        );
    }
    assert!(try_build("FROM x\nRUN echo \u{fffd}\n", &options()).is_ok(), "the character itself is text");
    // A file that is not expanded has the bytes themselves.
    let text = b"FROM scratch\n# \xff\xff\nCOPY <<a <<\"b\" <<-'c' /\nx\xe9 $y\na\n\t\xe2\x82 $y\nb\n\t\t\xe9\r\n\t\xe9\n\tc\n";
    let built = try_build_bytes(text, &options()).unwrap();
    let rbuild_ir::Op::Copy(copy) = &built.definition.vertices[0].op else { panic!("not COPY") };
    let files: Vec<&[u8]> = (copy.sources.iter())
        .map(|source| match source {
            rbuild_ir::CopySource::Inline { data, raw, .. } => raw.as_deref().unwrap_or(data.as_bytes()),
            rbuild_ir::CopySource::Path { .. } => panic!("a path"),
        })
        .collect();
    assert_eq!(files, ["x\u{fffd} \n".as_bytes(), b"\t\xe2\x82 $y\n", b"\xe9\r\n\xe9\n"]);
}

/// A-002
#[test]
fn encoding_and_line_ends() {
    let plain = nodes("FROM x\nRUN é\\\n  b\nCOPY a b\n");
    assert_eq!(plain, ["FROM [] [\"x\"]", "RUN [] [\"é  b\"]", "COPY [] [\"a\", \"b\"]"]);
    assert_eq!(
        nodes("\u{feff}FROM x\nRUN é\\\n  b\nCOPY a b"),
        plain,
        "a mark on the first line, no last line feed"
    );
    assert_eq!(nodes("FROM x\r\nRUN é\\\r\n  b\r\nCOPY a b\r\n"), plain, "CRLF");
    assert_eq!(nodes("FROM x\r\r\nRUN é\\\n  b\r\r\nCOPY a b\r"), plain, "any number of \\r");
    // The mark of a later line belongs to its text.
    assert_eq!(refused("FROM x\n\u{feff}RUN y\n"), "unknown instruction: \u{feff}RUN (did you mean RUN?)");
    let (file, _) = parse(b"FROM x\r\nCOPY <<E /f\r\none\r\n\r\ntwo\nE\r\nRUN z\r\n");
    assert_eq!(file.nodes[1].heredocs[0].content, "one\r\n\r\ntwo\n", "bodies keep their \\r");
    assert_eq!(file.nodes.len(), 3, "the end mark may have one");
}

/// A-003
#[test]
fn longest_line() {
    let of = |length: usize| format!("FROM x\nRUN {}\n", "a".repeat(length - "RUN ".len()));
    assert!(parse(of(65535).as_bytes()).1.is_empty());
    assert_eq!(refused(&of(65536)), "dockerfile line greater than max allowed size of 65535");
    let comment = format!("FROM x\n# {}\n", "a".repeat(70_000));
    assert_eq!(refused(&comment), "dockerfile line greater than max allowed size of 65535");
    // Joined lines may be longer.
    let joined = format!("FROM x\nRUN {}\\\n{}\n", "a".repeat(60_000), "b".repeat(60_000));
    assert!(parse(joined.as_bytes()).1.is_empty());
}

/// A-004
#[test]
fn files_without_a_stage() {
    for (text, message) in [
        ("", "the Dockerfile cannot be empty"),
        ("\n", "file with no instructions"),
        (" \t\r\n\n", "file with no instructions"),
        ("# only\n\n  # comments\n", "file with no instructions"),
        ("ARG A=1\nARG B\n", "dockerfile contains no stages to build"),
        ("RUN x\nFROM a\n", "no build stage in current context"),
        ("ARG A\nENV B=1\nFROM a\n", "no build stage in current context"),
    ] {
        assert_eq!(refused(text), message, "{text:?}");
    }
}

/// A-005
#[test]
fn keywords_and_blanks() {
    let want = ["fRoM [] [\"x\"]", "rUn [] [\"a  b\"]"];
    assert_eq!(nodes("fRoM x\nrUn a  b\n"), want);
    assert_eq!(nodes("  \t fRoM x\n \t# comment\n\t rUn a  b \t \n"), want, "blanks before and behind");
    for blanks in [" ", "\t", "\u{b}", "\u{c}", "\r", " \t\u{b}\u{c}\r "] {
        assert_eq!(nodes(&format!("fRoM{blanks}x\nrUn{blanks}a  b{blanks}\n")), want, "{blanks:?}");
    }
    // Any other blank is part of the keyword.
    assert!(refused("FROM x\nRUN\u{a0}y\n").starts_with("unknown instruction: RUN\u{a0}"));
    assert_eq!(build("from scratch\nenv A=1\n").env()[1], "A=1");
}

/// A-006
#[test]
fn comments() {
    assert_eq!(run("RUN a \\\n# gone\n  # gone too \\\n b\n"), "RUN [] [\"a  b\"]");
    assert_eq!(run("RUN a # b\n"), "RUN [] [\"a # b\"]", "no comment inside a line");
    assert_eq!(run("RUN a\\\n b # c\n"), "RUN [] [\"a b # c\"]");
    // A comment takes no continuation character: the next line is an instruction of its own.
    assert_eq!(nodes("FROM x\n# a \\\nRUN b\n").len(), 2);
    let (file, _) = parse(b"FROM x\nRUN <<E\n# kept\n  # too\nE\n");
    assert_eq!(file.nodes[1].heredocs[0].content, "# kept\n  # too\n");
}

/// A-007
#[test]
fn continuations() {
    for text in ["RUN a\\\nb\n", "RUN a\\ \t \nb\n"] {
        assert_eq!(run(text), "RUN [] [\"ab\"]", "{text:?}");
    }
    assert_eq!(run("RUN a \\\n\\\nb\n"), "RUN [] [\"a b\"]", "a line with nothing else");
    // The character before it must not be an escape character, so no number of them above one continues.
    for marks in ["\\\\", "\\\\\\", "\\\\\\\\"] {
        let found = nodes(&format!("FROM x\nRUN a{marks}\nRUN b\n"));
        assert_eq!(found.len(), 3, "{marks}");
    }
    assert_eq!(nodes("FROM x\nRUN a\\ b\nRUN c\n").len(), 3, "not the last character");
    assert_eq!(nodes("# escape=`\nFROM x\nRUN a`\nb\nRUN c\\\nRUN d\n").len(), 4);
}

/// A-008
#[test]
fn joined_lines() {
    assert_eq!(run("   RUN a\\ \t\n   b \\\n\tc\n"), "RUN [] [\"a   b \\tc\"]");
    assert_eq!(run("RU\\\nN a\n"), "RUN [] [\"a\"]", "also within a word");
}

/// A-009
#[test]
fn blank_lines_in_continuations() {
    let built = build("FROM scratch\nENV A=1 \\\n\n  \t\n  B=2\n");
    assert_eq!(built.env()[1..], ["A=1", "B=2"]);
    assert_eq!(built.rules(), [("NoEmptyContinuation", 5)]);
    assert_eq!(build("FROM scratch\nENV A=1 \\\n").env()[1], "A=1");
    assert_eq!(build("FROM scratch\nENV A=1 \\").env()[1], "A=1");
}

/// A-010
#[test]
fn a_lone_continuation_is_nothing() {
    assert_eq!(nodes("\\\nFROM x\n"), ["FROM [] [\"x\"]"]);
    assert_eq!(nodes("FROM x\n  \\  \nRUN a\n"), ["FROM [] [\"x\"]", "RUN [] [\"a\"]"]);
}

/// A-011
#[test]
fn flags_are_taken_off() {
    assert_eq!(run("RUN --a=b --c d --e\n"), "RUN [\"--a=b\", \"--c\"] [\"d --e\"]");
    assert_eq!(
        run("RUN --a='b c' --d=\"e f\" --g=h\\ i x\n"),
        "RUN [\"--a=b c\", \"--d=e f\", \"--g=h i\"] [\"x\"]"
    );
    assert_eq!(run("RUN --a=\"b\\\"c\" x\n"), "RUN [\"--a=b\\\"c\"] [\"x\"]");
    assert_eq!(run("RUN -- --foo\n"), "RUN [] [\"--foo\"]");
    assert_eq!(run("COPY --link -- -dash /x\n"), "COPY [\"--link\"] [\"-dash\", \"/x\"]");
    for line in [
        "CMD --foo bar",
        "ENTRYPOINT --foo",
        "ENV --foo=1 A=b",
        "LABEL --foo a=b",
        "USER --foo x",
        "WORKDIR --foo /",
        "VOLUME --foo /v",
        "EXPOSE --foo 80",
        "SHELL --foo [\"a\"]",
        "MAINTAINER --foo me",
        "HEALTHCHECK --foo CMD x",
        "ONBUILD --foo RUN x",
        "RUN --foo x",
        "COPY --foo a b",
        "ADD --foo a b",
    ] {
        let message = refused(&format!("FROM x\n{}\n", line.replace("--foo", "--nothing")));
        assert_eq!(message, "unknown flag: --nothing", "{line}");
    }
    assert_eq!(refused("FROM --foo x\n"), "unknown flag: --foo");
    // BuildKit takes the flags of these off without a look at them.
    let built = build("FROM x\nSTOPSIGNAL --foo 9\nARG --foo A=1\nLABEL a=$A\n");
    assert_eq!((&built.config()["StopSignal"], built.label("a")), (&json!("9"), json!("1")));
    assert_eq!(build("FROM x\nCMD -- --foo\n").config()["Cmd"], json!(["/bin/sh", "-c", "--foo"]));
}

/// A-012
#[test]
fn flag_values() {
    for line in ["COPY --link a /", "COPY --link=true a /", "COPY --link=FALSE a /", "COPY --link=True a /"] {
        assert!(try_build(&format!("FROM x\n{line}\n"), &options()).is_ok(), "{line}");
    }
    for (line, message) in [
        ("COPY --link= a /", "missing a value on flag: --link"),
        ("COPY --link=1 a /", "expecting boolean value for flag --link, not: 1"),
        ("COPY --chown a /", "missing a value on flag: --chown"),
        ("RUN --network x", "missing a value on flag: --network"),
        ("RUN --mount x", "missing a value on flag: --mount"),
        ("RUN --network=none --network=none x", "duplicate flag specified: --network"),
        ("COPY --link --link a /", "duplicate flag specified: --link"),
        ("COPY --chown=1 --chown=1 a /", "duplicate flag specified: --chown"),
        ("COPY --LINK a /", "unknown flag: --LINK"),
        ("HEALTHCHECK --retries=1 --retries=2 CMD x", "duplicate flag specified: --retries"),
    ] {
        assert_eq!(refused(&format!("FROM x\n{line}\n")), message, "{line}");
    }
    assert_eq!(refused("FROM --platform x\n"), "missing a value on flag: --platform");
    let repeated =
        "RUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b x\nCOPY --exclude=a --exclude=b . /\n";
    assert_eq!(build(&format!("FROM x\n{repeated}")).exec().mounts.len(), 2);
    let (file, diagnostics) = parse(b"FROM x\nRUN --device=a --device=b x\n");
    assert!(diagnostics.is_empty() && file.nodes[1].flags.len() == 2);
}

/// A-013
#[test]
fn json_form() {
    let cmd = |line: &str| build(&format!("FROM x\n{line}\n")).config()["Cmd"].clone();
    assert_eq!(cmd("CMD [\"a\", \"b c\"]"), json!(["a", "b c"]));
    assert_eq!(cmd("CMD   [ \"a\"\t,\"b\\u0041\\n\" ]  "), json!(["a", "bA\n"]));
    for text in ["['a']", "[\"a\",]", "[\"a\"] b", "[a]", "[\"a\"", "[\"a\" \"b\"]", "[\"\\x\"]"] {
        assert_eq!(cmd(&format!("CMD {text}")), json!(["/bin/sh", "-c", text]), "{text}");
    }
    for text in ["[1]", "[\"a\", null]", "[\"a\", [\"b\"]]", "[{}]", "[true]"] {
        for keyword in ["CMD", "RUN", "ENTRYPOINT", "SHELL", "VOLUME", "COPY", "ADD", "HEALTHCHECK CMD"] {
            let message = refused(&format!("FROM x\n{keyword} {text}\n"));
            let want = "when using JSON array syntax, arrays must be comprised of strings only";
            assert_eq!(message, want, "{keyword} {text}");
        }
    }
}

/// A-014
#[test]
fn who_takes_the_json_form() {
    for (line, words) in [
        ("ADD [\"a b\", \"/c\"]", "[\"a b\", \"/c\"]"),
        ("COPY [\"a b\", \"/c\"]", "[\"a b\", \"/c\"]"),
        ("CMD [\"a b\"]", "[\"a b\"]"),
        ("ENTRYPOINT [\"a b\"]", "[\"a b\"]"),
        ("RUN [\"a b\"]", "[\"a b\"]"),
        ("SHELL [\"a b\"]", "[\"a b\"]"),
        ("VOLUME [\"a b\"]", "[\"a b\"]"),
        ("HEALTHCHECK CMD [\"a b\"]", "[\"CMD\", \"a b\"]"),
        // No JSON for the others, and no grouping by quotes.
        ("COPY \"a b\" '/c d'", "[\"\\\"a\", \"b\\\"\", \"'/c\", \"d'\"]"),
        ("ADD 'a b' /c", "[\"'a\", \"b'\", \"/c\"]"),
        ("VOLUME \"/a b\"", "[\"\\\"/a\", \"b\\\"\"]"),
        ("EXPOSE [\"80\"] 'a b'", "[\"[\\\"80\\\"]\", \"'a\", \"b'\"]"),
        ("WORKDIR [\"/a\"]", "[\"[\\\"/a\\\"]\"]"),
        ("USER [\"a\"]", "[\"[\\\"a\\\"]\"]"),
        ("STOPSIGNAL [\"9\"]", "[\"[\\\"9\\\"]\"]"),
    ] {
        let keyword = line.split(' ').next().unwrap();
        assert_eq!(run(&format!("{line}\n")), format!("{keyword} [] {words}"), "{line}");
    }
    assert_eq!(refused("FROM \"a b\"\n"), "FROM requires either one or three arguments");
    assert_eq!(refused("FROM x\nSHELL bash -c\n"), "SHELL requires the arguments to be in JSON form");
    assert_eq!(scratch("VOLUME [\"/a b\"]").config()["Volumes"], json!({"/a b": {}}));
}

/// A-015
#[test]
fn what_the_tree_keeps() {
    let text = "#escape=`\n# lost\n\n# one\n#  two \nFROM x\n# reset\n#\n# three\n  COPY --link `\n\n  <<E /f\nbody\nE\n";
    let (file, diagnostics) = parse(text.as_bytes());
    assert!(!diagnostics.iter().any(|d| d.is_error()));
    let [from, copy] = file.nodes.as_slice() else { panic!("two nodes") };
    assert_eq!(file.directives.escape, '`');
    assert_eq!((from.lines.start, from.lines.end, from.original.as_str()), (6, 6, "FROM x"));
    assert_eq!((copy.lines.start, copy.lines.end), (10, 14));
    assert_eq!(copy.original, "COPY --link   <<E /f");
    assert_eq!(copy.flags[0].value, "--link");
    assert_eq!((copy.heredocs[0].name.as_str(), copy.heredocs[0].content.as_str()), ("E", "body\n"));
    assert_eq!(copy.empty_continuations, [11]);
    // Blank lines do not reset a comment block, blank comments do.
    assert_eq!(from.prev_comments, ["lost", "one", "two"]);
    assert_eq!(copy.prev_comments, ["three"]);
}
