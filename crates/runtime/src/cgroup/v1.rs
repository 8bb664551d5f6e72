//! Limits in files of version 1.

use super::limits::{Controller, Limits, MemorySwap, Setting};

/// The files of a new cgroup to write, in order.
pub(crate) fn settings(limits: &Limits, controller: Controller) -> Vec<Setting> {
    let mut all = Vec::new();
    match controller {
        Controller::Memory => {
            // The kernel keeps memory from being more than memory and swap: the new cgroup has neither limit yet.
            all.extend(limits.memory.map(|n| Setting::new("--resource memory", "memory.limit_in_bytes", n)));
            all.extend(limits.memory_swap.map(swap));
        }
        Controller::Cpu => {
            all.extend(limits.cpu_shares.map(|n| Setting::new("--resource cpu-shares", "cpu.shares", n)));
            all.extend(
                limits.cpu_period.map(|n| Setting::new("--resource cpu-period", "cpu.cfs_period_us", n)),
            );
            let quota = limits.cpu_quota.map(|n| n.max(-1));
            all.extend(quota.map(|n| Setting::new("--resource cpu-quota", "cpu.cfs_quota_us", n)));
        }
        Controller::Cpuset => {
            let list = |flag, file, text: &Option<String>| text.as_ref().map(|t| Setting::new(flag, file, t));
            all.extend(list("--resource cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus));
            all.extend(list("--resource cpuset-mems", "cpuset.mems", &limits.cpuset_mems));
        }
    }
    all
}

fn swap(swap: MemorySwap) -> Setting {
    let (value, optional) = match swap {
        // A kernel that does not count swap does not limit it either.
        MemorySwap::Unlimited => ("-1".to_owned(), true),
        MemorySwap::Bytes(bytes) => (bytes.to_string(), false),
    };
    Setting { optional, ..Setting::new("--resource memory-swap", "memory.memsw.limit_in_bytes", value) }
}
