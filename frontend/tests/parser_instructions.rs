//! Typed instructions: what of a line ends up in which field.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use proptest::prelude::*;
use rbuild_frontend::ast::*;
use rbuild_frontend::mount::{MountSpec, MountType, Sharing};
use rbuild_frontend::{csv, detect_syntax, parse};

/// The only instruction behind a FROM.
fn one(line: &str) -> InstructionKind {
    let text = format!("FROM busybox\n{line}\n");
    let (mut file, diagnostics) = parse(text.as_bytes());
    assert_eq!(diagnostics, [], "{line}");
    assert_eq!(file.stages[0].commands.len(), 1, "{line}");
    file.stages[0].commands.remove(0).kind
}

/// The message that an instruction is refused with.
fn refused(line: &str) -> String {
    let (_, diagnostics) = parse(format!("FROM busybox\n{line}\n").as_bytes());
    diagnostics[0].message.clone()
}

fn values(words: &[Word]) -> Vec<&str> {
    words.iter().map(Word::as_str).collect()
}

#[test]
fn from_and_stages() {
    let text = "ARG A\nFROM --platform=linux/$A img:$A aS Base\nRUN x\nFROM base\nARG B=1 C\n";
    let (file, diagnostics) = parse(text.as_bytes());
    assert_eq!(diagnostics, []);
    let [first, second] = file.stages.as_slice() else { panic!("two stages") };
    assert_eq!(file.meta_args.len(), 1);
    assert_eq!(first.name.as_deref(), Some("base"));
    assert_eq!(first.from.name.as_ref().unwrap().value, "Base");
    assert_eq!(first.from.as_keyword.as_ref().unwrap().value, "aS");
    assert_eq!(first.from.platform.as_ref().unwrap().value, "linux/$A");
    assert_eq!(first.from.image.value, "img:$A");
    assert_eq!((first.lines, second.lines), (LineRange::new(2, 3), LineRange::new(4, 5)));
    assert_eq!((second.name.as_deref(), &second.from.platform), (None, &None));
    assert_eq!(refused("FROM a b c d"), "FROM requires either one or three arguments");
    assert_eq!(refused("FROM a with c"), "FROM requires either one or three arguments");
}

#[test]
fn run_flags() {
    let InstructionKind::Run(run) =
        one("RUN --network=none --mount=type=tmpfs,target=/a --security=insecure \
         --device=vendor.com/gpu=all,required --device=name=x --mount=target=$B echo  hi")
    else {
        panic!("not RUN")
    };
    assert_eq!((run.network, run.security), (NetworkMode::None, SecurityMode::Insecure));
    assert_eq!(values(&run.mounts), ["type=tmpfs,target=/a", "target=$B"]);
    assert_eq!(values(&run.command.args), ["echo  hi"]);
    assert!(run.command.prepend_shell);
    let device = |name: &str, required| Device { name: name.to_owned(), required };
    assert_eq!(run.devices, [device("vendor.com/gpu=all", true), device("x", false)]);
    assert_eq!(run.flags_used, ["network", "mount", "security", "device", "device", "mount"]);
    let InstructionKind::Run(run) = one("RUN [\"a\", \"b c\"]") else { panic!("not RUN") };
    assert_eq!((values(&run.command.args), run.command.prepend_shell), (vec!["a", "b c"], false));
    assert_eq!(refused("RUN --network= x"), "invalid network mode \"\"");
    assert_eq!(refused("RUN --security=no x"), "security \"no\" is not valid");
    assert_eq!(refused("RUN --device=a,nme=b x"), "unexpected key 'nme' in 'nme=b' (did you mean name?)");
}

#[test]
fn copy_and_add() {
    let InstructionKind::Copy(copy) = one("COPY --from=0 --link --parents=false --exclude=a --exclude=b \
         --chown=$U --chmod=u=rwX x <<-'E' y 'z /d'\nb\n\tE")
    else {
        panic!("not COPY")
    };
    assert_eq!(values(&copy.paths.sources), ["x", "y", "'z"]);
    assert_eq!(copy.paths.dest.value, "/d'");
    let content = &copy.paths.contents[0];
    assert_eq!((content.path.as_str(), content.data.as_str(), content.expand), ("E", "b\n", false));
    assert_eq!((copy.link, copy.parents), (true, false));
    assert_eq!(values(&copy.excludes), ["a", "b"]);
    assert_eq!(copy.from.unwrap().value, "0");
    assert_eq!((copy.chown.unwrap().value, copy.chmod.unwrap().value), ("$U".into(), "u=rwX".into()));

    let InstructionKind::Add(add) = one("ADD --keep-git-dir --unpack=FALSE --checksum=$C --chown= a b")
    else {
        panic!("not ADD")
    };
    assert_eq!((add.keep_git_dir, add.unpack, add.link), (Some(true), Some(false), false));
    assert_eq!((add.checksum.unwrap().value, add.chown), ("$C".into(), None));
    assert_eq!(refused("ADD --from=a b c"), "unknown flag: --from");
}

#[test]
fn heredoc_bodies_lose_tabs_only_on_request() {
    for (mark, want) in [("<<E", "\t\ta\n\t b\n"), ("<<-E", "a\n b\n")] {
        let InstructionKind::Run(run) = one(&format!("RUN {mark}\n\t\ta\n\t b\nE")) else {
            panic!("not RUN")
        };
        assert_eq!(run.heredocs[0].body(), want);
    }
}

#[test]
fn pairs() {
    let InstructionKind::Env(env) = one("ENV A=1 \"B C\"='d e' F=") else { panic!("not ENV") };
    let pair = |pair: &KeyValue| (pair.key.value.clone(), pair.value.value.clone(), pair.no_delim);
    let want = [("A", "1", false), ("\"B C\"", "'d e'", false), ("F", "", false)];
    assert_eq!(env.iter().map(pair).collect::<Vec<_>>(), want.map(|(k, v, d)| (k.into(), v.into(), d)));
    let InstructionKind::Label(label) = one("LABEL a  b c") else { panic!("not LABEL") };
    assert_eq!(pair(&label[0]), ("a".into(), "b c".into(), true));
    let InstructionKind::Arg(arg) = one("ARG A B=\"x y\" C=") else { panic!("not ARG") };
    let pair =
        |pair: &ArgPair| (pair.name.value.clone(), pair.default.as_ref().map(|word| word.value.clone()));
    let want = [("A".into(), None), ("B".into(), Some("\"x y\"".into())), ("C".into(), Some(String::new()))];
    assert_eq!(arg.pairs.iter().map(pair).collect::<Vec<_>>(), want);
    assert_eq!(refused("ARG =x"), "ARG names can not be blank");
    assert_eq!(refused("ENV =x"), "ENV names can not be blank");
    assert_eq!(refused("LABEL"), "LABEL requires at least one argument");
    assert_eq!(refused("ARG"), "ARG requires at least one argument");
}

#[test]
fn config_instructions() {
    let want = Healthcheck {
        test: vec!["CMD-SHELL".into(), "curl  x".into()],
        interval: 90_000_000_000,
        timeout: 1_000_000,
        retries: 4,
        ..Healthcheck::default()
    };
    let line = "HEALTHCHECK --interval=1m30s --timeout=1ms --retries=4 --start-period=0 cmd curl  x";
    assert_eq!(one(line), InstructionKind::Healthcheck(want));
    let InstructionKind::Healthcheck(none) = one("HEALTHCHECK none") else { panic!("not HEALTHCHECK") };
    assert_eq!(none.test, ["NONE"]);
    let InstructionKind::Workdir(path) = one("WORKDIR /a b") else { panic!("not WORKDIR") };
    assert_eq!(path.value, "/a b");
    let InstructionKind::Expose(ports) = one("EXPOSE 90 80/udp $P") else { panic!("not EXPOSE") };
    assert_eq!(values(&ports), ["$P", "80/udp", "90"]);
    let InstructionKind::Volume(volumes) = one("VOLUME [\" /a \", \"/b\"]") else { panic!("not VOLUME") };
    assert_eq!(values(&volumes), ["/a", "/b"]);
    let InstructionKind::Shell(shell) = one("SHELL [\"bash\", \"-c\"]") else { panic!("not SHELL") };
    assert_eq!(values(&shell), ["bash", "-c"]);
    for (line, message) in [
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK foo x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --retries=x CMD y", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "HEALTHCHECK --retries=9999999999 CMD y",
            "strconv.ParseInt: parsing \"9999999999\": value out of range",
        ),
        ("SHELL []", "SHELL requires at least one argument"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD onbuild RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD maintainer x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
    ] {
        assert_eq!(refused(line), message, "{line}");
    }
}

#[test]
fn mounts_expand_values_but_not_keys() {
    let expand = |value: &str| match value {
        "$bad" => Err("no such variable".to_owned()),
        value => Ok(value.replace("$X", "9").replace("$T", "cache")),
    };
    let spec = MountSpec::parse("type=$T,target=/$X,uid=$X,sharing=LOCKED,mode=0$X", expand);
    assert_eq!(spec.unwrap_err().to_string(), "invalid value 09 for mode");
    let spec = MountSpec::parse("type=$T,target=/$X,uid=$X,sharing=LOCKED", expand).unwrap();
    assert_eq!((spec.kind, spec.sharing, spec.uid), (MountType::Cache, Some(Sharing::Locked), Some(9)));
    assert_eq!((spec.target.as_str(), spec.read_only), ("/9", false));
    assert_eq!(MountSpec::parse("target=$bad", expand).unwrap_err().to_string(), "no such variable");
}

#[test]
fn directives_and_syntax() {
    let (file, _) = parse(b"#syntax = a/b:1 x=y \n# Check=skip=all\n#escape=`\nFROM x\n");
    let directive = |word: Option<Word>| word.map(|word| word.value);
    assert_eq!(directive(file.directives.syntax).as_deref(), Some("a/b:1 x=y"));
    assert_eq!(directive(file.directives.check).as_deref(), Some("skip=all"));
    assert_eq!(file.directives.escape, '`');
    for text in ["\n# escape=`\nFROM x", "# foo=bar\n# escape=`\nFROM x", "FROM x\n# escape=`\n"] {
        assert_eq!(parse(text.as_bytes()).0.directives, Directives::default(), "{text}");
    }
    for (text, syntax) in [
        ("# syntax=a\n", Some("a")),
        ("#!/usr/bin/x\n# syntax=a\n", Some("a")),
        ("\u{feff}# syntax = a b\r\n", Some("a b")),
        ("// syntax=c\nx", Some("c")),
        ("{\"syntax\": \"j\"}", Some("j")),
        ("# escape=`\n# syntax=a\n", Some("a")),
        ("FROM x\n# syntax=a\n", None),
        ("", None),
    ] {
        assert_eq!(detect_syntax(text).as_deref(), syntax, "{text:?}");
    }
}

proptest! {
    /// serde_json writes it, we read it.
    #[test]
    fn exec_forms_read_what_was_written(args in prop::collection::vec("[^\n]{0,8}", 0..5)) {
        let line = format!("RUN {}", serde_json::to_string(&args).unwrap());
        // A line that ends in a continuation cannot happen: it ends in a bracket.
        let InstructionKind::Run(run) = one(&line) else { panic!("not RUN") };
        prop_assert_eq!(values(&run.command.args), args.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert!(!run.command.prepend_shell);
    }

    #[test]
    fn csv_fields_read_what_was_written(fields in prop::collection::vec("[a,\"= é]{1,6}", 1..5)) {
        let quoted: Vec<String> =
            fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        prop_assert_eq!(csv::fields(&quoted.join(",")), Ok(fields));
    }

    /// Cutting a line with continuations anywhere outside the keyword changes nothing but lines and places.
    #[test]
    fn continuations_are_invisible(text in "[a-z \"'=$<-]{1,20}", at in 0usize..20) {
        let at = at.min(text.len());
        let whole = format!("FROM x\nLABEL k={text}.\n");
        let cut = format!("FROM x\nLABEL k={}\\\n# comment\n{}.\n", &text[..at], &text[at..]);
        let words = |text: &str| {
            let (file, diagnostics) = parse(text.as_bytes());
            let args = file.nodes.get(1).map(|node| node.args.iter().map(|word| word.value.clone()).collect::<Vec<_>>());
            (args, diagnostics.first().map(|diagnostic| diagnostic.message.clone()))
        };
        prop_assert_eq!(words(&whole), words(&cut));
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,40}|([A-Z]{3,6} )?[\\[\\]{}\"'\\\\$<>=a\n\t -]{0,60}") {
        let (file, diagnostics) = parse(text.as_bytes());
        prop_assert!(!file.stages.is_empty() || !file.meta_args.is_empty() || !diagnostics.is_empty());
    }
}
