//! Cgroups of builds that are stopped.

use crate::context::{TestContext, skip};
use std::net::TcpListener;
use std::path::PathBuf;

/// Cgroups of this name, and those in them.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let hierarchies =
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let tops = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|dir| dir.join(name));
    let tops: Vec<PathBuf> = tops.filter(|dir| dir.is_dir()).collect();
    let below = |dir: &PathBuf| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let steps: Vec<PathBuf> = tops.iter().flat_map(below).collect();
    [tops, steps].concat()
}

fn can_limit(test: &str, limits: &[&str]) -> bool {
    let run = TestContext::of("FROM base\nRUN true\n").build(limits);
    let refused = run.stderr.contains("cannot be applied: ");
    if refused {
        skip(test, run.stderr.trim());
    }
    !refused
}

#[test]
fn stopped_builds_leave_no_cgroup() {
    for signal in ["INT", "KILL"] {
        let parent = format!("rbuild-e2e-{}-{signal}", std::process::id());
        let limits = ["--resource", "memory=64m", "--cgroup-parent", &parent];
        if !can_limit("stopped_builds_leave_no_cgroup", &limits) {
            return;
        }
        // The step hangs as long as somebody listens.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dockerfile =
            format!("FROM base\nRUN echo started-$((1+1)); nc 127.0.0.1 {port} </dev/null; sleep 1000\n");
        let context = TestContext::of(&dockerfile);
        let mut running = context.start("log", &limits);
        running.wait_for("started-2");
        let steps = cgroups(&parent);
        let step = steps
            .iter()
            .find(|dir| dir.join("memory.max").exists() || dir.join("memory.limit_in_bytes").exists());
        assert!(step.is_some(), "{steps:?}");
        running.signal(signal);
        let (code, log) = running.end();
        assert!(signal == "KILL" || code == 130, "{code}: {log}");
        // Whoever is killed cannot wait for its supervisors.
        for _ in 0..1000 {
            if cgroups(&parent).is_empty() || signal != "KILL" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(cgroups(&parent), Vec::<PathBuf>::new(), "{signal}");
    }
}
