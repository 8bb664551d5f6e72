use super::*;
use clap::Parser as _;

fn prepared(line: &str) -> Result<Prepared> {
    let mut args = vec!["rbuild", "build"];
    args.extend(line.split_whitespace());
    match crate::args::Cli::try_parse_from(args)?.command {
        crate::args::Command::Build(args) => prepare(&args),
        other => panic!("{other:?}"),
    }
}

fn problem(line: &str) -> String {
    match prepared(line) {
        Ok(_) => panic!("`{line}` was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn tags_are_normalised_and_checked() {
    let request = prepared("-t app -t localhost:5000/x:1.0 .").unwrap().request;
    let tags: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
    assert_eq!(tags, ["docker.io/library/app:latest", "localhost:5000/x:1.0"]);
    assert!(
        problem("-t App .").starts_with("invalid tag \"App\": invalid reference format"),
        "{}",
        problem("-t App .")
    );
}

#[test]
fn the_context_must_be_there() {
    assert!(problem("-t x").starts_with("please specify build context"));
    assert_eq!(problem("/no/such"), "unable to prepare context: path \"/no/such\" not found");
    assert_eq!(problem("- -f -"), "invalid argument: can't use stdin for both build context and dockerfile");
    let context = |line: &str| prepared(line).unwrap().request.context;
    for text in
        ["https://example.com/x.git#main:sub", "git@h:x", "ssh://h/x", "http://h/a.tar", "github.com/a/b"]
    {
        assert_eq!(context(text), ContextSource::Remote(rbuild_build::RemoteUrl::new(text)));
    }
}

#[test]
fn pushing_needs_a_tag() {
    assert!(problem("--push .").starts_with("tag is needed when pushing to registry"));
}

#[test]
fn build_args_take_the_last_value_and_none_from_an_unset_variable() {
    let prepared =
        prepared("--build-arg A=1 --build-arg A=2 --build-arg NOT_SET_ANYWHERE_42 --build-arg B= .").unwrap();
    let args: Vec<_> =
        prepared.request.build_args.into_iter().filter(|(key, _)| key != "SOURCE_DATE_EPOCH").collect();
    assert_eq!(args, [("A".to_owned(), "2".to_owned()), ("B".to_owned(), String::new())]);
    assert!(prepared.warnings[0].contains("NOT_SET_ANYWHERE_42"));
}

#[test]
fn legacy_flags_warn() {
    // D-021, one by one.
    for (line, warning) in [
        ("--compress", "flag --compress has no effect"),
        ("--isolation default", "flag --isolation has no effect"),
        ("--security-opt label=disable --security-opt seccomp=x", "flag --security-opt has no effect"),
        ("--rm", "flag --rm has no effect"),
        ("--rm=false", "flag --rm has no effect"),
        ("--force-rm=1", "flag --force-rm has no effect"),
        ("--builder other", "flag --builder has no effect"),
        ("-D", "flag --debug has no effect"),
        ("--squash", "experimental flag squash is removed with BuildKit"),
    ] {
        let warnings = prepared(&format!("{line} .")).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(warning), "{line}: {warnings:?}");
    }
    assert!(prepared("--squash=false --compress=f .").unwrap().warnings.is_empty());
}

#[test]
fn switches_take_values_and_the_last_flag_counts() {
    let request = |line: &str| prepared(&format!("{line} .")).unwrap().request;
    assert!(matches!(request("--no-cache=true").no_cache, NoCache::All));
    assert!(matches!(request("--no-cache --no-cache=false").no_cache, NoCache::Never));
    assert!(request("-t a --push=T --load --pull").push && !request("-t a --push=0").push);
    let twice = request("--target a --target b -t one -t two --build-arg A=1 --build-arg B=2");
    assert_eq!((twice.target.as_deref(), twice.tags.len()), (Some("b"), 2));
    assert!(problem("--no-cache=maybe .").contains("strconv.ParseBool: parsing \"maybe\": invalid syntax"));
}

/// D-005
#[test]
fn labels_and_platforms() {
    let request = |line: &str| prepared(&format!("{line} .")).unwrap().request;
    let labels = request("--label a=1=2 --label b --label a=3").labels;
    let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(labels, [own("a", "1=2"), own("b", ""), own("a", "3")]);
    assert_eq!(request("--platform local").platforms, [rbuild_oci::Platform::host()]);
    assert_eq!(request("--platform linux/aarch64").platforms[0].to_string(), "linux/arm64");
    let several = request("--platform linux/amd64,linux/arm64 --platform linux/amd64");
    assert!(several.platforms.len() == 2 && several.makes_index());
    assert!(problem("--build-arg =1 .").contains("invalid --build-arg"));
}

#[test]
fn hosts_limits_and_sizes_are_checked() {
    assert_eq!(extra_host("db:10.0.0.2").unwrap(), ("db".into(), "10.0.0.2".into()));
    assert_eq!(extra_host("db=[::1]").unwrap(), ("db".into(), "::1".into()));
    let several = ["a:1.2.3.4,b=::1", "c:[fe80::1]"].map(str::to_owned);
    let own = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    assert_eq!(extra_hosts(&several).unwrap(), [own("a", "1.2.3.4"), own("b", "::1"), own("c", "fe80::1")]);
    assert_eq!(limits::ulimit("nofile=1024").unwrap(), "nofile=1024:1024");
    assert_eq!([bytes("64m").unwrap(), bytes("1GiB").unwrap(), bytes("7").unwrap()], [64 << 20, 1 << 30, 7]);
    assert!(extra_host("db").is_err() && extra_host("db:nope").is_err());
    assert!(limits::ulimit("nofile").is_err() && limits::ulimit("nofile=9:1").is_err());
    // D-015: 0 is docker's default size, not a filesystem without limit.
    assert_eq!(prepared("--shm-size 0 .").unwrap().request.shm_size, None);
    assert!(bytes("1x").is_err() && bytes("").is_err());
}

#[test]
fn archives_are_told_from_dockerfiles() {
    let mut header = vec![0; 512];
    header[..5].copy_from_slice(b"a.txt");
    let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(looks_like_archive(&header), "a v7 header");
    assert!(looks_like_archive(b"\x1f\x8b\x08rest"));
    assert!(!looks_like_archive(b"FROM scratch\n"));
    assert!(!looks_like_archive(&[b'#'; 600]));
}
