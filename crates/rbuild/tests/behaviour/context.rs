//! Where a build's files come from.

use super::site;

/// A-001 (testDockerfileLowercase, testSymlinkedDockerfile, testDockerfileDirs)
#[test]
fn finding_the_dockerfile() {
    let site = site!("finding_the_dockerfile");
    let context = site.context();
    context.file("dockerfile", "FROM scratch\nENV which=lower\n");
    assert!(context.image(&[]).config()["Env"].to_string().contains("which=lower"));
    let context = site.context();
    context
        .file("kept/elsewhere", "FROM scratch\nENV which=linked\n")
        .symlink("Dockerfile", "kept/elsewhere");
    assert!(context.image(&[]).config()["Env"].to_string().contains("which=linked"));
    let context = site.context();
    context.file("sub/My.Dockerfile", "FROM scratch\nCOPY f /\n").file("f", "f");
    let path = context.dir.join("sub/My.Dockerfile");
    assert_eq!(context.image(&["-f", path.to_str().unwrap()]).paths(), ["f"]);
    context.file("low/dockerfile", "FROM scratch\nENV which=low\n");
    let path = |name: &str| context.dir.join("low").join(name).to_str().unwrap().to_owned();
    assert!(context.image(&["-f", &path("Dockerfile")]).config()["Env"].to_string().contains("which=low"));
    context.build(&["-f", &path("Other")]).refused(2, "no such file");
    context.build(&[]).refused(2, "there is no `Dockerfile`");
    context
        .file("Dockerfile", "FROM scratch\nENV which=upper\n")
        .file("dockerfile", "FROM scratch\nENV which=lower\n");
    assert!(context.image(&[]).config()["Env"].to_string().contains("which=upper"));
}

/// A-132 (testDockerignore)
#[test]
fn dockerignore_leaves_out() {
    let site = site!("dockerignore_leaves_out");
    let context = site.context();
    for name in
        ["foo", "bar", "baz", "bay", "dir/keep", "dir/drop", "dir/sub/deep.txt", "other/deep.txt", "a.tmp/x"]
    {
        context.file(name, name);
    }
    context.file(".dockerignore", "\u{feff}# comment\nbar\n  ba?  \n!bay\ndir/*\n!dir/keep\n**/deep.txt\n!dir/sub/deep.txt\n/*.tmp/\nDockerfile\n.dockerignore\n");
    let image = context.image_of("FROM scratch\nCOPY . .\n");
    let expected = ["bay", "dir", "dir/keep", "dir/sub", "dir/sub/deep.txt", "foo", "other"];
    assert_eq!(image.paths(), expected);
    context.build_of("FROM scratch\nCOPY bar /\n").refused(2, "\"/bar\": not found");
    let image = context.image_of("FROM busybox AS b\nRUN touch /bar\nFROM scratch\nCOPY --from=b bar /\n");
    assert_eq!(image.paths(), ["bar"], "it means nothing for stages");
}

/// A-129 (testDockerignoreInvalid)
#[test]
fn a_bad_dockerignore_is_an_error() {
    let site = site!("a_bad_dockerignore_is_an_error");
    let context = site.context();
    for (pattern, message) in [("!\n", "illegal exclusion pattern"), ("[bad\n", "syntax error in pattern")] {
        context.file(".dockerignore", pattern);
        context.build_of("FROM scratch\nCOPY . .\n").refused(2, message);
    }
}

/// A-128 (testDockerignoreOverride)
#[test]
fn a_dockerfiles_own_ignore_file_replaces_the_common_one() {
    let site = site!("a_dockerfiles_own_ignore_file_replaces_the_common_one");
    let context = site.context();
    context.file("foo", "").file("bar", "").file(".dockerignore", "bar\nother*\n.dock*\nDockerfile");
    context
        .file("other.Dockerfile", "FROM scratch\nCOPY . .\n")
        .file("Dockerfile", "FROM scratch\nCOPY . .\n");
    context.file("other.Dockerfile.dockerignore", "foo\n*ocker*\n");
    let other = context.dir.join("other.Dockerfile");
    assert_eq!(context.image(&["-f", other.to_str().unwrap()]).paths(), ["bar"]);
    assert_eq!(context.image(&[]).paths(), ["foo"]);
}

/// C-010 (testContextChangeDirToFile, testContextChange…)
#[test]
fn a_changed_context_is_seen() {
    let site = site!("a_changed_context_is_seen");
    let context = site.context();
    context.file("foo/sub", "1");
    assert_eq!(context.image_of("FROM scratch\nCOPY foo /\n").paths(), ["sub"]);
    std::fs::remove_dir_all(context.dir.join("foo")).unwrap();
    context.file("foo", "now a file");
    let image = context.image_of("FROM scratch\nCOPY foo /\n");
    assert_eq!((image.paths(), image.text("foo")), (vec!["foo"], "now a file"));
    std::fs::remove_file(context.dir.join("foo")).unwrap();
    context.symlink("foo", "bar").file("bar", "behind a link");
    assert_eq!(context.image_of("FROM scratch\nCOPY foo /\n").text("foo"), "behind a link");
}

/// C-011 (testCopyWildcardCache, testWildcardRenameCache): what a wildcard matches decides, by name and content.
#[test]
fn renaming_a_matched_file_is_a_change() {
    let site = site!("renaming_a_matched_file_is_a_change");
    let context = site.context();
    context.file("foo1", "1").file("bar", "b");
    let dockerfile = "FROM busybox AS base
COPY foo* /files/
RUN cat /proc/sys/kernel/random/uuid > /unique
COPY bar /files/
FROM scratch
COPY --from=base /unique /
";
    let unique = || context.image_of(dockerfile).text("unique").to_owned();
    let first = unique();
    context.file("bar", "changed").file("unrelated", "x");
    crate::support::set_times(&context.dir.join("foo1"), 1_600_000_000);
    assert_eq!(unique(), first, "neither later steps nor times matter");
    std::fs::rename(context.dir.join("foo1"), context.dir.join("foo2")).unwrap();
    let renamed = unique();
    assert_ne!(renamed, first);
    context.file("foo3", "3");
    assert_ne!(unique(), renamed);
}

/// A-043 (testNamedLocalContext, testNamedImageContext, testNamedOCILayoutContext, testNamedFilteredContext)
#[test]
fn named_contexts_replace_stages_and_images() {
    let site = site!("named_contexts_replace_stages_and_images");
    let replacement = site.context();
    let name = "test.local/replacement";
    replacement.file("Dockerfile", "FROM busybox\nENV FROM_CONTEXT=yes\nRUN echo -n image > /marker\n");
    assert_eq!(replacement.build(&["-t", name]).code, 0);
    let layout = format!("oci-layout://{}:{name}:latest", site.store().display());
    let local = site.context();
    local.file("marker", "directory").file("ignored", "").file(".dockerignore", "ignored\n.dockerignore\n");
    let local = local.dir.to_str().unwrap();
    let context = site.context();
    context.file("marker", "main");
    let dockerfile = "FROM other.example/base AS base
RUN env | grep FROM_CONTEXT > /env
FROM scratch AS stage
COPY marker /
FROM scratch
COPY --from=base /marker /env /
COPY --from=stage / /stage/
COPY --from=free / /free/
";
    context.file("Dockerfile", dockerfile);
    let contexts =
        [format!("other.example/base={layout}"), format!("stage={local}"), format!("free={local}")];
    let args: Vec<&str> = contexts.iter().flat_map(|context| ["--build-context", context]).collect();
    let image = context.image(&args);
    assert_eq!(image.paths(), ["env", "free", "free/marker", "marker", "stage", "stage/marker"]);
    assert_eq!((image.text("marker"), image.text("stage/marker")), ("image", "directory"));
    assert_eq!(image.text("env"), "FROM_CONTEXT=yes\n");
    let contexts = [format!("other.example/base:latest=docker-image://{name}"), format!("free={local}")];
    let args: Vec<&str> = contexts.iter().flat_map(|context| ["--build-context", context]).collect();
    assert_eq!(context.image(&args).text("stage/marker"), "main", "the stage is its own again");
}

/// a wildcard may match nothing, but the directory it is looked for in must be there.
#[test]
fn wildcards_below_nothing_are_refused() {
    let site = site!("wildcards_below_nothing_are_refused");
    let context = site.context();
    context.file("there/f", "f").file("target/app.jar", "").file(".dockerignore", "target\n");
    for dockerfile in ["FROM scratch\nCOPY nope/*.jar /\n", "FROM busybox\nCOPY --from=busybox /nope/* /\n"] {
        context.build_of(dockerfile).refused(2, "\"/nope\": not found");
    }
    let outcome = context.build_of("FROM scratch\nCOPY there/f target/*.jar /\n");
    outcome.refused(2, "\"/target\": not found: excluded by .dockerignore:1");
    assert_eq!(context.image_of("FROM scratch\nCOPY there/* there/*.jar /\n").paths(), ["f"]);
}

/// A-105, D-001: the owners that a tar archive on standard input names are those of its files in the context; a directory's do
/// not count.
#[test]
fn owners_in_contexts() {
    let site = site!("owners_in_contexts");
    let context = site.context();
    let header = |size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(7);
        header.set_gid(8);
        header
    };
    context.archive("context.tar", |tar| {
        let dockerfile = b"FROM scratch\nCOPY f /\nCOPY --chown=1:2 f /set\n";
        let mut head = header(dockerfile.len() as u64);
        tar.append_data(&mut head, "Dockerfile", &dockerfile[..]).unwrap();
        tar.append_data(&mut header(1), "f", &b"f"[..]).unwrap();
    });
    let image = context.image_of_archive("context.tar");
    assert_eq!((image.entry("f").owner(), image.entry("set").owner()), ("7:8".into(), "1:2".into()));
    context.file("f", "f");
    std::os::unix::fs::chown(context.dir.join("f"), Some(7), Some(8)).unwrap();
    assert_eq!(context.image_of("FROM scratch\nCOPY f /\n").entry("f").owner(), "0:0");
}
