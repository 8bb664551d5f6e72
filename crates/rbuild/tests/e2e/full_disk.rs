//! A disk that is full or broken: clear words, exit code 4, and a store that is whole.

use crate::context::{Run, TestContext, installed, noise, run, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs that is unmounted when it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(test: &str, size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        skip(test, "tmpfs cannot be mounted");
        None
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// Fills it up but for this many bytes.
    fn fill(&self, left: u64) {
        let stat = rustix::fs::statvfs(self.0.path()).unwrap();
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        std::fs::write(self.0.path().join("filler"), vec![0; usize::try_from(bytes).unwrap()]).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A context whose store is on a disk of this size.
fn on_disk(test: &str, size: &str) -> Option<(TestContext, Disk)> {
    let disk = Disk::mount(test, size)?;
    let mut context = TestContext::new();
    context.env("RBUILD_ROOT", disk.store().to_str().unwrap());
    // Only a disk that is full counts here.
    context.env("RBUILD_MIN_FREE_SPACE", "0");
    Some((context, disk))
}

#[track_caller]
fn is_full(run: Run) {
    let run = run.fails(4, &[]);
    assert!(run.stderr.to_lowercase().contains("no space left"), "{}", run.stderr);
}

#[track_caller]
fn whole(context: &TestContext) {
    let report = context.rbuild(&["fsck", "--deep"]).ok().stdout;
    assert!(report.ends_with("no damage\n"), "{report}");
}

#[test]
fn wherever_it_is_full() {
    let Some((context, disk)) = on_disk("wherever_it_is_full", "16m") else { return };
    context.dockerfile("FROM base\nRUN true\n").build(&["-t", "first"]).ok();
    context.file("large", noise(6 << 20));
    let cases: [(&str, &str, u64, &[&str]); 5] = [
        ("a RUN that writes", "FROM base\nRUN head -c 30000000 /dev/zero > /large\n", 3 << 20, &["-t", "a"]),
        ("a file that is unpacked for a RUN", "FROM base\nCOPY large /\nRUN true\n", 3 << 20, &["-t", "a"]),
        ("a layer that is packed", "FROM base\nCOPY large /\n", 3 << 20, &["-t", "a"]),
        (
            "what a RUN wrote, when it is packed",
            "FROM base\nRUN head -c 4000000 /dev/urandom > /large\n",
            5 << 20,
            &["-t", "a"],
        ),
        ("no byte at all", "FROM base\nRUN echo x > /x\n", 0, &["-t", "a"]),
    ];
    for (case, dockerfile, left, args) in cases {
        println!("{case}");
        disk.fill(left);
        is_full(context.dockerfile(dockerfile).build(args));
        disk.free();
        whole(&context);
        context.assert_no_mounts();
        assert_eq!(std::fs::read_dir(disk.store().join("ingest")).unwrap().count(), 0, "{case}");
    }
    assert_eq!(context.dockerfile("FROM base\nRUN echo y > /y\n").build(&["-t", "first"]).ok().steps().0, 2);
    whole(&context);
}

#[test]
fn where_the_result_goes_is_full() {
    let Some(disk) = Disk::mount("where_the_result_goes_is_full", "3m") else { return };
    let context = TestContext::of("FROM base\nCOPY large /\n");
    context.file("large", noise(4 << 20));
    for kind in ["oci", "docker", "tar"] {
        let dest = disk.0.path().join("x.tar");
        is_full(context.build(&["-t", "app", "-o", &format!("type={kind},dest={}", dest.display())]));
        assert_eq!(
            std::fs::read_dir(disk.0.path()).unwrap().count(),
            0,
            "{kind}: nothing half-written is left"
        );
    }
    is_full(context.build(&["-o", disk.0.path().join("dir").to_str().unwrap()]));
    whole(&context);
}

#[test]
fn unused_cache_gives_way() {
    let Some((context, disk)) = on_disk("unused_cache_gives_way", "24m") else { return };
    // 5 MB each, twice: unpacked and packed.
    let step = |n: u32| format!("FROM base\nRUN head -c 5000000 /dev/urandom > /big && echo {n}\n");
    for n in 0..5 {
        context.dockerfile(&step(n)).build(&["-t", "app"]).ok();
        whole(&context);
    }
    // The program that fails is run once more.
    disk.fill(2 << 20);
    let built = context
        .dockerfile("FROM base\nRUN head -c 4000000 /dev/zero > /x || exit 9\n")
        .build(&["-t", "app2"]);
    assert!(built.code == 0, "{}", built.stderr);
    assert!(built.stderr.contains("the step runs once more"), "{}", built.stderr);
    whole(&context);
}

/// Runs a build under strace with these expressions; what it saw is in the file `trace` of the context.
fn traced(context: &TestContext, expressions: &[&str]) -> Run {
    let build = context.build_command(&["-t", "app"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(context.path("trace"));
    strace.args(expressions.iter().flat_map(|expression| ["-e", *expression]));
    strace.arg(build.get_program()).args(build.get_args());
    strace.env_clear();
    strace.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace.current_dir(context.path(""));
    run(strace, b"")
}

/// Runs a build while system calls fail now and then.
fn with_faults(context: &TestContext, inject: &str) -> Run {
    let traced_calls = inject.split(':').next().unwrap().replace("inject=", "trace=");
    traced(context, &[&traced_calls, inject])
}

/// On a machine that has just written gigabytes, one fsync waits for all of them.
#[test]
fn a_first_build_does_not_wait_for_the_disk() {
    let context = TestContext::of("FROM base\nRUN echo a > /a\nCOPY file /b/c\n");
    context.file("file", "content");
    if !traces(&context.path("probe")) {
        skip("a_first_build_does_not_wait_for_the_disk", "strace cannot trace here");
        return;
    }
    traced(&context, &["trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync", "signal=none"]).ok();
    let trace = std::fs::read_to_string(context.path("trace")).unwrap();
    assert!(!trace.contains("sync"), "{trace}");
}

fn traces(path: &Path) -> bool {
    let probe = Command::new("strace")
        .args(["-qq", "-o"])
        .arg(path)
        .args(["-e", "inject=rename:error=EIO", "true"])
        .output();
    installed("strace") && probe.is_ok_and(|output| output.status.success())
}

/// `rename` puts blobs, layers and index.json in place, `pwrite64` is how SQLite writes, `mkdir` begins layers, and `flock`
/// stands for all locks.
#[test]
fn system_calls_that_fail_with_eio() {
    let context = TestContext::of("FROM base\nCOPY file /a\nCOPY file /b/c\n");
    context.file("file", "content");
    if !traces(&context.path("probe")) {
        skip("system_calls_that_fail_with_eio", "strace cannot inject faults");
        return;
    }
    for (call, count) in [("rename", 12), ("pwrite64", 12), ("mkdir", 3), ("flock", 6)] {
        let mut failed = 0;
        // One call of a thread fails, then all: which call it is that fails alone is chance, so it may be one that a build
        // can do without.
        for n in (1..=count).map(|n| n.to_string()).chain(["1+".to_owned()]) {
            context.file("file", format!("{call} {n}"));
            let built = with_faults(&context, &format!("inject={call}:error=EIO:when={n}"));
            assert!(matches!(built.code, 0 | 4), "{call} {n}: {} {}", built.code, built.stderr);
            assert!(!built.stderr.contains("panicked"), "{call} {n}: {}", built.stderr);
            if built.code == 4 {
                failed += 1;
                let words = ["Input/output error", "disk I/O error"];
                assert!(words.iter().any(|word| built.stderr.contains(word)), "{call} {n}: {}", built.stderr);
            }
            whole(&context);
        }
        assert!(failed > 0, "{call}: no build failed");
        context.build(&["-t", "app"]).ok();
    }
}

#[test]
fn builds_and_prunes_at_once() {
    let mut context = TestContext::new();
    for (name, value) in [("MAX_USED", "1"), ("RESERVED", "0"), ("MIN_FREE", "0")] {
        context.env(&format!("RBUILD_{name}_SPACE"), value);
    }
    let context = &context;
    let file = |n: u32| format!("Dockerfile.{n}");
    for n in 0..4 {
        let text = format!(
            "FROM base AS one\nRUN echo shared > /shared\nRUN echo {n} > /own\n\
             FROM base\nCOPY --from=one /shared /own /\nRUN cat /shared /own && echo more > /more\n"
        );
        context.file(&file(n), text);
    }
    context.build(&["-t", "kept", "-f", &format!("context/{}", file(0))]).ok();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let pruning = scope.spawn(move || {
            let mut rounds = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                context.rbuild(&["prune", "-f", "--all"]).ok();
                rounds += 1;
            }
            rounds
        });
        let builds: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn(move || {
                    for round in 0..5 {
                        let (tag, file) = (format!("app{n}"), format!("context/{}", file(n)));
                        let built = context.build(&["-t", &tag, "-f", &file]);
                        assert_eq!(built.code, 0, "{n} {round}: {}", built.stderr);
                    }
                })
            })
            .collect();
        for build in builds {
            build.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(pruning.join().unwrap() > 0);
    });
    for tag in ["kept", "app0", "app1", "app2", "app3"] {
        assert_eq!(crate::image::Image::of(context, &format!("{tag}:latest")).layers.len(), 3);
    }
    whole(context);
    context.assert_nothing_left();
}
