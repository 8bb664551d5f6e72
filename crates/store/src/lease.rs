//! Leases of running builds, and the gate between them and prune (see the rules in the crate's documentation).

use crate::error::{IoContext, Result};
use crate::fsutil::{flock_fd, lock_path, optional, random_name};
use crate::{LayerId, Store, StoreError, locked};
use rbuild_oci::Digest;
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Between two attempts at the gate.
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of one note in a lease's file: a raw SHA-256.
const NOTE: usize = 32;

/// `locks/gc`, counted within the process, since an flock belongs to the open file and not to the thread.
pub(crate) struct Gate {
    path: PathBuf,
    state: Mutex<(Option<File>, usize)>,
}

impl Gate {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new((None, 0)) }
    }

    /// Keeps prune from deciding until the guard is dropped.
    pub(crate) fn shared(&self) -> Result<GateGuard<'_>> {
        let mut state = locked(&self.state);
        let (slot, holders) = &mut *state;
        let file = match slot {
            Some(file) => file,
            None => slot.insert(self.open()?),
        };
        if *holders == 0 {
            flock_fd(file, FlockOperation::LockShared).at("lock", &self.path)?;
        }
        *holders += 1;
        Ok(GateGuard(self))
    }

    /// Keeps everybody else from looking up or putting in place. The lock goes with the file that is returned.
    pub(crate) fn exclusive(&self) -> Result<File> {
        let file = self.open()?;
        flock_fd(&file, FlockOperation::LockExclusive).at("lock", &self.path)?;
        Ok(file)
    }

    /// [`Gate::exclusive`], given up after a while: to be called where this very thread might hold a share.
    pub(crate) fn exclusive_within(&self, patience: Duration) -> Result<Option<File>> {
        let file = self.open()?;
        let end = Instant::now() + patience;
        loop {
            if flock_fd(&file, FlockOperation::NonBlockingLockExclusive).at("lock", &self.path)? {
                return Ok(Some(file));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .at("open", &self.path)
    }
}

/// A share of the gate.
pub(crate) struct GateGuard<'a>(&'a Gate);

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.1 -= 1;
        if let (Some(file), 0) = &*state {
            // Unlocking a file that is open cannot fail; if it did, closing it would do.
            let _ = flock_fd(file, FlockOperation::Unlock);
        }
    }
}

/// The lease of this store handle.
pub(crate) struct LeaseState {
    path: PathBuf,
    file: File,
    noted: HashSet<Digest>,
    /// Layers that were seen to be available; they stay so as long as the lease.
    pub(crate) present: HashSet<LayerId>,
    holders: usize,
}

/// Held by a running build: nothing that it has looked up or put in place through its [`Store`] handle, or clones
/// of it, is pruned. Dropping the last one writes the times of last use to the index.
#[derive(Debug)]
pub struct Lease {
    store: Store,
}

impl Store {
    /// Begins (or joins) the lease of this handle and its clones.
    pub fn lease(&self) -> Result<Lease> {
        let mut slot = locked(&self.inner.lease);
        if let Some(state) = &mut *slot {
            state.holders += 1;
        } else {
            // Within the gate: prune removes lease files that nobody has locked.
            let _gate = self.inner.gate.shared()?;
            let path = self.root().join("locks/leases").join(random_name());
            let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
            let file = file.at("create", &path)?;
            flock_fd(&file, FlockOperation::NonBlockingLockExclusive).at("lock", &path)?;
            *slot =
                Some(LeaseState { path, file, noted: HashSet::new(), present: HashSet::new(), holders: 1 });
        }
        drop(slot);
        Ok(Lease { store: self.clone() })
    }

    /// Notes that the running build uses these, if there is one, and keeps prune out until the guard is dropped.
    pub(crate) fn protect(&self, digests: &[Digest]) -> Result<GateGuard<'_>> {
        let gate = self.inner.gate.shared()?;
        if let Some(state) = &mut *locked(&self.inner.lease) {
            let mut notes = Vec::new();
            for digest in digests {
                if state.noted.insert(*digest) {
                    notes.extend_from_slice(digest.as_bytes());
                }
            }
            if !notes.is_empty()
                && let Err(e) = state.file.write_all(&notes)
            {
                // A torn note would shift all that follow it.
                state.forget(digests);
                return Err(StoreError::io("write", &state.path, e));
            }
        }
        Ok(gate)
    }
}

impl LeaseState {
    /// After a failed write: the file is cut back to whole notes, and these digests are written again next time.
    fn forget(&mut self, digests: &[Digest]) {
        for digest in digests {
            self.noted.remove(digest);
        }
        if let Ok(meta) = self.file.metadata() {
            let _ = self.file.set_len(meta.len() / NOTE as u64 * NOTE as u64);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Losing times of last use makes prune choose worse, nothing else.
        let _ = self.store.flush_uses();
        let _ = self.store.flush_placed();
        let mut slot = locked(&self.store.inner.lease);
        if let Some(state) = &mut *slot {
            state.holders -= 1;
            if state.holders == 0 {
                let _ = fs::remove_file(&state.path);
                *slot = None;
            }
        }
    }
}

/// What running builds use, in all processes. Removes the files of dead ones. To be called under the exclusive gate.
pub(crate) fn notes_of_running(root: &Path) -> Result<HashSet<Digest>> {
    let dir = root.join("locks/leases");
    let mut found = HashSet::new();
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let path = entry.at("list", &dir)?.path();
        if running(&path).at("examine", &path)? {
            let Some(bytes) = optional(fs::read(&path)).at("read", &path)? else { continue };
            found.extend(bytes.chunks_exact(NOTE).filter_map(|note| {
                let note: [u8; NOTE] = note.try_into().ok()?;
                Some(Digest::from_bytes(note))
            }));
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(found)
}

/// Whether somebody holds the lease file. A file that vanishes meanwhile belongs to a build that has just ended.
fn running(path: &Path) -> io::Result<bool> {
    if optional(fs::symlink_metadata(path))?.is_none() {
        return Ok(false);
    }
    Ok(lock_path(path, FlockOperation::NonBlockingLockExclusive)?.is_none())
}
