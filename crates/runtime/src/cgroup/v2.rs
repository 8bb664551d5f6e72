//! Limits in files of version 2, converted as runc does.

use super::limits::{Controller, Limits, MemorySwap, Setting};

/// Period of the scheduler where none is given, microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// The files of a new cgroup to write, in order.
pub(crate) fn settings(limits: &Limits, controller: Controller) -> Vec<Setting> {
    let mut all = Vec::new();
    match controller {
        Controller::Memory => {
            all.extend(limits.memory.map(|n| Setting::new("--resource memory", "memory.max", n)));
            all.extend(limits.memory_swap.map(|both| swap(both, limits.memory.unwrap_or(0))));
        }
        Controller::Cpu => {
            let weight = limits.cpu_shares.map(weight);
            all.extend(weight.map(|n| Setting::new("--resource cpu-shares", "cpu.weight", n)));
            all.extend(bandwidth(limits));
        }
        Controller::Cpuset => {
            let list = |flag, file, text: &Option<String>| text.as_ref().map(|t| Setting::new(flag, file, t));
            all.extend(list("--resource cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus));
            all.extend(list("--resource cpuset-mems", "cpuset.mems", &limits.cpuset_mems));
        }
    }
    all
}

/// Version 2 limits swap by itself.
fn swap(both: MemorySwap, memory: u64) -> Setting {
    let (value, optional) = match both {
        MemorySwap::Unlimited => ("max".to_owned(), true),
        MemorySwap::Bytes(bytes) => {
            let swap = bytes.saturating_sub(memory);
            // Where swap is not counted there usually is none to be had.
            (swap.to_string(), swap == 0)
        }
    };
    Setting { optional, ..Setting::new("--resource memory-swap", "memory.swap.max", value) }
}

/// `cpu.weight` (1 to 10000, usually 100) for `cpu.shares` (2 to 262144, usually 1024): runc's curve through the three points.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn bandwidth(limits: &Limits) -> Option<Setting> {
    let flag = match (limits.cpu_quota, limits.cpu_period) {
        (Some(_), _) => "--resource cpu-quota",
        (None, Some(_)) => "--resource cpu-period",
        (None, None) => return None,
    };
    let quota = limits.cpu_quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |n| n.to_string());
    let period = limits.cpu_period.unwrap_or(DEFAULT_PERIOD);
    Some(Setting::new(flag, "cpu.max", format!("{quota} {period}")))
}
