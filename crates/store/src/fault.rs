//! A seam for tests: file operations that fail as a broken disk makes them fail.

use crate::{Store, locked};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What shall fail.
#[derive(Default)]
pub(crate) struct Faults {
    any: AtomicBool,
    /// Site and errno.
    wanted: Mutex<Option<(&'static str, i32)>>,
}

/// Sites at which faults can be asked for.
#[doc(hidden)]
pub const FAULT_SITES: [&str; 6] =
    ["blob create", "blob write", "blob place", "layer create", "layer place", "document write"];

impl Store {
    /// For tests: from now on this site fails with this errno, in this handle and its clones; `None` ends that.
    #[doc(hidden)]
    pub fn inject_fault(&self, fault: Option<(&'static str, i32)>) {
        self.inner.faults.any.store(fault.is_some(), Ordering::Relaxed);
        *locked(&self.inner.faults.wanted) = fault;
    }

    /// Fails if a test wants it to.
    pub(crate) fn fault(&self, site: &'static str) -> io::Result<()> {
        let faults = &self.inner.faults;
        if !faults.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &*locked(&faults.wanted) {
            Some((wanted, errno)) if *wanted == site => Err(io::Error::from_raw_os_error(*errno)),
            _ => Ok(()),
        }
    }
}
