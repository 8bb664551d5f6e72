//! The producer: entries in, tar stream out, with small files read ahead on the pool.

use super::pipeline::{Closed, Pipeline};
use super::render::{self, Times};
use crate::{BLOCK, PackError, header};
use rbuild_tree::{LayerEntry, LayerEntryKind, TreePath};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};

/// Files up to this size are read whole, in batches.
const SMALL_FILE: u64 = 256 << 10;
/// A batch is closed at this many bytes of data or this many entries.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ENTRIES: usize = 256;
/// Batches that are read ahead, at most; bounds memory together with `BATCH_BYTES + SMALL_FILE`.
const MAX_AHEAD: usize = 8;

/// Why the producer stopped early.
pub(super) enum Stop {
    /// An entry could not be listed, read or expressed.
    Entries(PackError),
    /// The pipeline does not take more; it knows why.
    Pipeline,
}

impl From<PackError> for Stop {
    fn from(error: PackError) -> Self {
        Self::Entries(error)
    }
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Pipeline
    }
}

/// The stream's next part.
enum Part {
    Small(Vec<LayerEntry>),
    Large(Box<LayerEntry>),
}

enum Pending {
    Rendering(Receiver<Result<Vec<u8>, PackError>>),
    Later(Part),
}

/// Writes the whole tar stream.
pub(super) fn produce(
    entries: impl Iterator<Item = Result<LayerEntry, PackError>>,
    times: Times,
    pooled: bool,
    out: &mut Pipeline<'_, '_>,
) -> Result<(), Stop> {
    let ahead = (2 * rayon::current_num_threads()).min(MAX_AHEAD);
    let mut parts = Parts { entries, last: None, held: None };
    let mut queue = VecDeque::new();
    let mut first = true;
    loop {
        while queue.len() < ahead {
            let Some(part) = parts.next()? else { break };
            queue.push_back(match part {
                // The first part of a small layer is all there is: handing it over would only cost time.
                Part::Small(batch) if pooled && !first => Pending::Rendering(spawn(batch, times)),
                part => Pending::Later(part),
            });
            first = false;
        }
        match queue.pop_front() {
            None => break,
            Some(Pending::Rendering(result)) => {
                let bytes = result.recv().map_err(|_| PackError::Codec("a reader thread died".into()))??;
                out.write(&bytes)?;
            }
            Some(Pending::Later(Part::Small(batch))) => out.write(&render::render(&batch, times)?)?,
            Some(Pending::Later(Part::Large(entry))) => stream(&entry, times, out)?,
        }
    }
    Ok(out.write(&[0; 2 * BLOCK])?)
}

fn spawn(batch: Vec<LayerEntry>, times: Times) -> Receiver<Result<Vec<u8>, PackError>> {
    let (sender, receiver) = sync_channel(1);
    rayon::spawn(move || {
        // Nobody listens any more if packing has failed.
        let _ = sender.send(render::render(&batch, times));
    });
    receiver
}

/// Writes a file that is too large to be held.
fn stream(entry: &LayerEntry, times: Times, out: &mut Pipeline<'_, '_>) -> Result<(), Stop> {
    let mut head = Vec::new();
    let data = render::append_header(&mut head, entry, times)?;
    out.write(&head)?;
    let Some(data) = data else { return Ok(()) };
    let mut reader = render::VerifiedReader::open(&entry.path, data)?;
    loop {
        let n = reader.read(out.space())?;
        if n == 0 {
            break;
        }
        out.filled(n)?;
    }
    reader.finish()?;
    Ok(out.write(&[0; BLOCK][..header::padding(data.size)])?)
}

/// Cuts the entries into parts and checks their order.
struct Parts<I> {
    entries: I,
    last: Option<(TreePath, bool)>,
    held: Option<LayerEntry>,
}

impl<I: Iterator<Item = Result<LayerEntry, PackError>>> Parts<I> {
    fn next(&mut self) -> Result<Option<Part>, PackError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
            let entry = match self.held.take() {
                Some(entry) => entry,
                None => match self.entries.next().transpose()? {
                    Some(entry) => self.in_order(entry)?,
                    None => break,
                },
            };
            let size = render::data_size(&entry);
            if size <= SMALL_FILE {
                bytes += size;
                batch.push(entry);
            } else if batch.is_empty() {
                return Ok(Some(Part::Large(Box::new(entry))));
            } else {
                self.held = Some(entry);
                break;
            }
        }
        Ok((!batch.is_empty()).then_some(Part::Small(batch)))
    }

    fn in_order(&mut self, entry: LayerEntry) -> Result<LayerEntry, PackError> {
        let opaque = matches!(entry.kind, LayerEntryKind::Opaque);
        if let Some((last, last_opaque)) = &self.last {
            let repeated = *last == entry.path && opaque && !last_opaque;
            if *last >= entry.path && !repeated {
                return Err(PackError::Order { path: entry.path });
            }
        }
        self.last = Some((entry.path.clone(), opaque));
        Ok(entry)
    }
}
