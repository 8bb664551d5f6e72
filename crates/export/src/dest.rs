//! Destinations: files and directories that appear whole or not at all.

use crate::error::{ExportError, IoContext, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A path beside `dest` that nothing has yet. It begins with a dot.
pub(crate) fn beside(dest: &Path) -> PathBuf {
    let name = dest.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut random = [0_u8; 6];
    // Names are created exclusively: a weak random number can only lead to an error.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let random: String = random.iter().map(|b| format!("{b:02x}")).collect();
    dest.with_file_name(format!(".{name}.rbuild-{random}"))
}

/// Writes the file `dest` by `write`, which gets it empty, and replaces what was there when that has succeeded. A `dest`
/// that is neither a file nor a directory (`/dev/stdout`, a named pipe) is written straight into.
pub fn write_file<T>(dest: &Path, write: impl FnOnce(File) -> Result<T>) -> Result<T> {
    // A link is followed: the file it leads to is replaced.
    let dest = &fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned());
    match fs::metadata(dest) {
        Ok(meta) if meta.is_dir() => return Err(ExportError::IsDirectory { path: dest.clone() }),
        Ok(meta) if !meta.is_file() => {
            let file = OpenOptions::new().write(true).open(dest).at("open", dest)?;
            return write(file).map_err(|e| name_the_file(e, dest));
        }
        _ => {}
    }
    let fresh = Fresh::beside(dest).at("create a file beside", dest)?;
    let value = write(fresh.file.try_clone().at("write", dest)?).map_err(|e| name_the_file(e, dest))?;
    fresh.put_in_place(dest).at("put in place", dest)?;
    Ok(value)
}

/// A file that is written before it gets its name. Until then it has none, so that a killed process leaves nothing: least of
/// all in a build context, where the next COPY would find it.
struct Fresh {
    file: File,
    /// The name it has all the same, where the file system has no files without.
    temporary: Option<PathBuf>,
}

impl Fresh {
    fn beside(dest: &Path) -> io::Result<Self> {
        let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => Ok(Self { file: File::from(file), temporary: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let temporary = beside(dest);
                let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
                Ok(Self { file, temporary: Some(temporary) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces what is called `dest`.
    fn put_in_place(mut self, dest: &Path) -> io::Result<()> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                // Only a name can be renamed over another one; it is there for this instant.
                let temporary = beside(dest);
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, unnamed, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
                temporary
            }
        };
        fs::rename(&temporary, dest).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// An archive does not know what it is written to.
fn name_the_file(error: ExportError, dest: &Path) -> ExportError {
    match error {
        ExportError::Stream(source) => ExportError::io("write", dest, source),
        other => other,
    }
}

/// Copies a file of `size` bytes beside its destination and puts it in place. Shares the blocks where the file
/// system can. Returns the bytes copied; if that is not `size`, nothing is put in place.
pub(crate) fn copy_file(mut from: File, size: u64, dest: &Path) -> Result<u64> {
    let mut copy = || {
        let mut fresh = Fresh::beside(dest)?;
        let copied = match rustix::fs::ioctl_ficlone(&fresh.file, &from).is_ok() {
            true => from.metadata()?.len(),
            false => io::copy(&mut from, &mut fresh.file)?,
        };
        if copied == size {
            fresh.put_in_place(dest)?;
        }
        Ok(copied)
    };
    copy().at("write", dest)
}
