//! Reading the bytes a recipe refers to.

use rbuild_oci::{Digest, Sha256Writer};
use rbuild_tree::{DataSource, PathError, TreePath, hash_file, open_regular};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};

/// Opens the bytes of a regular file for reading; inline ones are put in a memory file. `path` is the name in errors.
pub fn open_source(source: &DataSource, path: &TreePath) -> io::Result<File> {
    match source {
        DataSource::Inline(bytes) => {
            let mut file = File::from(memfd_create("rbuild-inline", MemfdFlags::CLOEXEC)?);
            file.write_all(bytes)?;
            file.rewind()?;
            Ok(file)
        }
        DataSource::Below { root, path } => open_regular(root, path).map(File::from),
        DataSource::Owned(file) => {
            File::open(file).map_err(|e| PathError::wrap("open the bytes of", path, e))
        }
    }
}

/// The digest of the bytes of a regular file. `buffer` is scratch space; `path` is the name in errors.
pub fn hash_source(source: &DataSource, path: &TreePath, buffer: &mut Vec<u8>) -> io::Result<Digest> {
    match source {
        DataSource::Inline(bytes) => Ok(Digest::of(bytes)),
        DataSource::Below { root, path } => Ok(hash_file(root, path, buffer, |_| ())?.digest),
        DataSource::Owned(_) => {
            let mut writer = Sha256Writer::new(io::sink());
            io::copy(&mut open_source(source, path)?, &mut writer)
                .map_err(|e| PathError::wrap("read the bytes of", path, e))?;
            Ok(writer.finish().1)
        }
    }
}
