//! The history of builds.

use crate::context::{Run, TestContext};
use serde_json::Value;

fn project() -> TestContext {
    TestContext::of("FROM base\nARG WHO=you\nRUN echo hello-$((40+2)) && echo oops >&2\nRUN true\n")
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stdout))
}

fn ids(context: &TestContext) -> Vec<String> {
    context.rbuild(&["builds", "ls", "-q"]).ok().stdout.lines().map(str::to_owned).collect()
}

fn last(context: &TestContext) -> Value {
    json(&context.rbuild(&["builds", "show", "--format=json"]).ok())
}

#[test]
fn d_043_builds_are_listed_shown_and_removed() {
    let context = project();
    assert_eq!(ids(&context), Vec::<String>::new(), "no store is no history");
    context.build(&["-t", "app:1.0", "--build-arg", "WHO=me"]).ok();
    context.build(&["-t", "app:1.0", "--build-arg", "WHO=me"]).ok();
    let ids = ids(&context);
    assert_eq!(ids.len(), 2);
    let table = context.rbuild(&["builds"]).ok().stdout;
    assert!(table.lines().next().unwrap().starts_with("BUILD ") && table.contains(&ids[0]), "{table}");
    let lines = context.rbuild(&["builds", "ls", "--format=json", "-n", "1"]).ok();
    let listed = json(&lines);
    assert_eq!(
        (&listed["id"], &listed["cached"], &listed["exit"]),
        (&ids[0].clone().into(), &2.into(), &0.into())
    );
    let first = json(&context.rbuild(&["builds", "show", &ids[1], "--format=json"]).ok());
    assert_eq!(first["status"], "done");
    assert_eq!(first["build_args"], serde_json::json!(["WHO"]));
    assert_eq!(first["names"], serde_json::json!(["docker.io/library/app:1.0"]));
    assert!(first["manifest"].as_str().unwrap().starts_with("sha256:"));
    assert!(first["dockerfile"].as_str().unwrap().ends_with("/context/Dockerfile"), "{first}");
    let step = &first["steps"][1];
    assert_eq!((step["outcome"].as_str(), step["lines"][0].as_u64()), (Some("executed"), Some(3)), "{step}");
    assert!(
        step["duration_ms"].is_u64() && step["key"].is_string() && step["preimage"]["args"].is_array(),
        "{step}"
    );
    let text = context.rbuild(&["builds", "show", "~1"]).ok().stdout;
    assert!(text.contains("cache miss: never built here") && text.contains("2 executed, 0 cached"), "{text}");
    assert_eq!(context.rbuild(&["builds", "rm", "~1"]).ok().stdout.trim(), ids[1]);
    context.rbuild(&["builds", "show", &ids[1]]).fails(2, &["no such build"]);
    context.rbuild(&["builds", "rm", "--all"]).ok();
    let left: Vec<_> = std::fs::read_dir(context.store().join("history")).unwrap().flatten().collect();
    assert!(
        left.iter().all(|entry| ["listings", "trimmed"].iter().any(|name| entry.file_name() == *name)),
        "{left:?}"
    );
}

#[test]
fn logs_are_whole_and_byte_for_byte() {
    let context = project();
    let dockerfile = "FROM base\nRUN echo start && seq 1 200000 && printf '\\377\\033[31mred\\n' && echo end >&2\nRUN echo second\n";
    context.dockerfile(dockerfile).build(&["-q"]).ok();
    let logs = context.rbuild(&["builds", "logs", "latest", "RUN echo start"]).ok();
    let lines = logs.bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    assert_eq!(lines.len(), 200_004, "a blank one after the last");
    assert!(lines.contains(&&b"\xff\x1b[31mred"[..]));
    let all = context.rbuild(&["builds", "logs"]).ok().stdout;
    assert!(all.contains("RUN echo second\nsecond\n"), "{}", &all[all.len() - 100..]);
    let json = context.rbuild(&["builds", "logs", "@", "second", "--format=json"]).ok().stdout;
    let line: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&line["stream"], &line["text"]), (&"stdout".into(), &"second".into()));
    // A cached step wrote nothing.
    context.build(&["-q"]).ok();
    assert_eq!(context.rbuild(&["builds", "logs"]).ok().stdout, "");
}

#[test]
fn failures_are_recorded() {
    let context = project();
    context.dockerfile("FROM base\nRUN echo before; exit 7\nRUN true\n").build(&[""; 0]).fails(1, &[]);
    let failed = last(&context);
    assert_eq!((&failed["status"], &failed["exit"]), (&"failed".into(), &1.into()));
    assert_eq!(
        (&failed["steps"][1]["outcome"], &failed["steps"][2]["outcome"]),
        (&"failed".into(), &"canceled".into())
    );
    assert!(failed["steps"][1]["error"].as_str().unwrap().contains("exit code: 7"), "{failed}");
    assert_eq!(context.rbuild(&["builds", "logs", "@", "2"]).ok().stdout, "before\n");
    context.dockerfile("FROM base\nRUNN true\n").build(&[""; 0]).fails(2, &[]);
    let refused = last(&context);
    assert_eq!((&refused["status"], &refused["exit"]), (&"failed".into(), &2.into()));
    assert!(refused["error"].as_str().unwrap().contains("RUNN"), "{refused}");
    context.rbuild(&["why"]).fails(2, &["has no steps"]);
}

#[test]
fn a_killed_build_is_seen_to_have_no_end() {
    let context = project();
    context.dockerfile("FROM base\nRUN echo done\nRUN echo waiting && sleep 300\n");
    let mut running = context.start("killed", &[]);
    running.wait_for(" waiting");
    assert_eq!(last(&context)["status"], "running");
    context.rbuild(&["builds", "rm", "latest"]).fails(2, &["is running"]);
    // Output reaches the file while the step runs.
    running.wait_until("the log", |_| {
        let logs = std::fs::read_dir(context.store().join("history")).unwrap().flatten();
        let logs =
            logs.filter(|entry| entry.path().is_dir()).flat_map(|dir| std::fs::read_dir(dir.path()).unwrap());
        logs.flatten().any(|log| std::fs::read_to_string(log.path()).unwrap_or_default().contains("waiting"))
    });
    running.kill();
    let killed = last(&context);
    assert_eq!((&killed["status"], &killed["exit"]), (&"did not end".into(), &Value::Null));
    assert_eq!(killed["steps"][1]["outcome"], "executed");
    assert_eq!(killed["steps"][2]["outcome"], "unfinished");
    context.dockerfile("FROM base\nRUN echo done\nRUN echo waiting && sleep 300\n");
    let mut running = context.start("again", &[]);
    running.wait_for("cache miss: it did not end in the build before");
    running.signal("INT");
    assert_eq!(running.end().0, 130);
    let stopped = last(&context);
    assert_eq!((&stopped["status"], &stopped["exit"]), (&"canceled".into(), &130.into()));
}

#[test]
fn c_024_history_is_kept_within_limits() {
    let context = project();
    for n in 0..4 {
        context.dockerfile(&format!("FROM base\nRUN echo {n}\n"));
        context.build(&["--history-limits=entries=2"]).ok();
    }
    assert_eq!(ids(&context).len(), 2);
    let run = context.dockerfile("FROM base\nRUN echo off\n").build(&["--history-limits=entries=0"]).ok();
    assert_eq!((ids(&context).len(), run.count("cache miss")), (2, 0));
    let pruned = context.rbuild(&["prune", "-f", "--history-limits=entries=1"]).ok();
    assert_eq!((ids(&context).len(), pruned.stdout.matches("history ").count()), (1, 1), "{}", pruned.stdout);
    context.build(&["--history-limits=nonsense"]).fails(2, &["invalid --history-limits `nonsense`"]);
}

#[test]
fn secrets_are_not_in_history() {
    let context = project();
    std::fs::write(context.path("key"), "tops3cret").unwrap();
    context.dockerfile(
        "FROM base\nARG API_TOKEN\nRUN --mount=type=secret,id=key cat /run/secrets/key && echo $API_TOKEN > /dev/null\n",
    );
    context.build(&["--secret=id=key,src=key", "--build-arg=API_TOKEN=hunter2000"]).ok();
    let mut files = vec![context.store().join("history")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let found = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!found(b"tops3cret") && !found(b"hunter2000"), "{}", path.display());
    }
    let shown = context.rbuild(&["builds", "show", "--format=json"]).ok().stdout;
    assert!(!shown.contains("tops3cret") && !shown.contains("hunter2000"), "{shown}");
    assert!(context.rbuild(&["builds", "logs"]).ok().stdout.contains("****"));
}

#[test]
fn a_history_that_cannot_be_written_costs_a_warning() {
    let context = project();
    context.build(&[""; 0]).ok();
    std::fs::remove_dir_all(context.store().join("history")).unwrap();
    std::fs::write(context.store().join("history"), "").unwrap();
    // A store that misses a directory makes it, but cannot here.
    let run = context.build(&[""; 0]);
    assert!(
        run.code == 0 && run.stderr.contains("this build is not recorded") || run.code == 4,
        "{}",
        run.stderr
    );
}
