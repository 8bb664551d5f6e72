//! Cache mounts elsewhere: what `--cache-mounts-from` and `--cache-mounts-to` mean, and `rbuild cache import|export`.

use crate::build::Environment;
use crate::cache::{CacheImport, CacheTarget, backend, import_backend, offline};
use crate::error::BuildError;
use crate::images::Images;
use crate::request::BuildRequest;
use async_trait::async_trait;
use rbuild_cache::mounts::{MountSnapshot, MountsExporter, MountsImporter, MountsPublished};
use rbuild_cache::{Backend, CacheError};
use rbuild_event::{Event, Reporter};
use rbuild_oci::{Digest, Reference};
use rbuild_op::CacheMountSource;
use rbuild_registry::Client;
use rbuild_solver::StepContext;
use rbuild_store::{CacheMount, CacheMountSharing, Store, StoreError};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Most bytes of files that an export holds in all mounts together, unless the user says otherwise.
pub const DEFAULT_MOUNTS_EXPORT_SIZE: u64 = 2 << 30;

/// Largest mount that is imported, in bytes, unless the user says otherwise.
pub const DEFAULT_MOUNTS_IMPORT_SIZE: u64 = 10 << 30;

/// How long others may use a mount that is to be exported or replaced before it is left out.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause between two attempts at one.
const PAUSE: Duration = Duration::from_millis(20);

/// One `--cache-mounts-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountsImport {
    /// Where they are.
    pub from: CacheImport,
    /// Size of the largest mount that is brought from there, in bytes.
    pub max_size: u64,
}

/// One `--cache-mounts-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountsExport {
    /// Where they go; never inline.
    pub target: CacheTarget,
    /// Most bytes of files in all mounts together, those of other builds included; larger mounts are left out.
    pub max_size: u64,
    /// Whether a failure is only warned of.
    pub ignore_error: bool,
}

/// What became of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountsOutcome {
    /// Mounts that the place holds now as they are here.
    pub exported: usize,
    /// Chunks that were sent.
    pub sent: usize,
    /// Their bytes, compressed.
    pub sent_bytes: u64,
    /// Whether anything had changed.
    pub written: bool,
    /// Mounts that were left out, each with the reason.
    pub skipped: Vec<String>,
}

/// What became of a mount of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedMount {
    /// Name of its directory.
    pub directory: Digest,
    /// Its id.
    pub id: String,
    /// What became of it.
    pub became: Became,
}

/// What became of a mount that was to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// It is in the store.
    Fetched {
        /// Bytes that were fetched.
        bytes: u64,
    },
    /// The store's own stays, for this reason.
    Kept(String),
    /// It could not be had, for this reason.
    Failed(String),
}

/// What restores cache mounts while a build runs.
pub(crate) struct MountsSource {
    importer: MountsImporter,
    reporter: Reporter,
    /// Mounts that could not be had, of which the user was told.
    failed: Mutex<HashSet<Digest>>,
}

/// What restores the mounts of `--cache-mounts-from`, if there is one.
pub(crate) fn mounts_source(
    request: &BuildRequest,
    images: &Images,
    reporter: &Reporter,
) -> Option<Arc<MountsSource>> {
    let is_possible = |import: &&MountsImport| match &import.from {
        CacheImport::Registry { reference, .. } if request.offline => {
            offline(reference, "read", reporter);
            false
        }
        _ => true,
    };
    let imports = request.cache_mounts_from.iter().filter(is_possible);
    let places: Vec<_> =
        imports.map(|import| (import_backend(&import.from, images.client()), import.max_size)).collect();
    if places.is_empty() {
        return None;
    }
    let importer = MountsImporter::new(places, reporter.clone());
    Some(Arc::new(MountsSource { importer, reporter: reporter.clone(), failed: Mutex::default() }))
}

#[async_trait]
impl CacheMountSource for MountsSource {
    async fn restore(&self, directory: &Digest, id: &str, dest: &Path, step: &StepContext) -> bool {
        if self.failed.lock().unwrap_or_else(PoisonError::into_inner).contains(directory) {
            return false;
        }
        match self.importer.restore(directory, dest).await {
            Ok(None) => false,
            Ok(Some(restored)) => {
                step.note(format!("cache mount {id:?} restored: {} bytes fetched", restored.fetched));
                true
            }
            Err(error) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(*directory);
                let text = format!("cache mount {id:?} could not be restored, it begins anew: {error}");
                self.reporter.report(Event::Warning { text });
                false
            }
        }
    }
}

/// Exports the mounts that steps of a build have used, within the budget; asks nobody if there are none.
///
/// # Errors
/// Only of an export with `ignore-error=false`, or when the build is stopped.
pub(crate) async fn export_used(
    request: &BuildRequest,
    images: &Images,
    store: &Store,
    source: Option<&MountsSource>,
    used: &[(Digest, String)],
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<(), BuildError> {
    if used.is_empty() {
        return Ok(());
    }
    let begin = Instant::now();
    let mut ended = Ok(());
    for export in &request.cache_mounts_to {
        if let CacheTarget::Registry { reference, .. } = &export.target
            && request.offline
        {
            offline(reference, "written", reporter);
            continue;
        }
        let Some(place) = backend(&export.target, images.client()) else { continue };
        let name = place.name().to_owned();
        let vertex = reporter.declare(format!("exporting cache mounts to {name}"));
        let step = StepContext { vertex, reporter: reporter.clone(), cancel: cancel.child_token() };
        reporter.report(Event::Started { vertex, at: SystemTime::now() });
        let left = request.cache_export_budget.map(|budget| budget.saturating_sub(begin.elapsed()));
        let exporting = export_held(place, export.max_size, store, used);
        let exported = tokio::select! {
            exported = within(left, request.cache_export_budget, exporting) => exported,
            () = cancel.cancelled() => {
                reporter.report(Event::Canceled { vertex, at: SystemTime::now() });
                return Err(BuildError::Canceled);
            }
        };
        let at = SystemTime::now();
        match exported {
            Ok(outcome) => {
                tell(&outcome, &step);
                reporter.report(Event::Completed { vertex, at });
            }
            Err(message) if !export.ignore_error => {
                reporter.report(Event::Failed { vertex, at, error: message.clone() });
                let name = format!("to {name}");
                ended = ended.and(Err(BuildError::CacheMounts { action: "exporting", name, message }));
            }
            Err(message) => {
                reporter.report(Event::Completed { vertex, at });
                // That nobody answers there was said when they were to be read.
                if !source.is_some_and(|source| source.importer.is_dead(&name)) {
                    let text =
                        format!("exporting cache mounts to {name}: {message}; the image is not affected");
                    reporter.report(Event::Warning { text });
                }
            }
        }
    }
    ended
}

fn tell(outcome: &MountsOutcome, step: &StepContext) {
    for skipped in &outcome.skipped {
        step.note(format!("left out: {skipped}"));
    }
    if outcome.written {
        step.note(format!("{} chunks, {} bytes sent", outcome.sent, outcome.sent_bytes));
    } else {
        step.note("nothing to send: the cache mounts are there already");
    }
}

async fn within<T>(
    left: Option<Duration>,
    budget: Option<Duration>,
    exporting: impl Future<Output = Result<T, CacheError>>,
) -> Result<T, String> {
    let exported = match left {
        Some(left) => {
            tokio::time::timeout(left, exporting).await.map_err(|_| super::export::out_of_time(budget))?
        }
        None => exporting.await,
    };
    exported.map_err(|error| error.to_string())
}

/// Exports mounts of the store, each of which is held meanwhile.
async fn export_held(
    place: Arc<dyn Backend>,
    max_size: u64,
    store: &Store,
    mounts: &[(Digest, String)],
) -> Result<MountsOutcome, CacheError> {
    let (mut snapshots, mut held, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for (directory, id) in mounts {
        match hold(store, directory).await {
            Ok(Some(mount)) => {
                let path = mount.path().to_owned();
                snapshots.push(MountSnapshot { directory: *directory, id: id.clone(), path });
                held.push(mount);
            }
            Ok(None) => {}
            Err(reason) => skipped.push(format!("{id}: {reason}")),
        }
    }
    let exporter = MountsExporter::new(place, max_size);
    let published: MountsPublished = match snapshots.is_empty() {
        true => MountsPublished::default(),
        false => exporter.export(&snapshots).await?,
    };
    let exported = snapshots.len() - published.skipped.len().min(snapshots.len());
    skipped.extend(published.skipped);
    let MountsPublished { sent, sent_bytes, written, .. } = published;
    Ok(MountsOutcome { exported, sent, sent_bytes, written, skipped })
}

/// Holds directory 0 of a mount alone; `None` if it is gone.
async fn hold(store: &Store, directory: &Digest) -> Result<Option<CacheMount>, String> {
    let there = store.cache_mounts_dir().join(format!("{}-0", directory.hex()));
    if !there.exists() {
        return Ok(None);
    }
    let mount = take(store, directory).await?;
    match mount.is_new() {
        Ok(is_new) => Ok((!is_new).then_some(mount)),
        Err(error) => Err(error.to_string()),
    }
}

/// Holds directory 0 of a mount alone, whether it exists or not.
async fn take(store: &Store, directory: &Digest) -> Result<CacheMount, String> {
    let begin = Instant::now();
    loop {
        let taken = store.try_cache_mount(directory, CacheMountSharing::Locked, true);
        match taken.map_err(|error| error.to_string())? {
            Some(mount) => return Ok(mount),
            None if begin.elapsed() > PATIENCE => return Err("it is in use".to_owned()),
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A client that takes an insecure registry if the user said so.
fn client(environment: &Environment, insecure: Option<&Reference>) -> Client {
    let mut config = environment.registry.clone();
    config.insecure.extend(insecure.map(|reference| reference.domain().to_owned()));
    Client::new(config)
}

/// Exports mounts (name of the directory, id) of the store, without a build.
///
/// # Errors
/// When the place cannot be read or written.
pub async fn export_cache_mounts(
    environment: &Environment,
    export: &MountsExport,
    mounts: &[(Digest, String)],
) -> Result<MountsOutcome, BuildError> {
    let store = Store::open(&environment.store_root)?;
    let insecure = match &export.target {
        CacheTarget::Registry { reference, insecure: true } => Some(reference),
        _ => None,
    };
    let place = backend(&export.target, &client(environment, insecure));
    let place = place.ok_or_else(|| BuildError::Internal("cache mounts have no inline form".to_owned()))?;
    let name = format!("to {}", place.name());
    export_held(place, export.max_size, &store, mounts).await.map_err(|error| BuildError::CacheMounts {
        action: "exporting",
        name,
        message: error.to_string(),
    })
}

/// Brings the mounts that are wanted into the store; those that it has only with `force`. What is in use is left out.
///
/// # Errors
/// When the store fails or the place cannot be read. What becomes of each mount is in the result.
pub async fn import_cache_mounts(
    environment: &Environment,
    import: &MountsImport,
    wanted: impl Fn(&Digest, &str) -> bool,
    force: bool,
) -> Result<Vec<ImportedMount>, BuildError> {
    let store = Store::open(&environment.store_root)?;
    let _lease = store.lease()?;
    let insecure = match &import.from {
        CacheImport::Registry { reference, insecure: true } => Some(reference),
        _ => None,
    };
    let place = import_backend(&import.from, &client(environment, insecure));
    let name = format!("from {}", place.name());
    let importer = MountsImporter::new(vec![(place, import.max_size)], Reporter::silent());
    let mounts = importer.list().await;
    if let Some(problem) = importer.problem() {
        let message = problem.to_owned();
        return Err(BuildError::CacheMounts { action: "importing", name, message });
    }
    let mut imported = Vec::new();
    for mount in mounts {
        if wanted(&mount.directory, &mount.id) {
            let became = bring(&store, &importer, &mount.directory, &mount.id, force).await?;
            imported.push(ImportedMount { directory: mount.directory, id: mount.id, became });
        }
    }
    Ok(imported)
}

async fn bring(
    store: &Store,
    importer: &MountsImporter,
    directory: &Digest,
    id: &str,
    force: bool,
) -> Result<Became, StoreError> {
    let mount = match take(store, directory).await {
        Ok(mount) => mount,
        Err(reason) => return Ok(Became::Kept(reason)),
    };
    if !mount.is_new()? && !force {
        return Ok(Became::Kept("it is there already (--force replaces it)".to_owned()));
    }
    let ingest = store.new_layer_dir()?;
    let bytes = match importer.restore(directory, &ingest.upper).await {
        Ok(Some(restored)) => restored.fetched,
        Ok(None) => return Ok(Became::Failed("it is not there any more".to_owned())),
        Err(error) => return Ok(Became::Failed(error.to_string())),
    };
    mount.clear()?;
    mount.fill(&ingest)?;
    mount.remember_id(id);
    Ok(Became::Fetched { bytes })
}
