mod kernel;

use std::path::{Path, PathBuf};

use super::hierarchy::{Hierarchy, Version, parse};
use super::limits::{Controller, Limits, MemorySwap, Setting, parse_id_list};
use super::place::{missing, places, remove_orphans};
use super::step::StepCgroup;
use super::tree::Tree;
use super::{Cgroup, parent, v1, v2};
use kernel::{Kernel, MOUNT};

fn all_limits() -> Limits {
    Limits {
        memory: Some(64 << 20),
        memory_swap: Some(MemorySwap::Bytes(96 << 20)),
        cpu_shares: Some(512),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_cpus: Some("0-1".into()),
        cpuset_mems: Some("0".into()),
    }
}

fn cgroup(parent: Option<&str>, limits: Limits) -> Cgroup {
    Cgroup::new(parent, limits).unwrap().unwrap()
}

fn unified(own: &str) -> Vec<Hierarchy> {
    let mountinfo = format!("30 23 0:26 / {MOUNT} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    parse(&mountinfo, &format!("0::{own}\n"))
}

fn shown(settings: Vec<Setting>) -> Vec<String> {
    settings.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
}

/// D-016: docker's messages for values that make no sense.
#[test]
fn limits_are_checked() {
    let limits = Limits::default;
    let bytes = |n| Some(MemorySwap::Bytes(n));
    let list = |text: &str| Some(text.to_owned());
    for (wrong, message) in [
        (Limits { memory: Some((6 << 20) - 1), ..limits() }, "Minimum memory limit allowed is 6MB"),
        (Limits { memory_swap: bytes(1 << 30), ..limits() }, "You should always set the Memory limit"),
        (
            Limits { memory: Some(64 << 20), memory_swap: bytes(63 << 20), ..limits() },
            "Minimum memoryswap limit should be larger",
        ),
        (Limits { cpu_period: Some(999), ..limits() }, "CPU cfs period can not be less"),
        (Limits { cpu_period: Some(1_000_001), ..limits() }, "CPU cfs period can not be less"),
        (Limits { cpu_quota: Some(999), ..limits() }, "CPU cfs quota can not be less"),
        (Limits { cpuset_cpus: list("1-0"), ..limits() }, "Invalid value 1-0 for cpuset cpus"),
        (Limits { cpuset_mems: list("a"), ..limits() }, "Invalid value a for cpuset mems"),
    ] {
        let problem = wrong.check().unwrap_err();
        assert!(problem.starts_with(message), "{wrong:?}: {problem}");
    }
    let unlimited = Limits { memory_swap: Some(MemorySwap::Unlimited), cpu_quota: Some(-1), ..limits() };
    for right in [all_limits(), unlimited, limits()] {
        assert_eq!(right.check(), Ok(()));
    }
    assert_eq!(Cgroup::new(None, limits()), Ok(None), "nothing is asked for");
}

#[test]
fn lists_of_processors() {
    let ids = |text| parse_id_list(text).map(|ids| ids.into_iter().collect::<Vec<_>>());
    assert_eq!(ids("0-3,7"), Ok(vec![0, 1, 2, 3, 7]));
    assert_eq!(ids("3,1,1-2\n"), Ok(vec![1, 2, 3]));
    for wrong in
        ["", ",", "1,", "-1", "1-", "1--2", "1-2-3", "+1", "1 ", "0x1", "3-1", "8193", "0-99999999999"]
    {
        assert!(ids(wrong).is_err(), "{wrong}");
    }
}

/// `--cgroup-parent`.
#[test]
fn parents() {
    for (text, path) in [
        ("/a/b", "a/b"),
        ("a/./b/", "a/b"),
        ("a", "a"),
        ("/", ""),
        ("a.slice", "a.slice"),
        ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
        ("a-b.slice:docker:", "a.slice/a-b.slice"),
        ("-.slice", ""),
        ("/x/a-b.slice", "x/a-b.slice"),
    ] {
        assert_eq!(parent::path(text), Ok(PathBuf::from(path)), "{text}");
    }
    for wrong in ["../x", "a/../..", "a--b.slice", "-a.slice", ".slice", "a\0b"] {
        assert!(parent::path(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn files_of_version_1() {
    let of = |controller| shown(v1::settings(&all_limits(), controller));
    assert_eq!(
        of(Controller::Memory),
        ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=100663296"]
    );
    assert_eq!(of(Controller::Cpu), ["cpu.shares=512", "cpu.cfs_period_us=50000", "cpu.cfs_quota_us=25000"]);
    assert_eq!(of(Controller::Cpuset), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
    let unlimited =
        Limits { memory_swap: Some(MemorySwap::Unlimited), cpu_quota: Some(-7), ..Limits::default() };
    assert_eq!(shown(v1::settings(&unlimited, Controller::Memory)), ["memory.memsw.limit_in_bytes=-1"]);
    assert_eq!(shown(v1::settings(&unlimited, Controller::Cpu)), ["cpu.cfs_quota_us=-1"]);
}

#[test]
fn files_of_version_2() {
    let of = |limits: &Limits, controller| shown(v2::settings(limits, controller));
    // Swap by itself: 96 - 64 MiB.
    assert_eq!(of(&all_limits(), Controller::Memory), ["memory.max=67108864", "memory.swap.max=33554432"]);
    assert_eq!(of(&all_limits(), Controller::Cpu), ["cpu.weight=59", "cpu.max=25000 50000"]);
    assert_eq!(of(&all_limits(), Controller::Cpuset), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
    let cpu = |limits: Limits| of(&limits, Controller::Cpu);
    let nothing = Limits::default;
    assert_eq!(cpu(Limits { cpu_quota: Some(5000), ..nothing() }), ["cpu.max=5000 100000"]);
    assert_eq!(cpu(Limits { cpu_quota: Some(-1), ..nothing() }), ["cpu.max=max 100000"]);
    assert_eq!(cpu(Limits { cpu_period: Some(1000), ..nothing() }), ["cpu.max=max 1000"]);
    // The ends and the usual value of both scales, and what lies outside.
    for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 40, 10_000)] {
        let limits = Limits { cpu_shares: Some(shares), ..nothing() };
        assert_eq!(cpu(limits), [format!("cpu.weight={weight}")], "{shares}");
    }
    let swap = |memory_swap| of(&Limits { memory_swap, ..all_limits() }, Controller::Memory)[1..].to_vec();
    assert_eq!(swap(Some(MemorySwap::Unlimited)), ["memory.swap.max=max"]);
    assert_eq!(swap(Some(MemorySwap::Bytes(64 << 20))), ["memory.swap.max=0"]);
    assert_eq!(swap(None), Vec::<String>::new());
}

/// Mounts of a machine with version 1, and a bare hierarchy of version 2 beside it.
const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:31 /docker/x /sys/fs/cgroup/cpu\\040set rw - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

#[test]
fn hierarchies_of_version_1_are_found() {
    let own =
        "9:name=systemd:/s\n8:pids:/p\n4:memory:/jobs/a:b\n3:cpuset:/docker/x/y\n1:cpu,cpuacct:/\n0::/u\n";
    let found = parse(HYBRID, own);
    let shown: Vec<String> = found
        .iter()
        .map(|h| format!("{:?} {} {}", h.version, h.controllers.join("+"), h.own.display()))
        .collect();
    assert_eq!(
        shown,
        [
            "V1  /sys/fs/cgroup/systemd/s",
            "V1 memory /sys/fs/cgroup/memory/jobs/a:b",
            "V1 cpuset /sys/fs/cgroup/cpu set/y",
            "V1 cpu+cpuacct /sys/fs/cgroup/cpu,cpuacct",
            "V2  /sys/fs/cgroup/unified/u",
        ]
    );
    let tree = &Kernel::new("");
    let bases = |cgroup: &Cgroup| -> Vec<String> {
        let places = places(tree, &found, cgroup).unwrap();
        places.iter().map(|place| format!("{} {}", place.base.display(), place.flag)).collect()
    };
    let memory = Limits { memory: Some(64 << 20), ..Limits::default() };
    assert_eq!(bases(&cgroup(None, memory)), ["/sys/fs/cgroup/memory/jobs/a:b --resource memory"]);
    // A parent counts in every hierarchy that limits something, from the hierarchy's root.
    assert_eq!(
        bases(&cgroup(Some("/docker/x/p"), Limits::default())),
        [
            "/sys/fs/cgroup/memory/docker/x/p --cgroup-parent",
            "/sys/fs/cgroup/cpu set/p --cgroup-parent",
            "/sys/fs/cgroup/cpu,cpuacct/docker/x/p --cgroup-parent",
        ]
    );
    // Seen from a cgroup namespace whose root is elsewhere.
    for outside in ["3:cpuset:/elsewhere\n", "3:cpuset:/docker/x/../../other\n"] {
        assert_eq!(parse(HYBRID, outside)[0].own, Path::new("/sys/fs/cgroup/cpu set"));
    }
}

#[test]
fn what_is_mounted_nowhere_is_an_error_that_names_it() {
    let tree = &Kernel::new("cpu");
    let error = |cgroup: &Cgroup, hierarchies: &[Hierarchy]| {
        places(tree, hierarchies, cgroup).unwrap_err().to_string()
    };
    let limits =
        Limits { memory_swap: Some(MemorySwap::Unlimited), cpu_shares: Some(2), ..Limits::default() };
    let text = error(&cgroup(None, limits.clone()), &unified("/"));
    assert!(text.starts_with("--resource memory-swap cannot be applied: the memory controller is"), "{text}");
    let text = error(&cgroup(None, limits), &[]);
    assert!(text.contains("--resource memory-swap") && text.contains("mount /sys/fs/cgroup"), "{text}");
    let text = error(&cgroup(Some("x"), Limits::default()), &[]);
    assert!(text.starts_with("--cgroup-parent cannot be applied: no cgroup filesystem"), "{text}");
}

/// Makes the cgroup on `kernel` as a step would; gives the files that were written, with `STEP` for its name.
fn made(kernel: &Kernel, own: &str, cgroup: &mut Cgroup) -> Result<Vec<String>, String> {
    let places = places(&kernel, &unified(own), cgroup).map_err(|e| e.to_string())?;
    remove_orphans(&kernel, &places);
    cgroup.passing = missing(&kernel, &places);
    let step = StepCgroup::make_in(kernel, &places, cgroup).map_err(|e| e.to_string())?;
    let name = |line: String| {
        let part = |part: &str| if part.starts_with("rbuild-") { "STEP".to_owned() } else { part.to_owned() };
        line.split('/').map(part).collect::<Vec<_>>().join("/")
    };
    let log = kernel.log().into_iter().map(name).collect();
    drop(step);
    Ok(log)
}

/// beside our own cgroup, for nothing can be below one with processes.
#[test]
fn version_2_beside_our_own() {
    let kernel = Kernel::new("cpuset cpu memory pids").with_process("user.slice/session.scope");
    let log = made(&kernel, "/user.slice/session.scope", &mut cgroup(None, all_limits())).unwrap();
    assert_eq!(
        log,
        [
            "cgroup.subtree_control=+memory",
            "cgroup.subtree_control=+cpu",
            "cgroup.subtree_control=+cpuset",
            "user.slice/cgroup.subtree_control=+memory",
            "user.slice/cgroup.subtree_control=+cpu",
            "user.slice/cgroup.subtree_control=+cpuset",
            "user.slice/STEP/memory.max=67108864",
            "user.slice/STEP/memory.swap.max=33554432",
            "user.slice/STEP/cpu.weight=59",
            "user.slice/STEP/cpu.max=25000 50000",
            "user.slice/STEP/cpuset.cpus=0-1",
            "user.slice/STEP/cpuset.mems=0",
        ]
    );
    assert_eq!(kernel.cgroups(), ["user.slice", "user.slice/session.scope"]);
    // The second step finds everything enabled.
    let kernel_log = kernel.log().len();
    let limits = Limits { memory: Some(8 << 20), ..Limits::default() };
    let log = made(&kernel, "/user.slice/session.scope", &mut cgroup(None, limits)).unwrap();
    assert_eq!(log[kernel_log..], ["user.slice/STEP/memory.max=8388608"]);
}

#[test]
fn version_2_below_a_parent_that_is_made_and_removed() {
    let kernel = Kernel::new("cpuset cpu memory").with_process("init.scope");
    let limits = Limits { memory: Some(8 << 20), ..Limits::default() };
    let mut asked = cgroup(Some("ci-jobs.slice"), limits);
    let log = made(&kernel, "/init.scope", &mut asked).unwrap();
    assert_eq!(log.last().unwrap(), "ci.slice/ci-jobs.slice/STEP/memory.max=8388608");
    assert_eq!(kernel.cgroups(), ["init.scope"]);
    // Of a parent that was there nothing is removed, and no controller is enabled that nobody asked for.
    let kernel = Kernel::new("memory").with_process("ci/other");
    let log = made(&kernel, "/", &mut cgroup(Some("ci"), Limits::default())).unwrap();
    assert_eq!((log.len(), kernel.cgroups()), (0, vec!["ci".to_owned(), "ci/other".to_owned()]));
}

#[test]
fn version_2_says_why_it_cannot() {
    let limits = || Limits { memory: Some(8 << 20), ..Limits::default() };
    let error = |kernel: &Kernel, own: &str, parent: Option<&str>, limits: Limits| {
        let text = made(kernel, own, &mut cgroup(parent, limits)).unwrap_err();
        assert!(!kernel.cgroups().iter().any(|dir| dir.contains("rbuild-")), "{:?}", kernel.cgroups());
        text
    };
    // A container's own root has processes, unlike the machine's.
    for parent in [None, Some("ci")] {
        let text = error(&Kernel::new("memory").container(), "/", parent, limits());
        assert!(
            text.contains("--resource memory") && text.contains("mkdir /sys/fs/cgroup/init &&"),
            "{text}"
        );
    }
    let kernel = Kernel::new("memory").with_process("docker/x");
    let text = error(&kernel, "/docker/x/y", Some("docker/x"), limits());
    assert!(text.contains("--resource memory") && text.contains("with --cgroup-parent"), "{text}");
    let text = error(&Kernel::new("memory").read_only(), "/", None, limits());
    assert!(text.contains("mounted read-only") && text.contains("--resource memory"), "{text}");
    let two = Limits { cpuset_cpus: Some("0-3,7".into()), ..limits() };
    let text = error(&Kernel::new("memory cpuset"), "/", None, two);
    assert!(text.contains("Requested CPUs are not available - requested 0-3,7, available: 0-3"), "{text}");
}

#[test]
fn swap_that_is_not_counted() {
    let error = |memory_swap| {
        let kernel = Kernel::new("memory");
        let limits = Limits { memory: Some(64 << 20), memory_swap, ..Limits::default() };
        let asked = cgroup(None, limits);
        let places = places(&kernel, &unified("/"), &asked).unwrap();
        // A kernel whose cgroups have no such file.
        struct NoSwap<'a>(&'a Kernel);
        impl Tree for NoSwap<'_> {
            fn make(&self, dir: &Path) -> std::io::Result<()> {
                self.0.make(dir)?;
                self.0.without(&dir.join("memory.swap.max"));
                Ok(())
            }
            fn remove(&self, dir: &Path) -> std::io::Result<()> {
                self.0.remove(dir)
            }
            fn read(&self, file: &Path) -> std::io::Result<String> {
                self.0.read(file)
            }
            fn write(&self, file: &Path, value: &str) -> std::io::Result<()> {
                self.0.write(file, value)
            }
            fn below(&self, dir: &Path) -> std::io::Result<Vec<String>> {
                self.0.below(dir)
            }
        }
        StepCgroup::make_in(NoSwap(&kernel), &places, &asked).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(error(Some(MemorySwap::Unlimited)), Ok(()));
    assert_eq!(error(Some(MemorySwap::Bytes(64 << 20))), Ok(()));
    let text = error(Some(MemorySwap::Bytes(128 << 20))).unwrap_err();
    assert!(text.contains("--resource memory-swap") && text.contains("does not count swap"), "{text}");
}

/// who counts processes killed for want of memory.
#[test]
fn kills_are_counted() {
    let count = |limits: Limits, events: &str| {
        let kernel = Kernel::new("memory cpu");
        let asked = cgroup(None, limits);
        let places = places(&kernel, &unified("/"), &asked).unwrap();
        let step = StepCgroup::make_in(&kernel, &places, &asked).unwrap();
        let dir = Path::new(MOUNT).join(&kernel.cgroups()[0]);
        if !events.is_empty() {
            kernel.set(&dir.join("memory.events"), events);
        }
        // What is left of processes is killed.
        kernel.set(&dir.join("cgroup.kill"), "");
        kernel.set(&dir.join("cgroup.procs"), "17\n");
        let kills = step.oom_kills();
        drop(step);
        assert!(kernel.cgroups().is_empty());
        kills
    };
    let memory = Limits { memory: Some(8 << 20), ..Limits::default() };
    assert_eq!(count(memory.clone(), ""), Some(0));
    assert_eq!(count(memory, "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
    let cpu = Limits { cpu_shares: Some(8), ..Limits::default() };
    assert_eq!(count(cpu, ""), None, "the controller is not enabled");
}

/// What a killed supervisor leaves is removed by the next build, if nobody is in it.
#[test]
fn orphans_are_removed() {
    let kernel = Kernel::new("memory");
    // No process has this number: it is above what Linux gives.
    for dir in
        ["rbuild-4194305-1", "rbuild-4194305-2", "rbuild-4194305-2/sub", "rbuild-1-1", "rbuild-x", "mine"]
    {
        kernel.make(&Path::new(MOUNT).join(dir)).unwrap();
    }
    kernel.set(&Path::new(MOUNT).join("rbuild-4194305-1/cgroup.procs"), "1\n");
    let limits = Limits { memory: Some(8 << 20), ..Limits::default() };
    made(&kernel, "/", &mut cgroup(None, limits)).unwrap();
    assert_eq!(kernel.cgroups(), ["mine", "rbuild-1-1", "rbuild-4194305-1", "rbuild-x"]);
}

#[test]
fn versions_are_told_apart() {
    let versions: Vec<Version> = unified("/a").into_iter().map(|h| h.version).collect();
    assert_eq!(versions, [Version::V2]);
}
