//! `--chown` and other names of users.

use crate::CopyError;
use crate::error::io;
use rbuild_tree::{FileKind, Tree, TreePath, resolve};
use std::io::Read;

/// Largest /etc/passwd or /etc/group that is searched, in bytes.
pub const MAX_USER_FILE_BYTES: u64 = 10 << 20;

/// What `--chown=user[:group]` says, with names not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSpec {
    user: Who,
    /// `None` when there was no `:`.
    group: Option<Who>,
}

/// Larger numbers are names to BuildKit, and most likely unknown ones.
const MAX_ID: u32 = i32::MAX as u32;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Id(u32),
    Name(String),
}

impl Who {
    /// `root` is 0 whatever the image says.
    fn parse(text: &str) -> Self {
        match text {
            "root" => Self::Id(0),
            text => match text.parse() {
                Ok(id) if id <= MAX_ID => Self::Id(id),
                _ => Self::Name(text.to_owned()),
            },
        }
    }
}

impl OwnerSpec {
    /// Reads `user[:group]`. Every text is accepted: what is not a number is a name.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, group)) => Self { user: Who::parse(user), group: Some(Who::parse(group)) },
            None => Self { user: Who::parse(text), group: None },
        }
    }

    /// Whether a name has to be looked up. Nothing at all is 0.
    pub fn has_names(&self) -> bool {
        let is_name = |who: &Who| matches!(who, Who::Name(name) if !name.is_empty());
        is_name(&self.user) || self.group.as_ref().is_some_and(is_name)
    }

    /// Owner and group when no name has to be looked up: then /etc/passwd and /etc/group are not part of the key (C-012).
    /// A user without group has the group of the same number.
    pub fn numeric(&self) -> Option<(u32, u32)> {
        match (&self.user, &self.group) {
            (Who::Id(user), None) => Some((*user, *user)),
            (Who::Id(user), Some(Who::Id(group))) => Some((*user, *group)),
            (Who::Id(user), Some(Who::Name(name))) if name.is_empty() => Some((*user, 0)),
            _ => None,
        }
    }

    /// Owner and group, names looked up in the /etc/passwd and /etc/group of `tree`. A user given by name and without `:`
    /// has its primary group, and so has one whose group is unknown; an unknown user is 0.
    pub fn resolve(&self, tree: &dyn Tree) -> Result<(u32, u32), CopyError> {
        let (uid, primary) = match &self.user {
            Who::Id(id) => (*id, *id),
            Who::Name(name) => {
                let fields = lookup(tree, "etc/passwd", name)?;
                fields.map_or((0, 0), |fields| (number(fields.get(2)), number(fields.get(3))))
            }
        };
        let gid = match &self.group {
            None => primary,
            Some(Who::Id(id)) => *id,
            Some(Who::Name(name)) if name.is_empty() => 0,
            Some(Who::Name(name)) => {
                lookup(tree, "etc/group", name)?.map_or(primary, |fields| number(fields.get(2)))
            }
        };
        Ok((uid, gid))
    }
}

/// [`OwnerSpec::parse`] and [`OwnerSpec::resolve`] in one.
pub fn resolve_owner(tree: &dyn Tree, spec: &str) -> Result<(u32, u32), CopyError> {
    let spec = OwnerSpec::parse(spec);
    spec.numeric().map_or_else(|| spec.resolve(tree), Ok)
}

fn number(field: Option<&String>) -> u32 {
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The fields of the first line of the file at `path` whose first field is `name`. A missing file has no lines.
fn lookup(tree: &dyn Tree, path: &'static str, name: &str) -> Result<Option<Vec<String>>, CopyError> {
    if name.is_empty() {
        return Ok(None);
    }
    let path = crate::error::clamped(path)?;
    let text = read(tree, &path)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| line.split(':').next() == Some(name));
    Ok(line.map(|line| line.split(':').map(str::to_owned).collect()))
}

fn read(tree: &dyn Tree, path: &TreePath) -> Result<Vec<u8>, CopyError> {
    let found = resolve(tree, path, true).map_err(io("resolve", path))?;
    let Some(meta) = found.meta else { return Ok(Vec::new()) };
    let bad = |reason| Err(CopyError::UserFile { path: path.clone(), reason });
    if meta.kind != FileKind::Regular {
        return bad("is not a regular file");
    }
    let file = tree.open(&found.path).map_err(io("open", path))?;
    let mut text = Vec::new();
    file.take(MAX_USER_FILE_BYTES + 1).read_to_end(&mut text).map_err(io("read", path))?;
    if text.len() as u64 > MAX_USER_FILE_BYTES {
        return bad("is larger than 10 MiB");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_tree::MemTree;

    fn tree() -> MemTree {
        MemTree::new()
            .file(
                "usr/passwd",
                "root:x:5:5::/:\n\napp:x:1000:100:App:/home/app:/bin/sh\napp:x:1:1\nodd:x:zz\n",
            )
            .symlink("etc/passwd", "/usr/passwd")
            .file("etc/group", "staff:x:50:app\n")
    }

    ///
    #[test]
    fn owners_are_resolved() {
        for (spec, want) in [
            ("1000", (1000, 1000)),
            ("1000:", (1000, 0)),
            ("1000:7", (1000, 7)),
            ("app", (1000, 100)),
            ("app:", (1000, 0)),
            ("app:staff", (1000, 50)),
            ("app:9", (1000, 9)),
            ("7:staff", (7, 50)),
            ("root", (0, 0)),
            ("nobody", (0, 0)),
            ("nobody:nogroup", (0, 0)),
            ("odd", (0, 0)),
            ("7:nogroup", (7, 7)),
            ("app:nogroup", (1000, 100)),
            ("root:nogroup", (0, 0)),
            ("nobody:9", (0, 9)),
            ("2147483647", (MAX_ID, MAX_ID)),
            ("2147483648", (0, 0)),
        ] {
            assert_eq!(resolve_owner(&tree(), spec).unwrap(), want, "{spec}");
        }
        assert_eq!(resolve_owner(&MemTree::new(), "app").unwrap(), (0, 0));
    }

    /// A-106, C-012
    #[test]
    fn only_names_need_the_image() {
        for (spec, numeric) in
            [("1", true), ("1:2", true), ("root:root", true), ("app", false), ("1:staff", false)]
        {
            assert_eq!(OwnerSpec::parse(spec).numeric().is_some(), numeric, "{spec}");
        }
    }

    #[test]
    fn unusable_files_are_refused() {
        let special = MemTree::new().special("etc/passwd", FileKind::Fifo, (0, 0));
        assert!(resolve_owner(&special, "app").unwrap_err().to_string().contains("not a regular file"));
        let huge = MemTree::new().file("etc/passwd", vec![b'a'; MAX_USER_FILE_BYTES as usize + 1]);
        assert!(resolve_owner(&huge, "app").unwrap_err().to_string().contains("10 MiB"));
    }
}
