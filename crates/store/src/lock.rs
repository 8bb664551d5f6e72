//! Locks on pieces of work, so that several processes do the same thing once.

use crate::error::{IoContext, Result};
use crate::fsutil::lock_path;
use crate::{Store, StoreError};
use rbuild_oci::Digest;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

/// First and longest pause between two attempts at a lock that somebody holds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// An exclusive lock on a key, between threads as well as processes. Dropping it lets go; the kernel does when the
/// process dies.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Unlinked while it is still locked: whoever has it open gets the lock of a nameless file, sees that, and
        // tries again with the file that has the name then.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Takes the lock of `key`; `None` while somebody holds it.
    pub fn try_lock_key(&self, key: &Digest) -> Result<Option<KeyLock>> {
        let path = self.root().join("locks").join(key.hex());
        let file = lock_path(&path, FlockOperation::NonBlockingLockExclusive).at("lock", &path)?;
        Ok(file.map(|file| KeyLock { path, _file: file }))
    }

    /// Whether somebody holds the lock of `key` now.
    pub(crate) fn is_key_locked(&self, key: &Digest) -> Result<bool> {
        // Without a lock file nobody does; one that nobody holds is not made for the question.
        let path = self.root().join("locks").join(key.hex());
        Ok(path.exists() && self.try_lock_key(key)?.is_none())
    }

    /// Takes the lock of `key`, waiting for whoever holds it. `cancelled` is asked before each attempt; once it says
    /// `true`, this ends with [`StoreError::Cancelled`]. Blocks the thread.
    pub fn lock_key_blocking(&self, key: &Digest, cancelled: &dyn Fn() -> bool) -> Result<KeyLock> {
        let (mut pause, longest) = PAUSES;
        loop {
            if cancelled() {
                return Err(StoreError::Cancelled);
            }
            if let Some(lock) = self.try_lock_key(key)? {
                return Ok(lock);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }
}
