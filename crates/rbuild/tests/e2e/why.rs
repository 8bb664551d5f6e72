//! For each cause of a miss a build whose first root is that cause, and the only root.

use crate::context::{Run, TestContext};
use serde_json::Value;

const DOCKERFILE: &str = r#"
FROM base
ARG VERSION=1
ENV COLOR=red
RUN echo tools > /tools
COPY src/ /src/
RUN cat /src/* > /all
RUN echo last > /last
"#;

fn project() -> TestContext {
    let context = TestContext::of(DOCKERFILE);
    context.file("src/main.c", "int main;\n").file("src/util.c", "int util;\n").file("other/x", "x\n");
    context
}

/// The newest build as JSON.
fn shown(context: &TestContext) -> Value {
    let run = context.rbuild(&["builds", "show", "--format=json"]).ok();
    serde_json::from_str(&run.stdout).unwrap()
}

/// A root of misses: the step's name, the kinds of its causes, the line.
type Root = (String, Vec<String>, String);

fn roots(context: &TestContext) -> Vec<Root> {
    let build = shown(context);
    let steps = build["steps"].as_array().unwrap().iter();
    let missed = steps.filter(|step| !step["miss"].is_null() && step["miss"]["follows"].is_null());
    missed
        .map(|step| {
            let causes = step["miss"]["causes"].as_array().unwrap().iter();
            (
                step["name"].as_str().unwrap().to_owned(),
                causes.map(|cause| cause["kind"].as_str().unwrap().to_owned()).collect(),
                step["miss"]["text"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// The last build has one root: this step, for a cause of this kind, which the plain output names like this.
#[track_caller]
fn one_root(context: &TestContext, run: &Run, step: &str, kind: &str, text: &str) {
    let roots = roots(context);
    let [(name, kinds, line)] = &roots[..] else { panic!("{roots:#?}\n{}", run.stderr) };
    assert!(name.contains(step), "{name}, expected {step}\n{}", run.stderr);
    assert_eq!(kinds.first().map(String::as_str), Some(kind), "{roots:#?}");
    assert_eq!(kinds.len(), 1, "{roots:#?}");
    let pattern: Vec<&str> = text.split('*').collect();
    let fits = |line: &str| {
        let mut rest = line;
        pattern.iter().all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    };
    assert!(fits(line), "{line}, expected {text}");
    let first = run.stderr.lines().find(|line| line.contains("cache miss: ")).expect("a line under the step");
    assert!(fits(first), "{first}, expected {text}\n{}", run.stderr);
    for line in run.stderr.lines().filter(|line| line.contains("cache miss: ")).skip(1) {
        assert!(
            line.contains("cache miss: follows from [") || line.contains("cache miss: same as ["),
            "{line}"
        );
    }
}

/// Builds, changes something, builds again.
fn after(change: impl FnOnce(&TestContext), args: &[&str]) -> (TestContext, Run) {
    let context = project();
    context.build(&[""; 0]).ok();
    change(&context);
    let run = context.build(args).ok();
    (context, run)
}

#[test]
fn files() {
    type Change = fn(&TestContext);
    let cases: [(Change, &str); 7] = [
        (
            |c| {
                c.file("src/main.c", "int other;\n");
            },
            "src/main.c changed",
        ),
        (
            |c| {
                c.mode("src/main.c", 0o755);
            },
            "mode of src/main.c 644→755 (only modes: --context-modes=git would keep but the executable bit)",
        ),
        (
            |c| {
                c.mode("src/main.c", 0o664);
            },
            "mode of src/main.c 644→664 (only modes: --context-modes=git would level them out)",
        ),
        (
            |c| {
                c.file("src/new.c", "new\n");
            },
            "src/new.c added",
        ),
        (|c| std::fs::remove_file(c.in_context("src/util.c")).unwrap(), "src/util.c removed"),
        (
            |c| {
                for n in 0..6 {
                    c.file(&format!("src/gen{n}.c"), "x");
                }
            },
            "src/gen0.c added, src/gen1.c added, src/gen2.c added and 3 more files",
        ),
        (
            |c| {
                c.file(".dockerignore", "src/util.c\n");
            },
            "src/util.c removed (the ignore file changed)",
        ),
    ];
    for (change, text) in cases {
        let (context, run) = after(change, &[]);
        one_root(&context, &run, "COPY src/", "files", text);
    }
}

#[test]
fn arguments_and_variables() {
    let (context, run) = after(|_| {}, &["--build-arg", "VERSION=2"]);
    one_root(&context, &run, "RUN echo tools", "arg", "ARG VERSION changed: 1 → 2");
    let (context, run) = after(
        |c| {
            c.dockerfile(&DOCKERFILE.replace("VERSION=1", "VERSION=3"));
        },
        &[],
    );
    one_root(&context, &run, "RUN echo tools", "arg", "ARG VERSION changed: 1 → 3");
    let (context, run) = after(
        |c| {
            c.dockerfile(&DOCKERFILE.replace("red", "blue"));
        },
        &[],
    );
    one_root(&context, &run, "RUN echo tools", "env", "ENV COLOR changed: red → blue");
    let (context, run) = after(
        |c| {
            c.dockerfile(&DOCKERFILE.replace("COLOR=red", "COLOR=red MORE=x"));
        },
        &[],
    );
    one_root(&context, &run, "RUN echo tools", "env", "ENV MORE is set: x");
    let dockerfile = DOCKERFILE.replace("red", "$VERSION-x");
    let context = project();
    context.dockerfile(&dockerfile).build(&[""; 0]).ok();
    let run = context.build(&["--build-arg", "VERSION=2"]).ok();
    one_root(&context, &run, "RUN echo tools", "arg", "ARG VERSION changed: 1 → 2");
}

#[test]
fn an_argument_of_other_instructions() {
    let dockerfile = "FROM base\nARG DIR=src\nCOPY $DIR/ /x/\n";
    let context = project();
    context.dockerfile(dockerfile).build(&[""; 0]).ok();
    let run = context.build(&["--build-arg", "DIR=other"]).ok();
    one_root(&context, &run, "COPY", "arg", "ARG DIR changed: src → other");
}

#[test]
fn values_of_secret_arguments_are_nowhere() {
    let dockerfile = "FROM base\nARG NPM_TOKEN\nRUN echo tools > /tools\n";
    let context = project();
    context.dockerfile(dockerfile).build(&["--build-arg", "NPM_TOKEN=hunter2000"]).ok();
    let run = context.build(&["--build-arg", "NPM_TOKEN=swordfish99"]).ok();
    one_root(&context, &run, "RUN echo tools", "arg", "ARG NPM_TOKEN changed");
    let show = context.rbuild(&["builds", "show", "--format=json"]).ok().stdout;
    let why = context.rbuild(&["why", "--format=json"]).ok().stdout + &context.rbuild(&["why"]).ok().stdout;
    for secret in ["hunter2000", "swordfish99", "****"] {
        assert!(!run.stderr.contains(secret) && !show.contains(secret) && !why.contains(secret), "{secret}");
    }
}

#[test]
fn the_base_image() {
    let context = project();
    context.dockerfile("FROM base\nRUN echo one > /one\n").build(&["-t", "mybase"]).ok();
    let dockerfile = "FROM mybase\nRUN echo tools > /tools\nRUN echo last > /last\n";
    context.file("second/Dockerfile", dockerfile).build(&["-f", "context/second/Dockerfile"]).ok();
    context.dockerfile("FROM base\nENV FROM_BASE=2\nRUN echo two > /one\n").build(&["-t", "mybase"]).ok();
    let run = context.build(&["-f", "context/second/Dockerfile"]).ok();
    one_root(&context, &run, "FROM", "base-image", "base image docker.io/library/mybase:latest moved: * → ");
    assert_eq!(run.count("follows from [1/3] FROM"), 1, "{}", run.stderr);
    let run = context
        .file("second/Dockerfile", dockerfile.replace("mybase", "base"))
        .build(&["-f", "context/second/Dockerfile"])
        .ok();
    one_root(&context, &run, "base", "base-image", "base image changed: docker.io/library/mybase:latest → ");
}

#[test]
fn instructions() {
    let with = |from: &'static str, to: &'static str| {
        after(
            move |c| {
                c.dockerfile(&DOCKERFILE.replace(from, to));
            },
            &[],
        )
    };
    let (context, run) = with("RUN cat /src/* > /all", "RUN cat /src/main.c > /all");
    one_root(&context, &run, "RUN cat", "instruction", "instruction changed");
    let (context, run) = with("COPY src/ /src/", "COPY src/ /src/\nRUN echo put in > /between");
    one_root(&context, &run, "RUN echo put in", "added", "instruction added");
    let (context, run) = with("RUN echo tools > /tools\n", "");
    one_root(&context, &run, "COPY src/", "removed", "instruction removed: [1/5] RUN echo tools");
    let (context, run) = with("COPY src/", "COPY --chmod=600 src/");
    one_root(&context, &run, "COPY", "instruction", "instruction changed");
    let (context, run) = with("RUN echo last", "RUN --network=none echo last");
    one_root(&context, &run, "RUN --network=none echo last", "setting", "network changed: default → none");
    let (context, run) = with("RUN echo last", "RUN --mount=type=tmpfs,target=/t echo last");
    one_root(&context, &run, "echo last", "setting", "mount /t added: type=tmpfs");
    let (context, run) = with("RUN echo last", "WORKDIR /w\nRUN echo last");
    one_root(&context, &run, "WORKDIR /w", "added", "instruction added");
    let (context, run) = with("RUN cat", "USER root\nRUN cat");
    one_root(&context, &run, "RUN cat", "setting", "USER added: root");
    let (context, run) = with("RUN cat", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN cat");
    one_root(&context, &run, "RUN cat", "setting", "SHELL changed: /bin/sh -c → /bin/sh -ec");
}

#[test]
fn a_stage_that_is_put_in_front_is_the_one_root() {
    let context = project();
    let stages = "FROM base AS a\nRUN echo a > /a\nFROM base\nCOPY --from=a /a /a\nRUN echo last > /last\n";
    context.dockerfile(stages).build(&[""; 0]).ok();
    let more =
        format!("FROM base AS first\nRUN echo first > /first\n{stages}COPY --from=first /first /first\n");
    let run = context.dockerfile(&more).build(&[""; 0]).ok();
    let names: Vec<String> =
        roots(&context).into_iter().map(|(name, kinds, _)| name + &kinds.concat()).collect();
    assert_eq!(names.len(), 1, "{names:?}\n{}", run.stderr);
    assert!(names[0].contains("RUN echo first") && names[0].ends_with("added"), "{names:?}");
}

#[test]
fn a_bind_mount() {
    let context = project();
    context
        .dockerfile("FROM base\nRUN --mount=type=bind,source=src,target=/m cat /m/* > /all\n")
        .build(&[""; 0])
        .ok();
    let run = context.file("src/util.c", "other\n").build(&[""; 0]).ok();
    one_root(&context, &run, "RUN", "files", "mount /m: util.c changed");
}

#[test]
fn no_cache() {
    let (context, run) = after(|_| {}, &["--no-cache"]);
    one_root(&context, &run, "RUN echo tools", "no-cache", "--no-cache");
    let context = project();
    let stages = "FROM base AS tools\nRUN date +%N > /tools\nFROM base\nCOPY --from=tools /tools /tools\n";
    context.dockerfile(stages).build(&[""; 0]).ok();
    let run = context.build(&["--no-cache-filter=tools"]).ok();
    one_root(&context, &run, "RUN date", "no-cache", "--no-cache-filter=tools");
}

#[test]
fn never_built() {
    let context = project();
    let run = context.build(&[""; 0]).ok();
    one_root(&context, &run, "RUN echo tools", "never-built", "never built here");
    assert_eq!(run.count("cache miss"), 1, "the rest of a first build goes without saying:\n{}", run.stderr);
    // Another target of the same file.
    let stages = "FROM base AS one\nRUN echo one > /one\nFROM base AS two\nRUN echo two > /two\n";
    context.dockerfile(stages).build(&["--target=one"]).ok();
    let run = context.build(&["--target=two"]).ok();
    one_root(&context, &run, "RUN echo two", "never-built", "never built here");
}

#[test]
fn an_unreachable_remote_cache() {
    let context = project();
    // Nobody listens on the discard port.
    let run = context.build(&["--cache-from", "type=registry,ref=127.0.0.1:9/cache"]).ok();
    let roots = roots(&context);
    assert_eq!(roots.len(), 1, "{roots:#?}");
    assert_eq!(roots[0].1, ["remote-cache", "never-built"]);
    assert!(run.stderr.contains("cache miss: remote cache unreachable: 127.0.0.1:9/cache"), "{}", run.stderr);
    // It is no excuse for what changed here.
    context.file("src/util.c", "other\n");
    let run = context.build(&["--cache-from", "type=registry,ref=127.0.0.1:9/cache"]).ok();
    one_root(&context, &run, "COPY src/", "files", "src/util.c changed");
}

#[test]
fn evicted() {
    let context = project();
    context.build(&[""; 0]).ok();
    context.rbuild(&["prune", "-f", "-a"]).ok();
    let run = context.build(&[""; 0]).ok();
    one_root(&context, &run, "RUN echo tools", "evicted", "evicted at 20*-*T*:*Z");
}

#[test]
fn lost_layers() {
    let context = project();
    context.build(&["--output=type=cacheonly"]).ok();
    for dir in ["snapshots", "blobs/sha256"] {
        for entry in std::fs::read_dir(context.store().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::remove_file(path).unwrap()
            }
        }
    }
    let run = context.build(&["--output=type=cacheonly"]).ok();
    one_root(&context, &run, "RUN echo tools", "layers-lost", "its layers are gone from the store");
}

#[test]
fn a_lost_index() {
    let context = project();
    context.build(&[""; 0]).ok();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        drop(std::fs::remove_file(context.store().join(name)));
    }
    let run = context.build(&[""; 0]).ok();
    one_root(&context, &run, "RUN echo tools", "not-in-cache", "its result is not in this cache any more");
}

#[test]
fn a_step_that_failed_before() {
    let context = project();
    context.dockerfile("FROM base\nRUN test -e /proc/nothing || exit 3\n").build(&[""; 0]).fails(1, &[]);
    context.build(&[""; 0]).fails(1, &["cache miss: it failed in the build before"]);
}

#[test]
fn platforms() {
    let context = project();
    let dockerfile = "FROM scratch\nCOPY src /src\n";
    context.dockerfile(dockerfile).build(&["--platform=linux/amd64"]).ok();
    assert_eq!(context.build(&["--platform=linux/arm64"]).ok().steps().0, 0, "a copy is the same everywhere");
}

#[test]
fn the_same_dockerfile_elsewhere_is_compared() {
    let context = project();
    context.build(&[""; 0]).ok();
    for name in ["Dockerfile", "src/main.c", "src/util.c"] {
        let to = context.path("other").join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(context.in_context(name), to).unwrap();
    }
    std::fs::write(context.path("other/src/util.c"), "changed\n").unwrap();
    let run = context.build(&["other"]).ok();
    one_root(&context, &run, "COPY src/", "files", "src/util.c changed");
}

#[test]
fn why_shows_all_of_it_and_since_when_a_step_is_cached() {
    let context = project();
    context.build(&[""; 0]).ok();
    let first = context.rbuild(&["builds", "ls", "-q"]).ok().stdout.trim().to_owned();
    for n in 0..30 {
        context.file(&format!("src/gen{n:02}.c"), "x");
    }
    context.build(&[""; 0]).ok();
    let why = context.rbuild(&["why", "COPY"]).ok().stdout;
    assert_eq!(why.matches(" added").count(), 33, "three in the line and each below:\n{why}");
    let cached = context.rbuild(&["why", "echo tools"]).ok().stdout;
    assert!(cached.contains(&format!("cached since build {first}")), "{cached}");
    let last = context.rbuild(&["why", "echo last", "--format=json"]).ok().stdout;
    let last: Value = serde_json::from_str(&last).unwrap();
    let copy = last["steps"][0]["root"].as_u64().unwrap();
    let build = shown(&context);
    assert!(build["steps"][copy as usize - 1]["name"].as_str().unwrap().contains("COPY src/"), "{last}");
    context.build(&[""; 0]).ok();
    assert!(context.rbuild(&["why"]).ok().stdout.contains("every step was cached"));
    let against = context.rbuild(&["why", "--against", &first, "COPY"]).ok().stdout;
    assert_eq!(against.matches(" added").count(), 33, "{against}");
    context.rbuild(&["why", "nothing"]).fails(2, &["has no step `nothing`", "COPY src/"]);
    context.rbuild(&["why", "--build", "zzz"]).fails(2, &["no such build: zzz"]);
}
