//! Which hierarchies are mounted where, and where in them this process is.

use std::path::{Component, Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    /// Those of version 1; a hierarchy of version 2 tells in a file. Named hierarchies have none.
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
    /// What of the hierarchy is mounted there; `/` is all of it.
    pub(crate) root: PathBuf,
    /// The directory of this process's cgroup, at or below `mount`.
    pub(crate) own: PathBuf,
}

/// Those that this process sees.
pub(crate) fn own() -> Vec<Hierarchy> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(crate) fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let hierarchy = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = if number == "0" && controllers.is_empty() { Version::V2 } else { Version::V1 };
        let controllers: Vec<String> =
            controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let fits = |mount: &&Mount| {
            mount.version == version && controllers.iter().all(|name| mount.options.contains(name))
        };
        let path = Path::new(path);
        // Of several mounts the one that shows most of where we are.
        let inside = !path.components().any(|part| part == Component::ParentDir);
        let below = |mount: &Mount| path.strip_prefix(&mount.root).ok().filter(|_| inside);
        let mount = mounts.iter().filter(fits).max_by_key(|mount| below(mount).is_some())?;
        // Outside of what is mounted (another cgroup namespace): what is mounted is all there is.
        let own = at(&mount.point, below(mount).unwrap_or(Path::new("")));
        let controllers = controllers.into_iter().filter(|name| !name.starts_with("name=")).collect();
        let (mount, root) = (mount.point.clone(), mount.root.clone());
        Some(Hierarchy { version, controllers, mount, root, own })
    };
    own.lines().filter_map(hierarchy).collect()
}

/// `dir/below`, and `dir` itself if there is nothing below.
pub(crate) fn at(dir: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { dir.to_owned() } else { dir.join(below) }
}

struct Mount {
    version: Version,
    root: PathBuf,
    point: PathBuf,
    options: Vec<String>,
}

impl Mount {
    /// `36 35 98:0 ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE SUPER_OPTIONS`
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        let options = right.nth(1)?.split(',').map(str::to_owned).collect();
        let mut left = left.split(' ');
        let (root, point) = (unescape(left.nth(3)?), unescape(left.next()?));
        Some(Mount { version, root, point, options })
    }
}

/// Blanks and the like are octal numbers there.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}
