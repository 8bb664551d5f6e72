//! Blobs: every byte is read.

use super::{Fsck, ProblemKind};
use crate::error::{IoContext, Result};
use crate::layer::snapshot_id;
use crate::{Store, StoreError};
use rbuild_oci::Digest;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads that hash at once; more do not make a disk faster.
const MAX_THREADS: usize = 8;

/// What became of the blobs that were read.
#[derive(Default)]
pub(crate) struct Verified {
    pub(crate) bytes: u64,
    /// What is wrong with which.
    pub(crate) bad: Vec<(Digest, String)>,
}

impl Store {
    /// Reads these blobs again, several at once. One that vanishes meanwhile is nobody's concern.
    pub(crate) fn verify_blobs(&self, blobs: &[Digest]) -> Result<Verified> {
        let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        let bad = Mutex::new(Vec::new());
        let work = || -> Result<()> {
            while let Some(digest) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes.fetch_add(
                    fs::metadata(self.blob_path(digest)).map_or(0, |meta| meta.len()),
                    Ordering::Relaxed,
                );
                let reason = match self.verify_blob(digest) {
                    Ok(()) | Err(StoreError::NoBlob(_)) => continue,
                    Err(StoreError::DigestMismatch { actual, .. }) => {
                        format!("its content has the digest {actual}")
                    }
                    Err(StoreError::Io { action, source, .. }) => format!("cannot {action} it: {source}"),
                    Err(error) => return Err(error),
                };
                crate::locked(&bad).push((*digest, reason));
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        std::thread::scope(|scope| {
            let running: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            // A thread that panicked has verified nothing that counts.
            running.into_iter().try_fold(own?, |(), thread| thread.join().unwrap_or(Ok(())))
        })?;
        let bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Verified { bytes: bytes.into_inner(), bad })
    }
}

impl Fsck<'_> {
    pub(super) fn check_blobs(&mut self) -> Result<()> {
        let dir = self.store.root().join("blobs/sha256");
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            match snapshot_id(&path) {
                Some(digest) if path.is_file() => blobs.push(digest),
                _ => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    self.add(
                        ProblemKind::Leftover,
                        format!("blobs/sha256/{name}"),
                        "it is no blob, and left alone",
                    );
                }
            }
        }
        let verified = self.store.verify_blobs(&blobs)?;
        self.report.blobs = blobs.len();
        self.report.bytes = verified.bytes;
        self.bad_blobs = verified.bad.iter().map(|(digest, _)| *digest).collect();
        for (digest, reason) in verified.bad {
            self.add(ProblemKind::Blob, digest, reason);
        }
        Ok(())
    }

    /// Under the gate: puts away the blobs that are still bad.
    pub(super) fn repair_blobs(&mut self) -> Result<()> {
        if !self.options.repair {
            return Ok(());
        }
        for digest in self.bad_blobs.clone() {
            // Somebody may have made it again meanwhile.
            let repair = match self.store.verified_now(&digest) {
                true => {
                    self.bad_blobs.remove(&digest);
                    "made again by another process".to_owned()
                }
                false => format!("moved to {}", self.store.quarantine(&self.store.blob_path(&digest))?),
            };
            let id = digest.to_string();
            for problem in &mut self.report.problems {
                if problem.kind == ProblemKind::Blob && problem.object == id {
                    problem.repair = Some(repair.clone());
                }
            }
        }
        Ok(())
    }
}
