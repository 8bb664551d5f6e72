//! Destinations: files and directories that appear whole or not at all.

use crate::error::{ExportError, IoContext, Result};
use std::fs::{self, File, OpenOptions};
use std::io;
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
    let temporary = beside(dest);
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary).at("create", &temporary)?;
    let written = write(file).map_err(|e| name_the_file(e, dest));
    let written = written.and_then(|value| {
        fs::rename(&temporary, dest).at("put in place", dest)?;
        Ok(value)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// An archive does not know what it is written to.
fn name_the_file(error: ExportError, dest: &Path) -> ExportError {
    match error {
        ExportError::Stream(source) => ExportError::io("write", dest, source),
        other => other,
    }
}

/// Copies a file of `size` bytes to a new name beside its destination and renames it. Shares the blocks where the file
/// system can. Returns the bytes copied; if that is not `size`, nothing is put in place.
pub(crate) fn copy_file(mut from: File, size: u64, dest: &Path) -> Result<u64> {
    let temporary = beside(dest);
    let mut copy = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        if rustix::fs::ioctl_ficlone(&file, &from).is_ok() {
            return Ok(from.metadata()?.len());
        }
        io::copy(&mut from, &mut file)
    };
    let copied = copy().and_then(|copied| {
        if copied == size {
            fs::rename(&temporary, dest)?;
        }
        Ok(copied)
    });
    if !matches!(copied, Ok(n) if n == size) {
        let _ = fs::remove_file(&temporary);
    }
    copied.at("write", dest)
}
