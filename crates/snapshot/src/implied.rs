//! Directories that a layer's archive has no entry for.
//!
//! Such a directory is in the layer only because something lies in it, so that it changes nothing in the one that the
//! layers below have. overlayfs shows the metadata of the topmost directory: it has to be that of the one below.

use crate::DirLayer;
use crate::layer::is_opaque;
use rbuild_tree::{Metadata, PathError, Timestamp, Tree, TreePath, open_beneath};
use rustix::fs::{self, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What the `implied` directories of `upper` have to become so that the tree `lower` keeps its own: those whose mode or
/// owner differ, with their metadata below. A time alone is no difference: it would be when the layer was unpacked.
pub fn implied_metadata(
    upper: &DirLayer,
    implied: &[TreePath],
    lower: &dyn Tree,
) -> io::Result<Vec<(TreePath, Metadata)>> {
    let mut changed = Vec::new();
    for path in implied {
        let Some(wanted) = lower.lstat(path)?.filter(Metadata::is_dir) else { continue };
        let Some(found) = upper.tree().lstat(path)?.filter(Metadata::is_dir) else { continue };
        let same = (found.mode, found.uid, found.gid) == (wanted.mode, wanted.uid, wanted.gid);
        if !same && !is_below_opaque(upper, path)? {
            changed.push((path.clone(), wanted));
        }
    }
    Ok(changed)
}

/// Whether a directory above `path` hides what is below it in the lower tree.
fn is_below_opaque(upper: &DirLayer, path: &TreePath) -> io::Result<bool> {
    for dir in path.ancestors() {
        let fd = upper.tree().open_dir(&dir)?;
        if is_opaque(fd).map_err(|e| PathError::wrap("read", &dir, e))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives directories below `dest` mode, owner and time.
pub fn set_directories(dest: &Path, directories: &[(TreePath, Metadata)]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = fs::open(dest, flags, Mode::empty())?;
    for (path, meta) in directories {
        let set = || -> io::Result<()> {
            let dir = open_beneath(&root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            fs::fchown(&dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
            fs::fchmod(&dir, Mode::from_raw_mode(meta.mode))?;
            let Timestamp { seconds, nanos } = meta.mtime;
            let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
            Ok(fs::futimens(&dir, &Timestamps { last_access: time, last_modification: time })?)
        };
        set().map_err(|e| PathError::wrap("set the metadata of", path, e))?;
    }
    Ok(())
}
