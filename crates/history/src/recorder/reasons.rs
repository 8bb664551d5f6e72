//! The reason of each miss of a running build.

use super::{Build, CAUSES, Known, NAME, Shared};
use crate::cause::Cause;
use crate::explain::{Comparison, Facts, Reason};
use crate::mask::stripped;
use crate::record::{Keys, Miss};
use rbuild_copy::KeyEntry;
use rbuild_event::MissCause;
use rbuild_oci::Digest;
use std::sync::PoisonError;

impl Shared {
    /// The files behind a digest, also while they are still being written.
    fn listing(&self, build: &Build, digest: &Digest) -> Option<Vec<KeyEntry>> {
        if let Some(listing) = self.history.listing(digest) {
            return Some(listing);
        }
        let mut bytes = Vec::new();
        (build.details.get(digest)?.write)(&mut bytes).ok()?;
        rbuild_copy::read_listing(&*bytes, usize::MAX).ok()
    }

    pub(super) fn explain(&self, step: usize) -> Option<rbuild_event::Miss> {
        let build = self.build.get()?;
        let _alone = self.explaining.lock().unwrap_or_else(PoisonError::into_inner);
        let (previous, matched) = build.against.get_or_init(|| {
            let found = self.history.previous(&self.begin.id, &self.begin.subject, &build.keys.dockerfile);
            let matched = match found.as_ref().and_then(|record| record.keys.as_ref()) {
                Some(keys) => {
                    let same_file = keys.dockerfile == build.keys.dockerfile;
                    crate::align(&keys.steps, &build.keys.steps, same_file)
                }
                None => vec![None; build.keys.steps.len()],
            };
            (found, matched)
        });
        let comparison = Comparison::aligned(previous.as_ref(), &build.keys, matched.as_slice());
        let listings = |digest: &Digest| self.listing(build, digest);
        let reason = if build.keys.steps.get(step)?.cacheable {
            let failed_caches = self.lock().failed_caches.clone();
            let facts = Facts {
                fate: &*self.fate,
                missed: &|place| self.lock().missed.contains(&place),
                no_cache_at_all: build.no_cache_at_all,
                failed_caches: &failed_caches,
                listings: &listings,
            };
            comparison.reason(step, &facts)?
        } else if comparison.source_changed(step) {
            Reason { follows: None, causes: comparison.own_causes(step, &listings) }
        } else {
            return None;
        };
        let causes = reason.causes.into_iter().map(Cause::shortened).collect();
        let mut reason = Reason { causes, ..reason };
        if reason.follows.is_none() {
            reason.follows = self.same_root(step, &reason.causes);
        }
        let root = match reason.follows {
            None => (step, reason.causes.clone()),
            Some(need) => {
                let known = self.lock().reasons.get(&need).map(|known| known.root.clone());
                known.unwrap_or_else(|| (need, comparison.changes_below(need, &listings)))
            }
        };
        let known = Known { step, reason, root };
        let miss = self.miss(build, &known);
        let event = rbuild_event::Miss {
            text: miss.text,
            follows: miss.follows.and_then(|need| build.vertex(need)),
            causes: miss
                .causes
                .iter()
                .map(|cause| MissCause { kind: cause.kind(), text: stripped(&cause.to_string()) })
                .collect(),
            expected: miss.follows.is_some() && known.root.1.contains(&Cause::NeverBuilt),
        };
        let mut state = self.lock();
        state.missed.insert(step);
        state.reasons.insert(step, known);
        Some(event)
    }

    /// One changed ARG, ENV or --no-cache meets many steps. The first of them is the root of all.
    fn same_root(&self, step: usize, causes: &[Cause]) -> Option<usize> {
        let state = self.lock();
        let others = state.reasons.values().filter(|other| other.step != step);
        let roots = others.filter(|other| other.root.0 == other.step);
        let same = roots.filter(|root| {
            !causes.is_empty()
                && causes.iter().all(|cause| !cause.is_of_one_step() && root.root.1.contains(cause))
        });
        same.map(|root| root.step).min()
    }

    pub(super) fn miss(&self, build: &Build, known: &Known) -> Miss {
        let against = build.against.get().and_then(|(record, _)| record.as_ref());
        Miss {
            follows: known.reason.follows,
            causes: known.reason.causes.clone(),
            against: against.map(|record| record.begin.id.clone()),
            text: stripped(&text(&build.keys, known)),
        }
    }
}

/// The whole reason in one line.
fn text(keys: &Keys, known: &Known) -> String {
    let (root, causes) = &known.root;
    let Some(need) = known.reason.follows else { return joined(&known.reason.causes) };
    let name = |step: usize| {
        let name = keys.steps.get(step).map_or("", |step| &step.name);
        let short: String = name.chars().take(NAME).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if short.len() < name.len() { short + "…" } else { short }
    };
    let depends = keys.steps.get(known.step).is_some_and(|step| step.needs.contains(&need));
    let mut text = format!("{} {}", if depends { "follows from" } else { "same as" }, name(need));
    if *root != need {
        text.push_str(&format!(", from {}", name(*root)));
    }
    if !causes.is_empty() {
        text.push_str(&format!(": {}", joined(causes)));
    }
    // A new base image brings its own environment.
    let based = causes.iter().any(|cause| matches!(cause, Cause::BaseImage { .. } | Cause::Platform { .. }));
    let own = known.reason.causes.iter().filter(|own| !causes.contains(own));
    let own: Vec<Cause> = own
        .filter(|own| !based || matches!(own, Cause::Instruction { .. } | Cause::Files { .. }))
        .cloned()
        .collect();
    if !own.is_empty() {
        text.push_str(&format!("; also: {}", joined(&own)));
    }
    text
}

fn joined(causes: &[Cause]) -> String {
    let shown: Vec<String> = causes.iter().take(CAUSES).map(ToString::to_string).collect();
    let more = causes.len().saturating_sub(CAUSES);
    shown.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() }
}
