//! Promises 4 and 5: kill -9 at any moment, and many processes on one store.
//!
//! Short by default; `scripts/soak.sh` runs more. `RBUILD_SOAK_KILLS` and `RBUILD_SOAK_ROUNDS` are how much,
//! `RBUILD_SOAK_SEED` is where the random numbers begin.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "nothing outside this binary sees its modules, which others share"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "tests say what they do and skip")]
#![allow(clippy::disallowed_methods, reason = "a test passes PATH on and reads its own settings")]

mod check;
#[path = "../e2e/context.rs"]
mod context;
mod crash;
mod crowd;
mod job;
#[path = "../stale/random.rs"]
mod random;

/// Kills of the short form.
const KILLS: u64 = 20;
/// Rounds of the short form.
const ROUNDS: u64 = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Two processes on one store, killed at random moments of builds with pulls, RUN, COPY and exports, and of prune.
#[test]
fn kill_9_at_any_moment_costs_nothing_but_time() {
    let (seed, kills) = (setting("RBUILD_SOAK_SEED", 1), setting("RBUILD_SOAK_KILLS", KILLS));
    crash::run(seed, kills);
}

/// 32 builds at once; every other time with prunes, checks and kills in between.
#[test]
fn a_crowd_on_one_store_does_everything_once() {
    let (seed, rounds) = (setting("RBUILD_SOAK_SEED", 1), setting("RBUILD_SOAK_ROUNDS", ROUNDS));
    crowd::run(seed, rounds);
}
