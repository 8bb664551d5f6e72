//! The rules of Docker's default profile (moby/profiles, `seccomp/default.json` of 2026, up to the calls of Linux 6.13) for the
//! hosts that the filter knows, by name. What is not named is refused. Its rules for other hosts are left out, and what it
//! allows from Linux 4.8 on is allowed.

/// What a system call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Everything.
    Allow,
    /// Nothing: it fails with this error number.
    Fail(u16),
    /// It may be called if the first argument lies in one of these ranges, ends included, in ascending order.
    FirstWithin(&'static [(u32, u32)]),
    /// It may be called if the first argument has none of these bits.
    FirstWithout(u32),
}

const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_MODULE: u64 = 1 << 16;
const SYS_RAWIO: u64 = 1 << 17;
const SYS_CHROOT: u64 = 1 << 18;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_PACCT: u64 = 1 << 20;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_BOOT: u64 = 1 << 22;
const SYS_NICE: u64 = 1 << 23;
const SYS_TIME: u64 = 1 << 25;
const SYS_TTY_CONFIG: u64 = 1 << 26;
const SYSLOG: u64 = 1 << 34;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// Calls that every step may make. Sorted.
#[rustfmt::skip]
static ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl",
    "arm_fadvise64_64", "arm_sync_file_range", "bind", "breakpoint", "brk", "cacheflush", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64",
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
    "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat",
    "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
    "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl",
    "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at",
    "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal",
    "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl",
    "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev",
    "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall",
    "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp",
    "select", "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "send", "sendfile",
    "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_thread_area", "set_tid_address",
    "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups",
    "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt",
    "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
    "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall", "socketpair", "splice",
    "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat", "sync",
    "sync_file_range", "sync_file_range2", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

/// Calls that a step may make whose bounding set has one of these capabilities. Sorted.
#[rustfmt::skip]
static WITH_CAPABILITY: &[(&str, u64)] = &[
    ("acct", SYS_PACCT),
    ("bpf", SYS_ADMIN | BPF),
    ("chroot", SYS_CHROOT),
    ("clock_settime", SYS_TIME),
    ("clock_settime64", SYS_TIME),
    ("delete_module", SYS_MODULE),
    ("fanotify_init", SYS_ADMIN),
    ("finit_module", SYS_MODULE),
    ("fsconfig", SYS_ADMIN),
    ("fsmount", SYS_ADMIN),
    ("fsopen", SYS_ADMIN),
    ("fspick", SYS_ADMIN),
    ("get_mempolicy", SYS_NICE),
    ("init_module", SYS_MODULE),
    ("ioperm", SYS_RAWIO),
    ("iopl", SYS_RAWIO),
    ("kcmp", SYS_PTRACE),
    ("lookup_dcookie", SYS_ADMIN),
    ("lsm_get_self_attr", SYS_ADMIN),
    ("lsm_list_modules", SYS_ADMIN),
    ("lsm_set_self_attr", SYS_ADMIN),
    ("mbind", SYS_NICE),
    ("mount", SYS_ADMIN),
    ("mount_setattr", SYS_ADMIN),
    ("move_mount", SYS_ADMIN),
    ("open_by_handle_at", DAC_READ_SEARCH),
    ("open_tree", SYS_ADMIN),
    ("perf_event_open", SYS_ADMIN | PERFMON),
    ("pidfd_getfd", SYS_PTRACE),
    ("process_madvise", SYS_PTRACE),
    ("quotactl", SYS_ADMIN),
    ("quotactl_fd", SYS_ADMIN),
    ("reboot", SYS_BOOT),
    ("set_mempolicy", SYS_NICE),
    ("set_mempolicy_home_node", SYS_NICE),
    ("setdomainname", SYS_ADMIN),
    ("sethostname", SYS_ADMIN),
    ("setns", SYS_ADMIN),
    ("settimeofday", SYS_TIME),
    ("stime", SYS_TIME),
    ("syslog", SYS_ADMIN | SYSLOG),
    ("umount", SYS_ADMIN),
    ("umount2", SYS_ADMIN),
    ("unshare", SYS_ADMIN),
    ("vhangup", SYS_TTY_CONFIG),
];

/// Address families that sockets may have. Missing are those that kernels no longer have (DECnet, Econet, ATM SVC, IrDA, Wanpipe, ISDN, CAIF),
/// AF_ALG (38), cryptography of the kernel that no step needs, and AF_VSOCK (40), which leads to the machine's host and guests.
/// `socketcall(2)` of 32-bit programs has its arguments in memory, out of a filter's sight.
static FAMILIES: &[(u32, u32)] =
    &[(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// Linux, 32 bits on Linux, both also with the names of Linux 2.6; and asking.
static PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (0x8, 0x8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// Flags of clone that make namespaces, without the one for time, which clone does not take.
const CLONE_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// The rule of a system call for a step with these capabilities (bits of `capabilities(7)`); `None` is the default.
pub(super) fn rule(name: &str, capabilities: u64) -> Option<Rule> {
    let has = |any: u64| capabilities & any != 0;
    match name {
        "clone" | "clone3" if has(SYS_ADMIN) => Some(Rule::Allow),
        "clone" => Some(Rule::FirstWithout(CLONE_NAMESPACES)),
        // Its flags are in memory; C libraries that are told it does not exist use clone.
        "clone3" => Some(Rule::Fail(libc::ENOSYS as u16)),
        "personality" => Some(Rule::FirstWithin(PERSONALITIES)),
        "socket" => Some(Rule::FirstWithin(FAMILIES)),
        _ if ALWAYS.binary_search(&name).is_ok() => Some(Rule::Allow),
        _ => {
            let found = WITH_CAPABILITY.binary_search_by_key(&name, |(name, _)| name).ok()?;
            has(WITH_CAPABILITY[found].1).then_some(Rule::Allow)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::NUMBERS;
    use super::*;

    #[test]
    fn tables_are_sorted_and_name_what_exists() {
        assert!(NUMBERS.is_sorted_by_key(|(name, _)| name));
        assert!(ALWAYS.is_sorted() && WITH_CAPABILITY.is_sorted());
        let known = |name: &str| NUMBERS.binary_search_by_key(&name, |(name, _)| name).is_ok();
        let named = ALWAYS.iter().chain(WITH_CAPABILITY.iter().map(|(name, _)| name));
        let unknown: Vec<_> = named.filter(|name| !known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
