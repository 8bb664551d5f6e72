//! How much the cache may take.

use crate::error::{IoContext, Result};
use crate::{Store, locked};
use std::path::Path;

/// An amount of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the file system that the store is on.
    Percent(u8),
}

impl Space {
    /// In bytes, on a file system of this size.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

/// Limits of the cache: what no tagged image has. An amount that is not given does not limit, nor does one of 0 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Cache of this size is kept whatever the other limits say.
    pub reserved: Option<Space>,
    /// The cache shall not be larger.
    pub max_used: Option<Space>,
    /// As much of the file system shall stay free.
    pub min_free: Option<Space>,
}

const GB: u64 = 1_000_000_000;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its size in bytes.
    pub total: u64,
    /// What is free to everybody, in bytes.
    pub free: u64,
}

impl Disk {
    /// The file system that `path` is on.
    pub fn of(path: &Path) -> Result<Self> {
        let found = rustix::fs::statvfs(path).map_err(std::io::Error::from).at("examine", path)?;
        let block = found.f_frsize.max(1);
        Ok(Self { total: found.f_blocks.saturating_mul(block), free: found.f_bavail.saturating_mul(block) })
    }
}

impl Budget {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// What builds keep to when nothing is said: as BuildKit at most min(80 %, 100 GB) and at least min(10 %, 10 GB) of
    /// cache; of the disk min(20 %, 20 GB) shall be free, where BuildKit wants 20 % of whatever size.
    pub fn or_defaults(self, disk: Disk) -> Self {
        let share = |percent, most| Some(Space::Bytes(Space::Percent(percent).of(disk.total).min(most)));
        Self {
            reserved: self.reserved.or_else(|| share(10, 10 * GB)),
            max_used: self.max_used.or_else(|| share(80, 100 * GB)),
            min_free: self.min_free.or_else(|| share(20, 20 * GB)),
        }
    }

    /// How large a cache of `used` bytes may stay; `None` if it may stay as it is.
    pub fn target(&self, used: u64, disk: Disk) -> Option<u64> {
        let given = |space: Option<Space>| space.map(|space| space.of(disk.total)).filter(|bytes| *bytes > 0);
        let (reserved, most, free) = (given(self.reserved), given(self.max_used), given(self.min_free));
        let missing = free.unwrap_or(0).saturating_sub(disk.free);
        let mut target = match (most, free) {
            (Some(most), _) => most,
            (None, Some(_)) => used,
            // "Keep this much" alone means that the rest goes.
            (None, None) => reserved?,
        };
        if missing > 0 {
            target = target.min(used.saturating_sub(missing));
        }
        let target = target.max(reserved.unwrap_or(0));
        (used > target).then_some(target)
    }
}

impl Store {
    /// Sets the limits that this handle and its clones keep to while they write, and in [`Store::collect_garbage`].
    pub fn set_budget(&self, budget: Budget) {
        *locked(&self.inner.budget) = Some(budget);
    }

    /// The file system of the store.
    pub fn disk(&self) -> Result<Disk> {
        Disk::of(self.root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_from_the_limits() {
        let bytes = |amount: u64| (amount > 0).then_some(Space::Bytes(amount));
        // reserved, max used, min free; used, free → target
        let cases = [
            ((0, 0, 0), (50, 0), None),
            ((0, 100, 0), (50, 0), None),
            ((0, 40, 0), (50, 500), Some(40)),
            ((45, 40, 0), (50, 500), Some(45)),
            ((30, 0, 0), (50, 500), Some(30)),
            ((60, 0, 0), (50, 500), None),
            ((0, 0, 20), (50, 20), None),
            ((0, 0, 20), (50, 5), Some(35)),
            ((40, 0, 20), (50, 5), Some(40)),
            ((0, 45, 20), (50, 5), Some(35)),
            ((0, 45, 20), (50, 18), Some(45)),
            ((0, 0, 900), (50, 5), Some(0)),
        ];
        for ((reserved, most, least), (used, free), expected) in cases {
            let budget = Budget { reserved: bytes(reserved), max_used: bytes(most), min_free: bytes(least) };
            let found = budget.target(used, Disk { total: 1000, free });
            assert_eq!(found, expected, "{reserved} {most} {least}, {used} used, {free} free");
        }
        let percent = Budget { max_used: Some(Space::Percent(4)), ..Budget::default() };
        assert_eq!(percent.target(50, Disk { total: 1000, free: 0 }), Some(40));
        assert_eq!(percent.target(30, Disk { total: 1000, free: 0 }), None);
    }

    #[test]
    fn defaults_come_from_the_disk() {
        let of = |total| Budget::default().or_defaults(Disk { total, free: 0 });
        let sizes =
            |budget: Budget| [budget.reserved, budget.max_used, budget.min_free].map(|s| s.unwrap().of(0));
        assert_eq!(sizes(of(50 * GB)), [5 * GB, 40 * GB, 10 * GB]);
        assert_eq!(sizes(of(4000 * GB)), [10 * GB, 100 * GB, 20 * GB]);
        let own = Budget { max_used: Some(Space::Bytes(7)), ..Budget::default() };
        assert_eq!(sizes(own.or_defaults(Disk { total: 50 * GB, free: 0 })), [5 * GB, 7, 10 * GB]);
        // An amount of 0 switches the default off.
        let off =
            Budget { min_free: Some(Space::Bytes(0)), ..own }.or_defaults(Disk { total: 50 * GB, free: 0 });
        assert_eq!(off.target(3, Disk { total: 50 * GB, free: 0 }), None);
    }
}
