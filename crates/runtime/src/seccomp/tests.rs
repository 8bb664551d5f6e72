//! The program, run here as the kernel would run it, over calls with known verdicts.

use super::bpf::{
    ALLOW, ARCHITECTURE, FAIL, FIRST_ARGUMENT, FIRST_ARGUMENT_HIGH, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL,
    IF_GREATER, JUMP, LOAD, NUMBER, RETURN,
};
use super::*;
use crate::DEFAULT_CAPABILITIES;

const AMD64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ARM64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const X32: u32 = 1 << 30;
const SYS_ADMIN: u64 = 1 << 21;

/// What happens to a call: `Ok` is permission, else the error number.
fn verdict(filter: &Filter, audit: u32, number: u32, first: u64) -> Result<(), u32> {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = filter.0[at];
        at += 1;
        let holds = match step.code {
            LOAD => {
                accumulator = match step.k {
                    NUMBER => number,
                    ARCHITECTURE => audit,
                    FIRST_ARGUMENT => first as u32,
                    FIRST_ARGUMENT_HIGH => (first >> 32) as u32,
                    other => panic!("offset {other}"),
                };
                continue;
            }
            JUMP => {
                at += step.k as usize;
                continue;
            }
            RETURN if step.k == ALLOW => return Ok(()),
            RETURN => {
                assert_eq!(step.k & 0xffff_0000, FAIL, "only permission and failure");
                return Err(step.k & 0xffff);
            }
            IF_EQUAL => accumulator == step.k,
            IF_GREATER => accumulator > step.k,
            IF_AT_LEAST => accumulator >= step.k,
            IF_ANY_BIT => accumulator & step.k != 0,
            other => panic!("operation {other:#x}"),
        };
        at += usize::from(if holds { step.jt } else { step.jf });
    }
}

/// The number of `name` on an ABI; for x32 with its bit.
fn number(name: &str, column: usize) -> u32 {
    let found = numbers::NUMBERS.binary_search_by_key(&name, |(name, _)| name).expect(name);
    let number = u32::try_from(numbers::NUMBERS[found].1[column]).expect(name);
    if column == 1 { X32 + number } else { number }
}

fn x86() -> Filter {
    Filter::compile(X86_64, DEFAULT_CAPABILITIES)
}

fn arm() -> Filter {
    Filter::compile(AARCH64, DEFAULT_CAPABILITIES)
}

const EPERM: Result<(), u32> = Err(libc::EPERM as u32);
const ENOSYS: Result<(), u32> = Err(libc::ENOSYS as u32);

/// Every ABI with its architecture and column.
fn abis() -> [(Filter, u32, usize); 5] {
    [(x86(), AMD64, 0), (x86(), AMD64, 1), (x86(), I386, 2), (arm(), ARM64, 3), (arm(), ARM, 4)]
}

/// the same verdict on every ABI that has the call.
#[test]
fn verdicts_by_name() {
    let allowed = [
        "read",
        "write",
        "openat",
        "execve",
        "mknodat",
        "chroot",
        "ptrace",
        "process_vm_readv",
        "seccomp",
        "prctl",
        "setuid",
        "setgroups",
        "capset",
        "statx",
        "faccessat2",
        "close_range",
        "memfd_create",
        "fchmodat2",
        "removexattrat",
        "name_to_handle_at",
        "landlock_restrict_self",
        "rseq",
        "io_setup",
        "exit_group",
    ];
    let refused = [
        "mount",
        "umount2",
        "pivot_root",
        "unshare",
        "setns",
        "bpf",
        "perf_event_open",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "open_by_handle_at",
        "add_key",
        "keyctl",
        "request_key",
        "reboot",
        "swapon",
        "settimeofday",
        "clock_settime",
        "syslog",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "fsopen",
        "open_tree",
        "mount_setattr",
        "move_mount",
        "pidfd_getfd",
        "kcmp",
        "mbind",
        "set_mempolicy",
        "quotactl",
        "sethostname",
        "setdomainname",
        "acct",
        "vhangup",
        "fanotify_init",
        "process_madvise",
        "lookup_dcookie",
    ];
    for (filter, audit, column) in abis() {
        let of = |name: &str| verdict(&filter, audit, number(name, column), 0);
        for name in allowed {
            assert_eq!(of(name), Ok(()), "{name} in column {column}");
        }
        for name in refused {
            assert_eq!(of(name), EPERM, "{name} in column {column}");
        }
        assert_eq!(of("clone3"), ENOSYS);
    }
}

/// calls that only one ABI has.
#[test]
fn calls_of_one_abi() {
    let (x86, arm) = (x86(), arm());
    for (name, want) in [
        ("arch_prctl", Ok(())),
        ("modify_ldt", Ok(())),
        ("fork", Ok(())),
        ("uretprobe", Ok(())),
        ("iopl", EPERM),
        ("kexec_file_load", EPERM),
        ("uselib", EPERM),
        ("_sysctl", EPERM),
    ] {
        assert_eq!(verdict(&x86, AMD64, number(name, 0), 0), want, "{name}");
    }
    for (name, want) in [
        ("socketcall", Ok(())),
        ("ipc", Ok(())),
        ("waitpid", Ok(())),
        ("stat64", Ok(())),
        ("umount", EPERM),
        ("vm86", EPERM),
        ("stime", EPERM),
    ] {
        assert_eq!(verdict(&x86, I386, number(name, 2), 1), want, "{name}");
    }
    for name in ["cacheflush", "set_tls", "breakpoint", "arm_sync_file_range", "recv"] {
        assert_eq!(verdict(&arm, ARM, number(name, 4), 0), Ok(()), "{name}");
    }
}

/// a program that tries a call nobody here knows is told that it does not exist, and falls back.
#[test]
fn unknown_calls_do_not_exist() {
    for (filter, audit, column) in abis() {
        let base = if column == 1 { X32 } else { 0 };
        for unknown in [9_999, 100_000, 0xf_0010] {
            assert_eq!(verdict(&filter, audit, base + unknown, 0), ENOSYS, "{unknown} in column {column}");
        }
        assert_eq!(verdict(&filter, audit, u32::MAX, 0), ENOSYS);
        // The first call after the newest one that the profile names.
        let last = number(if column == 1 { "pwritev2" } else { "removexattrat" }, column);
        let after = [last, last + 1].map(|number| verdict(&filter, audit, number, 0));
        assert_eq!(after, [Ok(()), ENOSYS], "column {column}");
    }
    // A hole within what it names: unused since ever.
    assert_eq!(verdict(&x86(), I386, 17, 0), EPERM);
    // No ABI of this host.
    for audit in [ARM64, 0, 0xc000_00f3] {
        assert_eq!(verdict(&x86(), audit, 0, 0), ENOSYS);
    }
}

/// clone makes processes and threads, and no namespace but by whoever has CAP_SYS_ADMIN.
#[test]
fn clone_makes_no_namespaces() {
    let thread =
        libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    for (filter, audit, column) in abis() {
        let clone = |filter: &Filter, flags: i32| {
            verdict(filter, audit, number("clone", column), u64::from(flags as u32))
        };
        for flags in [0, libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, thread] {
            assert_eq!(clone(&filter, flags), Ok(()), "{flags:#x}");
        }
        let admin = Filter::compile(if column < 3 { X86_64 } else { AARCH64 }, SYS_ADMIN);
        for flag in namespaces {
            assert_eq!(clone(&filter, flag | libc::SIGCHLD), EPERM, "{flag:#x}");
            assert_eq!(clone(&admin, flag | libc::SIGCHLD), Ok(()), "{flag:#x}");
        }
    }
}

///
#[test]
fn arguments_are_compared_whole() {
    let x86 = x86();
    let personality = |value| verdict(&x86, AMD64, number("personality", 0), value);
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(personality(value), Ok(()), "{value:#x}");
    }
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC; and one whose lower half would do.
    for value in [0x4_0000, 0x40_0000, 1, 0x1_0000_0008, u64::MAX] {
        assert_eq!(personality(value), EPERM, "{value:#x}");
    }
    let socket = |family: i32| verdict(&x86, AMD64, number("socket", 0), family as u64);
    let families =
        [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_XDP];
    for family in families {
        assert_eq!(socket(family), Ok(()), "{family}");
    }
    for family in [12, 19, 20, 23, 25, 34, 37, libc::AF_ALG, libc::AF_VSOCK, 46, 1000] {
        assert_eq!(socket(family), EPERM, "{family}");
    }
    // 32-bit programs: the upper half is nothing of theirs.
    for (audit, column) in [(I386, 2), (AMD64, 1)] {
        assert_eq!(verdict(&x86, audit, number("personality", column), 0x1_0000_0008), Ok(()));
        assert_eq!(verdict(&x86, audit, number("socket", column), 40), EPERM);
    }
}

/// what the profile grants with a capability.
#[test]
fn capabilities_open_their_calls() {
    for (capability, name) in [
        (2, "open_by_handle_at"),
        (16, "init_module"),
        (18, "chroot"),
        (19, "pidfd_getfd"),
        (20, "acct"),
        (21, "mount"),
        (21, "clone3"),
        (21, "syslog"),
        (22, "reboot"),
        (23, "mbind"),
        (25, "settimeofday"),
        (26, "vhangup"),
        (34, "syslog"),
        (38, "perf_event_open"),
        (39, "bpf"),
    ] {
        let of = |caps| verdict(&Filter::compile(X86_64, caps), AMD64, number(name, 0), 0);
        assert_eq!(of(1 << capability), Ok(()), "{name}");
        assert_ne!(of(!(1 << capability | 1 << 21 | 1 << 34)), Ok(()), "{name}");
    }
}

/// The table's column of this host is the one that the C library has.
#[cfg(target_arch = "x86_64")]
#[test]
fn numbers_are_the_kernels() {
    for (name, want) in [
        ("read", libc::SYS_read),
        ("socket", libc::SYS_socket),
        ("clone", libc::SYS_clone),
        ("mount", libc::SYS_mount),
        ("openat2", libc::SYS_openat2),
        ("mseal", libc::SYS_mseal),
    ] {
        assert_eq!(i64::from(number(name, 0)), want, "{name}");
    }
}

#[test]
fn filters_travel_as_bytes() {
    let filter = x86();
    let bytes = filter.to_bytes();
    assert_eq!(bytes.len(), 8 * filter.0.len());
    assert_eq!(Filter::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    assert!(Filter::from_bytes(&[]).is_none());
}

/// The kernel takes 4,096 instructions, and half of a search of all ranges must do.
#[test]
fn programs_are_small() {
    for filter in [x86(), arm(), Filter::compile(X86_64, 0)] {
        assert!(filter.0.len() < 1_500, "{}", filter.0.len());
        let last = filter.0.last().map(|step| step.code);
        assert_eq!(last, Some(RETURN));
    }
}
