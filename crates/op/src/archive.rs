//! ADD of a local file that is an archive: its contents instead of itself.

use crate::engine::Engine;
use crate::error::OpFailure;
use rbuild_copy::{Root, RootKind, Selected, Selection};
use rbuild_ir::{CopyOp, Source, Unpack};
use rbuild_solver::OpError;
use rbuild_tree::{CAPABILITY, DataRef, FileKind, Metadata, Timestamp};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The selection with every file that is an archive replaced by what is in it, if the instruction unpacks. Archives
/// below a copied directory stay what they are.
pub(crate) fn unpacked(
    engine: &Engine,
    op: &CopyOp,
    from: &Source,
    selection: &Selection,
) -> Result<Selection, OpError> {
    // What was fetched is unpacked only if the instruction says so.
    let unpacks = match op.unpack {
        Unpack::Never => false,
        Unpack::Auto => matches!(from, Source::Context(_)),
        Unpack::Always => true,
    };
    if !unpacks {
        return Ok(selection.clone());
    }
    let mut roots = Vec::with_capacity(selection.roots.len());
    for root in &selection.roots {
        match archive_of(root)? {
            Some(file) => roots.extend(contents(engine, root, file)?.roots),
            None => roots.push(root.clone()),
        }
    }
    Ok(Selection { roots })
}

/// The file of this root, if it is one and is to be unpacked.
fn archive_of(root: &Root) -> Result<Option<File>, OpError> {
    let (RootKind::File { .. }, [entry]) = (&root.kind, root.entries.as_slice()) else { return Ok(None) };
    let Some(data) = entry.data.as_ref().filter(|_| entry.meta.kind == FileKind::Regular) else {
        return Ok(None);
    };
    let open = |data: &DataRef| rbuild_snapshot::open_source(&data.source, &entry.source);
    let is_archive = rbuild_layer::is_archive(open(data)?).map_err(|error| broken(root, error.into()))?;
    Ok(if is_archive { Some(open(data)?) } else { None })
}

fn broken(root: &Root, source: rbuild_layer::UnpackError) -> OpFailure {
    let name = match &root.kind {
        RootKind::File { name } => name.to_string_lossy().into_owned(),
        RootKind::Directory | RootKind::Archive => String::new(),
    };
    OpFailure::Archive { name, source }
}

fn contents(engine: &Engine, root: &Root, file: File) -> Result<Selection, OpError> {
    let staged = engine.store.new_layer_dir()?;
    let dir: Arc<OwnedFd> = Arc::new(File::open(&staged.upper)?.into());
    let entries = rbuild_layer::stage_archive(file, &dir, &Default::default());
    let entries = entries.map_err(|error| broken(root, error))?;
    // The recipe reads the staged files until the layer is packed or made a directory.
    engine.keep_staged(staged);
    let selected = |mut entry: rbuild_layer::StagedEntry| {
        // B-017: others are in no layer.
        entry.meta.xattrs.retain(|name, _| name == CAPABILITY.as_bytes());
        Selected {
            source: entry.path.clone(),
            dest: entry.path,
            meta: Metadata { mtime: bounded(entry.meta.mtime), ..entry.meta },
            data: entry.data,
            hard_link_to: entry.hard_link_to,
            implied: false,
        }
    };
    Ok(rbuild_copy::select_archive(entries.into_iter().map(selected).collect()))
}

/// Last second that a time of an archive may be in: the end of 64-bit nanoseconds, in the year 2262.
const LATEST: i64 = i64::MAX / 1_000_000_000;

/// The time that an archive's entry gets: one before 1970 or after [`LATEST`] is the beginning of 1970, as it is for
/// BuildKit.
fn bounded(time: Timestamp) -> Timestamp {
    if (0..=LATEST).contains(&time.seconds) { time } else { Timestamp::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// times are kept from 1970 to 2262.
    #[test]
    fn times_have_bounds() {
        for (seconds, kept) in [(-1, 0), (0, 0), (1, 1), (LATEST, LATEST), (LATEST + 1, 0), (i64::MAX, 0)] {
            assert_eq!(bounded(Timestamp { seconds, nanos: 5 }).seconds, kept, "{seconds}");
        }
        assert_eq!(bounded(Timestamp { seconds: 7, nanos: 5 }).nanos, 5);
    }
}
