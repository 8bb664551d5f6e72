//! What runs again and what does not.

use crate::context::TestContext;

/// Two stages; `RUN` steps whose `$((…))` shows in the log only when they are executed.
const TWO_STAGES: &str = r#"
FROM base AS build
RUN echo tools-$((40+2)) && mkdir /out
WORKDIR /src
COPY src/ ./
RUN echo compile-$((40+2)) && cat a.c b.c > /out/program
FROM base
RUN echo final-$((40+2)) > /marker
COPY --from=build /out/program /usr/bin/program
CMD ["program"]
"#;

fn two_stages() -> TestContext {
    let context = TestContext::of(TWO_STAGES);
    context.file("src/a.c", "int a;\n").file("src/b.c", "int b;\n").file("README", "one\n");
    context
}

#[test]
fn a_second_build_executes_nothing() {
    let context = two_stages();
    let first = context.build(&["-t", "app:1.0"]).ok();
    assert_eq!(first.executed().len(), 6, "{}", first.stderr);
    assert_eq!((first.count("tools-42"), first.count("compile-42")), (1, 1));
    let second = context.build(&["-t", "app:1.0"]).ok();
    assert_eq!(second.executed(), Vec::<String>::new(), "{}", second.stderr);
    assert_eq!(second.count("-42"), 0, "{}", second.stderr);
    assert_eq!(second.steps().0, 0, "{}", second.stderr);
    let steps =
        ["RUN echo tools", "WORKDIR /src", "COPY src/", "RUN echo compile", "RUN echo final", "COPY --from"];
    for step in steps {
        let title = second.stderr.lines().find(|line| line.contains(step));
        let number =
            title.and_then(|line| line.split(' ').next()).unwrap_or_else(|| panic!("{step} is not shown"));
        assert!(second.stderr.contains(&format!("{number} CACHED")), "{step}:\n{}", second.stderr);
    }
}

#[test]
fn a_changed_source_runs_again_only_what_reads_it() {
    let context = two_stages();
    context.build(&["-t", "app"]).ok();
    context.file("src/b.c", "int changed;\n");
    let run = context.build(&["-t", "app"]).ok();
    let executed = run.executed();
    assert_eq!(executed.len(), 3, "{executed:?}");
    for step in ["COPY src/", "RUN echo compile", "COPY --from=build"] {
        assert!(executed.iter().any(|name| name.contains(step)), "{step} in {executed:?}");
    }
}

#[test]
fn files_that_no_step_reads_do_not_matter() {
    let context = two_stages();
    context.build(&["-t", "app"]).ok();
    context.file("README", "two\n").file("new", "x");
    assert_eq!(context.build(&["-t", "app"]).ok().steps().0, 0);
}

#[test]
fn times_and_the_reset_owner_are_not_part_of_a_copy() {
    let context = two_stages();
    context.build(&[""; 0]).ok();
    let file = context.in_context("src/a.c");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1000);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(1234)).unwrap();
    assert_eq!(context.build(&[""; 0]).ok().steps().0, 0);
    context.mode("src/a.c", 0o755);
    assert_eq!(
        context.build(&[""; 0]).ok().executed().len(),
        2,
        "mode, then the compile makes the same file"
    );
}

#[test]
fn a_step_that_makes_the_same_files_stops_the_change() {
    let dockerfile = "FROM base AS build\nCOPY in /in\nRUN grep -v '^#' /in > /out\n\
                      FROM base\nCOPY --from=build /out /out\nRUN echo last-$((1+1))\n";
    let context = TestContext::of(dockerfile);
    context.file("in", "# one\nx\n");
    context.build(&[""; 0]).ok();
    context.file("in", "# two\nx\n");
    let run = context.build(&[""; 0]).ok();
    assert_eq!(run.executed().len(), 2, "{}", run.stderr);
    assert_eq!(run.count("last-2"), 0);
}

#[test]
fn what_a_run_depends_on() {
    let dockerfile = "FROM base\nARG A=1\nARG UNUSED=1\nENV E=1\nRUN echo ran-$((1+1))\n";
    let context = TestContext::of(dockerfile);
    context.build(&[""; 0]).ok();
    assert_eq!(context.build(&["--build-arg", "A=1"]).ok().count("ran-2"), 0, "the same value");
    assert_eq!(context.build(&["--build-arg", "A=2"]).ok().count("ran-2"), 1, "an ARG in scope");
    assert_eq!(context.build(&["--network=none"]).ok().count("ran-2"), 1, "the network mode");
    assert_eq!(context.build(&["--label", "x=y"]).ok().count("ran-2"), 0, "labels");
    assert_eq!(context.build(&["--add-host", "h:1.2.3.4"]).ok().count("ran-2"), 1, "a host's name");
    assert_eq!(context.build(&["--add-host", "h:1.2.3.5"]).ok().count("ran-2"), 0, "a host's address");
    context.dockerfile(&dockerfile.replace("E=1", "E=2"));
    assert_eq!(context.build(&[""; 0]).ok().count("ran-2"), 1, "ENV");
    context.dockerfile(&dockerfile.replace("ran", "ran "));
    assert_eq!(context.build(&[""; 0]).ok().count("ran -2"), 1, "the command");
}

#[test]
fn no_cache_runs_everything_or_a_stage() {
    let context = two_stages();
    context.build(&[""; 0]).ok();
    let all = context.build(&["--no-cache"]).ok();
    assert_eq!(all.executed().len(), 6, "{}", all.stderr);
    let one = context.build(&["--no-cache-filter=build"]).ok();
    assert_eq!((one.count("tools-42"), one.count("compile-42")), (1, 1), "{}", one.stderr);
    assert!(!one.executed().iter().any(|name| name.contains("final")), "{:?}", one.executed());
    assert_eq!(context.build(&[""; 0]).ok().steps().0, 0, "what they made is in the cache");
}

#[test]
fn stages_that_the_target_does_not_need_do_not_run() {
    let context = TestContext::of(
        "FROM base AS one\nRUN echo one-$((1+1))\nFROM nowhere.invalid/missing AS two\nRUN echo two-$((1+1))\n\
         FROM base AS three\nRUN echo three-$((1+1))\n",
    );
    let run = context.build(&[""; 0]).ok();
    assert_eq!((run.count("one-2"), run.count("two-2"), run.count("three-2")), (0, 0, 1), "{}", run.stderr);
    let run = context.build(&["--target", "ONE"]).ok();
    assert_eq!((run.count("one-2"), run.count("three-2")), (1, 0), "{}", run.stderr);
}

#[test]
fn a_failed_build_keeps_what_it_finished() {
    let context = TestContext::of("FROM base\nRUN echo first-$((1+1))\nRUN exit 3\n");
    context.build(&[""; 0]).fails(1, &["exit code: 3"]);
    context.dockerfile("FROM base\nRUN echo first-$((1+1))\nRUN echo second-$((1+1))\n");
    let run = context.build(&[""; 0]).ok();
    assert_eq!((run.count("first-2"), run.count("second-2")), (0, 1), "{}", run.stderr);
}

/// The same instruction on the empty root is another step, whatever it has made on others.
#[test]
fn what_was_made_on_a_base_is_not_put_on_scratch() {
    let context = TestContext::new();
    context.file("file", "content");
    for instruction in ["COPY file /", "ADD file /d/", "WORKDIR /w", "COPY --from=base /bin/busybox /b"] {
        context.dockerfile(&format!("FROM base\n{instruction}\n")).build(&["-t", "on-base"]).ok();
        let out = context.path("out");
        let built = context
            .dockerfile(&format!("FROM scratch\n{instruction}\n"))
            .build(&["-o", out.to_str().unwrap()])
            .ok();
        assert!(!out.join("bin").exists(), "{instruction}: {}", built.stderr);
        std::fs::remove_dir_all(&out).unwrap();
    }
}
