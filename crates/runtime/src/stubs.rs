//! Mount targets that had to be made, and their removal after the step.
//!
//! The records hold descriptors of the step's root, so cleaning never walks a path that the step could have
//! changed: a target swapped for a symbolic link (CVE-2024-23652) is another inode and is left alone.

use std::fs::{OpenOptions, Permissions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat, Timespec, Timestamps, fstat, unlinkat, utimensat};
use rustix::io::Errno;

use crate::resolve::{Created, is_still};

/// Fills an empty directory with `etc/hosts` and `etc/resolv.conf`, both empty. Put first in
/// [`Spec::lower`](crate::Spec::lower) of a step with a base, on the filesystem of the layers, it spares a step whose
/// image lacks these files from making them: `etc` is not copied up, and nothing has to be removed. It is not part of
/// the root: layers are diffed without it, and while the step runs the files are covered by mounts.
///
/// # Errors
/// Those of making directories and files.
pub fn fill_stub_layer(dir: &Path) -> std::io::Result<()> {
    let etc = dir.join("etc");
    std::fs::create_dir(&etc)?;
    for name in ["hosts", "resolv.conf"] {
        OpenOptions::new().write(true).create_new(true).open(etc.join(name))?;
    }
    // Whatever the umask said: these are what a step may copy up.
    std::fs::set_permissions(&etc, Permissions::from_mode(0o755))?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o755))
}

pub(crate) struct Stub {
    made: Created,
    /// The directory's modification time after the stub was made.
    after: (i64, i64),
}

fn mtime(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

impl Stub {
    /// Records what [`create_in_root`](crate::resolve::create_in_root) has just made. Directory times are
    /// read once everything of one target is there, innermost last.
    pub(crate) fn record(made: Vec<Created>, stubs: &mut Vec<Stub>) -> Result<(), Errno> {
        for created in made {
            let after = mtime(&fstat(&created.parent)?);
            stubs.push(Stub { made: created, after });
        }
        Ok(())
    }

    /// Removes the stub if it is still itself and empty, and gives its directory the times it had: those from
    /// before the stub, unless the step changed the directory too, then those of that change.
    fn clean(&self) -> Result<(), Errno> {
        let Created { parent, name, itself, before } = &self.made;
        if !is_still(parent.as_fd(), name, itself.as_fd()) {
            return Ok(());
        }
        let stat = fstat(itself)?;
        let now = fstat(parent)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
                other => other?,
            },
            FileType::RegularFile if stat.st_size == 0 && stat.st_nlink == 1 => {
                unlinkat(parent, name, AtFlags::empty())?
            }
            _ => return Ok(()),
        }
        let untouched = mtime(&now) == self.after;
        restore_times(parent.as_fd(), if untouched { before } else { &now })
    }
}

fn restore_times(dir: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let time = |tv_sec: i64, tv_nsec: i64| Timespec { tv_sec, tv_nsec: tv_nsec as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    };
    utimensat(dir, ".", &times, AtFlags::empty())
}

/// Removes what is left of the stubs, last made first. A stub that cannot be removed stays in the layer, which
/// is what an error here would come to; the step itself has succeeded.
pub(crate) fn clean(stubs: Vec<Stub>) {
    for stub in stubs.iter().rev() {
        let _ = stub.clean();
    }
}
