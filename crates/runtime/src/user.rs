//! `USER` against the root's own `/etc/passwd` and `/etc/group`.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, fstat};

use crate::RuntimeError;
use crate::resolve::open_in_root;

/// Largest passwd or group file that is read.
const MAX_FILE: u64 = 10 << 20;
/// Largest id, as in the libraries of Docker: the upper half is for kernels with 16 or 31 bit ids.
const MAX_ID: u32 = i32::MAX as u32;
/// The kernel's own limit (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Who the step runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; the primary one is always among them, first.
    pub groups: Vec<u32>,
    /// Home directory, for `HOME`.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Lines that are not of the format are passed over: a number read as 0 would make a user root.
fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Account { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Resolves `spec` (`user`, `uid`, `user:group`, …; empty is root) against the text of passwd and group.
///
/// # Errors
/// [`RuntimeError::User`] for a name that is not there or a number that is no id.
pub fn resolve_user(spec: &str, passwd: &str, group: &str) -> Result<Identity, RuntimeError> {
    let (user, group_spec) = spec.split_once(':').unwrap_or((spec, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let account = accounts(passwd).find(|a| match number {
        Some(uid) => a.uid == uid,
        None => a.name == user,
    });
    let (uid, gid) = match (&account, number) {
        (Some(a), _) => (a.uid, a.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(missing("user", user, "passwd")),
    };
    // runc, which is told the id only, takes the first account that has it, and what that says, be it nothing.
    let home = accounts(passwd).find(|a| a.uid == uid).map_or("/", |a| a.home);
    let mut identity = Identity { uid, gid, groups: Vec::new(), home: home.to_owned() };
    if !group_spec.is_empty() {
        identity.gid = resolve_group(group_spec, group)?;
    } else if let Some(a) = &account {
        let member = |g: &Group<'_>| g.members.split(',').any(|m| m.trim() == a.name);
        identity.groups = groups(group).filter(member).map(|g| g.gid).take(MAX_GROUPS - 1).collect();
    }
    for (kind, id) in [("uid", identity.uid), ("gid", identity.gid)] {
        if id > MAX_ID {
            let message = format!("{kind} {id} of USER {spec} is out of range: it must be within 0-{MAX_ID}");
            return Err(RuntimeError::User { message });
        }
    }
    let primary = identity.gid;
    identity.groups.retain(|g| *g != primary && *g <= MAX_ID);
    identity.groups.insert(0, primary);
    Ok(identity)
}

fn resolve_group(name: &str, group: &str) -> Result<u32, RuntimeError> {
    let number = name.parse::<u32>().ok();
    let found = groups(group).find(|g| match number {
        Some(gid) => g.gid == gid,
        None => g.name == name,
    });
    found.map(|g| g.gid).or(number).ok_or_else(|| missing("group", name, "group"))
}

fn missing(what: &str, name: &str, file: &str) -> RuntimeError {
    RuntimeError::User {
        message: format!(
            "unable to find {what} {name}: no matching entries in {file} file (add it to /etc/{file} of the image, or use a number)"
        ),
    }
}

/// Resolves `spec` with the files of a root filesystem.
pub(crate) fn resolve_in_root(root: BorrowedFd<'_>, spec: &str) -> Result<Identity, RuntimeError> {
    let passwd = read_account_file(root, "etc/passwd")?;
    let group = read_account_file(root, "etc/group")?;
    resolve_user(spec, &passwd, &group)
}

/// A missing file is empty. Anything but a regular file of moderate size is refused before it is opened, since
/// opening a device or a FIFO can block or do worse.
fn read_account_file(root: BorrowedFd<'_>, path: &str) -> Result<String, RuntimeError> {
    let unusable =
        |why: String| RuntimeError::User { message: format!("/{path} of the image is unusable: {why}") };
    let probe = match open_in_root(root, path, OFlags::PATH) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(e) => return Err(unusable(e.to_string())),
    };
    let stat = fstat(&probe).map_err(|e| unusable(e.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unusable("it is not a regular file".to_owned()));
    }
    if stat.st_size as u64 > MAX_FILE {
        return Err(unusable(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    let fd = open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
        .map_err(|e| unusable(e.to_string()))?;
    let mut bytes = Vec::with_capacity(stat.st_size as usize);
    std::fs::File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).map_err(|e| unusable(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
