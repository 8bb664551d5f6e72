//! Caches elsewhere: what `--cache-from` and `--cache-to` mean, and the rooms that do it.

mod describe;
mod export;
mod fetch;
mod inline;
mod mounts;

pub(crate) use describe::{StepKind, Steps};
pub(crate) use export::CacheExports;
pub(crate) use fetch::Fetcher;
pub(crate) use inline::{drop_inherited, inline_cache, wants_inline};
pub use mounts::{
    Became, DEFAULT_MOUNTS_EXPORT_SIZE, DEFAULT_MOUNTS_IMPORT_SIZE, ImportedMount, MountsExport,
    MountsImport, MountsOutcome, export_cache_mounts, import_cache_mounts,
};
pub(crate) use mounts::{MountsSource, export_used, mounts_source};

use crate::images::Images;
use crate::request::BuildRequest;
use rbuild_cache::{Backend, Form, Importer, LocalBackend, RegistryBackend};
use rbuild_event::{Event, Reporter};
use rbuild_layer::Compression;
use rbuild_oci::{Digest, Platform, Reference};
use rbuild_registry::{Client, ClientConfig};
use rbuild_solver::NoCache;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time that exporting caches may take after everything else is done, unless the user says otherwise.
pub const DEFAULT_CACHE_EXPORT_BUDGET: Duration = Duration::from_secs(120);

/// One `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheImport {
    /// A cache, or an image with an inline cache, in a registry.
    Registry {
        /// Where.
        reference: Reference,
        /// Whether its certificate is not verified and plain HTTP will do.
        insecure: bool,
    },
    /// A cache in an OCI layout.
    Local {
        /// The directory.
        dir: PathBuf,
        /// Its name there.
        tag: String,
        /// Its manifest, in place of the name.
        digest: Option<Digest>,
    },
}

/// Where a `--cache-to` goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTarget {
    /// A registry.
    Registry {
        /// Where.
        reference: Reference,
        /// Whether its certificate is not verified and plain HTTP will do.
        insecure: bool,
    },
    /// An OCI layout in a directory.
    Local {
        /// The directory.
        dir: PathBuf,
        /// The cache's name there.
        tag: String,
        /// Whether blobs that nothing names any more are removed.
        reset: bool,
    },
    /// The config of the image itself.
    Inline,
}

/// What of a build is exported (C-026).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// The steps that made the result's layers.
    Min,
    /// All steps.
    Max,
}

/// One `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where it goes.
    pub target: CacheTarget,
    /// What is exported.
    pub mode: CacheMode,
    /// How it is written down.
    pub form: Form,
    /// How layers are packed that are not packed yet; as in the image if not given.
    pub compression: Option<Compression>,
    /// Whether layers that this build has packed otherwise are packed again.
    pub force_compression: bool,
    /// Whether a failure is only warned of.
    pub ignore_error: bool,
}

/// Adds the registries that the user called insecure.
pub(crate) fn registry_config(mut config: ClientConfig, request: &BuildRequest) -> ClientConfig {
    let places = request.cache_mounts_from.iter().map(|import| &import.from);
    let imports = request.cache_from.iter().chain(places).filter_map(|import| match import {
        CacheImport::Registry { reference, insecure: true } => Some(reference),
        _ => None,
    });
    let places = request.cache_mounts_to.iter().map(|export| &export.target);
    let targets = request.cache_to.iter().map(|export| &export.target).chain(places);
    let exports = targets.filter_map(|target| match target {
        CacheTarget::Registry { reference, insecure: true } => Some(reference),
        _ => None,
    });
    config.insecure.extend(imports.chain(exports).map(|reference| reference.domain().to_owned()));
    config
}

/// What imports the caches of `--cache-from`; nothing under --no-cache, which would not read them.
pub(crate) fn importer(
    request: &BuildRequest,
    images: &Images,
    platforms: Vec<Platform>,
    reporter: &Reporter,
) -> Importer {
    let is_asked = |import: &&CacheImport| match import {
        CacheImport::Registry { reference, .. } if request.offline => {
            offline(reference, "read", reporter);
            false
        }
        _ => true,
    };
    let backends =
        request.cache_from.iter().filter(is_asked).map(|import| import_backend(import, images.client()));
    let ignored = matches!(request.no_cache, NoCache::All);
    let backends = if ignored { Vec::new() } else { backends.collect() };
    Importer::new(backends, platforms, reporter.clone())
}

/// The place of an import.
fn import_backend(import: &CacheImport, client: &Client) -> Arc<dyn Backend> {
    match import {
        CacheImport::Registry { reference, .. } => Arc::new(RegistryBackend::new(client.clone(), reference)),
        CacheImport::Local { dir, tag, digest } => Arc::new(LocalBackend::new(dir, tag, *digest, false)),
    }
}

fn offline(reference: &Reference, what: &str, reporter: &Reporter) {
    let text = format!("cache {} is not {what} under --offline", reference.familiar());
    reporter.report(Event::Warning { text });
}

/// The exports that can be done: none to a registry under --offline.
fn possible<'a>(request: &'a BuildRequest, reporter: &'a Reporter) -> impl Iterator<Item = &'a CacheExport> {
    request.cache_to.iter().filter(|export| match &export.target {
        CacheTarget::Registry { reference, .. } if request.offline => {
            offline(reference, "written", reporter);
            false
        }
        _ => true,
    })
}

/// The place of an export; `None` for an inline one.
fn backend(target: &CacheTarget, client: &Client) -> Option<Arc<dyn Backend>> {
    Some(match target {
        CacheTarget::Registry { reference, .. } => Arc::new(RegistryBackend::new(client.clone(), reference)),
        CacheTarget::Local { dir, tag, reset } => Arc::new(LocalBackend::new(dir, tag, None, *reset)),
        CacheTarget::Inline => return None,
    })
}
