//! Paths below a root.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// A clean path relative to a tree's root: no leading `/`, no empty, `.` or `..` component, no NUL. The root is empty.
///
/// Order is bytewise by component (`/` sorts before every other byte), the order of tar entries in a layer: a
/// directory comes right before what it holds.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

/// A path that cannot name an entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path `{}`: {reason}", String::from_utf8_lossy(.path))]
pub struct InvalidPath {
    /// The path as given.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TreePath {
    /// The root itself.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Cleans `path` lexically and clamps it to the root: `/a/./b//../c` and `../a/c` are both `a/c`.
    /// Only a NUL byte is refused.
    pub fn clamped(path: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        let path = path.as_ref();
        if path.contains(&0) {
            return Err(InvalidPath { path: path.to_vec(), reason: "contains a NUL byte" });
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|c| *c == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join(&b'/')))
    }

    /// Accepts a relative or absolute path whose components are all plain; `..` is an error.
    pub fn strict(path: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        let path = path.as_ref();
        if path.split(|c| *c == b'/').any(|part| part == b"..") {
            return Err(InvalidPath { path: path.to_vec(), reason: "contains `..`" });
        }
        Self::clamped(path)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a relative `std` path; the root is `""`.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// As a path an `*at` system call accepts: the root is `.`.
    pub fn as_at(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { self.as_path() }
    }

    /// This path with one more component. `name` must be a plain component (checked in debug builds).
    pub fn join(&self, name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref().as_bytes();
        debug_assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'));
        let mut out = self.0.clone();
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
        Self(out)
    }

    /// This path followed by all components of `rest`.
    pub fn join_path(&self, rest: &TreePath) -> Self {
        match (self.is_root(), rest.is_root()) {
            (true, _) => rest.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], b"/", &rest.0[..]].concat()),
        }
    }

    /// The directory that holds this entry; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|c| *c == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&OsStr> {
        if self.is_root() {
            return None;
        }
        let start = self.0.iter().rposition(|c| *c == b'/').map_or(0, |i| i + 1);
        Some(OsStr::from_bytes(&self.0[start..]))
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &OsStr> {
        self.0.split(|c| *c == b'/').filter(|part| !part.is_empty()).map(OsStr::from_bytes)
    }

    /// The rest of this path below `base`, if it is `base` or lies below it.
    pub fn strip_prefix(&self, base: &TreePath) -> Option<TreePath> {
        if base.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&base.0[..])?;
        match rest.first() {
            None => Some(Self::root()),
            Some(b'/') => Some(Self(rest[1..].to_vec())),
            Some(_) => None,
        }
    }

    /// Whether this is `base` or lies below it.
    pub fn starts_with(&self, base: &TreePath) -> bool {
        base.is_root()
            || self.0.strip_prefix(&base.0[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// Every proper ancestor from the root's child down to the parent: `a/b/c` gives `a`, `a/b`.
    pub fn ancestors(&self) -> impl Iterator<Item = TreePath> + '_ {
        self.0.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(i, _)| Self(self.0[..i].to_vec()))
    }

    /// The path as an owned OS string.
    pub fn into_os_string(self) -> OsString {
        OsString::from_vec(self.0)
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Paths of one tree have long prefixes in common, which are skipped in large steps.
        const STEP: usize = 16;
        let (a, b) = (&self.0[..], &other.0[..]);
        let steps = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(x, y)| x == y).count();
        let (a, b) = (&a[steps * STEP..], &b[steps * STEP..]);
        let key = |c: u8| if c == b'/' { 0 } else { u16::from(c) + 1 };
        match a.iter().zip(b).find(|(x, y)| x != y) {
            Some((x, y)) => key(*x).cmp(&key(*y)),
            None => a.len().cmp(&b.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    /// With a leading slash, as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::clamped(text).unwrap()
    }

    #[test]
    fn paths_are_clamped_to_the_root() {
        for (given, clean) in
            [("/a/./b//../c", "/a/c"), ("../../a", "/a"), ("/", "/"), ("", "/"), ("a/..", "/")]
        {
            assert_eq!(path(given).to_string(), clean);
        }
        assert!(TreePath::clamped(b"a\0b").is_err());
        assert!(TreePath::strict("a/../b").is_err());
    }

    #[test]
    fn a_directory_sorts_right_before_its_contents() {
        let mut paths = vec![path("a-b"), path("a/z"), path("a"), path("a.c")];
        paths.sort();
        assert_eq!(paths, [path("a"), path("a/z"), path("a-b"), path("a.c")]);
    }

    /// The order is that of the lists of components, wherever the first difference is.
    #[test]
    fn the_order_is_that_of_components() {
        let mut paths = Vec::new();
        for prefix in ["", "0123456789abcde", "0123456789abcdef", "0123456789/abcdef/0123456789abcdef"] {
            for rest in [
                "",
                "a",
                "a/b",
                "a-b",
                "a/",
                "b",
                "ab",
                "/a",
                "\u{1}",
                "\u{ff}x",
                "a/bcdefghijklmnopqrstuvwxyz",
            ] {
                paths.push(path(&format!("{prefix}{rest}")));
            }
        }
        for a in &paths {
            for b in &paths {
                assert_eq!(a.cmp(b), a.components().cmp(b.components()), "{a} {b}");
            }
        }
    }

    #[test]
    fn parents_and_prefixes() {
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(path("a/b").strip_prefix(&path("a")), Some(path("b")));
        assert_eq!(path("ab").strip_prefix(&path("a")), None);
        for (one, base, want) in
            [("a/b", "a", true), ("ab", "a", false), ("a", "a", true), ("a", "", true), ("a", "a/b", false)]
        {
            assert_eq!(path(one).starts_with(&path(base)), want, "{one} {base}");
        }
        assert_eq!(path("a/b/c").ancestors().collect::<Vec<_>>(), [path("a"), path("a/b")]);
    }
}
