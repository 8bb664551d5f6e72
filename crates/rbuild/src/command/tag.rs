//! `rbuild tag`.

use crate::args::TagArgs;
use crate::command::{find, open};
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(root: &Path, args: &TagArgs) -> Result<ExitCode> {
    let target = crate::request::tag(&args.target)?;
    let store = open(root)?;
    let found = find(&store, &args.source)?;
    store.tag(&target, &found.image.descriptor)?;
    Ok(ExitCode::SUCCESS)
}
