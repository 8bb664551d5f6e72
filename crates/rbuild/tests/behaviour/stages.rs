//! Stages, targets and triggers.

use super::site;
use crate::support::Site;

/// A-034, A-042 (testMultiStageImplicitFrom, testMultiStageCaseInsensitive)
#[test]
fn stages_are_found_by_name_number_and_image() {
    let site = site!("stages_are_found_by_name_number_and_image");
    let context = site.context();
    context.file("foo", "foo-contents");
    let image = context.image_of(
        "FROM scratch AS STAge0
COPY foo bar
FROM scratch AS staGE1
COPY --from=staGE0 bar baz
FROM scratch
COPY --from=stage1 baz bax
COPY --from=0 bar zero
COPY --from=busybox /etc/passwd passwd
COPY --from=scratch . /nothing
",
    );
    assert_eq!((image.text("bax"), image.text("zero")), ("foo-contents", "foo-contents"));
    assert!(image.text("passwd").starts_with("root:x:0:0"));
}

/// A-041 (testOutOfOrderStage, testDockerfileCopyFromArgs, testTargetMistype)
#[test]
fn stages_that_cannot_be() {
    let site = site!("stages_that_cannot_be");
    let context = site.context();
    let refused = |dockerfile: &str, args: &[&str], message: &str| {
        context.file("Dockerfile", dockerfile).build(args).refused(2, message);
    };
    let later = "FROM busybox AS target\nCOPY --from=build /x /out\nFROM busybox AS build\nCOPY Dockerfile /x\nFROM target\n";
    refused(
        later,
        &[],
        "cannot copy from stage \"build\", it needs to be defined before current stage \"target\"",
    );
    refused("FROM scratch\nCOPY --from=$FOO . .\n", &[], "variable expansion is not supported for --from");
    refused("FROM scratch\nCOPY --from=0 . .\n", &[], "circular dependency detected on stage");
    let two = "FROM scratch AS build\nCOPY Dockerfile /out\nFROM scratch\nCOPY --from=build /out /\n";
    refused(two, &["--target", "bulid"], "target stage \"bulid\" could not be found (did you mean build?)");
    assert_eq!(context.image(&["--target", "BUILD"]).paths(), ["out"]);
}

/// A-038 (testEagerNamedContextLookup, testErrorsSourceMap)
#[test]
fn unused_stages_are_not_built() {
    let site = site!("unused_stages_are_not_built");
    let image = site.context().image_of(
        "FROM no.such.registry.invalid/broken AS unused
RUN false
FROM busybox AS base
RUN echo base > /foo
FROM busybox AS other
RUN exit 3
FROM scratch
COPY --from=base /foo /foo
",
    );
    assert_eq!(image.paths(), ["foo"]);
}

/// config, user, directory, shell and arguments of a stage are inherited.
#[test]
fn a_stage_inherits() {
    let site = site!("a_stage_inherits");
    let image = site.context().image_of(
        "FROM busybox AS base
ARG declared=yes
ENV set=too
WORKDIR /here
SHELL [\"/bin/sh\", \"-ec\"]
RUN mkdir -m 777 /out
USER daemon
FROM base
RUN echo $declared $set $(pwd) $(id -un) > /out/f
",
    );
    assert_eq!(image.text("out/f"), "yes too /here daemon\n");
    assert_eq!(
        image.history().last().unwrap(),
        "RUN |1 declared=yes /bin/sh -ec echo $declared $set $(pwd) $(id -un) > /out/f # buildkit"
    );
}

fn tagged(site: &Site, name: &str, dockerfile: &str) {
    let context = site.context();
    context.file("Dockerfile", dockerfile);
    let built = context.build(&["-t", name]);
    assert_eq!(built.code, 0, "{}", built.output);
}

/// A-133, A-134 (testOnBuildCleared)
#[test]
fn triggers_run_once() {
    let site = site!("triggers_run_once");
    tagged(
        site,
        "trigger1",
        "FROM busybox\nONBUILD RUN mkdir -p /out && echo -n 11 >> /out/foo\nONBUILD ENV a=b\n",
    );
    tagged(site, "trigger2", "FROM trigger1\n");
    let image = site.context().image_of(
        "FROM trigger2 AS base\nFROM trigger1\nRUN echo -n 2 >> /out/foo\nCOPY --from=base /out/foo /base\n",
    );
    assert_eq!((image.text("out/foo"), image.text("base")), ("112", "11"));
    assert!(image.config().get("OnBuild").is_none_or(serde_json::Value::is_null), "{}", image.config());
    assert!(image.config()["Env"].to_string().contains("a=b"));
}

/// A-046, A-134 (testOnBuildInheritedStageRun, testOnBuildInheritedStageWithFrom, testOnBuildWithChildStage)
#[test]
fn triggers_of_a_parent_stage_run_in_the_child() {
    let site = site!("triggers_of_a_parent_stage_run_in_the_child");
    let image = site.context().image_of(
        "FROM busybox AS src
RUN mkdir /in && echo -n 12 > /in/file
FROM busybox AS base
ONBUILD RUN mkdir -p /out && echo -n 11 >> /out/foo
ONBUILD COPY --from=src /in/file /out/copied
RUN [ ! -e /out ]
FROM base AS mid
RUN cp /out/foo /out/bar
FROM mid AS child
RUN [ \"$(cat /out/foo)\" = 11 ]
FROM scratch
COPY --from=child /out /
",
    );
    assert_eq!(["bar", "copied", "foo"].map(|path| image.text(path)), ["11", "12", "11"]);
}

/// A-134 (testOnBuildNewDeps, testOnBuildNamedContext): triggers may name images and stages that only the child has.
#[test]
fn triggers_bring_their_own_sources() {
    let site = site!("triggers_bring_their_own_sources");
    tagged(
        site,
        "trigger3",
        "FROM busybox\nONBUILD COPY --from=alpine /etc/os-release /out/release\nONBUILD COPY --from=given /f /out/f\nONBUILD ARG WHO=nobody\nONBUILD RUN echo $WHO > /out/who\n",
    );
    let context = site.context();
    context.file(
        "Dockerfile",
        "FROM busybox AS given\nRUN echo -n hello > /f\nFROM trigger3 AS user\nFROM scratch\nCOPY --from=user /out /\n",
    );
    let image = context.image(&["--build-arg", "WHO=me"]);
    assert_eq!(["release", "f", "who"].map(|path| image.text(path)), ["NAME=test\n", "hello", "me\n"]);
    let outcome = site.context().build_of("FROM busybox AS b\nONBUILD NOSUCH thing\nFROM b\n");
    outcome.refused(2, "NOSUCH");
}
