//! The few things that are done to a cgroup filesystem; tests have another kernel.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub(crate) trait Tree {
    fn make(&self, dir: &Path) -> io::Result<()>;
    fn remove(&self, dir: &Path) -> io::Result<()>;
    fn read(&self, file: &Path) -> io::Result<String>;
    /// One write; never makes the file.
    fn write(&self, file: &Path, value: &str) -> io::Result<()>;
    /// Names of the cgroups directly below one.
    fn below(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cgroupfs;

impl Tree for Cgroupfs {
    fn make(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o755).create(dir)
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir(dir)
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        std::fs::read_to_string(file)
    }

    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<String>> {
        let directory = |entry: io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            entry.file_name().into_string().ok().filter(|_| is_dir)
        };
        Ok(std::fs::read_dir(dir)?.filter_map(directory).collect())
    }
}
