//! `--chmod`.

use crate::CopyError;

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// An octal mode, up to 07777, that takes the place of the source's.
    Octal(u32),
    /// Changes to the source's mode.
    Symbolic(Vec<Change>),
}

/// One step of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Sets bits.
    Set(u32),
    /// Clears bits.
    Clear(u32),
    /// Sets bits when the original is a directory or executable by anyone.
    SetIfExecutable(u32),
    /// Copies the permissions of one class to others.
    Copy {
        /// How far the source class is above the lowest bits: 6 for user, 3 for group, 0 for others.
        from: u32,
        /// Which of the nine permission bits may change.
        to: u32,
        /// `+`, `-` or `=`.
        op: Op,
    },
}

/// Operator of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`
    Assign,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o0007;
const STICKY: u32 = 0o1000;
const SET_ID: u32 = 0o6000;
const ALL: u32 = USER | GROUP | OTHER;

impl Chmod {
    /// Parses an octal number up to 07777 or a symbolic mode such as `u=rwX,go=rX`, `+x`, `g=u`, `a-w,u+s`.
    pub fn parse(text: &str) -> Result<Self, CopyError> {
        let bad = || CopyError::BadChmod(text.to_owned());
        if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(bad()) };
        }
        symbolic(text).map(Self::Symbolic).ok_or_else(bad)
    }

    /// The mode that a file (not a symlink) with `mode` gets. There is no umask.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                let executable = is_dir || mode & 0o111 != 0;
                changes.iter().fold(mode, |mode, change| change.apply(mode, executable))
            }
        }
    }

    /// The mode of directories that have to be made on the way to the destination: the permission bits of an octal mode,
    /// else 0755.
    pub fn parent_mode(chmod: Option<&Self>) -> u32 {
        match chmod {
            Some(Self::Octal(mode)) => mode & 0o777,
            Some(Self::Symbolic(_)) | None => 0o755,
        }
    }
}

impl Change {
    fn apply(self, mode: u32, executable: bool) -> u32 {
        match self {
            Self::Set(bits) => mode | bits,
            Self::Clear(bits) => mode & !bits,
            Self::SetIfExecutable(bits) => mode | if executable { bits } else { 0 },
            Self::Copy { from, to, op } => {
                let value = (((mode >> from) & 0o7) * 0o111) & to;
                match op {
                    Op::Add => mode | value,
                    Op::Remove => mode & !value,
                    Op::Assign => (mode & !to) | value,
                }
            }
        }
    }
}

/// The rules of BSD's setmode(3): whoever is named bounds what changes, nobody named means everybody, and `t` without
/// somebody narrows a clause to the sticky bit.
fn symbolic(text: &str) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for clause in text.split(',') {
        let end = clause.find(|c| !"ugoa".contains(c))?;
        let who = clause[..end].bytes().fold(0, |who, c| {
            who | match c {
                b'u' => USER,
                b'g' => GROUP,
                b'o' => OTHER,
                _ => ALL,
            }
        });
        let mut rest = &clause[end..];
        while !rest.is_empty() {
            rest = action(rest, who, &mut changes)?;
        }
    }
    Some(changes)
}

/// An operator and the permissions behind it; gives what follows.
fn action<'a>(text: &'a str, mut who: u32, changes: &mut Vec<Change>) -> Option<&'a str> {
    let op = match text.bytes().next()? {
        b'+' => Op::Add,
        b'-' => Op::Remove,
        b'=' => Op::Assign,
        _ => return None,
    };
    let rest = &text[1..];
    let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
    // Set-id and sticky mean nothing for others alone.
    let special = who == 0 || who & !OTHER != 0;
    let (mut bits, mut conditional, mut assigned) = (0, 0, false);
    for c in rest[..end].bytes() {
        match c {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b'X' => conditional = 0o111,
            b's' if special => bits |= SET_ID,
            b't' if special => {
                who |= STICKY;
                bits |= STICKY;
            }
            b's' | b't' => {}
            b'u' | b'g' | b'o' => {
                if bits != 0 {
                    push(changes, op, who, bits);
                    bits = 0;
                }
                assigned = true;
                if op == Op::Add && conditional != 0 {
                    changes.push(Change::SetIfExecutable(masked(who, conditional)));
                    conditional = 0;
                }
                let from = if c == b'u' {
                    6
                } else if c == b'g' {
                    3
                } else {
                    0
                };
                let to = if who == 0 { 0o777 } else { who & 0o777 };
                changes.push(Change::Copy { from, to, op });
            }
            _ => return None,
        }
    }
    if bits != 0 || (op == Op::Assign && !assigned) {
        push(changes, op, who, bits);
    }
    if conditional != 0 {
        changes.push(Change::SetIfExecutable(masked(who, conditional)));
    }
    Some(&rest[end..])
}

fn masked(who: u32, bits: u32) -> u32 {
    if who == 0 { bits } else { who & bits }
}

fn push(changes: &mut Vec<Change>, op: Op, who: u32, bits: u32) {
    let bits = masked(who, bits);
    match op {
        Op::Add => changes.push(Change::Set(bits)),
        Op::Remove => changes.push(Change::Clear(bits)),
        Op::Assign => {
            changes.extend([Change::Clear(if who == 0 { ALL } else { who }), Change::Set(bits)]);
        }
    }
}
