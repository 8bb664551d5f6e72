//! Which step of an earlier build a step corresponds to.

use crate::record::StepKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Steps of one stage that are compared each with each; longer stages are compared by equal text only.
const MAX_PAIRS: usize = 250_000;

/// For each step of `new`, the step of `old` that it was; `None` if there was none. No step of `old` is given twice.
///
/// `same_file` says that both were built of the same text, in which no stage was renamed. Within a stage the order counts: steps are aligned so that they are as alike as possible altogether, so an instruction
/// that was put in between does not shift the rest.
pub fn align(old: &[StepKey], new: &[StepKey], same_file: bool) -> Vec<Option<usize>> {
    let mut found = vec![None; new.len()];
    for (old_stage, new_stage) in stages(old, new, same_file) {
        if old_stage.len() * new_stage.len() > MAX_PAIRS {
            continue;
        }
        for (from, to) in sequence(old, &old_stage, new, &new_stage) {
            found[to] = Some(from);
        }
    }
    by_operation(old, new, &mut found);
    found
}

/// Steps that went to another stage are still the same operation.
fn by_operation(old: &[StepKey], new: &[StepKey], found: &mut [Option<usize>]) {
    let taken: BTreeSet<usize> = found.iter().flatten().copied().collect();
    let mut free: HashMap<_, Vec<usize>> = HashMap::new();
    for place in (0..old.len()).rev().filter(|place| !taken.contains(place)) {
        free.entry(old[place].operation).or_default().push(place);
    }
    for (place, found) in found.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
        *found = free.get_mut(&new[place].operation).and_then(Vec::pop);
    }
}

/// Places of the steps of each stage, in order.
fn by_stage(steps: &[StepKey]) -> Vec<(&str, Vec<usize>)> {
    let mut stages: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, step) in steps.iter().enumerate() {
        let at = *known.entry(&step.stage).or_insert_with(|| {
            stages.push((&step.stage, Vec::new()));
            stages.len() - 1
        });
        stages[at].1.push(place);
    }
    stages
}

/// Pairs of stages: by name, and those that are left (renamed ones) by their order. Numbers are no names: a stage put
/// in front changes them, so those with an equal operation go first.
fn stages(old: &[StepKey], new: &[StepKey], same_file: bool) -> Vec<(Vec<usize>, Vec<usize>)> {
    let (mut before, after) = (by_stage(old), by_stage(new));
    let mut pairs = Vec::new();
    let mut left = Vec::new();
    for (name, places) in after {
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        let known = before.iter().position(|(other, _)| *other == name);
        match known.filter(|_| same_file || !is_number) {
            Some(at) => pairs.push((before.remove(at).1, places)),
            None if same_file => {}
            None => left.push((name, places)),
        }
    }
    for alike in [true, false] {
        let mut rest = Vec::new();
        for (name, places) in left {
            let operations: BTreeSet<_> = places.iter().map(|place| new[*place].operation).collect();
            let fits = |other: &str, candidates: &[usize]| {
                !alike || other == name && shares(old, candidates, &operations) || {
                    let count =
                        candidates.iter().filter(|at| operations.contains(&old[**at].operation)).count();
                    // The base image alone says little.
                    count > 1
                }
            };
            let at = before
                .iter()
                .position(|(other, candidates)| *other == name && fits(other, candidates))
                .or_else(|| before.iter().position(|(other, candidates)| fits(other, candidates)));
            match at {
                Some(at) => pairs.push((before.remove(at).1, places)),
                None => rest.push((name, places)),
            }
        }
        left = rest;
    }
    pairs
}

fn shares(old: &[StepKey], candidates: &[usize], operations: &BTreeSet<rbuild_oci::Digest>) -> bool {
    candidates.iter().any(|at| operations.contains(&old[*at].operation))
}

/// The alignment of two sequences with the highest sum of likenesses.
fn sequence(old: &[StepKey], from: &[usize], new: &[StepKey], to: &[usize]) -> Vec<(usize, usize)> {
    let likeness: Vec<Vec<u32>> =
        to.iter().map(|to| from.iter().map(|from| alike(&old[*from], &new[*to])).collect()).collect();
    let width = from.len() + 1;
    let mut best = vec![0; width * (to.len() + 1)];
    for j in 1..=to.len() {
        for i in 1..=from.len() {
            let pair = match likeness[j - 1][i - 1] {
                0 => 0,
                score => best[(j - 1) * width + i - 1] + score,
            };
            best[j * width + i] = pair.max(best[(j - 1) * width + i]).max(best[j * width + i - 1]);
        }
    }
    let (mut i, mut j) = (from.len(), to.len());
    let mut pairs = Vec::new();
    while i > 0 && j > 0 {
        let score = likeness[j - 1][i - 1];
        let here = best[j * width + i];
        if score > 0 && here == best[(j - 1) * width + i - 1] + score {
            pairs.push((from[i - 1], to[j - 1]));
            (i, j) = (i - 1, j - 1);
        } else if here == best[(j - 1) * width + i] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    pairs
}

/// 0 for another kind of operation, else up to 1000.
fn alike(old: &StepKey, new: &StepKey) -> u32 {
    if old.kind() != new.kind() {
        return 0;
    }
    let same_text = !new.text.is_empty() && old.text.split_whitespace().eq(new.text.split_whitespace());
    match (old.operation == new.operation, same_text) {
        (true, true) => 1000,
        (true, false) => 950,
        (false, true) => 900,
        (false, false) => 20 + common_words(old, new),
    }
}

/// Up to 800, by the words that two instructions share.
fn common_words(old: &StepKey, new: &StepKey) -> u32 {
    let words = |step: &StepKey| -> BTreeSet<String> {
        let text = if step.text.is_empty() { &step.name } else { &step.text };
        text.split(|c: char| c.is_whitespace() || c == '/' || c == '=').map(str::to_owned).collect()
    };
    let (old, new) = (words(old), words(new));
    let common = old.intersection(&new).count();
    let all = old.union(&new).count().max(1);
    u32::try_from(800 * common / all).unwrap_or(800)
}
