//! The parallel walk: one task per directory, everything relative to its file descriptor.

use crate::beneath::{is_absent, kind_of, metadata_with, open_beneath, stat_at};
use crate::{FileKind, Metadata, PathError, StatId, TreePath};
use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest path a walk returns, in bytes. The kernel allows deeper trees, but no tool can name what is in them, and
/// the paths of a tree of depth n take n² bytes.
const MAX_PATH: usize = 32 * 1024;
/// Buffer of `getdents`, per directory being read.
const DENTS: usize = 32 * 1024;

/// Directories of a tree that one thread walks alone.
const SMALL: usize = 32;

/// One entry found by a walk.
#[derive(Debug, Clone)]
pub struct Walked {
    /// Where it is, from the root of the tree.
    pub path: TreePath,
    /// Its metadata.
    pub meta: Metadata,
    /// The state it was in.
    pub stat: StatId,
}

/// What a walk does with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// It is part of the tree; a directory is walked.
    Include,
    /// A directory that is part of the tree only if something below it is.
    IfNotEmpty,
    /// It does not exist, nor does anything below it.
    Skip,
}

/// Decides what a walk sees. Asked from several threads, for each entry of every directory that is entered.
pub trait Select: Sync {
    /// What to do with `path`.
    fn select(&self, path: &TreePath, is_dir: bool) -> Visit;

    /// Whether the regular file `path`, in this state, is known to have no `security.capability`: looking for one
    /// takes three times as long as the `stat`. (Setting one changes the ctime.)
    fn is_bare(&self, path: &TreePath, state: &StatId) -> bool {
        let _ = (path, state);
        false
    }
}

/// Everything is part of the tree.
pub struct All;

impl Select for All {
    fn select(&self, _: &TreePath, _: bool) -> Visit {
        Visit::Include
    }
}

/// An entry and, for a directory, the number of its own listing.
type Listed = (Walked, Option<(usize, Visit)>);
/// The entries of one directory, in order of names.
type Listing = Vec<Listed>;

/// A directory that was found and is not listed yet. It holds the parent's descriptor, not its own, so that the number
/// of open ones stays near depth × threads.
struct Child {
    parent: Arc<OwnedFd>,
    path: TreePath,
    number: usize,
}

struct Walk<'a> {
    select: &'a dyn Select,
    listings: Mutex<Vec<(usize, Listing)>>,
    next: AtomicUsize,
    failed: AtomicBool,
    error: Mutex<Option<io::Error>>,
}

/// Walks what is below the directory `start` of `root`, in [`TreePath`] order, on the current rayon pool.
///
/// Entries that vanish meanwhile are left out.
pub(crate) fn walk(root: BorrowedFd<'_>, start: &TreePath, select: &dyn Select) -> io::Result<Vec<Walked>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir =
        open_beneath(root, start, flags, Mode::empty()).map_err(|e| PathError::wrap("open", start, e))?;
    let walk = Walk {
        select,
        listings: Mutex::default(),
        next: AtomicUsize::new(1),
        failed: AtomicBool::new(false),
        error: Mutex::default(),
    };
    let mut pending = walk.directory(dir, start.clone(), 0);
    // Small trees are done sooner than a second thread wakes up.
    while walk.next.load(Ordering::Relaxed) <= SMALL {
        let Some(child) = pending.pop() else { break };
        pending.extend(walk.subdirectory(child));
    }
    if !pending.is_empty() {
        rayon::scope(|scope| walk.spawn(scope, pending));
    }
    if let Some(error) = walk.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(flatten(walk.listings.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

impl<'a> Walk<'a> {
    /// Walks these directories and what is below them, each in a task of its own.
    fn spawn<'s>(&'s self, scope: &rayon::Scope<'s>, children: Vec<Child>) {
        for child in children {
            scope.spawn(move |scope| self.spawn(scope, self.subdirectory(child)));
        }
    }

    /// Lists one directory and returns the directories in it, the last one first: a worker takes its newest task, and
    /// neighbours are read in order then.
    fn directory(&self, dir: OwnedFd, path: TreePath, number: usize) -> Vec<Child> {
        if self.failed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let dir = Arc::new(dir);
        match self.list(&dir, &path) {
            Ok(listing) => {
                let children = listing.iter().rev().filter_map(|(entry, child)| {
                    let (number, _) = (*child)?;
                    Some(Child { parent: Arc::clone(&dir), path: entry.path.clone(), number })
                });
                let children = children.collect();
                self.listings.lock().unwrap_or_else(PoisonError::into_inner).push((number, listing));
                children
            }
            Err(error) => {
                self.fail(error);
                Vec::new()
            }
        }
    }

    fn subdirectory(&self, child: Child) -> Vec<Child> {
        let Child { parent, path, number } = child;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = path.file_name().unwrap_or_default();
        match openat(&parent, name, flags, Mode::empty()) {
            Ok(dir) => {
                drop(parent);
                return self.directory(dir, path, number);
            }
            Err(error) if is_absent(error) => {}
            Err(error) => self.fail(PathError::wrap("open", &path, error)),
        }
        Vec::new()
    }

    fn list(&self, dir: &OwnedFd, path: &TreePath) -> io::Result<Listing> {
        let mut names = read_names(dir).map_err(|e| PathError::wrap("list", path, e))?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut listing = Vec::with_capacity(names.len());
        for (name, kind) in names {
            if path.as_bytes().len() + name.len() >= MAX_PATH {
                return Err(PathError::wrap("walk", path, io::Error::other("the path is too long")));
            }
            let path = path.join(&name);
            let is_dir = kind == FileType::Directory;
            let visit = (kind != FileType::Unknown).then(|| self.select.select(&path, is_dir));
            if visit == Some(Visit::Skip) {
                continue;
            }
            match self.entry(dir, &name, path, visit.map(|visit| (is_dir, visit))) {
                Ok(Some(entry)) => listing.push(entry),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// Examines one entry; `asked` is the answer for the type that its directory gave.
    fn entry(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        path: TreePath,
        asked: Option<(bool, Visit)>,
    ) -> io::Result<Option<Listed>> {
        let found = stat_at(dir, name).and_then(|stat| {
            let state = StatId::from(&stat);
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let bare = regular && self.select.is_bare(&path, &state);
            Ok((metadata_with(dir.as_fd(), name, &stat, bare)?, state))
        });
        let (meta, stat) = match found {
            Ok(found) => found,
            Err(error) if is_absent(error) => return Ok(None),
            Err(error) => return Err(PathError::wrap("stat", &path, error)),
        };
        let visit = match asked {
            Some((is_dir, visit)) if is_dir == meta.is_dir() => visit,
            // The directory entry's type was unknown or is out of date.
            _ => self.select.select(&path, meta.is_dir()),
        };
        if visit == Visit::Skip || (visit == Visit::IfNotEmpty && !meta.is_dir()) {
            return Ok(None);
        }
        let child = meta.is_dir().then(|| (self.next.fetch_add(1, Ordering::Relaxed), visit));
        Ok(Some((Walked { path, meta, stat }, child)))
    }

    fn fail(&self, error: io::Error) {
        self.failed.store(true, Ordering::Relaxed);
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Puts the listings in each other's place: a directory, then what it holds.
fn flatten(listings: Vec<(usize, Listing)>) -> Vec<Walked> {
    let total = listings.iter().map(|(_, listing)| listing.len()).sum();
    let mut by_number: Vec<Option<Listing>> = Vec::new();
    for (number, listing) in listings {
        if by_number.len() <= number {
            by_number.resize_with(number + 1, || None);
        }
        by_number[number] = Some(listing);
    }
    let mut take =
        |number: usize| by_number.get_mut(number).and_then(Option::take).unwrap_or_default().into_iter();
    let mut out: Vec<Walked> = Vec::with_capacity(total);
    // Each open directory, and the length `out` must exceed for it to be kept.
    let mut open = vec![(take(0), None)];
    while let Some((entries, keep)) = open.last_mut() {
        match entries.next() {
            Some((walked, child)) => {
                out.push(walked);
                if let Some((number, visit)) = child {
                    let keep = (visit == Visit::IfNotEmpty).then_some(out.len());
                    open.push((take(number), keep));
                }
            }
            None => {
                if *keep == Some(out.len()) {
                    out.pop();
                }
                open.pop();
            }
        }
    }
    out
}

/// The names in an open directory, unsorted, with the type the file system gives along (may be unknown).
pub fn read_names(dir: impl AsFd) -> rustix::io::Result<Vec<(OsString, FileType)>> {
    let mut buffer = Vec::with_capacity(DENTS);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => break, // the directory itself was removed
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsStr::from_bytes(name).to_os_string(), entry.file_type()));
        }
    }
    Ok(names)
}

/// The type of the entry `name` in `dir`: from `known` if the file system gave it, else by a `stat`.
pub fn kind_at(dir: impl AsFd, name: &OsStr, known: FileType) -> rustix::io::Result<Option<FileKind>> {
    Ok(match known {
        FileType::Directory => Some(FileKind::Directory),
        FileType::RegularFile => Some(FileKind::Regular),
        FileType::Symlink => Some(FileKind::Symlink),
        _ => kind_of(&stat_at(dir, name)?),
    })
}
