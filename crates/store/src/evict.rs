//! What is removed first when the cache is too large.
//!
//! GreedyDual-Size-Frequency (Cherkasova 1998) with the time of last use in place of the inflating clock:
//!
//! ```text
//! score = last used / 1 day + log2( (uses + 1) · seconds to have it again / bytes )
//! ```
//!
//! The lowest score goes first. A day without use counts as much as being half as costly per byte, so that age wins in
//! the end over any cost; since both terms change for all objects alike while nothing is used, the score needs no upkeep.
//!
//! A layer can only go after the layers that stand on it. Each layer is therefore judged together with all that stands
//! on it: a large cheap layer is not kept by a small dear one above it if the two together are worth little per byte.

use std::collections::BinaryHeap;

/// Seconds in which the worth of something unused falls to one half.
const HALF_LIFE: f64 = 86_400.0;

/// Smallest amount of bytes that is told apart.
const BLOCK: u64 = 4096;

/// Something that can be removed as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Candidate {
    /// What its removal frees.
    pub(crate) bytes: u64,
    /// Milliseconds that it takes to have it again; 0 if nobody will want it.
    pub(crate) cost_ms: u64,
    /// How often it was used since it was made.
    pub(crate) uses: u64,
    /// Seconds since 1970.
    pub(crate) last_used: i64,
    /// What must stay as long as this one stays, by index.
    pub(crate) parents: Vec<usize>,
    /// Whether it may go at all.
    pub(crate) removable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Worth {
    bytes: f64,
    gain: f64,
    last_used: i64,
}

impl Worth {
    fn of(candidate: &Candidate) -> Self {
        let gain = (candidate.uses as f64 + 1.0) * candidate.cost_ms as f64 / 1000.0;
        Self { bytes: candidate.bytes as f64, gain, last_used: candidate.last_used }
    }

    fn score(self) -> f64 {
        if self.gain <= 0.0 {
            return f64::NEG_INFINITY;
        }
        self.last_used as f64 / HALF_LIFE + (self.gain / self.bytes.max(BLOCK as f64)).log2()
    }
}

/// The order of removal: parents after what stands on them, and else by score. What may not go, and what that stands on,
/// is left out.
pub(crate) fn order(candidates: &[Candidate]) -> Vec<usize> {
    let mut children = vec![0_usize; candidates.len()];
    for candidate in candidates {
        for parent in &candidate.parents {
            children[*parent] += 1;
        }
    }
    let scores = scores(candidates, &children);
    let mut heap: BinaryHeap<Ranked> = BinaryHeap::new();
    let rank = |index: usize| Ranked { score: scores[index], index };
    heap.extend((0..candidates.len()).filter(|i| children[*i] == 0 && candidates[*i].removable).map(rank));
    let mut order = Vec::new();
    while let Some(Ranked { index, .. }) = heap.pop() {
        order.push(index);
        for parent in &candidates[index].parents {
            children[*parent] -= 1;
            if children[*parent] == 0 && candidates[*parent].removable {
                heap.push(rank(*parent));
            }
        }
    }
    order
}

/// The least score of each candidate's own and its parents' trees.
fn scores(candidates: &[Candidate], children: &[usize]) -> Vec<f64> {
    // Children before parents. A cycle, which only a damaged index can have, is left out and keeps its own worth.
    let mut waiting = children.to_vec();
    let mut sorted: Vec<usize> = (0..candidates.len()).filter(|i| waiting[*i] == 0).collect();
    let mut next = 0;
    while let Some(&index) = sorted.get(next) {
        next += 1;
        for parent in &candidates[index].parents {
            waiting[*parent] -= 1;
            if waiting[*parent] == 0 {
                sorted.push(*parent);
            }
        }
    }
    let mut trees: Vec<Worth> = candidates.iter().map(Worth::of).collect();
    for &index in &sorted {
        let tree = trees[index];
        // With several parents each gets its share, so that nothing counts twice.
        let share = candidates[index].parents.len().max(1) as f64;
        for parent in &candidates[index].parents {
            let parent = &mut trees[*parent];
            parent.bytes += tree.bytes / share;
            parent.gain += tree.gain / share;
            parent.last_used = parent.last_used.max(tree.last_used);
        }
    }
    let mut scores: Vec<f64> = trees.iter().map(|tree| tree.score()).collect();
    for &index in sorted.iter().rev() {
        let least =
            candidates[index].parents.iter().map(|parent| scores[*parent]).fold(scores[index], f64::min);
        scores[index] = least;
    }
    scores
}

/// The heap's greatest is the least score; equal ones go by index, so that the order is the same every time.
struct Ranked {
    score: f64,
    index: usize,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.score.total_cmp(&self.score).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;
    const DAY: i64 = 86_400;

    fn candidate(bytes: u64, seconds: u64, uses: u64, day: i64) -> Candidate {
        Candidate {
            bytes,
            cost_ms: seconds * 1000,
            uses,
            last_used: day * DAY,
            parents: Vec::new(),
            removable: true,
        }
    }

    /// Each table lists what goes first before what goes later.
    #[test]
    fn the_cheapest_byte_goes_first() {
        let cases = [
            ("size", vec![candidate(100 * MB, 10, 0, 100), candidate(MB, 10, 0, 100)]),
            ("cost", vec![candidate(MB, 1, 0, 100), candidate(MB, 600, 0, 100)]),
            ("uses", vec![candidate(MB, 10, 0, 100), candidate(MB, 10, 9, 100)]),
            ("age", vec![candidate(MB, 10, 0, 90), candidate(MB, 10, 0, 100)]),
            ("a day halves", vec![candidate(MB, 19, 0, 99), candidate(MB, 10, 0, 100)]),
            ("a day halves only", vec![candidate(MB, 10, 0, 100), candidate(MB, 21, 0, 99)]),
            ("cost outlives age", vec![candidate(1000 * MB, 1, 0, 100), candidate(10 * MB, 600, 0, 93)]),
            ("age wins in the end", vec![candidate(10 * MB, 600, 0, 60), candidate(1000 * MB, 1, 0, 100)]),
            ("what nobody wants", vec![candidate(1, 0, 99, 100), candidate(1000 * MB, 1, 0, 1)]),
        ];
        for (case, candidates) in cases {
            assert_eq!(order(&candidates), [0, 1], "{case}");
            let swapped: Vec<Candidate> = candidates.into_iter().rev().collect();
            assert_eq!(order(&swapped), [1, 0], "{case}, swapped");
        }
    }

    fn on(mut candidate: Candidate, parents: &[usize]) -> Candidate {
        candidate.parents = parents.to_vec();
        candidate
    }

    #[test]
    fn what_stands_on_something_goes_before_it() {
        let cheap_base = candidate(100 * MB, 1, 0, 1);
        let chain = [cheap_base.clone(), on(candidate(MB, 60, 0, 9), &[0]), on(candidate(MB, 1, 0, 9), &[1])];
        assert_eq!(order(&chain), [2, 1, 0]);
        // One that must stay keeps all that it stands on.
        let mut kept = chain.to_vec();
        kept[2].removable = false;
        assert_eq!(order(&kept), [] as [usize; 0]);
        let mut side = kept;
        side.push(on(candidate(MB, 1, 0, 9), &[0]));
        assert_eq!(order(&side), [3]);
    }

    #[test]
    fn a_small_dear_layer_does_not_keep_the_large_cheap_one_below_it() {
        // Alone, the top of the first tree is the dearest of all; the first tree as a whole is the cheapest.
        let tree = [
            candidate(1000 * MB, 1, 0, 100),
            on(candidate(4096, 5, 0, 100), &[0]),
            candidate(10 * MB, 5, 0, 100),
        ];
        assert_eq!(order(&tree), [1, 0, 2]);
    }

    #[test]
    fn a_base_is_as_young_as_what_was_last_used_of_it() {
        let tree = [candidate(MB, 10, 0, 1), on(candidate(MB, 10, 0, 100), &[0]), candidate(MB, 10, 0, 50)];
        assert_eq!(order(&tree), [2, 1, 0]);
    }

    #[test]
    fn cycles_end() {
        let cycle = [on(candidate(1, 1, 0, 1), &[1]), on(candidate(1, 1, 0, 1), &[0]), candidate(1, 1, 0, 1)];
        assert_eq!(order(&cycle), [2]);
    }
}
