//! The states of the files that walks have met, so that their digests need no second `lstat`.

use crate::order::path_order;
use rbuild_tree::{FileKind, StatId, TreePath, Walked};

/// How many walks are remembered; each COPY makes one.
const MAX_WALKS: usize = 16;

/// The regular files one walk found, in path order.
#[derive(Default)]
struct Seen {
    start: TreePath,
    paths: Vec<u8>,
    /// End of the path in `paths`, and the state.
    files: Vec<(usize, StatId)>,
}

impl Seen {
    fn path(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.files[before].0);
        &self.paths[start..self.files[index].0]
    }

    fn find(&self, hint: &mut usize, path: &[u8]) -> Option<StatId> {
        let index = if *hint < self.files.len() && self.path(*hint) == path {
            *hint
        } else {
            let (mut low, mut high) = (0, self.files.len());
            while low < high {
                let middle = low + (high - low) / 2;
                match path_order(self.path(middle), path).is_lt() {
                    true => low = middle + 1,
                    false => high = middle,
                }
            }
            if low == self.files.len() || self.path(low) != path {
                return None;
            }
            low
        };
        *hint = index + 1;
        Some(self.files[index].1)
    }
}

/// What the latest walks of a context found.
#[derive(Default)]
pub(crate) struct Memo {
    /// Latest last.
    walks: Vec<Seen>,
}

impl Memo {
    pub(crate) fn add(&mut self, start: &TreePath, walked: &[Walked]) {
        let mut seen = Seen { start: start.clone(), ..Seen::default() };
        for entry in walked.iter().filter(|entry| entry.meta.kind == FileKind::Regular) {
            seen.paths.extend_from_slice(entry.path.as_bytes());
            seen.files.push((seen.paths.len(), entry.stat));
        }
        self.walks.retain(|old| old.start != seen.start);
        if self.walks.len() == MAX_WALKS {
            self.walks.remove(0);
        }
        self.walks.push(seen);
    }

    /// The state of a file as the latest walk that met it found it.
    pub(crate) fn find(&self, hint: &mut usize, path: &[u8]) -> Option<StatId> {
        self.walks.iter().rev().find_map(|seen| seen.find(hint, path))
    }
}
