//! What a context holds: read straight from the disk, by rules simple enough to be right.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// An entry of a context or of an image.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// `f`, `d` or `l`.
    pub kind: char,
    pub mode: u32,
    pub owner: (u64, u64),
    /// A file's bytes, or a link's target.
    pub data: Vec<u8>,
    /// The file's `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// The first of the paths that are one file, if there are several.
    pub first: Option<String>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let data = String::from_utf8_lossy(&self.data[..self.data.len().min(24)]).into_owned();
        write!(f, "{} {:o} {:?} {} bytes {data:?}", self.kind, self.mode, self.owner, self.data.len())?;
        write!(f, " capability {:?} first {:?}", self.capability.is_some(), self.first)
    }
}

pub type Tree = BTreeMap<String, Node>;

pub const CAPABILITY: &str = "security.capability";

/// A rule, and whether it excludes a path.
pub type Rule = (&'static str, fn(&str) -> bool);

/// The rules a random .dockerignore is made of, with what they exclude.
pub const RULES: [Rule; 5] = [
    ("src/sub/deep", |path| below(path, "src/sub/deep")),
    ("**/*.log", |path| path.split('/').any(|part| part.ends_with(".log"))),
    ("extra*", |path| path.starts_with("extra")),
    ("src/f2", |path| below(path, "src/f2")),
    ("lib/*", |path| path.starts_with("lib/")),
];

fn below(path: &str, dir: &str) -> bool {
    path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// What a build from `dir` must see.
pub fn read(dir: &Path, git_modes: bool) -> Tree {
    let ignore = std::fs::read_to_string(dir.join(".dockerignore")).unwrap_or_default();
    let excluded = |path: &str| {
        ignore.lines().any(|line| RULES.iter().any(|(rule, matches)| *rule == line && matches(path)))
    };
    let mut tree = read_all(dir);
    tree.retain(|path, _| !excluded(path));
    regroup(&mut tree);
    for node in tree.values_mut() {
        node.owner = (0, 0);
        if git_modes && node.kind != 'l' {
            node.mode = if node.kind == 'd' || node.mode & 0o100 != 0 { 0o755 } else { 0o644 };
        }
    }
    tree
}

/// Everything below a directory.
pub fn read_all(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    add(dir, "", &mut tree);
    tree
}

fn add(dir: &Path, prefix: &str, tree: &mut Tree) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let (kind, data) = if meta.is_dir() {
            add(&path, &format!("{name}/"), tree);
            ('d', Vec::new())
        } else if meta.is_symlink() {
            ('l', std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
        } else {
            ('f', std::fs::read(&path).unwrap())
        };
        let mut value = [0u8; 64];
        let capability = match kind {
            'f' => rustix::fs::lgetxattr(&path, CAPABILITY, &mut value).ok(),
            _ => None,
        };
        let node = Node {
            kind,
            mode: if kind == 'l' { 0o777 } else { meta.mode() & 0o7777 },
            owner: (meta.uid().into(), meta.gid().into()),
            data,
            capability: capability.map(|length| value[..length].to_vec()),
            first: (kind == 'f' && meta.nlink() > 1).then(|| format!("{} {}", meta.dev(), meta.ino())),
        };
        tree.insert(name, node);
    }
}

/// Names every group of paths that are one file by its first path, and forgets groups of one.
pub fn regroup(tree: &mut Tree) {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, node) in &*tree {
        if let Some(name) = &node.first {
            groups.entry(name.clone()).or_default().push(path.clone());
        }
    }
    for paths in groups.values() {
        for path in paths {
            tree.get_mut(path).unwrap().first = (paths.len() > 1).then(|| paths[0].clone());
        }
    }
}
