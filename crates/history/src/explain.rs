//! From two builds to the reason of each miss.
//!
//! A step has one of two reasons: it follows from a step that it depends on (which has a reason of its own), or it is a
//! root, and then its causes say what is different about itself.

use crate::align::align;
use crate::cause::Cause;
use crate::diff::{Listings, Surroundings, differences};
use crate::record::{Keys, Outcome, Record, StepKey};
use rbuild_oci::Digest;
use std::borrow::Cow;

/// What the store knows of a key that has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Unknown,
    /// Prune removed its record, at this time (seconds since 1970).
    Evicted(i64),
    /// It had a record, whose layers are gone.
    LayersLost,
}

/// What a reason can depend on besides the two builds.
pub struct Facts<'a> {
    /// Asks the store about a definition key.
    pub fate: &'a dyn Fn(&Digest) -> Fate,
    /// Whether a step of this build, by place, was executed although it is cacheable, or is a source that changed.
    pub missed: &'a dyn Fn(usize) -> bool,
    /// Whether all steps are without cache, rather than those of some stages.
    pub no_cache_at_all: bool,
    /// Remote caches that could not be read.
    pub failed_caches: &'a [String],
    /// Files behind digests.
    pub listings: Listings<'a>,
}

/// Why a step was executed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reason {
    /// The step that it follows from.
    pub follows: Option<usize>,
    /// What is different about the step itself.
    pub causes: Vec<Cause>,
}

/// Two builds, compared.
pub struct Comparison<'a> {
    previous: Option<(&'a Record, &'a Keys)>,
    current: &'a Keys,
    /// For each step, the place of its counterpart in the earlier build.
    matched: Cow<'a, [Option<usize>]>,
}

impl<'a> Comparison<'a> {
    /// Compares a build with an earlier one, if there is one that got as far as its keys.
    pub fn new(previous: Option<&'a Record>, current: &'a Keys) -> Self {
        let matched = match previous.and_then(|record| record.keys.as_ref()) {
            Some(keys) => align(&keys.steps, &current.steps, keys.dockerfile == current.dockerfile),
            None => vec![None; current.steps.len()],
        };
        Self::aligned(previous, current, matched)
    }

    /// [`Comparison::new`] with counterparts that are known already.
    pub(crate) fn aligned(
        previous: Option<&'a Record>,
        current: &'a Keys,
        matched: impl Into<Cow<'a, [Option<usize>]>>,
    ) -> Self {
        let previous = previous.and_then(|record| Some((record, record.keys.as_ref()?)));
        Self { previous, current, matched: matched.into() }
    }

    /// The place of a step in the earlier build.
    pub fn counterpart(&self, step: usize) -> Option<usize> {
        self.matched.get(step).copied().flatten()
    }

    fn old(&self, step: usize) -> Option<&'a StepKey> {
        self.previous?.1.steps.get(self.counterpart(step)?)
    }

    /// Whether a step has the key that it had.
    pub fn is_same(&self, step: usize) -> bool {
        self.old(step).is_some_and(|old| self.current.steps.get(step).is_some_and(|new| new.key == old.key))
    }

    /// What is different about a step's own operation.
    pub fn own_causes(&self, step: usize, listings: Listings<'_>) -> Vec<Cause> {
        let (Some((_, keys)), Some(old)) = (self.previous, self.old(step)) else { return Vec::new() };
        differences(old, &self.current.steps[step], &Surroundings::new(keys, self.current, listings))
    }

    /// Whether a source that is always executed gives something else than before.
    pub fn source_changed(&self, step: usize) -> bool {
        self.old(step).is_some_and(|old| old.operation != self.current.steps[step].operation)
    }

    /// Why `step` was executed; `None` if it is out of range.
    pub fn reason(&self, step: usize, facts: &Facts<'_>) -> Option<Reason> {
        let new = self.current.steps.get(step)?;
        let follows = new.needs.iter().copied().find(|need| (facts.missed)(*need));
        if follows.is_some() {
            let causes = self.own_causes(step, facts.listings);
            return Some(Reason { follows, causes });
        }
        if new.ignored && new.cacheable {
            let stage = (!facts.no_cache_at_all).then(|| new.stage.clone());
            return Some(Reason { follows, causes: vec![Cause::NoCache { stage }] });
        }
        match (facts.fate)(&new.key) {
            Fate::Unknown => Some(self.reason_by_comparison(step, new, facts)),
            fate => {
                let gone = match fate {
                    Fate::Evicted(at) => Cause::Evicted { at },
                    Fate::LayersLost | Fate::Unknown => Cause::LayersLost,
                };
                Some(Reason { follows, causes: with_caches(gone, facts) })
            }
        }
    }

    fn reason_by_comparison(&self, step: usize, new: &StepKey, facts: &Facts<'_>) -> Reason {
        let root = |causes| Reason { follows: None, causes };
        let Some((previous, keys)) = self.previous else {
            return root(with_caches(Cause::NeverBuilt, facts));
        };
        let Some(place) = self.counterpart(step) else {
            return root(match keys.dockerfile == self.current.dockerfile {
                true => with_caches(Cause::NeverBuilt, facts),
                false => vec![Cause::Added],
            });
        };
        let old = &keys.steps[place];
        let causes = self.own_causes(step, facts.listings);
        if !causes.is_empty() {
            return root(causes);
        }
        if old.key == new.key {
            let how = match previous.step_end(place).map(|end| end.outcome) {
                Some(Outcome::Failed) => Some("failed"),
                Some(Outcome::Canceled) => Some("was canceled"),
                Some(Outcome::Unfinished) | None => Some("did not end"),
                Some(Outcome::Cached | Outcome::Executed | Outcome::Skipped) => None,
            };
            return root(match how {
                Some(how) => vec![Cause::Unfinished { how: how.into() }],
                None => with_caches(Cause::NotInCache, facts),
            });
        }
        // The cache had what it depends on, but that is not what it depended on the last time.
        if let Some(need) = self.changed_need(step) {
            return Reason { follows: Some(need), causes: Vec::new() };
        }
        let gone = self.gone_before(old, keys);
        if !gone.is_empty() {
            return root(vec![Cause::Removed { instructions: gone }]);
        }
        // What it depends on has no counterpart.
        match new.needs.first() {
            Some(need) => Reason { follows: Some(*need), causes: Vec::new() },
            None => root(with_caches(Cause::NotInCache, facts)),
        }
    }

    /// What the step depends on that has another key than its counterpart.
    fn changed_need(&self, step: usize) -> Option<usize> {
        let steps = &self.current.steps;
        let changed =
            |need: &usize| *need < step && self.old(*need).is_some_and(|old| old.key != steps[*need].key);
        steps[step].needs.iter().copied().find(changed)
    }

    /// What is different about a step that is no miss, or about what it depends on.
    pub(crate) fn changes_below(&self, step: usize, listings: Listings<'_>) -> Vec<Cause> {
        let mut step = step;
        loop {
            if self.counterpart(step).is_none() && self.previous.is_some() {
                return vec![Cause::Added];
            }
            let own = self.own_causes(step, listings);
            match self.changed_need(step) {
                Some(need) if own.is_empty() => step = need,
                _ => return own,
            }
        }
    }

    /// Names of the steps of the earlier build that `old` depended on and that are not there any more.
    fn gone_before(&self, old: &StepKey, keys: &Keys) -> Vec<String> {
        let mut gone = Vec::new();
        let mut open = old.needs.clone();
        while let Some(place) = open.pop() {
            let Some(step) = keys.steps.get(place) else { continue };
            if !self.matched.contains(&Some(place)) {
                gone.push(step.name.clone());
                // A damaged record could go round in circles.
                open.extend(step.needs.iter().copied().filter(|need| *need < place));
            }
        }
        gone.reverse();
        gone
    }
}

/// A result that is not here might have been in a remote cache.
fn with_caches(cause: Cause, facts: &Facts<'_>) -> Vec<Cause> {
    match facts.failed_caches {
        [] => vec![cause],
        names => vec![Cause::RemoteCache { names: names.to_vec() }, cause],
    }
}
