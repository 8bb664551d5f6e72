//! Cgroups: what the processes of one step may use together.
//!
//! A step whose [`Spec::cgroup`](crate::Spec::cgroup) asks for something gets a cgroup of its own in every hierarchy that
//! is concerned; all others run in the builder's. The supervisor makes it, pid 1 of the step joins it before it does
//! anything else, and the supervisor removes it when the last process is gone: also when the step failed, when the
//! builder was killed, and when the sandbox could not be set up.
//!
//! Both versions are known, also side by side (a controller belongs to one hierarchy): [`v1`] has a hierarchy for each
//! controller, [`v2`] one for all, whose controllers have to be enabled from the top down and never below a cgroup that
//! has processes itself. Where the cgroup lies:
//!
//! | | v1 | v2 |
//! | --- | --- | --- |
//! | without a parent | below the builder's own | beside the builder's own, below its parent |
//! | with a parent | below it, in every hierarchy | below it |
//!
//! A limit that cannot be had is an error ([`RuntimeError::Cgroup`](crate::RuntimeError::Cgroup)), never a limit less.

mod hierarchy;
mod limits;
mod parent;
mod place;
mod step;
mod tree;
mod v1;
mod v2;
mod view;

pub use limits::{Limits, MemorySwap, parse_id_list};
pub(crate) use step::StepCgroup;
pub(crate) use view::View;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::RuntimeError;
use tree::Cgroupfs;

/// The cgroup that a step is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its parent below the root of each hierarchy, without a leading slash; `None`: see the module.
    parent: Option<PathBuf>,
    limits: Limits,
    /// Directories of the parent that [`Self::check`] did not find: removed again when nothing is in them, outermost first.
    passing: Vec<PathBuf>,
}

impl Cgroup {
    /// `parent` as `--cgroup-parent` has it: a path below the root of the hierarchies, with or without a leading slash, or
    /// the name of a systemd slice, which stands for its path (`a-b.slice` is `/a.slice/a-b.slice`). `None` if nothing is
    /// asked for: then there is no cgroup.
    ///
    /// # Errors
    /// What is wrong with the parent or the limits, in docker's words where docker has any.
    pub fn new(parent: Option<&str>, limits: Limits) -> Result<Option<Self>, String> {
        limits.check()?;
        let parent = parent.filter(|text| !text.is_empty()).map(parent::path).transpose()?;
        let asked = parent.is_some() || limits != Limits::default();
        Ok(asked.then_some(Cgroup { parent, limits, passing: Vec::new() }))
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Finds out whether this machine can do it, by making such a cgroup and removing it; notes what of the parent has to
    /// be removed in the end. Also removes empty cgroups of supervisors that were killed. To be called once, before
    /// the first step.
    ///
    /// # Errors
    /// [`RuntimeError::Cgroup`].
    pub fn check(&mut self) -> Result<(), RuntimeError> {
        let places = place::places(&Cgroupfs, &hierarchy::own(), self)?;
        place::remove_orphans(&Cgroupfs, &places);
        self.passing = place::missing(&Cgroupfs, &places);
        StepCgroup::make_in(Cgroupfs, &places, self).map(drop)
    }
}

#[cfg(test)]
mod tests;
