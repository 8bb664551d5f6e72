//! Roots, and what follows from them.

use super::*;
use std::collections::BTreeSet;

struct Case<'a> {
    missed: &'a [usize],
    fate: Fate,
    caches: &'a [String],
}

const PLAIN: Case<'static> = Case { missed: &[], fate: Fate::Unknown, caches: &[] };

/// The reason of a step: `<3` if it follows from that, then the causes.
fn reason(previous: Option<&Record>, current: &Keys, step: usize, case: &Case<'_>) -> String {
    let missed: BTreeSet<usize> = case.missed.iter().copied().collect();
    let facts = Facts {
        fate: &|_| case.fate,
        missed: &|step| missed.contains(&step),
        no_cache_at_all: false,
        failed_caches: case.caches,
        listings: &no_files,
    };
    let reason = Comparison::new(previous, current).reason(step, &facts).unwrap();
    let causes: Vec<String> = reason.causes.iter().map(ToString::to_string).collect();
    let follows = reason.follows.map(|need| format!("<{need}")).into_iter();
    follows.chain(causes).collect::<Vec<_>>().join(" ")
}

fn file() -> Vec<StepKey> {
    vec![image("FROM a", "a", "1"), exec("RUN tools"), copy("COPY . /", "1"), exec("RUN make")]
}

#[test]
fn a_first_build() {
    let current = keys(file());
    assert_eq!(reason(None, &current, 1, &PLAIN), "never built here");
    assert_eq!(reason(None, &current, 2, &Case { missed: &[1], ..PLAIN }), "<1");
    let caches = ["registry/cache".to_owned()];
    let with_cache = Case { caches: &caches, ..PLAIN };
    assert_eq!(
        reason(None, &current, 1, &with_cache),
        "remote cache unreachable: registry/cache never built here"
    );
}

#[test]
fn a_changed_step_is_the_root_of_what_stands_on_it() {
    let previous = record(keys(file()));
    let mut steps = file();
    steps[2] = copy("COPY . /", "2");
    let current = keys(steps);
    assert_eq!(reason(Some(&previous), &current, 2, &PLAIN), "files of the build context changed");
    assert_eq!(reason(Some(&previous), &current, 3, &Case { missed: &[2], ..PLAIN }), "<2");
    assert_eq!(reason(Some(&previous), &current, 3, &PLAIN), "<2", "also if its own result was cached");
}

#[test]
fn what_is_put_in_or_taken_out() {
    let previous = record(keys(file()));
    let mut steps = file();
    steps.insert(2, exec("RUN more"));
    let current = keys(steps);
    assert_eq!(reason(Some(&previous), &current, 2, &PLAIN), "instruction added");
    assert_eq!(reason(Some(&previous), &current, 3, &Case { missed: &[2], ..PLAIN }), "<2");
    let mut steps = file();
    steps.remove(1);
    let current = keys(steps);
    assert_eq!(reason(Some(&previous), &current, 1, &PLAIN), "instruction removed: RUN tools");
}

#[test]
fn the_same_key_without_a_result() {
    let current = keys(file());
    let previous = record(keys(file()));
    let with = |fate| Case { fate, ..PLAIN };
    assert_eq!(
        reason(Some(&previous), &current, 1, &with(Fate::Evicted(60))),
        "evicted at 1970-01-01T00:01:00Z"
    );
    assert_eq!(
        reason(Some(&previous), &current, 1, &with(Fate::LayersLost)),
        "its layers are gone from the store"
    );
    assert_eq!(reason(None, &current, 1, &with(Fate::Evicted(0))), "evicted at 1970-01-01T00:00:00Z");
    let gone = "its result is not in this cache any more";
    assert_eq!(reason(Some(&previous), &current, 1, &PLAIN), gone);
    for (outcome, expected) in [
        (Outcome::Failed, "it failed in the build before"),
        (Outcome::Canceled, "it was canceled in the build before"),
        (Outcome::Unfinished, "it did not end in the build before"),
        (Outcome::Cached, gone),
    ] {
        let mut previous = record(keys(file()));
        previous.end.as_mut().unwrap().steps[1].outcome = outcome;
        assert_eq!(reason(Some(&previous), &current, 1, &PLAIN), expected);
    }
    // A build that was killed.
    let killed = Record { end: None, ..record(keys(file())) };
    assert_eq!(reason(Some(&killed), &current, 1, &PLAIN), "it did not end in the build before");
}

#[test]
fn no_cache_is_the_reason_of_the_first_step_it_covers() {
    let mut current = keys(file());
    for step in &mut current.steps {
        step.ignored = true;
    }
    let previous = record(keys(file()));
    assert_eq!(reason(Some(&previous), &current, 1, &PLAIN), "--no-cache-filter=0");
    assert_eq!(reason(Some(&previous), &current, 2, &Case { missed: &[1], ..PLAIN }), "<1");
}

#[test]
fn a_stage_that_was_not_built_before_is_new_only_if_the_file_changed() {
    let stage = |name: &str| vec![in_stage(name, exec(&format!("RUN {name}")))];
    let previous = record(keys(stage("one")));
    let same_file = Keys { dockerfile: previous.keys.as_ref().unwrap().dockerfile, ..keys(stage("two")) };
    assert_eq!(reason(Some(&previous), &same_file, 0, &PLAIN), "never built here");
    let mut both = stage("one");
    both.extend(stage("two"));
    assert_eq!(reason(Some(&previous), &keys(both), 1, &PLAIN), "instruction added");
}

#[test]
fn steps_out_of_range_have_no_reason() {
    let current = keys(file());
    let facts = Facts {
        fate: &|_| Fate::Unknown,
        missed: &|_| false,
        no_cache_at_all: true,
        failed_caches: &[],
        listings: &no_files,
    };
    assert_eq!(Comparison::new(None, &current).reason(99, &facts), None);
}
