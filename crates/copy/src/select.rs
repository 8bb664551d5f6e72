//! Which entries of a source tree are meant, with which metadata.

use crate::CopyError;
use crate::chmod::Chmod;
use crate::error::{clamped, io};
use crate::hint::{ExcludedBy, not_found};
use crate::selection::{Root, RootKind, Selected, Selection};
use crate::wildcard::expand;
use rbuild_context::Matcher;
use rbuild_context::glob::has_wildcards;
use rbuild_oci::Digest;
use rbuild_tree::{DataRef, DataSource, FileKind, Metadata, Timestamp, Tree, TreePath, resolve};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;

/// Who owns what is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// As in the source: stages and images.
    #[default]
    Keep,
    /// One owner and group: 0:0 for a build context, or a numeric --chown. A --chown with names selects with 0:0, adds the
    /// names and the files they are looked up in to the key, and gives the ids when placing.
    Set(u32, u32),
}

/// How a source is selected.
#[derive(Default)]
pub struct SelectOptions<'a> {
    /// Resulting owner.
    pub ownership: Ownership,
    /// `--chmod`.
    pub chmod: Option<&'a Chmod>,
    /// `--exclude` patterns, relative to each source directory.
    pub exclude: Option<&'a Matcher>,
    /// `--parents`.
    pub parents: bool,
    /// The source is a build context on this machine, whose files lose their `security.capability` on the way to BuildKit
    /// (the receiver gives them an owner after it), and whose sockets are not sent.
    pub local: bool,
    /// Asked when a source does not exist, to say why.
    pub excluded_by: Option<ExcludedBy<'a>>,
}

/// Compiles `--exclude` patterns.
pub fn exclude_matcher<S: AsRef<str>>(patterns: &[S]) -> Result<Matcher, CopyError> {
    Matcher::new(patterns.iter().map(AsRef::as_ref)).map_err(|error| {
        let pattern = patterns.get(error.index()).map_or("", AsRef::as_ref);
        CopyError::BadPattern { what: "--exclude", pattern: pattern.to_owned() }
    })
}

/// What one source argument means in `source`: the path or wildcard `path`, clamped to the root.
///
/// A path that does not exist is [`CopyError::NotFound`], a wildcard without matches an empty selection. A symlink that
/// is named or matched is followed; those below a directory are copied. A socket becomes an empty file.
pub fn select(source: &dyn Tree, path: &str, options: &SelectOptions<'_>) -> Result<Selection, CopyError> {
    let (base, pattern) = if options.parents { pivot(path) } else { (path, None) };
    let include = pattern.map(|pattern| include_matcher(pattern, path)).transpose()?.flatten();
    let (bases, wildcard) = expand(source, base, options.excluded_by)?;
    let mut roots = Vec::new();
    for base in &bases {
        let found = resolve(source, base, true).map_err(io("resolve", base))?;
        let Some(meta) = found.meta else {
            return Err(missing(source, base, &found.path, options));
        };
        if let Some((pattern, _)) =
            include.as_ref().filter(|(text, _)| !wildcard && !has_wildcards(text) && !text.contains('\\'))
        {
            let wanted = base.join_path(&clamped(pattern)?);
            let there = resolve(source, &wanted, true).map_err(io("resolve", &wanted))?;
            if there.meta.is_none() {
                return Err(missing(source, &wanted, &there.path, options));
            }
        }
        roots.push(if meta.is_dir() {
            let entries = below(source, &found.path, include.as_ref(), options)?;
            Root { kind: RootKind::Directory, mtime: meta.mtime, entries }
        } else {
            file_root(base, found.path, meta, options)
        });
    }
    fill_data(source, &mut roots)?;
    Ok(Selection { roots })
}

/// The file that an instruction carries in itself, with mode 0644 unless --chmod says otherwise.
pub fn select_inline(
    name: &str,
    bytes: Arc<[u8]>,
    mtime: Timestamp,
    options: &SelectOptions<'_>,
) -> Result<Selection, CopyError> {
    let path = clamped(name)?;
    if path.is_root() {
        return Err(CopyError::BadPath { path: name.to_owned(), reason: "names no file" });
    }
    let size = bytes.len() as u64;
    let meta = Metadata { kind: FileKind::Regular, mode: 0o644, size, ..Metadata::directory(mtime) };
    let mut root = file_root(&path, path.clone(), meta, options);
    for entry in &mut root.entries {
        let digest = Some(Digest::of(&bytes));
        entry.data = Some(DataRef { size, digest, source: DataSource::Inline(bytes.clone()) });
    }
    Ok(Selection { roots: vec![root] })
}

/// The contents of an archive, in its order. --chmod does not apply, --chown does when they are placed.
pub fn select_archive(entries: Vec<Selected>) -> Selection {
    Selection { roots: vec![Root { kind: RootKind::Archive, mtime: Timestamp::default(), entries }] }
}

/// Splits a `--parents` source at `/./`: what is left out of the destination, and the pattern of what is kept.
fn pivot(path: &str) -> (&str, Option<&str>) {
    match path.split_once("/./") {
        Some((base, pattern)) => (base, Some(pattern)),
        None => ("/", Some(path)),
    }
}

/// The matcher of a `--parents` pattern with its cleaned text; `None` when the pattern is everything.
fn include_matcher(pattern: &str, source: &str) -> Result<Option<(String, Matcher)>, CopyError> {
    let bad = || CopyError::BadPattern { what: "source", pattern: source.to_owned() };
    let cleaned = clamped(pattern)?;
    if cleaned.is_root() {
        return Ok(None);
    }
    let cleaned = String::from_utf8_lossy(cleaned.as_bytes()).into_owned();
    let matcher = Matcher::new([&cleaned]).map_err(|_| bad())?;
    Ok(Some((cleaned, matcher)))
}

fn missing(tree: &dyn Tree, path: &TreePath, resolved: &TreePath, options: &SelectOptions<'_>) -> CopyError {
    CopyError::NotFound(Box::new(not_found(tree, path, resolved, options.excluded_by)))
}

fn file_root(named: &TreePath, source: TreePath, meta: Metadata, options: &SelectOptions<'_>) -> Root {
    let name = named.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    let mtime = meta.mtime;
    let entries = if meta.kind == FileKind::Socket && options.local {
        Vec::new()
    } else {
        vec![selected(TreePath::root(), source, meta, false, options)]
    };
    Root { kind: RootKind::File { name }, mtime, entries }
}

fn selected(
    dest: TreePath,
    source: TreePath,
    mut meta: Metadata,
    implied: bool,
    options: &SelectOptions<'_>,
) -> Selected {
    if let Ownership::Set(uid, gid) = options.ownership {
        (meta.uid, meta.gid) = (uid, gid);
    }
    if let Some(chmod) = options.chmod.filter(|_| meta.kind != FileKind::Symlink) {
        meta.mode = chmod.apply(meta.mode, meta.is_dir());
    }
    if options.local {
        meta.xattrs.clear();
    }
    let mut data = None;
    if meta.kind == FileKind::Socket {
        meta.kind = FileKind::Regular;
        meta.hard_link = None;
        data = Some(DataRef { size: 0, digest: Some(Digest::of("")), source: DataSource::Inline([].into()) });
    }
    Selected { dest, source, meta, data, hard_link_to: None, implied }
}

/// The selected entries below the directory `root`. A directory that is left out itself comes when something in it is
/// selected.
fn below(
    tree: &dyn Tree,
    root: &TreePath,
    include: Option<&(String, Matcher)>,
    options: &SelectOptions<'_>,
) -> Result<Vec<Selected>, CopyError> {
    struct Dir {
        dest: TreePath,
        source: TreePath,
        /// Metadata of a directory that is not selected yet.
        waiting: Option<Metadata>,
    }
    let mut out = Vec::new();
    let mut dirs: Vec<Dir> = Vec::new();
    for (source, meta) in candidates(tree, root, include)? {
        let Some(dest) = source.strip_prefix(root) else { continue };
        if meta.kind == FileKind::Socket && options.local {
            continue;
        }
        while dirs.last().is_some_and(|dir| !dest.starts_with(&dir.dest)) {
            dirs.pop();
        }
        let wanted = include.is_none_or(|(_, include)| include.matches(dest.as_bytes()))
            && !options.exclude.is_some_and(|exclude| exclude.matches(dest.as_bytes()));
        if wanted {
            for dir in &mut dirs {
                if let Some(meta) = dir.waiting.take() {
                    out.push(selected(dir.dest.clone(), dir.source.clone(), meta, true, options));
                }
            }
        }
        if meta.is_dir() {
            let waiting = (!wanted).then(|| meta.clone());
            dirs.push(Dir { dest: dest.clone(), source: source.clone(), waiting });
        }
        if wanted {
            out.push(selected(dest, source, meta, false, options));
        }
    }
    Ok(out)
}

/// Everything below `root` that `include` could match, with the directories that hold it.
fn candidates(
    tree: &dyn Tree,
    root: &TreePath,
    include: Option<&(String, Matcher)>,
) -> Result<Vec<(TreePath, Metadata)>, CopyError> {
    let mut start = root.clone();
    let mut found = Vec::new();
    if let Some((pattern, _)) = include.filter(|(pattern, _)| !pattern.starts_with('!')) {
        for part in pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', '\\', '^'])) {
            start = start.join(part);
            let Some(meta) = tree.lstat(&start).map_err(io("stat", &start))? else { return Ok(Vec::new()) };
            let is_dir = meta.is_dir();
            found.push((start.clone(), meta));
            if !is_dir {
                return Ok(found);
            }
        }
    }
    let walked = tree.walk(&start).map_err(io("read", &start))?;
    if found.is_empty() {
        return Ok(walked);
    }
    found.extend(walked);
    Ok(found)
}

/// Finds hard links and digests all regular files at once.
fn fill_data(tree: &dyn Tree, roots: &mut [Root]) -> Result<(), CopyError> {
    let mut files = Vec::new();
    for root in &mut *roots {
        let mut names: HashMap<(u64, u64), usize> = HashMap::new();
        for i in 0..root.entries.len() {
            if root.entries[i].meta.kind != FileKind::Regular || root.entries[i].data.is_some() {
                continue;
            }
            let inode = root.entries[i].meta.hard_link;
            if let Some(first) = inode.and_then(|inode| names.get(&inode).copied()) {
                root.entries[i].hard_link_to = Some(root.entries[first].dest.clone());
                continue;
            }
            if let Some(inode) = inode {
                names.insert(inode, i);
            }
            files.push((root.entries[i].source.clone(), root.entries[i].meta.clone()));
        }
    }
    let root = TreePath::root();
    let mut digests = tree.digests(&files).map_err(io("digest files below", &root))?.into_iter().zip(files);
    for root in roots {
        let mut names: HashMap<TreePath, DataRef> = HashMap::new();
        let linked: HashSet<TreePath> =
            root.entries.iter().filter_map(|entry| entry.hard_link_to.clone()).collect();
        for entry in &mut root.entries {
            entry.meta.hard_link = None;
            if entry.meta.kind != FileKind::Regular || entry.data.is_some() {
                continue;
            }
            if let Some(first) = &entry.hard_link_to {
                entry.data = names.get(first).cloned();
                continue;
            }
            let Some((digest, (path, meta))) = digests.next() else { break };
            let source = tree.data_source(&path).map_err(io("open", &path))?;
            let data = DataRef { size: meta.size, digest: Some(digest), source };
            if linked.contains(&entry.dest) {
                names.insert(entry.dest.clone(), data.clone());
            }
            entry.data = Some(data);
        }
    }
    Ok(())
}
