//! The system call filter, in the kernel.
#![allow(unsafe_code, reason = "one test has to have a filter around it")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rbuild_runtime::{ExitStatus, Seccomp};

use crate::common::{Bed, Ran, Test};

pub(crate) const TESTS: &[Test] = &[
    ("a_078_filtered_calls", filtered_calls),
    ("a_078_programs_of_32_bits", programs_of_32_bits),
    ("a_078_setuid_programs", setuid_programs),
    ("a_078_refused_filters", refused_filters),
];

/// Exits with the number of the first check that fails, else with 0. Without a C library, which may lack 32 bits.
const PROGRAM: &str = r#"
#ifdef __i386__
static long call(long number, long a, long b) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(0), "S"(0), "D"(0) : "memory");
    return result;
}
enum { EXIT = 1, GETEUID = 49, MOUNT = 21, CLONE = 120, CLONE3 = 435, PERSONALITY = 136, SOCKET = 359, SOCKETCALL = 102 };
#else
static long call(long number, long a, long b) {
    long result;
    __asm__ volatile("xor %%edx, %%edx; xor %%r10d, %%r10d; xor %%r8d, %%r8d; syscall"
        : "=a"(result) : "a"(number), "D"(a), "S"(b) : "rcx", "rdx", "r8", "r10", "r11", "memory");
    return result;
}
enum { EXIT = 60, GETEUID = 107, MOUNT = 165, CLONE = 56, CLONE3 = 435, PERSONALITY = 135, SOCKET = 41, SOCKETCALL = -1 };
#endif
static long check(void) {
    if (call(MOUNT, 0, 0) != -1) return 1;
    if (call(CLONE, 0x10000000 | 17, 0) != -1) return 2;
    if (call(CLONE3, 0, 0) != -38) return 3;
    if (call(PERSONALITY, 0x40000, 0) != -1) return 4;
    if (call(PERSONALITY, 0xffffffff, 0) < 0) return 5;
    if (call(SOCKET, 40, 1) != -1) return 6;
    if (call(SOCKET, 1, 1) < 0) return 7;
    if (call(9999, 0, 0) != -38) return 8;
    long vsock[] = {40, 1, 0};
    if (SOCKETCALL >= 0 && call(SOCKETCALL, 1, (long)vsock) == -1) return 9;
    return call(GETEUID, 0, 0) == 0 ? 0 : 10;
}
void _start(void) { call(EXIT, check(), 0); __builtin_unreachable(); }
"#;

/// Compiles the program into the base; says why not otherwise.
fn program(bed: &Bed, bits: &str) -> Result<(), String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("a test for x86_64".to_owned());
    }
    bed.write("program.c", PROGRAM);
    let mut compiler = Command::new("cc");
    compiler.args([bits, "-Os", "-nostdlib", "-static", "-fno-stack-protector", "-o"]);
    compiler.arg(bed.path("base/bin/program")).arg(bed.path("program.c"));
    let ran = compiler.output().map_err(|e| format!("cc: {e}"))?;
    if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
}

/// Runs the program as `user`; `None` if there is none.
fn run(bits: &str, test: &str, change: impl FnOnce(&Bed), user: &str) -> Option<Ran> {
    let bed = Bed::new();
    if let Err(reason) = program(&bed, bits) {
        println!("skipped: {test}: {reason}");
        return None;
    }
    change(&bed);
    let mut spec = bed.spec(&["program"]);
    spec.user = user.to_owned();
    match bed.run(spec) {
        Err(error) if error.to_string().contains("exec format error") => {
            println!("skipped: {test}: the kernel runs no such programs");
            None
        }
        ran => Some(ran.unwrap()),
    }
}

fn filtered_calls() {
    let Some(ran) = run("-m64", "a_078_filtered_calls", |_| (), "") else { return };
    assert_eq!((ran.outcome.status, ran.outcome.unfiltered), (ExitStatus::Exited(0), None));
}

fn programs_of_32_bits() {
    let Some(ran) = run("-m32", "a_078_programs_of_32_bits", |_| (), "") else { return };
    assert_eq!(ran.outcome.status, ExitStatus::Exited(0));
}

/// `no_new_privs` is off.
fn setuid_programs() {
    let test = "a_078_setuid_programs";
    let Some(ran) = run("-m64", test, |_| (), "app") else { return };
    assert_eq!(ran.outcome.status, ExitStatus::Exited(10), "not root of itself");
    let setuid = |bed: &Bed| {
        let mode = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(bed.path("base/bin/program"), mode).unwrap();
    };
    let Some(ran) = run("-m64", test, setuid, "app") else { return };
    assert_eq!(ran.outcome.status, ExitStatus::Exited(0));
}

/// A container around the builder that lets no filter be installed: the step runs, and the builder hears of it.
fn refused_filters() {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, if_equal, verdict) = (0x20, 0x15, 0x06);
    let filter = [
        step(load, 0, 0, 0),
        step(if_equal, 0, 1, libc::SYS_seccomp as u32),
        step(verdict, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32),
        step(verdict, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let ran = std::thread::spawn(move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program is alive and only read; the filter is this thread's, and of what it starts.
        let installed =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
        let bed = Bed::new();
        let with = bed.run(bed.sh("echo runs")).unwrap();
        bed.fresh_upper();
        let mut spec = bed.sh("true");
        spec.seccomp = Seccomp::None;
        (with, bed.run(spec).unwrap())
    });
    let (with, without) = ran.join().unwrap();
    assert_eq!((with.out.as_str(), with.outcome.unfiltered), ("runs\n", Some(libc::EACCES)));
    assert_eq!(without.outcome.unfiltered, None, "none was wanted");
}
