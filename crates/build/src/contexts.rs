//! Local build contexts as the operations see them.

use crate::dockerfile::{Inputs, named_context_rules};
use crate::error::BuildError;
use crate::request::{BuildRequest, NamedContext};
use rbuild_context::{Filter, Ignore, LocalContext};
use rbuild_op::LocalSource;
use rbuild_store::Store;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The main context's name.
pub(crate) const MAIN: &str = "context";

/// Opens the main context and all named local ones.
pub(crate) fn open_contexts(
    request: &BuildRequest,
    inputs: &mut Inputs,
    store: &Store,
) -> Result<BTreeMap<String, LocalSource>, BuildError> {
    let mut opened = BTreeMap::new();
    let main = match &inputs.context {
        Some(dir) => open(dir, inputs.ignore.take(), request, store)?,
        None => LocalSource { tree: Arc::new(rbuild_snapshot::ChainView::new(Vec::new())), ignore: None },
    };
    opened.insert(MAIN.to_owned(), main);
    for (name, context) in &request.named_contexts {
        if let NamedContext::Directory(dir) = context {
            opened.insert(name.clone(), open(dir, named_context_rules(dir)?, request, store)?);
        }
    }
    Ok(opened)
}

fn open(dir: &Path, ignore: Option<Ignore>, request: &BuildRequest, store: &Store) -> Result<LocalSource, BuildError> {
    let failed = |source| BuildError::Io { action: "cannot open the build context", path: dir.display().to_string(), source };
    let ignore = ignore.map(Arc::new);
    let filter = ignore.clone().map(|ignore| ignore as Arc<dyn Filter>);
    let context = LocalContext::open(dir, filter).map_err(failed)?.reset_owner(true);
    Ok(LocalSource { tree: Arc::new(context), ignore })
}
