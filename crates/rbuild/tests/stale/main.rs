//! Promise 1: never a stale byte. Random edits of two contexts between builds of several Dockerfiles on one store; after every
//! build the image holds what the context holds, and a tree that was built before is not built again.
//!
//! Short by default; `scripts/soak.sh` runs more. `RBUILD_STALE_EDITS` is the number of edits, `RBUILD_STALE_SEED` where the
//! random numbers begin. The seed and the last edits are shown when it fails.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "nothing outside this binary sees its modules, which others share"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "tests say what they do and skip")]
#![allow(clippy::disallowed_methods, reason = "a test passes PATH on and reads its own settings")]

#[path = "../e2e/context.rs"]
mod context;
mod edit;
mod mapper;
mod random;
mod seen;
mod source;
mod world;

use random::Random;
use world::{RECIPES, World};

/// Edits of the short form.
const EDITS: u64 = 60;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Edits between builds.
#[test]
fn whatever_is_edited_the_image_is_the_source() {
    let (seed, edits) = (setting("RBUILD_STALE_SEED", 1), setting("RBUILD_STALE_EDITS", EDITS));
    let mut world = World::new(seed);
    while world.edits < edits {
        world.edit_and_build();
    }
    println!("seed {seed}: {}", world.summary());
    assert!(world.hits > 0 && world.misses > 0, "{}", world.summary());
}

/// Edits while a build reads. Such a build may fail by naming what changed; the next one, undisturbed, gives what is there.
#[test]
fn edits_during_a_build_do_not_outlast_it() {
    let seed = setting("RBUILD_STALE_SEED", 2);
    let rounds = setting("RBUILD_STALE_EDITS", EDITS) / 10;
    let mut world = World::new(seed);
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..rounds {
        match world.build_while_edited() {
            true => passed += 1,
            false => refused += 1,
        }
    }
    println!("seed {seed}: {passed} builds beside edits passed, {refused} were refused");
}

/// The stated exception: a write through a mapping that was dirty when the file was hashed changes no timestamp.
#[test]
fn without_the_stat_cache_not_even_a_dirty_mapping_hides() {
    let mut world = World::new(3);
    let file = world.contexts[0].join("src/f1");
    let Some(mapper) = &mut world.mapper else {
        return context::skip("without_the_stat_cache_not_even_a_dirty_mapping_hides", "no python3");
    };
    mapper.hold(&file);
    for round in 0..4u8 {
        let Some(mapper) = &mut world.mapper else { return };
        mapper.write_held(&file, 0, round + 1);
        world.build_and_compare(0, RECIPES[0], &["--no-stat-cache"]);
    }
}

/// Two builds with the same names of files, sizes and times, in two directories, at the same time.
#[test]
fn two_contexts_at_once_do_not_mix() {
    let mut world = World::new(setting("RBUILD_STALE_SEED", 4));
    let mut random = Random::new(world.seed);
    for _ in 0..setting("RBUILD_STALE_EDITS", EDITS) / 15 {
        world.edit(random.below(2) as usize);
        world.build_both_at_once(RECIPES[random.below(RECIPES.len() as u64) as usize]);
    }
}
