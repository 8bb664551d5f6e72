//! The system call filter of a step: Docker's default profile (A-078) as a program for the kernel.
//!
//! ```text
//! profile.rs: name ─▶ rule      numbers.rs: name ─▶ number on each ABI      bpf.rs: ranges of numbers ─▶ classic BPF
//! ```
//!
//! As under runc, what the profile does not name fails with EPERM, and what is newer than all that it names with ENOSYS, so
//! that programs that try a new system call fall back to an old one. Nothing is ever killed. Programs of the host's 32-bit
//! ABIs run, under the same rules; a call of an ABI that is not known (there is none on these hosts) fails with ENOSYS.
//!
//! The builder compiles the filter once; supervisors, which live as long as one step, are sent it.
//! The kernel works out beforehand which calls are always allowed, and does not run the program for those (Linux 5.11).

mod bpf;
mod numbers;
mod profile;

use std::borrow::Cow;
use std::io;
use std::sync::OnceLock;

use crate::{DEFAULT_CAPABILITIES, Seccomp, Spec};
use profile::Rule;

/// Numbers further apart than this belong to different blocks (x32's calls, arm's private ones), with nothing between.
const BLOCK_GAP: u32 = 4096;

/// Calls of one ABI.
#[derive(Clone, Copy)]
struct Abi {
    /// Column of [`numbers::NUMBERS`].
    column: usize,
    /// What is added to these numbers.
    offset: u32,
    /// Whether arguments have 64 bits.
    wide: bool,
}

/// ABIs that the kernel reports as one architecture: its `AUDIT_ARCH_` constant, and the ABIs by number.
type Architecture = (u32, &'static [Abi]);

const X86_64: &[Architecture] = &[
    // x32 is told apart by bit 30 of the number.
    (
        0xc000_003e,
        &[Abi { column: 0, offset: 0, wide: true }, Abi { column: 1, offset: 1 << 30, wide: false }],
    ),
    (0x4000_0003, &[Abi { column: 2, offset: 0, wide: false }]),
];
const AARCH64: &[Architecture] = &[
    (0xc000_00b7, &[Abi { column: 3, offset: 0, wide: true }]),
    (0x4000_0028, &[Abi { column: 4, offset: 0, wide: false }]),
];

/// What this host's kernel can run; empty where the filter does not know it.
fn host() -> &'static [Architecture] {
    match std::env::consts::ARCH {
        "x86_64" => X86_64,
        "aarch64" if cfg!(target_endian = "little") => AARCH64,
        _ => &[],
    }
}

/// A filter, ready to be installed.
#[derive(Clone, Debug)]
pub(crate) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// The filter of a step; `None` if it is to have none, or on hosts other than x86_64 and aarch64.
    pub(crate) fn of_step(spec: &Spec) -> Option<Cow<'static, Self>> {
        static USUAL: OnceLock<Filter> = OnceLock::new();
        let host = host();
        if spec.seccomp == Seccomp::None || spec.privileged || host.is_empty() {
            return None;
        }
        Some(match spec.capabilities {
            DEFAULT_CAPABILITIES => {
                Cow::Borrowed(USUAL.get_or_init(|| Self::compile(host, DEFAULT_CAPABILITIES)))
            }
            other => Cow::Owned(Self::compile(host, other)),
        })
    }

    fn compile(architectures: &[Architecture], capabilities: u64) -> Self {
        let ranges: Vec<_> =
            architectures.iter().map(|(audit, abis)| (*audit, ranges(abis, capabilities))).collect();
        Self(bpf::program(&ranges))
    }

    /// The filter for [`Filter::from_bytes`] on this host.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let bytes = |step: &libc::sock_filter| -> [u8; 8] {
            let ([a, b], [c, d, e, f]) = (step.code.to_ne_bytes(), step.k.to_ne_bytes());
            [a, b, step.jt, step.jf, c, d, e, f]
        };
        self.0.iter().flat_map(bytes).collect()
    }

    /// The filter that [`Filter::to_bytes`] wrote; `None` for no bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let step = |bytes: &[u8; 8]| {
            let [a, b, jt, jf, c, d, e, f] = *bytes;
            libc::sock_filter {
                code: u16::from_ne_bytes([a, b]),
                jt,
                jf,
                k: u32::from_ne_bytes([c, d, e, f]),
            }
        };
        let steps: Vec<_> = bytes.as_chunks().0.iter().map(step).collect();
        (!steps.is_empty()).then_some(Self(steps))
    }

    /// Applies the filter to the calling thread and all that it executes. It takes CAP_SYS_ADMIN in the own user namespace.
    pub(crate) fn install(&self) -> io::Result<()> {
        crate::sys::install_filter(&self.0)
    }
}

/// What numbers from `first` on, up to the next range, may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    rule: Rule,
    /// Whether arguments have 64 bits.
    wide: bool,
}

/// The rules of all numbers of one architecture, in ascending order, beginning with number 0.
fn ranges(abis: &[Abi], capabilities: u64) -> Vec<Range> {
    const UNNAMED: Rule = Rule::Fail(libc::EPERM as u16);
    const UNKNOWN: Rule = Rule::Fail(libc::ENOSYS as u16);
    let mut named: Vec<(u32, Rule, bool)> = Vec::with_capacity(numbers::NUMBERS.len() * abis.len());
    for (name, columns) in numbers::NUMBERS {
        let Some(rule) = profile::rule(name, capabilities) else { continue };
        for abi in abis {
            // -1: it does not exist there.
            if let Ok(number) = u32::try_from(columns[abi.column]) {
                named.push((abi.offset + number, rule, abi.wide));
            }
        }
    }
    // Two names of one call have one rule.
    named.sort_by_key(|(number, ..)| *number);
    named.dedup_by_key(|(number, ..)| *number);
    let mut ranges: Vec<Range> = Vec::new();
    let mut push = |first, rule, wide| {
        if ranges.last().is_none_or(|last| last.rule != rule || last.wide != wide) {
            ranges.push(Range { first, rule, wide });
        }
    };
    let mut next = 0;
    for (number, rule, wide) in named {
        if number > next {
            push(next, if number - next > BLOCK_GAP { UNKNOWN } else { UNNAMED }, wide);
        }
        push(number, rule, wide);
        next = number + 1;
    }
    push(next, UNKNOWN, false);
    ranges
}

#[cfg(test)]
mod tests;
