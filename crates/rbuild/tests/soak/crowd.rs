//! Many processes at once.

use crate::check;
use crate::context::{TestContext, noise};
use crate::job::COMMANDS;
use crate::random::Random;
use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Builds at once.
const CROWD: usize = 32;
/// How long a round may take; a round is a few seconds of two processors.
const LIMIT: Duration = Duration::from_secs(300);

/// Dockerfiles with steps in common. `ROUND` is another number each time, so that nothing is there yet; what a step prints
/// is found once in all logs together if it ran once. Each builds on the steps of the one before.
const DOCKERFILES: [(&str, &[&str]); 4] = [
    (
        "FROM base AS a\nRUN echo ran-$((0+1))-ROUND > /a; cat /a\nCOPY files /files\nRUN echo ran-$((1+1))-ROUND; ls /files > /l\n",
        &["1", "2"],
    ),
    (
        "FROM base AS a\nRUN echo ran-$((0+1))-ROUND > /a; cat /a\nFROM base AS b\nRUN echo ran-$((2+1))-ROUND > /b; cat /b\n\
         FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b > /c; echo ran-$((3+1))-ROUND\n",
        &["1", "3", "4"],
    ),
    (
        "FROM base AS b\nRUN echo ran-$((2+1))-ROUND > /b; cat /b\n\
         RUN --mount=type=cache,target=/c echo x >> /c/x; echo ran-$((4+1))-ROUND > /d; cat /d\n\
         FROM scratch\nCOPY --from=b /d /\nCOPY files /files\n",
        &["3", "5"],
    ),
    (
        "FROM base AS c\nRUN --mount=target=/ctx,rw cp -r /ctx/files /x; echo ran-$((5+1))-ROUND; touch /ctx/new\n\
         FROM base\nCOPY --from=c /x /x\nRUN --mount=type=cache,target=/c,sharing=locked echo y >> /c/y; echo ran-$((6+1))-ROUND\n",
        &["6", "7"],
    ),
];

pub fn run(seed: u64, rounds: u64) {
    let mut test = TestContext::new();
    test.env("SOURCE_DATE_EPOCH", "1700000000");
    for at in 0..40 {
        test.file(&format!("files/{at}"), noise(500 * at));
    }
    let mut random = Random::new(seed);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let begin = Instant::now();
        let with_prune = round % 2 == 1;
        crowd(&test, round, with_prune, &mut random);
        slowest = slowest.max(begin.elapsed());
    }
    check::store_is_whole(&test);
    check::nothing_is_left(&test);
    println!("seed {seed}: {rounds} rounds of {CROWD} builds, the slowest took {slowest:?}");
}

fn crowd(test: &TestContext, round: u64, with_prune: bool, random: &mut Random) {
    for (at, (text, _)) in DOCKERFILES.iter().enumerate() {
        std::fs::write(test.path(&format!("Dockerfile{at}")), text.replace("ROUND", &round.to_string()))
            .unwrap();
    }
    let first = random.below(DOCKERFILES.len() as u64) as usize;
    let mut running: Vec<(String, Child)> = Vec::new();
    let mut killers = Vec::new();
    for number in 0..CROWD {
        let which = (first + number) % DOCKERFILES.len();
        let tag = format!("crowd{which}");
        let (file, facts) = (format!("Dockerfile{which}"), format!("facts{number}.json"));
        let mut args = vec!["-f", &file, "-t", &tag, "--metadata-file", &facts];
        let archive = format!("type=oci,dest=out{number}.tar");
        if with_prune && number % 9 == 5 {
            args.push("--max-used-space=1MB");
        }
        if number % 11 == 0 {
            args.extend(["-o", &archive]);
        }
        running.push(spawn(test, &format!("build{number}"), test.build_command(&args)));
        if with_prune && number % 8 == 7 {
            let (job, args) = random.pick(&COMMANDS);
            let args = if number + 1 == CROWD { &["prune", "-f"] } else { *args };
            let mut command = test.command();
            command.args(args);
            running.push(spawn(test, &format!("{job:?}{number}"), command));
        }
        if with_prune && number % 10 == 4 {
            // Killed in the middle of it, with locks that others wait for.
            let mut command = test.build_command(&["-f", &file, "--no-cache"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let after = Duration::from_micros(random.below(600_000));
            killers.push(std::thread::spawn(move || {
                std::thread::sleep(after);
                drop(child.kill());
                drop(child.wait());
            }));
        }
    }
    wait(test, &mut running);
    killers.into_iter().for_each(|killer| killer.join().unwrap());
    let logs: String = running.iter().map(|(name, _)| log(test, name)).collect();
    for (which, (_, steps)) in DOCKERFILES.iter().enumerate() {
        for step in *steps {
            // As printed by the step: behind the time.
            let text = format!(" ran-{step}-{round}");
            let times = logs.lines().filter(|line| line.starts_with('#') && line.ends_with(&text)).count();
            // A prune may take what a build that has ended made, before another one begins that would have used it; and a build
            // that is killed may have run the step before, which no log tells.
            let once = with_prune || times == 1;
            assert!(once, "round {round}, Dockerfile{which}: step {step} ran {times} times\n{logs}");
        }
    }
    let mut digests: BTreeMap<usize, String> = BTreeMap::new();
    for number in 0..CROWD {
        let facts = std::fs::read(test.path(&format!("facts{number}.json"))).unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
        let digest = facts["containerimage.digest"].as_str().unwrap().to_owned();
        let known = digests.entry((first + number) % DOCKERFILES.len()).or_insert_with(|| digest.clone());
        assert_eq!(*known, digest, "round {round}: one Dockerfile, one image");
    }
}

fn spawn(test: &TestContext, name: &str, mut command: std::process::Command) -> (String, Child) {
    let out = File::create(test.path(&format!("{name}.log"))).unwrap();
    let child = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().expect("rbuild starts");
    (name.to_owned(), child)
}

fn log(test: &TestContext, name: &str) -> String {
    std::fs::read_to_string(test.path(&format!("{name}.log"))).unwrap()
}

/// Waits for all, which must succeed; after [`LIMIT`] it says which do not end, and what they are at.
fn wait(test: &TestContext, running: &mut [(String, Child)]) {
    let limit = Instant::now() + LIMIT;
    loop {
        let mut waiting = Vec::new();
        for (name, child) in &mut *running {
            match child.try_wait().unwrap() {
                None => waiting.push((name.clone(), child.id())),
                Some(status) => assert!(status.success(), "{name}: {status}\n{}", log(test, name)),
            }
        }
        if waiting.is_empty() {
            return;
        }
        if Instant::now() > limit {
            let shown =
                |(name, pid): &(String, u32)| format!("{name}: {}{}", state_of(*pid), log(test, name));
            let shown: Vec<String> = waiting.iter().map(shown).collect();
            running.iter_mut().for_each(|(_, child)| drop(child.kill()));
            panic!("these hang:\n{}", shown.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a process waits for: its threads, and the locks it has or wants.
pub fn state_of(pid: u32) -> String {
    let mut text = format!("process {pid}\n");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        text.push_str(&format!(
            "  {} {} {}\n",
            read("comm").trim(),
            read("wchan").trim(),
            read("syscall").trim()
        ));
    }
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    for line in locks.lines().filter(|line| line.split_whitespace().any(|word| word == pid.to_string())) {
        text.push_str(&format!("  {line}\n"));
    }
    for file in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        if target.to_string_lossy().contains("/locks/") {
            text.push_str(&format!("  has open {}\n", target.display()));
        }
    }
    text
}
