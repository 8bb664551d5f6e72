//! The time of what SOURCE_DATE_EPOCH names, which has to be known before lowering.

use crate::dockerfile::Inputs;
use crate::error::BuildError;
use crate::remote::{FetchedContexts, time_of};
use crate::request::{BuildRequest, ContextSource, NamedContext};
use rbuild_event::Reporter;
use rbuild_frontend::{EpochSource, LowerOptions};
use rbuild_ir::{Op, RemoteUrl};
use rbuild_op::Remote;
use rbuild_store::Store;
use rbuild_tree::{DirTree, FileKind, Tree, TreePath};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// The magic argument's name.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Who fetches, and for which build.
pub(crate) struct Asking<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) fetched: &'a FetchedContexts,
    pub(crate) remote: &'a Remote,
    pub(crate) store: &'a Store,
    pub(crate) reporter: &'a Reporter,
    pub(crate) cancel: &'a CancellationToken,
}

/// Finds out the time, if one is asked for by name. `None` also for what has none, a directory say: it is not set then.
pub(crate) async fn resolve(
    asking: &Asking<'_>,
    options: &LowerOptions,
    inputs: &Inputs,
) -> Result<Option<i64>, BuildError> {
    // Nearly no build needs a second look at its Dockerfile.
    let named = inputs.text.windows(EPOCH.len()).any(|part| part == EPOCH.as_bytes());
    if !named && options.build_arg(EPOCH).is_none() {
        return Ok(None);
    }
    let (dockerfile, _) = rbuild_frontend::parse(&inputs.text);
    let url = match rbuild_frontend::epoch_source(&dockerfile, options) {
        None => return Ok(None),
        Some(EpochSource::Context) => match (&asking.fetched.main_url, &asking.request.context) {
            (Some(url), _) => url.clone(),
            (None, ContextSource::Archive(_)) => {
                return inputs.context.as_deref().map(newest).transpose();
            }
            (None, _) => return Ok(None),
        },
        Some(EpochSource::Named(name)) => {
            match asking.request.named_contexts.iter().find(|(known, _)| *known == name) {
                Some((_, NamedContext::Remote(url))) => url.clone(),
                _ => return Ok(None),
            }
        }
        Some(EpochSource::Fetched(op)) => match *op {
            Op::Http(op) => op.url,
            Op::Git(op) => git_url(&op),
            _ => return Ok(None),
        },
    };
    time_of(&url, asking.remote, asking.store, asking.reporter, asking.cancel).await
}

/// The URL with its reference, as a context is written.
fn git_url(op: &rbuild_ir::GitOp) -> RemoteUrl {
    let commit = op.checksum.as_deref().filter(|text| rbuild_ir::is_commit(text)).unwrap_or(&op.reference);
    let fragment = if commit.is_empty() { String::new() } else { format!("#{commit}") };
    RemoteUrl::new(format!("{}{fragment}", op.remote.secret()))
}

/// The newest modification time of the files in a directory, in seconds since 1970.
pub(crate) fn newest(dir: &Path) -> Result<i64, BuildError> {
    let failed = |error: std::io::Error| BuildError::Io {
        action: "cannot read",
        path: dir.display().to_string(),
        source: error,
    };
    let tree = DirTree::open(dir).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let entries = tree.walk(&TreePath::root());
    let entries = entries.map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let times =
        entries.iter().filter(|(_, meta)| meta.kind == FileKind::Regular).map(|(_, meta)| meta.mtime.seconds);
    Ok(times.max().unwrap_or(0))
}
