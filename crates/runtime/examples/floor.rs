//! How long a step of a static `true` takes: spawn, set up, run, wait. Needs root and /bin/busybox.
//!
//! `cargo run --release -p rbuild-runtime --example floor [RUNS]`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, not a library")]

use std::fs;
use std::time::{Duration, Instant};

use rbuild_runtime::{Launcher, Network, Seccomp, Spec, StepIo, StepOutput};

fn main() {
    if rbuild_runtime::is_init_invocation() {
        rbuild_runtime::init_main();
    }
    let runs = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
    for (name, network, stub, seccomp) in [
        ("host", Network::Host, false, Seccomp::Docker),
        ("host, no filter", Network::Host, false, Seccomp::None),
        ("host, stub layer", Network::Host, true, Seccomp::Docker),
        ("none", Network::None, false, Seccomp::Docker),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir_all(base.join("bin")).unwrap();
        for directory in ["etc", "dev", "proc", "sys"] {
            fs::create_dir(base.join(directory)).unwrap();
        }
        let stubs = dir.path().join("stubs");
        fs::create_dir(&stubs).unwrap();
        rbuild_runtime::fill_stub_layer(&stubs).unwrap();
        fs::copy("/bin/busybox", base.join("bin/true")).unwrap();
        let launcher = Launcher::new().unwrap();
        let mut times: Vec<Duration> = (0..runs)
            .map(|i| {
                let [upper, work] = ["u", "w"].map(|d| dir.path().join(format!("{d}{i}")));
                fs::create_dir(&upper).unwrap();
                fs::create_dir(&work).unwrap();
                let mut spec = Spec::new(vec![base.clone()], upper, work, vec!["/bin/true".to_owned()]);
                spec.network = network;
                spec.seccomp = seccomp;
                if stub {
                    spec.lower.insert(0, stubs.clone());
                }
                let start = Instant::now();
                let io = StepIo { stdout: StepOutput::Piped, stderr: StepOutput::Piped };
                let outcome = launcher.spawn(&spec, io).unwrap().wait().unwrap();
                assert!(outcome.status.success());
                start.elapsed()
            })
            .collect();
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
        println!("network {name}: min {:.2} median {:.2} p90 {:.2} ms of {runs} runs", at(0), at(50), at(90));
    }
}
