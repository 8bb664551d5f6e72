//! What travels over the control socket: one spec, its secrets and its filter down, one report up. Spec and report are a
//! length and JSON; secrets are their number and, each, a length and bytes; the filter is a length and bytes.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::RuntimeError;

/// Longest frame: arguments and environment of one `execve` are limited to 6 MiB by the kernel.
const MAX_FRAME: u64 = 64 << 20;
/// Most secrets of one step.
const MAX_SECRETS: u64 = 4096;

/// How the step's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
}

impl ExitStatus {
    /// Exit code 0.
    pub fn success(self) -> bool {
        self == ExitStatus::Exited(0)
    }

    /// The code a shell would report: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::Signaled { signal } => 128 + signal,
        }
    }
}

/// What a step used, of the program and every descendant it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user mode, microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, microseconds.
    pub system_us: u64,
    /// Largest resident set of one process, KiB.
    pub max_rss_kib: u64,
}

/// The end of a step whose program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How the program ended.
    pub status: ExitStatus,
    /// Killed through [`Killer::kill`](crate::Killer::kill), or the builder went away.
    pub killed: bool,
    /// Killed because [`Spec::deadline_ms`](crate::Spec::deadline_ms) passed.
    pub deadline: bool,
    /// The machine killed something for want of memory during a step that ended with SIGKILL or code 137.
    pub oom_hint: bool,
    /// The error number with which the kernel refused the system call filter, without which the step ran.
    pub unfiltered: Option<i32>,
    /// Processes that the kernel killed for want of memory in the step's own cgroup; 0 without one.
    #[serde(default)]
    pub oom_kills: u64,
    /// What it used.
    pub usage: Usage,
}

pub(crate) type Report = Result<Outcome, RuntimeError>;

/// Sends one frame.
pub(crate) fn send<T: Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    let mut frame = vec![0; 8];
    serde_json::to_writer(&mut frame, value)?;
    let length = (frame.len() - 8) as u64;
    frame[..8].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame)
}

/// Receives one frame.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&receive_bytes(from)?)?)
}

fn receive_number(from: &mut impl Read, most: u64) -> io::Result<u64> {
    let mut number = [0; 8];
    from.read_exact(&mut number)?;
    let number = u64::from_le_bytes(number);
    if number > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    Ok(number)
}

/// Sends one frame of bytes.
pub(crate) fn send_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)
}

/// Receives one frame of bytes.
pub(crate) fn receive_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = receive_number(from, MAX_FRAME)?;
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body)?;
    Ok(body)
}

/// Sends the secrets of a step, after its spec and apart from it.
pub(crate) fn send_secrets(to: &mut impl Write, secrets: &[&[u8]]) -> io::Result<()> {
    to.write_all(&(secrets.len() as u64).to_le_bytes())?;
    secrets.iter().try_for_each(|secret| send_bytes(to, secret))
}

/// Receives what [`send_secrets`] sent.
pub(crate) fn receive_secrets(from: &mut impl Read) -> io::Result<Vec<Vec<u8>>> {
    let count = receive_number(from, MAX_SECRETS)?;
    (0..count).map(|_| receive_bytes(from)).collect()
}
