//! Token scopes: `repository:<name>:<actions>` (distribution's token scope grammar).

use crate::error::Access;
use std::collections::{BTreeMap, BTreeSet};

/// A set of scopes, one entry per resource with its actions merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// What `access` to `repository` needs.
    pub(crate) fn repository(repository: &str, access: Access) -> Self {
        let actions: &[&str] = match access {
            Access::Pull => &["pull"],
            Access::Push => &["pull", "push"],
        };
        let mut scopes = Self::default();
        scopes.insert(&format!("repository:{repository}"), actions.iter().copied());
        scopes
    }

    /// Also reading from `repository`, for a mount.
    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.insert(&format!("repository:{repository}"), ["pull"].into_iter());
        self
    }

    fn insert<'a>(&mut self, resource: &str, actions: impl Iterator<Item = &'a str>) {
        self.0
            .entry(resource.to_owned())
            .or_default()
            .extend(actions.filter(|a| !a.is_empty()).map(ToOwned::to_owned));
    }

    /// Adds the scopes a challenge asked for (separated by spaces).
    pub(crate) fn merge_challenge(&mut self, scope: &str) {
        for one in scope.split_whitespace() {
            if let Some((resource, actions)) = one.rsplit_once(':') {
                self.insert(resource, actions.split(','));
            }
        }
    }

    /// The scopes as they are sent; sorted, so the list is also the key of the token cache.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_merged_by_repository_and_sorted() {
        let mut scopes = Scopes::repository("b/app", Access::Push).and_pull("a/base").and_pull("b/app");
        scopes.merge_challenge("repository:b/app:pull,delete registry:catalog:* nonsense");
        assert_eq!(
            scopes.list(),
            ["registry:catalog:*", "repository:a/base:pull", "repository:b/app:delete,pull,push"]
        );
    }
}
