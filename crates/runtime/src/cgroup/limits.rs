//! What can be limited, and which values docker takes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Least memory that docker lets a container have: less does not even start a shell.
const MIN_MEMORY: u64 = 6 << 20;
/// Highest number of a processor or memory node in a list.
const MAX_ID: u32 = 8192;

/// What the processes of a step may use together. `None`: whatever the parent cgroup leaves them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, at least 6 MiB.
    pub memory: Option<u64>,
    /// Memory and swap together; needs `memory`, and is not below it.
    pub memory_swap: Option<MemorySwap>,
    /// Weight against others when processors are short: 2 to 262144, usually 1024.
    pub cpu_shares: Option<u64>,
    /// Length of a period of the completely fair scheduler in microseconds: 1000 to 1000000, usually 100000.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period, at least 1000; negative is no limit.
    pub cpu_quota: Option<i64>,
    /// Processors, as a list: `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list.
    pub cpuset_mems: Option<String>,
}

/// A limit of memory and swap together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemorySwap {
    /// As much swap as there is.
    Unlimited,
    /// Bytes.
    Bytes(u64),
}

/// A part of the kernel that limits something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Cpuset,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Cpuset];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
        }
    }
}

/// One file of a cgroup to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Which flag asks for it.
    pub(crate) flag: &'static str,
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether a kernel that doesn't have the file does by itself what is wanted.
    pub(crate) optional: bool,
}

impl Setting {
    pub(crate) fn new(flag: &'static str, file: &'static str, value: impl ToString) -> Self {
        Setting { flag, file, value: value.to_string(), optional: false }
    }
}

impl Limits {
    /// Checks the values, not whether this machine has them.
    ///
    /// # Errors
    /// In docker's words.
    pub fn check(&self) -> Result<(), String> {
        if self.memory.is_some_and(|memory| memory < MIN_MEMORY) {
            return Err("Minimum memory limit allowed is 6MB".into());
        }
        match (self.memory, self.memory_swap) {
            (None, Some(MemorySwap::Bytes(_))) => {
                return Err(
                    "You should always set the Memory limit when using Memoryswap limit, see usage".into()
                );
            }
            (Some(memory), Some(MemorySwap::Bytes(both))) if both < memory => {
                let problem = "Minimum memoryswap limit should be larger than memory limit, see usage";
                return Err(problem.into());
            }
            _ => {}
        }
        if self.cpu_period.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
            let problem =
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
            return Err(problem.into());
        }
        if self.cpu_quota.is_some_and(|quota| (0..1000).contains(&quota)) {
            return Err("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
        }
        for (list, what) in [(&self.cpuset_cpus, "cpuset cpus"), (&self.cpuset_mems, "cpuset mems")] {
            if let Some(list) = list {
                parse_id_list(list)
                    .map_err(|problem| format!("Invalid value {list} for {what}: {problem}"))?;
            }
        }
        Ok(())
    }

    /// The flag of the first limit that a controller is needed for.
    pub(crate) fn flag(&self, controller: Controller) -> Option<&'static str> {
        let given = match controller {
            Controller::Memory => [
                self.memory.map(|_| "--resource memory"),
                self.memory_swap.map(|_| "--resource memory-swap"),
                None,
            ],
            Controller::Cpu => [
                self.cpu_quota.map(|_| "--resource cpu-quota"),
                self.cpu_period.map(|_| "--resource cpu-period"),
                self.cpu_shares.map(|_| "--resource cpu-shares"),
            ],
            Controller::Cpuset => [
                self.cpuset_cpus.as_ref().map(|_| "--resource cpuset-cpus"),
                self.cpuset_mems.as_ref().map(|_| "--resource cpuset-mems"),
                None,
            ],
        };
        given.into_iter().flatten().next()
    }
}

/// The numbers of a list like `0-3,7`.
///
/// # Errors
/// Docker's words for what is no such list.
pub fn parse_id_list(text: &str) -> Result<BTreeSet<u32>, String> {
    let invalid = || format!("invalid format: {text}");
    let number = |digits: &str| -> Result<u32, String> {
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let value = digits.parse().ok().filter(|value| *value <= MAX_ID);
        value.ok_or_else(|| format!("value of out range, maximum is {MAX_ID}"))
    };
    let mut ids = BTreeSet::new();
    for part in text.trim_end_matches('\n').split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(invalid());
        }
        ids.extend(first..=last);
    }
    Ok(ids)
}
