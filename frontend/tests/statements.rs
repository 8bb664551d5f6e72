//! Statements of the specification about single instructions, by number: what they become, and what they are refused with.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rbuild_frontend::{
    Diagnostic, ImageRequest, LowerOptions, NamedContext, ResolveError, ResolvedImage, Resolver, lower, parse,
};
use rbuild_ir::{
    CopyOp, CopySource, Definition, ExecOp, Mount, MountKind, NetworkMode, Op, Sharing, Source, Unpack,
};
use rbuild_oci::{Digest, ImageConfig, Platform};
use serde_json::{Value, json};

/// Every image is the same, but one has triggers.
struct Images;

impl Resolver for Images {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let mut config = json!({"Env": ["PATH=/bin"]});
        if request.reference.contains("/onbuild") {
            config["OnBuild"] = json!(["ARG A=1", "RUN from image $A"]);
        }
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest::of("layer")]},
        });
        let config: ImageConfig = serde_json::from_value(document).unwrap();
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config })
    }
}

fn options() -> LowerOptions {
    LowerOptions { build_platform: Platform::linux("amd64"), ..LowerOptions::default() }
}

fn lowered_with(text: &str, options: &LowerOptions) -> Result<Definition, Vec<Diagnostic>> {
    let (file, mut diagnostics) = parse(text.as_bytes());
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let (definition, more) = lower(&file, options, &Images);
    diagnostics.extend(more);
    definition.ok_or(diagnostics)
}

/// `FROM debian` and `lines`.
#[track_caller]
fn lowered(lines: &str) -> Definition {
    lowered_with(&format!("FROM debian\n{lines}\n"), &options()).unwrap()
}

/// Why `FROM debian` and `lines` is refused.
#[track_caller]
fn refused(lines: &str) -> String {
    let text = format!("FROM debian\n{lines}\n");
    let diagnostics = lowered_with(&text, &options()).expect_err(&text);
    let message = diagnostics.iter().find(|diagnostic| diagnostic.is_error()).unwrap().full_message();
    message.strip_prefix("dockerfile parse error on line 2: ").unwrap_or(&message).to_owned()
}

fn config(lines: &str) -> Value {
    serde_json::to_value(lowered(lines).image.config).unwrap()["config"].clone()
}

fn last(definition: &Definition) -> &Op {
    &definition.vertices.last().unwrap().op
}

#[track_caller]
fn exec(lines: &str) -> ExecOp {
    match last(&lowered(lines)) {
        Op::Exec(exec) => exec.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn copy(lines: &str) -> CopyOp {
    match last(&lowered(lines)) {
        Op::Copy(copy) => copy.clone(),
        other => panic!("{other:?}"),
    }
}

fn created_by(lines: &str) -> String {
    lowered(lines).image.history.last().unwrap().created_by.clone()
}

fn step(lines: &str) -> String {
    lowered(lines).vertices.last().unwrap().name.clone()
}

/// protocols, ranges, order, host parts and limits.
#[test]
fn a_071_expose() {
    let ports = |words: &str| -> Vec<String> {
        let config = config(&format!("EXPOSE {words}"));
        config["ExposedPorts"].as_object().unwrap().keys().cloned().collect()
    };
    for (words, expected) in [
        ("80", &["80/tcp"][..]),
        ("80/TCP 81/Udp 82/sctp", &["80/tcp", "81/udp", "82/sctp"]),
        ("7-9/udp", &["7/udp", "8/udp", "9/udp"]),
        ("0 65535", &["0/tcp", "65535/tcp"]),
        ("8080:80", &["80/tcp"]),
        ("127.0.0.1:8080:80/udp", &["80/udp"]),
    ] {
        assert_eq!(ports(words), expected, "{words}");
    }
    assert_eq!(created_by("ARG P=70\nEXPOSE 90 $P 80/udp"), "EXPOSE [70/tcp 80/udp 90/tcp]");
    for (words, message) in [
        ("foo", "invalid containerPort: foo"),
        ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
        ("65536", "invalid containerPort: 65536"),
        ("9-7", "invalid containerPort: 9-7"),
    ] {
        assert!(
            refused(&format!("EXPOSE {words}")).contains(message),
            "{words}: {}",
            refused(&format!("EXPOSE {words}"))
        );
    }
}

///
#[test]
fn a_072_stopsignal() {
    for signal in ["SIGTERM", "term", "Kill", "sigusr1", "1", "64", "RTMIN+3", "SIGRTMAX-1", "9"] {
        assert_eq!(config(&format!("STOPSIGNAL {signal}"))["StopSignal"], signal);
    }
    for signal in ["foo", "0", "1.5", "SIG", "RTMIN+99"] {
        assert!(
            refused(&format!("STOPSIGNAL {signal}")).contains(&format!("invalid signal: {signal}")),
            "{signal}"
        );
    }
    assert_eq!(config("ARG S=hup\nSTOPSIGNAL $S")["StopSignal"], "hup");
}

/// which words the process gets.
#[test]
fn a_073_forms_of_run() {
    let args = |lines: &str| exec(lines).args;
    let shell = |text: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()];
    assert_eq!(args("RUN echo   'a  b' \t$x"), shell("echo   'a  b' \t$x"));
    assert_eq!(args("RUN a \\\n    && b \\\n# comment\n\n  # another\n    c"), shell("a     && b     c"));
    assert_eq!(args("RUN [\"a\", \"b  c\", \"$x\"]"), ["a", "b  c", "$x"]);
    assert_eq!(args("RUN [\"a\", 'b']"), shell("[\"a\", 'b']"));
    assert_eq!(args("SHELL [\"bash\", \"-euc\"]\nRUN x  y"), ["bash", "-euc", "x  y"]);
    assert_eq!(args("SHELL [\"bash\", \"-euc\"]\nRUN [\"x\"]"), ["x"]);
}

///
#[test]
fn a_074_empty_runs() {
    assert_eq!(refused("RUN []"), "arguments are required");
    assert_eq!(exec("RUN").args, ["/bin/sh", "-c", ""]);
}

fn mounts(values: &str) -> Vec<Mount> {
    exec(&format!("WORKDIR /work\nARG T=/arg X=4\nENV E=/env\nRUN {values} x")).mounts
}

fn one_mount(value: &str) -> Mount {
    mounts(&format!("--mount={value}")).remove(0)
}

#[track_caller]
fn mount_refused(cases: &[(&str, &str)]) {
    for (value, message) in cases {
        let found = refused(&format!("RUN --mount={value} x"));
        assert!(found.contains(message), "{value}: {found}");
    }
}

/// fields, quotes, variables and what is refused.
#[test]
fn a_082_mount_fields() {
    let targets = |values: &str| mounts(values).into_iter().map(|mount| mount.target).collect::<Vec<_>>();
    assert_eq!(targets("--mount=type=tmpfs,target=/a --mount=TYPE=tmpfs,Target=/b"), ["/a", "/b"]);
    assert_eq!(targets("--mount='type=tmpfs,\"target=/a,b\"'"), ["/a,b"]);
    assert_eq!(targets("--mount=type=tmpfs,target=$T --mount=type=tmpfs,target=${E}/x"), ["/arg", "/env/x"]);
    mount_refused(&[
        ("", "failed to parse csv mounts: EOF"),
        ("type=cache,target", "invalid field 'target' must be a key=value pair"),
        ("type=cache,taget=/x", "unexpected key 'taget' in 'taget=/x' (did you mean target?)"),
        ("type=cach,target=/x", "unsupported mount type \"cach\" (did you mean cache?)"),
        ("type=cache,target=/", "invalid mount target \"/\""),
        ("type=bind,target=/x,from=$T", "'from' doesn't support variable expansion"),
    ]);
}

/// names of the common keys, and their defaults.
#[test]
fn a_083_common_keys() {
    for target in ["target", "dst", "destination"] {
        let mount = one_mount(&format!("{target}=/x"));
        assert!(
            matches!(&mount.kind, MountKind::Bind { from: Source::Context(name), .. } if name == "context"),
            "{mount:?}"
        );
        assert_eq!((mount.target.as_str(), mount.readonly), ("/x", true));
    }
    assert_eq!(one_mount("target=rel/x").target, "/work/rel/x");
    for source in ["source", "src"] {
        let MountKind::Bind { source, .. } = one_mount(&format!("{source}=sub/../dir,target=/x")).kind else {
            panic!()
        };
        assert_eq!(source, "/dir");
    }
    for (option, readonly) in [
        ("rw", false),
        ("readwrite", false),
        ("rw=true", false),
        ("rw=false", true),
        ("readonly", true),
        ("ro=true", true),
        ("ro=false", false),
        ("ro=0", false),
    ] {
        assert_eq!(one_mount(&format!("target=/x,{option}")).readonly, readonly, "{option}");
    }
    for kind in ["bind", "cache", "tmpfs"] {
        assert!(refused(&format!("RUN --mount=type={kind} x")).contains("target"), "{kind}");
    }
}

/// defaults of cache mounts.
#[test]
fn a_085_cache_mounts() {
    let cache = |value: &str| match one_mount(&format!("type=cache,{value}")) {
        Mount { kind: MountKind::Cache { id, sharing, mode, uid, gid, .. }, readonly, .. } => {
            (id, sharing, mode, uid, gid, readonly)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(cache("target=/a/../c/"), ("/c".into(), Sharing::Shared, 0o755, 0, 0, false));
    assert_eq!(
        cache("target=/c,id=i,sharing=Locked,mode=0700,uid=3,gid=$X,ro"),
        ("i".into(), Sharing::Locked, 0o700, 3, 4, true)
    );
    assert_eq!(cache("target=/c,sharing=private").1, Sharing::Private);
    mount_refused(&[(
        "type=cache,target=/c,sharing=lockd",
        "unsupported sharing value \"lockd\" (did you mean locked?)",
    )]);
    let namespace =
        LowerOptions { build_args: vec![("BUILDKIT_CACHE_MOUNT_NS".into(), "team".into())], ..options() };
    let definition = lowered_with("FROM debian\nRUN --mount=type=cache,target=/c x\n", &namespace).unwrap();
    let Op::Exec(exec) = last(&definition) else { panic!() };
    let MountKind::Cache { id, .. } = &exec.mounts[0].kind else { panic!() };
    assert!(id != "/c" && id.contains("team"), "{id}");
}

///
#[test]
fn a_086_tmpfs_mounts() {
    let size = |value: &str| match one_mount(&format!("type=tmpfs,target=/t{value}")).kind {
        MountKind::Tmpfs { size } => size,
        other => panic!("{other:?}"),
    };
    assert_eq!(size(""), None);
    assert_eq!((size(",size=100"), size(",size=2k")), (Some(100), Some(2048)));
    assert_eq!((size(",size=64m"), size(",size=1G")), (Some(64 << 20), Some(1 << 30)));
    mount_refused(&[
        ("type=bind,target=/t,size=1m", "unexpected key 'size' for mount type 'bind'"),
        ("target=/t,size=1m", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,target=/t,size=much", "size"),
    ]);
}

/// ids, targets and defaults of secrets.
#[test]
fn a_087_secret_mounts() {
    let secret = |value: &str| match one_mount(&format!("type=secret,{value}")) {
        Mount { target, kind: MountKind::Secret { id, env, file, required, mode, uid, gid }, .. } => (
            id,
            if file { target } else { String::new() },
            env.unwrap_or_default(),
            required,
            mode,
            (uid, gid),
        ),
        other => panic!("{other:?}"),
    };
    let made = |id: &str, target: &str, env: &str, required, mode| {
        (id.to_owned(), target.to_owned(), env.to_owned(), required, mode, (0, 0))
    };
    for (value, expected) in [
        ("id=a", made("a", "/run/secrets/a", "", false, 0o400)),
        ("id=dir/a", made("dir/a", "/run/secrets/a", "", false, 0o400)),
        ("target=/root/.netrc", made(".netrc", "/root/.netrc", "", false, 0o400)),
        ("source=tok", made("tok", "/run/secrets/tok", "", false, 0o400)),
        ("id=a,target=rel", made("a", "/work/rel", "", false, 0o400)),
        ("id=a,env=A", made("a", "", "A", false, 0o400)),
        ("id=a,env=A,target=/t", made("a", "/t", "A", false, 0o400)),
        ("id=a,required", made("a", "/run/secrets/a", "", true, 0o400)),
        ("id=a,required=true,mode=0444", made("a", "/run/secrets/a", "", true, 0o444)),
        ("id=a,required=false", made("a", "/run/secrets/a", "", false, 0o400)),
    ] {
        assert_eq!(secret(value), expected, "{value}");
    }
    assert_eq!(secret("id=a,uid=5,gid=6").5, (5, 6));
}

/// ids, targets and defaults of SSH mounts.
#[test]
fn a_088_ssh_mounts() {
    let all =
        exec("RUN --mount=type=ssh --mount=type=ssh,id=other,target=/s,mode=0666,uid=5,gid=6,required x");
    let ssh = |mount: &Mount| match &mount.kind {
        MountKind::Ssh { id, required, mode, uid, gid } => {
            (id.clone(), mount.target.clone(), *required, *mode, *uid, *gid)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        ssh(&all.mounts[0]),
        ("default".into(), "/run/buildkit/ssh_agent.0".into(), false, 0o600, 0, 0)
    );
    assert_eq!(ssh(&all.mounts[1]), ("other".into(), "/s".into(), true, 0o666, 5, 6));
    let two = exec("RUN --mount=type=ssh --mount=type=ssh,id=b x");
    assert_eq!(two.mounts[1].target, "/run/buildkit/ssh_agent.1");
    mount_refused(&[("type=ssh,source=x", "ssh does not support source")]);
}

/// options that only some types have.
#[test]
fn a_089_mount_validation() {
    let key = |key: &str, kind: &str| format!("unexpected key '{key}' for mount type '{kind}'");
    for (kind, base) in [("bind", "target=/x"), ("tmpfs", "target=/x")] {
        for option in ["mode", "uid", "gid"] {
            mount_refused(&[(
                &format!("type={kind},{base},{option}=1"),
                &format!("{option} not allowed for \"{kind}\" type mounts"),
            )]);
        }
    }
    for kind in ["bind", "cache", "tmpfs"] {
        mount_refused(&[(&format!("type={kind},target=/x,required=true"), &key("required", kind))]);
    }
    for kind in ["bind", "tmpfs", "ssh"] {
        let message = format!("invalid cache sharing set for {kind} mount");
        mount_refused(&[(&format!("type={kind},target=/x,sharing=shared"), &message)]);
    }
    mount_refused(&[
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret", "invalid secret mount. one of source, target required"),
    ]);
}

/// network modes, and the default that the command line sets.
#[test]
fn a_092_networks() {
    for (flag, mode) in [
        ("", NetworkMode::Default),
        ("--network=default", NetworkMode::Default),
        ("--network=none", NetworkMode::None),
        ("--network=host", NetworkMode::Host),
    ] {
        assert_eq!(exec(&format!("RUN {flag} x")).network, mode, "{flag}");
    }
    assert_eq!(refused("RUN --network=foo x"), "invalid network mode \"foo\"");
    let given = LowerOptions { network: NetworkMode::None, ..options() };
    let definition = lowered_with("FROM debian\nRUN x\nRUN --network=default y\n", &given).unwrap();
    let modes: Vec<_> = definition
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op {
            Op::Exec(exec) => Some(exec.network),
            _ => None,
        })
        .collect();
    // `--network=default` is what the command line says, too.
    assert_eq!(modes, [NetworkMode::None; 2]);
}

///
#[test]
fn a_095_arguments() {
    for line in ["COPY a", "ADD a", "COPY --link a", "COPY [\"a\"]"] {
        let name = &line[..line.find(' ').unwrap()];
        let message = format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        );
        assert_eq!(refused(line), message, "{line}");
    }
    let paths = |lines: &str| {
        let copy = copy(lines);
        let path = |source: &CopySource| match source {
            CopySource::Path { path, .. } => path.clone(),
            CopySource::Inline { name, .. } => format!("<<{name}"),
        };
        (copy.sources.iter().map(path).collect::<Vec<_>>(), copy.dest)
    };
    assert_eq!(paths("COPY [\"a b\", \"c\", \"/d e/\"]"), (vec!["/a b".into(), "/c".into()], "/d e/".into()));
}

/// sources never lead out of their root.
#[test]
fn a_096_sources_are_clamped() {
    for (source, clean) in [
        ("../x", "/x"),
        ("../../a/../x", "/x"),
        ("/x", "/x"),
        ("x/", "/x"),
        ("./x/.", "/x"),
        (".", "/"),
        ("/", "/"),
        ("..", "/"),
        ("a//b", "/a/b"),
    ] {
        for line in [
            format!("COPY {source} /d/"),
            format!("ADD {source} /d/"),
            format!("COPY --from=other {source} /d/"),
        ] {
            let CopySource::Path { path, .. } = &copy(&line).sources[0] else { panic!() };
            assert_eq!(path, clean, "{line}");
        }
    }
}

/// destinations are below the working directory.
#[test]
fn a_101_destinations() {
    for (dest, clean) in [
        ("x", "/w/x"),
        ("x/", "/w/x/"),
        (".", "/w/"),
        ("./", "/w/"),
        ("$EMPTY", "/w/"),
        ("../x", "/x"),
        ("/abs", "/abs"),
        ("/abs/", "/abs/"),
        ("../../../x", "/x"),
    ] {
        let found = copy(&format!("WORKDIR /w\nENV EMPTY=\nCOPY a {dest}")).dest;
        assert_eq!(found, clean, "{dest}");
    }
}

/// what --chmod takes, with variables.
#[test]
fn a_107_chmod_values() {
    for mode in ["0", "644", "0755", "7777", "07777", "u=rwX,go=rX", "+x", "g=u", "a-w,u+s", "+t"] {
        assert_eq!(copy(&format!("COPY --chmod={mode} a b")).chmod.as_deref(), Some(mode), "{mode}");
        assert_eq!(copy(&format!("ARG M={mode}\nADD --chmod=$M a b")).chmod.as_deref(), Some(mode), "{mode}");
    }
    for mode in ["0999", "10000", "64a"] {
        let message =
            format!("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777");
        assert!(refused(&format!("COPY --chmod={mode} a b")).contains(&message), "{mode}");
    }
}

/// A-108: --link with --chmod is a normal copy.
#[test]
fn a_108_link_with_chmod() {
    assert!(copy("COPY --link a b").link);
    assert!(copy("COPY --link --chown=1:2 a b").link);
    assert!(!copy("COPY --link --chmod=644 a b").link);
    assert!(!copy("COPY --link=false a b").link);
    // What a link layer stands on is no part of it.
    let digest = |base: &str| {
        let definition =
            lowered_with(&format!("FROM {base}\nRUN x\nCOPY --link a /b\n"), &options()).unwrap();
        let vertex = definition.vertices.last().unwrap();
        assert!(vertex.parent.is_some());
        match &vertex.op {
            Op::Copy(copy) => copy.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(digest("debian"), digest("alpine"));
}

/// where --from leads.
#[test]
fn a_111_from() {
    let text = "FROM debian AS first\nRUN 1\nFROM alpine AS Second\nRUN 2\nFROM scratch\n";
    let with_context = LowerOptions {
        contexts: [("ctx".to_owned(), NamedContext::Local)].into_iter().collect(),
        ..options()
    };
    let source = |from: &str| {
        let definition = lowered_with(&format!("{text}COPY --from={from} a b\n"), &with_context).unwrap();
        let vertex = definition.vertices.last().unwrap().clone();
        let Op::Copy(copy) = &vertex.op else { panic!() };
        let CopySource::Path { from, .. } = &copy.sources[0] else { panic!() };
        let input = vertex.inputs.first().map(|digest| {
            let input = definition.vertices.iter().find(|vertex| vertex.digest == *digest).unwrap();
            match &input.op {
                Op::Exec(exec) => exec.args[2].clone(),
                Op::Image(image) => image.reference.clone(),
                other => format!("{other:?}"),
            }
        });
        (from.clone(), input)
    };
    for (from, input) in [
        ("first", "1"),
        ("FIRST", "1"),
        ("0", "1"),
        ("second", "2"),
        ("1", "2"),
        ("tools:3", "docker.io/library/tools:3"),
    ] {
        assert_eq!(source(from), (Source::Input(0), Some(input.to_owned())), "{from}");
    }
    assert_eq!(source("ctx").0, Source::Context("ctx".into()));
}

/// flags of ADD and of COPY.
#[test]
fn a_112_flags_of_one_instruction() {
    for flag in ["checksum=sha256:0", "keep-git-dir", "unpack"] {
        let name = flag.split('=').next().unwrap();
        assert!(
            refused(&format!("COPY --{flag} a b")).contains(&format!("unknown flag: --{name}")),
            "{flag}"
        );
    }
    for flag in ["from=x", "parents"] {
        let name = flag.split('=').next().unwrap();
        assert!(refused(&format!("ADD --{flag} a b")).contains(&format!("unknown flag: --{name}")), "{flag}");
    }
    assert!(copy("COPY --parents --from=x a b").parents);
    assert_eq!(copy("ADD --unpack a b").unpack, Unpack::Always);
    assert_eq!(copy("ADD --unpack=false a b").unpack, Unpack::Never);
    assert_eq!((copy("ADD a b").unpack, copy("COPY a b").unpack), (Unpack::Auto, Unpack::Never));
}

///
#[test]
fn a_119_sources_of_copy() {
    assert_eq!(refused("COPY https://h/a /"), "source can't be a URL for COPY");
    assert_eq!(refused("COPY http://h/a /"), "source can't be a URL for COPY");
    assert_eq!(refused("COPY https://h/a.git /"), "source can't be a git ref for COPY");
    assert_eq!(refused("COPY git@h:a.git /"), "source can't be a git ref for COPY");
}

/// where heredocs begin and end.
#[test]
fn a_120_heredoc_words() {
    let bodies = |lines: &str| -> Vec<(String, String)> {
        copy(&format!("ENV X=1\n{lines}"))
            .sources
            .into_iter()
            .map(|source| match source {
                CopySource::Inline { name, data, .. } => (name, data),
                CopySource::Path { path, .. } => (path, String::new()),
            })
            .collect()
    };
    let one = |name: &str, data: &str| vec![(name.to_owned(), data.to_owned())];
    for (lines, expected) in [
        ("COPY <<EOF /d\n$X\nEOF", one("EOF", "1\n")),
        ("COPY <<'EOF' /d\n$X\nEOF", one("EOF", "$X\n")),
        ("COPY <<\"EOF\" /d\n$X\nEOF", one("EOF", "$X\n")),
        ("COPY <<E'O'F /d\n$X\nEOF", one("EOF", "$X\n")),
        ("ADD <<EOF /d\n EOF\nEOF \nEOF", one("EOF", " EOF\nEOF \n")),
        ("COPY <<-EOF /d\n\ta\n\t\tEOF", one("EOF", "a\n")),
        ("COPY <<EOF /d\nEOF", one("EOF", "")),
    ] {
        assert_eq!(bodies(lines), expected, "{lines}");
    }
    let args = |lines: &str| exec(lines).args.concat();
    assert!(args("RUN cat << EOF\nx\nEOF").ends_with("cat << EOF\nx\nEOF"));
    assert!(args("RUN cat <<< EOF").ends_with("cat <<< EOF"), "a here-string is the shell's");
    assert!(args("RUN cat 3<<EOF <&3\nx\nEOF").ends_with("x\nEOF"));
    assert_eq!(exec("RUN [\"cat\", \"<<EOF\"]").args, ["cat", "<<EOF"]);
    let triggered =
        lowered_with("FROM debian AS b\nONBUILD COPY <<EOF /d\nx\nEOF\nFROM b\n", &options()).unwrap();
    let Op::Copy(copied) = last(&triggered) else { panic!() };
    assert_eq!(copied.sources, [CopySource::Inline { name: "EOF".into(), data: "x\n".into(), raw: None }]);
    for lines in ["COPY <<EOF /d\nx", "RUN <<EOF\nx\n EOF", "COPY <<EOF /d\nx\n\tEOF"] {
        assert_eq!(refused(lines), "unterminated heredoc", "{lines}");
    }
}

fn inline(lines: &str) -> String {
    match copy(lines).sources.remove(0) {
        CopySource::Inline { data, .. } => data,
        other => panic!("{other:?}"),
    }
}

/// tabs at the beginning, and nothing else.
#[test]
fn a_121_tabs() {
    assert_eq!(inline("COPY <<-E /d\n\t\ta\tb\t\n \tc\n\t d\nE"), "a\tb\t\n \tc\n d\n");
    assert_eq!(inline("COPY <<E /d\n\t\ta\nE"), "\t\ta\n");
}

/// several heredocs, and files among them.
#[test]
fn a_124_copied_heredocs() {
    let copied = copy("COPY plain <<a <<b other /d/\nin a\na\nin b\nb");
    let show = |source: &CopySource| match source {
        CopySource::Path { path, .. } => path.clone(),
        CopySource::Inline { name, data, .. } => format!("{name}={}", data.trim_end()),
    };
    let shown: Vec<String> = copied.sources.iter().map(show).collect();
    assert_eq!(shown, ["/plain", "/other", "a=in a", "b=in b"]);
    assert_eq!(refused("COPY a <<E\nx\nE"), "COPY cannot accept a heredoc as a destination");
    assert_eq!(refused("ADD a <<E\nx\nE"), "ADD cannot accept a heredoc as a destination");
    let run = exec("RUN cat <<A <<B\nfirst\nA\nsecond\nB");
    assert!(run.args[2].ends_with("first\nA\nsecond\nB"), "{:?}", run.args);
}

/// who gets the body of a RUN.
#[test]
fn a_123_run_heredocs() {
    let plain = exec("RUN <<E\necho $X\ntrue\nE");
    assert_eq!((plain.args[2].as_str(), plain.pipes.len()), ("echo $X\ntrue\n", 0));
    let script = exec("RUN <<E\n#!/bin/awk -f\nBEGIN{}\nE");
    assert_eq!(script.pipes, [("E".to_owned(), "#!/bin/awk -f\nBEGIN{}\n".to_owned())]);
    assert!(script.args.last().unwrap().contains("/dev/pipes/E"), "{:?}", script.args);
    let shell = exec("SHELL [\"sh\", \"-x\"]\nRUN <<E\na\nE");
    assert_eq!(shell.args, ["sh", "-x", "a\n"]);
    let fed = exec("RUN cat <<E && echo after\n$X\nE");
    assert_eq!(fed.args[2], "cat <<E && echo after\n$X\nE");
}

/// expansion of copied bodies.
#[test]
fn a_125_bodies_are_expanded() {
    for (body, expected) in [
        ("$X ${X} ${none:-d} '$X' \"$X\"", "1 1 d '1' \"1\""),
        ("\\$X", "$X"),
        ("a\\\nb", "a\nb"),
        ("\\\\", "\\"),
    ] {
        assert_eq!(inline(&format!("ENV X=1\nCOPY <<E /d\n{body}\nE")), format!("{expected}\n"), "{body}");
        assert_eq!(inline(&format!("ENV X=1\nCOPY <<'E' /d\n{body}\nE")), format!("{body}\n"), "{body}");
    }
}

/// lines of a body are no lines of the Dockerfile.
#[test]
fn a_126_bodies_are_kept() {
    let body = "# no comment\n\n  \nRUN x\nends \\\n\n# escape=`\n";
    assert_eq!(inline(&format!("COPY <<'E' /d\n{body}E")), body);
    assert_eq!(exec(&format!("RUN <<E\n{body}E")).args[2], body);
}

/// heredocs in the history and in the names of steps.
#[test]
fn a_127_names_of_heredocs() {
    assert_eq!(created_by("COPY <<name /dest\nx\nname"), "COPY <<name /dest # buildkit");
    assert_eq!(created_by("ADD f <<name /dest/\nx\nname"), "ADD f <<name /dest/ # buildkit");
    assert!(
        step("RUN <<EOF\necho a\necho b\nEOF").ends_with("RUN <<EOF (echo a...)"),
        "{}",
        step("RUN <<EOF\necho a\necho b\nEOF")
    );
    assert!(
        step("RUN <<EOF\necho a\nEOF").contains("RUN <<EOF (echo a"),
        "{}",
        step("RUN <<EOF\necho a\nEOF")
    );
}

/// what is stored, and what no trigger can be.
#[test]
fn a_133_onbuild() {
    let stored = |lines: &str| config(lines)["OnBuild"].clone();
    assert_eq!(stored("ONBUILD RUN a \\\n   b\nONBUILD  COPY x y"), json!(["RUN a    b", "COPY x y"]));
    assert_eq!(stored("ONBUILD RUN <<E\nbody\nE"), json!(["RUN <<E\nbody\nE"]));
    let definition = lowered("ONBUILD RUN x\nONBUILD ENV A=1");
    assert_eq!((definition.image.history.len(), definition.vertices.len()), (0, 1));
    assert_eq!(refused("ONBUILD ONBUILD RUN x"), "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    assert_eq!(refused("ONBUILD FROM x"), "FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(refused("ONBUILD MAINTAINER x"), "MAINTAINER isn't allowed as an ONBUILD trigger");
    assert_eq!(stored("ONBUILD NOSUCH thing"), json!(["NOSUCH thing"]));
    let used = lowered_with("FROM debian AS b\nONBUILD NOSUCH thing\nFROM b\n", &options()).unwrap_err();
    assert!(used[0].message.contains("unknown instruction: NOSUCH"), "{}", used[0].message);
}

/// when triggers run, with which arguments, and that they are gone then.
#[test]
fn a_134_triggers() {
    let text = "FROM onbuild AS one\nRUN own\nFROM one\nRUN grandchild\n";
    let given = LowerOptions { build_args: vec![("A".into(), "given".into())], ..options() };
    let definition = lowered_with(text, &given).unwrap();
    let runs: Vec<String> = definition
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op {
            Op::Exec(exec) => {
                let value = exec.env.iter().find(|(name, _)| name == "A").map(|(_, value)| value.as_str());
                Some(format!("{} {}", exec.args[2], value.unwrap_or("-")))
            }
            _ => None,
        })
        .collect();
    assert_eq!(runs, ["from image $A given", "own given", "grandchild given"]);
    let config = serde_json::to_value(&definition.image.config).unwrap();
    assert!(config["config"].get("OnBuild").is_none(), "{config}");
    let names: Vec<&str> = definition.vertices.iter().map(|vertex| vertex.name.as_str()).collect();
    assert!(names.iter().any(|name| name.contains("ONBUILD RUN from image")), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.contains("ONBUILD")).count(), 1);
}

/// names of instructions that are nearly right.
#[test]
fn a_136_unknown_instructions() {
    for (line, message) in [
        ("COPPY a b", "unknown instruction: COPPY (did you mean COPY?)"),
        ("coppy a b", "unknown instruction: coppy (did you mean copy?)"),
        ("ENTRYPIONT x", "unknown instruction: ENTRYPIONT (did you mean ENTRYPOINT?)"),
        ("NOTHINGLIKEIT x", "unknown instruction: NOTHINGLIKEIT"),
    ] {
        let found = refused(line);
        assert_eq!(found, message);
    }
}

/// other names that are nearly right.
#[test]
fn a_137_did_you_mean() {
    for (lines, hint) in [
        ("COPY --chwon=1 a b", "(did you mean chown?)"),
        ("RUN --mount=type=cach,target=/x y", "(did you mean cache?)"),
        ("RUN --mount=type=cache,taget=/x y", "(did you mean target?)"),
        ("RUN --mount=type=cache,target=/x,sharing=privat y", "(did you mean private?)"),
        ("FROM --platform=$BUILDPLATFROM debian", "(did you mean BUILDPLATFORM?)"),
    ] {
        let text = format!("FROM debian AS one\n{lines}\n");
        let (file, mut diagnostics) = parse(text.as_bytes());
        if !diagnostics.iter().any(Diagnostic::is_error) {
            diagnostics.extend(lower(&file, &options(), &Images).1);
        }
        assert!(
            diagnostics.iter().any(|diagnostic| diagnostic.message.contains(hint)),
            "{lines}: {diagnostics:?}"
        );
    }
    let target = LowerOptions { target: Some("biuld".into()), ..options() };
    let diagnostics = lowered_with("FROM debian AS build\n", &target).unwrap_err();
    assert!(diagnostics[0].message.contains("(did you mean build?)"), "{}", diagnostics[0].message);
    let (_, warnings) = lower(&parse(b"FROM debian\nENV foo=1 y=2\nENV x=$fooo\n").0, &options(), &Images);
    assert!(warnings[0].message.contains("(did you mean $foo?)"), "{}", warnings[0].message);
}
