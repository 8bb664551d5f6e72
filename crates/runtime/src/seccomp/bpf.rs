//! Classic BPF: a program that looks up the rule of a system call by binary search.

use super::Range;
use super::profile::Rule;

/// Operation codes: load a word of [`libc::seccomp_data`], jumps that compare it with a constant, an unconditional jump, the
/// verdict.
pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_GREATER: u16 = 0x25;
pub(super) const IF_AT_LEAST: u16 = 0x35;
pub(super) const IF_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

/// Offsets of `struct seccomp_data`, on little-endian hosts.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const FIRST_ARGUMENT: u32 = 16;
pub(super) const FIRST_ARGUMENT_HIGH: u32 = 20;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const FAIL: u32 = 0x0005_0000;

type Code = Vec<libc::sock_filter>;

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on after as many instructions as `jt` says if the comparison holds, else `jf`.
fn branch(code: u16, k: u32, jt: usize, jf: usize) -> libc::sock_filter {
    let short = |skip| u8::try_from(skip).expect("no rule's check is longer than a jump");
    libc::sock_filter { code, jt: short(jt), jf: short(jf), k }
}

fn fail(errno: u16) -> libc::sock_filter {
    step(RETURN, FAIL | u32::from(errno))
}

/// The program for these architectures (`AUDIT_ARCH_` constants), each with its ranges.
pub(super) fn program(architectures: &[(u32, Vec<Range>)]) -> Code {
    let mut code = vec![step(LOAD, ARCHITECTURE)];
    for (audit, ranges) in architectures {
        let search = search(ranges);
        // The section: load the number and search. Too long for a conditional jump over it.
        code.push(branch(IF_EQUAL, *audit, 1, 0));
        code.push(step(JUMP, search.len() as u32 + 1));
        code.push(step(LOAD, NUMBER));
        code.extend(search);
    }
    code.push(fail(libc::ENOSYS as u16));
    code
}

/// Finds the range of the loaded number and applies its rule. `ranges` is not empty.
fn search(ranges: &[Range]) -> Code {
    if let [range] = ranges {
        return check(range);
    }
    let middle = ranges.len() / 2;
    let (below, above) = (search(&ranges[..middle]), search(&ranges[middle..]));
    let pivot = ranges[middle].first;
    let mut code = Vec::with_capacity(2 + below.len() + above.len());
    if below.len() <= usize::from(u8::MAX) {
        code.push(branch(IF_AT_LEAST, pivot, below.len(), 0));
    } else {
        code.push(branch(IF_AT_LEAST, pivot, 0, 1));
        code.push(step(JUMP, below.len() as u32));
    }
    code.extend(below);
    code.extend(above);
    code
}

/// Applies a rule; ends the program.
fn check(range: &Range) -> Code {
    const EPERM: u16 = libc::EPERM as u16;
    match range.rule {
        Rule::Allow => vec![step(RETURN, ALLOW)],
        Rule::Fail(errno) => vec![fail(errno)],
        Rule::FirstWithout(bits) => {
            vec![step(LOAD, FIRST_ARGUMENT), branch(IF_ANY_BIT, bits, 0, 1), fail(EPERM), step(RETURN, ALLOW)]
        }
        Rule::FirstWithin(allowed) => {
            let mut code = within(allowed);
            if range.wide {
                // The values have 32 bits: the other half is zero, or it is not one of them.
                let high = [step(LOAD, FIRST_ARGUMENT_HIGH), branch(IF_EQUAL, 0, 0, code.len() - 2)];
                code.splice(..0, high);
            }
            code
        }
    }
}

/// Allows what lies in one of the ascending ranges: comparisons, then failure, then permission.
fn within(allowed: &[(u32, u32)]) -> Code {
    let mut comparisons = Vec::with_capacity(2 * allowed.len());
    for (low, high) in allowed {
        comparisons.push((IF_GREATER, *high));
        comparisons.push((IF_AT_LEAST, *low));
    }
    let count = comparisons.len();
    let mut code = vec![step(LOAD, FIRST_ARGUMENT)];
    for (at, (operation, value)) in comparisons.into_iter().enumerate() {
        let to_failure = count - at - 1;
        code.push(if operation == IF_GREATER {
            // Beyond this range: on with the next one, or with failure.
            branch(operation, value, 1, 0)
        } else {
            branch(operation, value, to_failure + 1, to_failure)
        });
    }
    code.push(fail(libc::EPERM as u16));
    code.push(step(RETURN, ALLOW));
    code
}
