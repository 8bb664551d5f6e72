//! The few system calls rustix has no safe wrapper for.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// `MOUNT_ATTR_*` flags as `mount_setattr(2)` takes them.
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds attributes to a mount, and to everything mounted below it when `recursive`.
pub(crate) fn set_mount_attributes(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    change_mount_attributes(mount, set, 0, recursive)
}

/// Takes attributes from a mount.
pub(crate) fn clear_mount_attributes(mount: BorrowedFd<'_>, clear: u64) -> io::Result<()> {
    change_mount_attributes(mount, 0, clear, false)
}

fn change_mount_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal and `attr` is a live mount_attr of the size given.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(rc)
}

fn check(rc: libc::c_long) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A process made by [`clone_into`].
pub(crate) struct Cloned {
    pub(crate) pid: rustix::process::Pid,
    pub(crate) pidfd: OwnedFd,
}

const STACK_SIZE: usize = 512 << 10;
const GUARD_SIZE: usize = 64 << 10;

/// Runs `body` in a new process in new namespaces that, until it executes a program or ends, shares this
/// process's memory and file descriptors while this process stands still (`CLONE_VM | CLONE_VFORK |
/// CLONE_FILES`). So no page table is copied, and `body` leaves results in what it borrows.
///
/// `body` returns only if it failed; the new process then ends.
///
/// # Safety
/// This process must have a single thread: no lock may be held by a thread that does not exist in the child.
pub(crate) unsafe fn clone_into<F: FnMut()>(namespaces: libc::c_int, mut body: F) -> io::Result<Cloned> {
    extern "C" fn start<F: FnMut()>(body: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `body` is the `F` below; its owner stands still until this process executes or ends.
        let body = unsafe { &mut *body.cast::<F>() };
        // Unwinding out of this frame would be undefined; the caller reports a missing result.
        let _ = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: _exit runs no destructor and touches no memory shared with the caller.
        unsafe { libc::_exit(127) }
    }
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_FILES
        | libc::CLONE_PIDFD
        | libc::SIGCHLD
        | namespaces;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping aliases nothing.
    let stack = unsafe { libc::mmap(ptr::null_mut(), STACK_SIZE, protection, kind, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: the guard lies inside the mapping. The stack top is its aligned end. `start::<F>` gets the `F` it
    // expects, which outlives the child's use of it because CLONE_VFORK suspends this thread, the only one.
    let pid = unsafe {
        libc::mprotect(stack, GUARD_SIZE, libc::PROT_NONE);
        let top = stack.cast::<u8>().add(STACK_SIZE).cast::<libc::c_void>();
        libc::clone(start::<F>, top, flags, (&raw mut body).cast(), &raw mut pidfd)
    };
    let error = io::Error::last_os_error();
    // SAFETY: the child has executed or ended, so nothing uses the mapping any more.
    unsafe { libc::munmap(stack, STACK_SIZE) };
    let pid = rustix::process::Pid::from_raw(pid).filter(|_| pid > 0).ok_or(error)?;
    // SAFETY: a successful clone with CLONE_PIDFD has stored a descriptor that nobody else owns.
    Ok(Cloned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Gives this process a descriptor table of its own.
pub(crate) fn unshare_files() -> io::Result<()> {
    // SAFETY: CLONE_FILES only copies the descriptor table; descriptors keep their numbers.
    check(unsafe { libc::unshare(libc::CLONE_FILES) }.into())
}

/// Gives this process a mount namespace of its own.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS changes no memory and no descriptor.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
}

/// Gives this process a cgroup namespace of its own, whose top is the cgroup that it is in.
pub(crate) fn unshare_cgroups() -> io::Result<()> {
    // SAFETY: CLONE_NEWCGROUP changes no memory and no descriptor.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into())
}

/// Closes every descriptor from `first` up.
///
/// # Safety
/// No owner of such a descriptor may use or drop it afterwards.
pub(crate) unsafe fn close_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: upheld by the caller.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) })
}

/// `struct sigaction` of the kernel, whose size is the C library's business elsewhere.
#[repr(C)]
struct KernelSigaction {
    words: [usize; 4],
}

/// Default disposition for every signal and none blocked: whatever the builder was started with
/// (`nohup`, Rust's ignored SIGPIPE) must not reach the step.
pub(crate) fn reset_signals() {
    const SIGSET_SIZE: usize = 8;
    // All zero is SIG_DFL without flags and mask.
    let default = KernelSigaction { words: [0; 4] };
    let none = [0u8; SIGSET_SIZE];
    // SAFETY: both structures are at least as large as the kernel reads (handler, flags, restorer, mask) and outlive
    // the calls; SIG_DFL installs no handler. The C library's own signals (32, 33), which its wrapper would refuse,
    // have no user in a process that is about to execute. SIGKILL and SIGSTOP give an error that means nothing here.
    unsafe {
        for signal in 1..=64 {
            let nothing = ptr::null_mut::<KernelSigaction>();
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, nothing, SIGSET_SIZE);
        }
        let nothing = ptr::null_mut::<u8>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, none.as_ptr(), nothing, SIGSET_SIZE);
    }
}

/// Joins a new session keyring, so that the builder's keys are out of reach.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring.
    let rc = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
    match check(rc) {
        // A kernel without keyrings has no keys to protect.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes no pointers; a descriptor it returns is ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd.into())?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: ifreq is plain data; "lo" fits its zeroed name, and both requests read or write only this ifreq.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request).into())
    }
}

/// Applies a system call filter to the calling thread, without `no_new_privs`.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length =
        libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `program` describes a live slice, which the kernel only reads. The filter is the calling thread's alone
        // (no TSYNC), so a supervisor whose memory this process still shares is not filtered.
        check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })
    };
    // Without the flag, kernels before 5.16 slow a filtered process down, against attacks of itself upon itself.
    match install(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => install(0),
        other => other,
    }
}

/// Replaces this process's program; returns only on failure.
pub(crate) fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Waits for a child to end and tells how, and what it used.
pub(crate) fn wait4(pid: rustix::process::Pid) -> io::Result<(libc::c_int, libc::rusage)> {
    let mut status = 0;
    // SAFETY: rusage is plain data, zero is valid for it, and both pointers are live.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        loop {
            let rc = libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage);
            match check(rc.into()) {
                Ok(()) => return Ok((status, usage)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Ends this process at once: no destructor, no flush.
pub(crate) fn exit_now(code: libc::c_int) -> ! {
    // SAFETY: _exit is always sound.
    unsafe { libc::_exit(code) }
}

/// Takes descriptor 0, which the launcher made the control socket.
///
/// # Safety
/// Called once, and nothing else in this process uses standard input.
pub(crate) unsafe fn control_socket() -> std::os::unix::net::UnixStream {
    // SAFETY: upheld by the caller.
    unsafe { std::os::unix::net::UnixStream::from_raw_fd(0) }
}
