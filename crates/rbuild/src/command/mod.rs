//! One file for each command.

pub(crate) mod ast;
pub(crate) mod build;
pub(crate) mod builds;
pub(crate) mod cache;
pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod du;
pub(crate) mod fsck;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod lock;
pub(crate) mod outline;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod rmi;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod why;

use crate::exit::Usage;
use crate::output::print;
use crate::request::environment;
use anyhow::{Context as _, Result};
use rbuild_oci::ImageConfig;
use rbuild_store::{FoundImage, Store};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// `--root` or `$RBUILD_ROOT`, else `/var/lib/rbuild` for root, else `$XDG_DATA_HOME/rbuild`.
pub(crate) fn store_root(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(root) = given.filter(|root| !root.as_os_str().is_empty()) {
        return std::path::absolute(&root).with_context(|| format!("finding the store `{}`", root.display()));
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/rbuild".into());
    }
    let data = environment("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let data = data.or_else(|| environment("HOME").map(|home| Path::new(&home).join(".local/share")));
    let missing = || Usage::new("cannot tell where the store is: set RBUILD_ROOT, XDG_DATA_HOME or HOME");
    Ok(data.ok_or_else(missing)?.join("rbuild"))
}

/// `rbuild version`.
pub(crate) fn version() -> Result<ExitCode> {
    print(&format!("rbuild {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the store and passes its remarks on.
pub(crate) fn open(root: &Path) -> Result<Store> {
    let store = Store::open(root)?;
    for warning in store.take_warnings() {
        crate::report::line(&format!("WARN: {warning}"));
    }
    Ok(store)
}

/// Finds an image by name, id or digest.
pub(crate) fn find(store: &Store, text: &str) -> Result<FoundImage> {
    Ok(store.find_image(text)?.ok_or_else(|| Usage::new(format!("No such image: {text}")))?)
}

/// All names of the image with this manifest, sorted.
pub(crate) fn names_of(store: &Store, manifest: &rbuild_oci::Digest) -> Result<Vec<String>> {
    let same = store.images()?.into_iter().filter(|image| image.descriptor.digest == *manifest);
    let mut names: Vec<String> = same.filter_map(|image| image.name).collect();
    names.sort();
    Ok(names)
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64)
}

/// Seconds since the epoch of an RFC 3339 time, 0 if there is none.
pub(crate) fn created(config: &ImageConfig) -> i64 {
    config.created.as_deref().and_then(rbuild_build::time::parse_rfc3339).unwrap_or(0)
}
