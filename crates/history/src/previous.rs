//! With which build a build is compared.

use crate::record::{Record, Subject};
use crate::{History, file};
use rbuild_oci::Digest;

/// Newest builds that are looked at for one of the same subject.
const SEARCHED: usize = 1000;
/// Newest builds whose keys are looked at for the same Dockerfile elsewhere.
const SEARCHED_KEYS: usize = 50;

impl History {
    /// The newest build before `id` that is compared with a build of this subject and Dockerfile: one of the same subject,
    /// on whatever platform; else of the same Dockerfile's text, wherever it was; else of the same Dockerfile and context
    /// with another target. Only builds that got as far as their keys count.
    pub fn previous(&self, id: &str, subject: &Subject, dockerfile: &Digest) -> Option<Record> {
        let ids: Vec<String> = self.ids().ok()?.into_iter().filter(|other| other.as_str() < id).collect();
        let with_keys = |id: &str| self.read(id).ok().filter(|record| record.keys.is_some());
        let like = |matches: &dyn Fn(&Subject) -> bool| {
            let ids = ids.iter().take(SEARCHED);
            let mut like = ids.filter(|id| {
                file::read_begin(&self.record_path(id)).is_ok_and(|begin| matches(&begin.subject))
            });
            like.find_map(|id| with_keys(id))
        };
        let same_file =
            |other: &Subject| other.context == subject.context && other.dockerfile == subject.dockerfile;
        let any_platform = |other: &Subject| same_file(other) && other.target == subject.target;
        like(&|other| other == subject)
            .or_else(|| like(&any_platform))
            .or_else(|| {
                let mut records = ids.iter().take(SEARCHED_KEYS).filter_map(|id| with_keys(id));
                records.find(|record| {
                    let same_text = record.keys.as_ref().is_some_and(|keys| keys.dockerfile == *dockerfile);
                    same_text && record.begin.subject.target == subject.target
                })
            })
            .or_else(|| like(&same_file))
    }

    /// The newest build up to `id` in which the step with this definition key was executed: since when its result is
    /// cached.
    pub fn executed_in(&self, key: &Digest, id: &str) -> Option<String> {
        let ids = self.ids().ok()?;
        ids.into_iter().filter(|other| other.as_str() <= id).take(SEARCHED).find(|id| {
            let Ok(record) = self.read(id) else { return false };
            let place = record.steps().iter().position(|step| step.key == *key);
            let end = place.and_then(|place| record.step_end(place));
            end.is_some_and(|end| end.outcome == crate::Outcome::Executed)
        })
    }
}
