//! Kills.

use crate::check;
use crate::context::assert_no_process;
use crate::job::{BUILDS, COMMANDS, Job, MARK, Site};
use crate::random::Random;
use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Rounds between two checks of the whole store.
const CHECK_EVERY: u64 = 6;

/// A process, and when it is to die.
struct Victim {
    job: Job,
    name: &'static str,
    child: Child,
    start: Instant,
    /// `None`: it may live.
    dies_after: Option<Duration>,
    ended: Option<(ExitStatus, Duration)>,
}

/// What is known of how long a job takes, cold ones included.
#[derive(Default)]
struct Durations(BTreeMap<String, Duration>);

impl Durations {
    fn of(&self, job: Job) -> Duration {
        self.0.get(&format!("{job:?}")).copied().unwrap_or(Duration::from_millis(400))
    }

    /// The longest seen lately.
    fn learn(&mut self, job: Job, took: Duration) {
        let known = self.of(job);
        self.0.insert(format!("{job:?}"), took.max(known * 9 / 10));
    }
}

pub fn run(seed: u64, kills: u64) {
    let site = Site::new();
    let mut random = Random::new(seed);
    let mut durations = Durations::default();
    let mut wanted = BTreeMap::new();
    for job in BUILDS {
        let start = Instant::now();
        wanted.insert(format!("{job:?}"), site.digest(job));
        durations.learn(job, start.elapsed());
    }
    // How many were killed in which tenth of their expected time.
    let mut spread = [0u64; 11];
    let (mut killed, mut rounds, mut survived, mut last) = (0, 0, 0, Vec::new());
    while killed < kills {
        rounds += 1;
        if random.one_in(25) {
            // A store that is just being made.
            std::fs::remove_dir_all(site.test.store()).unwrap();
        }
        let mut victims: Vec<Victim> =
            ["one", "two"].map(|name| start(&site, name, &mut random, &durations)).into();
        last = victims.iter().map(|victim| (victim.job, victim.dies_after)).collect();
        watch(&mut victims);
        for victim in &victims {
            let (status, took) = victim.ended.expect("all have ended");
            let said = || std::fs::read_to_string(site.test.path(&format!("{}.log", victim.name))).unwrap();
            match status.code() {
                Some(0) => {
                    survived += 1;
                    durations.learn(victim.job, took);
                }
                Some(code) => panic!("seed {seed}, round {rounds}: {last:?}: code {code}:\n{}", said()),
                None => {
                    killed += 1;
                    let tenth = took.as_secs_f64() / durations.of(victim.job).as_secs_f64() * 10.0;
                    spread[(tenth as usize).min(10)] += 1;
                }
            }
        }
        assert_no_process(MARK);
        site.test.assert_no_mounts();
        site.test.rbuild(&["images"]).ok();
        if rounds % CHECK_EVERY == 0 {
            check::store_is_whole(&site.test);
        }
        let job = victims.iter().map(|victim| victim.job).find(|job| BUILDS.contains(job));
        let job = job.unwrap_or(*random.pick(&BUILDS));
        let digest = site.digest(job);
        assert_eq!(
            digest,
            wanted[&format!("{job:?}")],
            "seed {seed}, round {rounds}: {job:?} after {last:?}"
        );
        check::nothing_is_left(&site.test);
    }
    check::store_is_whole(&site.test);
    check::trash_goes(&site.test);
    for job in BUILDS {
        assert_eq!(site.digest(job), wanted[&format!("{job:?}")], "{job:?} after {last:?}");
    }
    println!(
        "seed {seed}: {killed} kills in {rounds} rounds, {survived} ended before; by tenths of a build: {spread:?}"
    );
}

/// Starts a random job.
fn start(site: &Site, name: &'static str, random: &mut Random, durations: &Durations) -> Victim {
    let job = if random.one_in(4) { random.pick(&COMMANDS).0 } else { *random.pick(&BUILDS) };
    // A budget that nothing fits in makes builds remove what others made.
    let choices: [&[&str]; 4] = [&[], &["--no-cache"], &["--no-cache"], &["--max-used-space=1MB"]];
    let flags = *random.pick(&choices);
    let log = File::create(site.test.path(&format!("{name}.log"))).unwrap();
    let mut command = site.command(job, name, flags);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let longest = durations.of(job).as_micros() as u64;
    let dies_after = Duration::from_micros(random.below(longest * 11 / 10));
    let dies_after = (!random.one_in(6)).then_some(dies_after);
    let child = command.spawn().unwrap();
    Victim { job, name, child, start: Instant::now(), dies_after, ended: None }
}

/// Kills each when its time has come, and waits for all.
fn watch(victims: &mut [Victim]) {
    let limit = Instant::now() + Duration::from_secs(120);
    while victims.iter().any(|victim| victim.ended.is_none()) {
        for victim in &mut *victims {
            if victim.ended.is_some() {
                continue;
            }
            if let Some(status) = victim.child.try_wait().unwrap() {
                victim.ended = Some((status, victim.start.elapsed()));
            } else if victim.dies_after.is_some_and(|after| victim.start.elapsed() >= after) {
                victim.child.kill().unwrap();
                let took = victim.start.elapsed();
                victim.ended = Some((victim.child.wait().unwrap(), took));
            } else if Instant::now() > limit {
                let state = crate::crowd::state_of(victim.child.id());
                victim.child.kill().unwrap();
                panic!("{:?} hangs:\n{state}", victim.job);
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}
