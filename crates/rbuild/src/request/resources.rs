//! `--resource`, its older forms (`--memory`, `-c`, …), and `--cgroup-parent` (D-015, D-016).

use crate::args::BuildArgs;
use crate::exit::Usage;
use anyhow::Result;
use rbuild_build::{Cgroup, MemorySwap, ResourceLimits, csv_fields};
use rbuild_frontend::number::ram_in_bytes;
use rbuild_frontend::suggest::suggest;

/// What `--resource` may limit.
const NAMES: [&str; 7] =
    ["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];

/// The cgroup of RUN steps, if any is asked for. What `--resource` says counts more than the older flags.
pub(super) fn cgroup(args: &BuildArgs) -> Result<Option<Cgroup>> {
    let old = &args.limits;
    let mut limits = ResourceLimits::default();
    for (flag, name, value) in [
        ("-m, --memory", "memory", &old.memory),
        ("--memory-swap", "memory-swap", &old.memory_swap),
        ("-c, --cpu-shares", "cpu-shares", &old.cpu_shares),
        ("--cpu-period", "cpu-period", &old.cpu_period),
        ("--cpu-quota", "cpu-quota", &old.cpu_quota),
        ("--cpuset-cpus", "cpuset-cpus", &old.cpuset_cpus),
        ("--cpuset-mems", "cpuset-mems", &old.cpuset_mems),
    ] {
        let Some(value) = value else { continue };
        set(&mut limits, name, value).map_err(|problem| {
            Usage::new(format!("invalid argument {value:?} for {flag:?} flag: {problem}"))
        })?;
    }
    for text in &args.resource {
        let fail = |problem: String| Usage::new(format!("invalid --resource `{text}`: {problem}"));
        for (name, value) in entries(text).map_err(fail)? {
            set(&mut limits, &name, &value).map_err(fail)?;
        }
    }
    Cgroup::new(args.cgroup_parent.as_deref(), limits).map_err(|problem| Usage::new(problem).into())
}

/// `name=value` pairs between commas. What has no `=` belongs to the value before: `cpuset-cpus=0,2,memory=1g`.
fn entries(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for field in csv_fields(text)? {
        match (field.split_once('='), entries.last_mut()) {
            (Some((name, value)), _) => entries.push((name.trim().to_lowercase(), value.trim().to_owned())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(field.trim());
            }
            (None, None) => {
                return Err(format!("expected NAME=LIMIT, where NAME is one of {}", NAMES.join(", ")));
            }
        }
    }
    Ok(entries)
}

/// Sets one limit. As with docker, 0 and an empty list are no limit.
fn set(limits: &mut ResourceLimits, name: &str, value: &str) -> Result<(), String> {
    let list = || Some(value.to_owned()).filter(|value| !value.is_empty());
    match name {
        "memory" => limits.memory = Some(bytes(value)?).filter(|bytes| *bytes > 0),
        "memory-swap" if value == "-1" => limits.memory_swap = Some(MemorySwap::Unlimited),
        "memory-swap" => {
            limits.memory_swap = Some(bytes(value)?).filter(|bytes| *bytes > 0).map(MemorySwap::Bytes);
        }
        "cpu-shares" => limits.cpu_shares = natural(value, "shares: invalid argument")?,
        "cpu-period" => {
            let range =
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
            limits.cpu_period = natural(value, range)?;
        }
        "cpu-quota" => limits.cpu_quota = Some(integer(value)?).filter(|quota| *quota != 0),
        "cpuset-cpus" => limits.cpuset_cpus = list(),
        "cpuset-mems" => limits.cpuset_mems = list(),
        _ => {
            let hint = suggest(name, NAMES, true).map(|near| format!(" (did you mean {near}?)"));
            let hint = hint.unwrap_or_else(|| format!(": use {}", NAMES.join(", ")));
            return Err(format!("unknown resource `{name}`{hint}"));
        }
    }
    Ok(())
}

fn bytes(text: &str) -> Result<u64, String> {
    ram_in_bytes(text).and_then(|size| u64::try_from(size).map_err(|_| format!("invalid size: '{text}'")))
}

fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = if numeric { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseInt: parsing {text:?}: {why}")
    })
}

/// A number that is not negative, or `problem`; 0 is none.
fn natural(text: &str, problem: &str) -> Result<Option<u64>, String> {
    let value = u64::try_from(integer(text)?).map_err(|_| problem.to_owned())?;
    Ok(Some(value).filter(|value| *value > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn asked(line: &str) -> Result<Option<Cgroup>> {
        let args = ["rbuild", "build"].into_iter().chain(line.split_whitespace()).chain(["."]);
        match Cli::try_parse_from(args)?.command {
            Command::Build(args) => cgroup(&args),
            other => panic!("{other:?}"),
        }
    }

    fn limits(line: &str) -> ResourceLimits {
        asked(line).unwrap().map(|cgroup| cgroup.limits().clone()).unwrap_or_default()
    }

    /// D-016: one flag for all, repeated or with commas, and docker's older ones.
    #[test]
    fn limits_are_understood() {
        let none = ResourceLimits::default;
        let list = |text: &str| Some(text.to_owned());
        for (line, meant) in [
            ("--resource memory=64m", ResourceLimits { memory: Some(64 << 20), ..none() }),
            ("-m 64m", ResourceLimits { memory: Some(64 << 20), ..none() }),
            ("--memory=67108864", ResourceLimits { memory: Some(64 << 20), ..none() }),
            ("-m 1g --resource memory=64m", ResourceLimits { memory: Some(64 << 20), ..none() }),
            (
                "--resource memory=1g --resource memory=64m",
                ResourceLimits { memory: Some(64 << 20), ..none() },
            ),
            (
                "--resource memory=64m,memory-swap=1.5g",
                ResourceLimits {
                    memory: Some(64 << 20),
                    memory_swap: Some(MemorySwap::Bytes(3 << 29)),
                    ..none()
                },
            ),
            ("--memory-swap -1", ResourceLimits { memory_swap: Some(MemorySwap::Unlimited), ..none() }),
            (
                "--resource memory-swap=-1",
                ResourceLimits { memory_swap: Some(MemorySwap::Unlimited), ..none() },
            ),
            ("-c 512 --cpu-period 50000", {
                ResourceLimits { cpu_shares: Some(512), cpu_period: Some(50_000), ..none() }
            }),
            ("--cpu-quota -1", ResourceLimits { cpu_quota: Some(-1), ..none() }),
            ("--cpu-quota=25000", ResourceLimits { cpu_quota: Some(25_000), ..none() }),
            ("--cpuset-cpus 0-3,7 --cpuset-mems 0", {
                ResourceLimits { cpuset_cpus: list("0-3,7"), cpuset_mems: list("0"), ..none() }
            }),
            ("--resource cpuset-cpus=0-3,7,cpu-quota=5000", {
                ResourceLimits { cpuset_cpus: list("0-3,7"), cpu_quota: Some(5000), ..none() }
            }),
            ("--resource \"cpuset-cpus=0,2\",Memory=6m", {
                ResourceLimits { cpuset_cpus: list("0,2"), memory: Some(6 << 20), ..none() }
            }),
        ] {
            assert_eq!(limits(line), meant, "{line}");
        }
        for nothing in
            ["", "-m 0 --memory-swap 0 -c 0 --cpu-quota 0 --cpu-period 0", "--cpuset-cpus= --cgroup-parent="]
        {
            assert_eq!(asked(nothing).unwrap(), None, "{nothing}");
        }
        assert!(asked("--cgroup-parent /ci").unwrap().is_some());
    }

    #[test]
    fn what_is_wrong_is_said_in_dockers_words() {
        for (line, words) in [
            ("-m 5m", "Minimum memory limit allowed is 6MB"),
            ("-m x", "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"),
            ("-m -1", "invalid argument \"-1\" for \"-m, --memory\" flag: invalid size: '-1'"),
            ("-m 1y", "invalid suffix: 'y'"),
            ("--memory-swap 1g", "You should always set the Memory limit when using Memoryswap limit"),
            ("-m 64m --memory-swap 32m", "Minimum memoryswap limit should be larger than memory limit"),
            ("-c -1", "invalid argument \"-1\" for \"-c, --cpu-shares\" flag: shares: invalid argument"),
            ("-c 1k", "strconv.ParseInt: parsing \"1k\": invalid syntax"),
            ("--cpu-quota 99999999999999999999", "value out of range"),
            ("--cpu-quota 999", "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
            ("--cpu-period 5", "CPU cfs period can not be less than 1ms"),
            ("--cpu-period -5", "CPU cfs period can not be less than 1ms"),
            ("--cpuset-cpus 3-1", "Invalid value 3-1 for cpuset cpus"),
            ("--resource cpuset-mems=0,,1", "Invalid value 0,,1 for cpuset mems"),
            ("--resource memory", "invalid --resource `memory`: expected NAME=LIMIT"),
            ("--resource memry=1g", "unknown resource `memry` (did you mean memory?)"),
            ("--resource gpus=1", "unknown resource `gpus`: use memory, memory-swap"),
            ("--resource memory=1g,cpu-quota=x", "invalid --resource `memory=1g,cpu-quota=x`: strconv"),
            ("--cgroup-parent ../x", "invalid cgroup parent \"../x\""),
        ] {
            let message = asked(line).unwrap_err().to_string();
            assert!(message.contains(words), "{line}: {message}");
        }
    }
}
