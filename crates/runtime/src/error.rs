//! What can go wrong before, around and instead of the step's program.

use serde::{Deserialize, Serialize};

/// Why a step could not be run. A program that ran and failed is not an error but an
/// [`ExitStatus`](crate::ExitStatus).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RuntimeError {
    /// The spec cannot be run as it is written; nothing was started.
    #[error("invalid step: {field}: {message}")]
    InvalidSpec {
        /// Field of the spec.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The supervisor could not be started or talked to.
    #[error("cannot start the step's supervisor: {operation}: {}", errno_text(*.errno))]
    Spawn {
        /// The operation that failed.
        operation: String,
        /// The system's error number.
        errno: i32,
    },
    /// The supervisor ended without a report, for instance killed from outside.
    #[error(
        "the step's supervisor ended without a report ({status}); look for an out-of-memory kill in the kernel log"
    )]
    SupervisorLost {
        /// How the supervisor process ended.
        status: String,
    },
    /// The step's process ended while its sandbox was being set up.
    #[error("the step was ended while its sandbox was being set up ({status}); its output may say more")]
    SetupKilled {
        /// How it ended.
        status: String,
    },
    /// A part of the sandbox could not be set up.
    #[error("cannot {operation}{}: {}{}", at(.path), errno_text(*.errno), hint(.remedy))]
    Setup {
        /// The operation that failed, as a verb phrase.
        operation: String,
        /// The path it failed on; inside the step's root unless it is a host path of the spec.
        path: String,
        /// The system's error number.
        errno: i32,
        /// What to do about it, or what the kernel said; empty when nothing is known.
        remedy: String,
    },
    /// The image's files or the spec ask for something the sandbox refuses.
    #[error("{message}")]
    Refused {
        /// What was refused and why.
        message: String,
    },
    /// A resource limit, or the parent of the step's cgroup, is more than this machine can do.
    #[error("{flag} cannot be applied: {reason}; {remedy}")]
    Cgroup {
        /// The flag that asks for it.
        flag: String,
        /// What stands in the way.
        reason: String,
        /// What helps.
        remedy: String,
    },
    /// `USER` names a user or group that the root's files do not have, or the files are unusable.
    #[error("{message}")]
    User {
        /// What was looked for where.
        message: String,
    },
    /// The program could not be executed; a shell would exit with `code`.
    #[error("{message}")]
    Exec {
        /// The wording of runc: `exec: "foo": executable file not found in $PATH`.
        message: String,
        /// 127: not found; 126: found but not executable.
        code: i32,
    },
    /// The kernel does not know what the program is: one for another kind of machine, or a script without `#!`.
    #[error("exec: \"{program}\": exec format error: not a program for this machine, or a script without #!")]
    ExecFormat {
        /// Its path in the step's root.
        program: String,
    },
    /// The program is there, but not what the kernel needs to execute it.
    #[error(
        "exec: \"{program}\": no such file or directory: the interpreter it names (after #!, or its dynamic loader) is missing"
    )]
    NoInterpreter {
        /// Its path in the step's root.
        program: String,
    },
}

impl RuntimeError {
    /// The exit code a shell would give for this failure, if it is one of the program and not of the sandbox.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            RuntimeError::Exec { code, .. } => Some(*code),
            RuntimeError::ExecFormat { .. } => Some(126),
            RuntimeError::NoInterpreter { .. } => Some(127),
            _ => None,
        }
    }

    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Self {
        RuntimeError::InvalidSpec { field: field.to_owned(), message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        RuntimeError::Refused { message: message.into() }
    }

    pub(crate) fn cgroup(flag: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        RuntimeError::Cgroup { flag: flag.to_owned(), reason: reason.into(), remedy: remedy.into() }
    }

    pub(crate) fn setup(operation: &str, path: impl Into<String>, errno: impl Into<Errno>) -> Self {
        let errno = errno.into().0;
        let remedy = remedy(errno).to_owned();
        RuntimeError::Setup { operation: operation.to_owned(), path: path.into(), errno, remedy }
    }

    pub(crate) fn with_remedy(self, text: String) -> Self {
        match self {
            RuntimeError::Setup { operation, path, errno, .. } if !text.is_empty() => {
                RuntimeError::Setup { operation, path, errno, remedy: text }
            }
            other => other,
        }
    }
}

/// An error number, whichever type it came in.
pub(crate) struct Errno(i32);

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Errno(e.raw_os_error())
    }
}

impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Self {
        Errno(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn remedy(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "run as root with CAP_SYS_ADMIN",
        libc::ENOSYS => "Linux 5.12 or later is needed",
        libc::ENOSPC => "free space on the filesystem, or raise the limit in /proc/sys/user/max_*_namespaces",
        _ => "",
    }
}

fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    // std appends " (os error N)", which says nothing more.
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" {path}") }
}

fn hint(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!(" ({remedy})") }
}

/// Names the operation and path of a failed system call.
pub(crate) trait Context<T> {
    /// `operation` is a verb phrase: `mount`, `create mount target`.
    fn context(self, operation: &str, path: impl AsRef<str>) -> Result<T, RuntimeError>;
}

impl<T, E: Into<Errno>> Context<T> for Result<T, E> {
    fn context(self, operation: &str, path: impl AsRef<str>) -> Result<T, RuntimeError> {
        self.map_err(|e| RuntimeError::setup(operation, path.as_ref(), e))
    }
}
