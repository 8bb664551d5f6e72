//! Small file operations that every part of the store needs.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// 16 random hex digits.
pub(crate) fn random_name() -> String {
    let mut bytes = [0_u8; 8];
    // The kernel's generator cannot fail once it is seeded; a short read leaves zeros, and names are created
    // exclusively, so that a collision is an error and never a shared file.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Seconds since 1970; 0 before it.
pub(crate) fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// Makes one directory with exactly `mode`, whatever the umask; one that is there already is left as it is.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// `None` instead of "no such file".
pub(crate) fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Takes an flock on an open file. `false` when it is held elsewhere and `op` does not block.
pub(crate) fn flock_fd(file: &File, op: FlockOperation) -> io::Result<bool> {
    match rustix::io::retry_on_intr(|| flock(file, op)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Opens (creating it if need be) and flocks the file at `path`; `None` when it is held elsewhere and `op` does not
/// block. The lock that is returned is on the file that has this path *now*: a holder may unlink the file before it
/// lets go, and whoever then gets the nameless file tries again.
pub(crate) fn lock_path(path: &Path, op: FlockOperation) -> io::Result<Option<File>> {
    loop {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if !flock_fd(&file, op)? {
            return Ok(None);
        }
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Whether `path` still names the open file.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let Some(there) = optional(fs::symlink_metadata(path))? else { return Ok(false) };
    let here = file.metadata()?;
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

/// Replaces `path` with `bytes` by rename: readers see the old or the new document, never a part of one. `temporary`
/// is a new name on the same file system; it is removed on failure.
pub(crate) fn replace_file(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Removes whatever is at `path`; nothing there is fine. Directories that their owner may not write (an image's) are
/// made writable first: root needs no such thing, everybody else does.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let Some(meta) = optional(fs::symlink_metadata(path))? else { return Ok(()) };
    if !meta.is_dir() {
        return optional(fs::remove_file(path)).map(drop);
    }
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            optional(fs::remove_dir_all(path)).map(drop)
        }
        Err(e) => Err(e),
    }
}

fn open_up(top: &Path) -> io::Result<()> {
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}
