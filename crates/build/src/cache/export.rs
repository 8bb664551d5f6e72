//! Writing caches: layers while later steps run, the records when the build is over, within a budget.

use crate::cache::describe::Described;
use crate::cache::{CacheExport, CacheMode, CacheTarget, Steps, backend, possible};
use crate::error::BuildError;
use crate::images::Images;
use crate::push::Pusher;
use crate::request::BuildRequest;
use crate::shadow::finish_layer;
use rbuild_cache::{CacheError, Contents, Exporter, Importer, Published, RemoteLayer};
use rbuild_event::{Event, Reporter};
use rbuild_oci::{Descriptor, Digest};
use rbuild_op::{Engine, OpFailure, PackedLayer, Root};
use rbuild_solver::{OpError, ResultLost, StepContext};
use rbuild_store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Most of the budget that is kept for config and manifest.
const LONGEST_RESERVE: Duration = Duration::from_secs(5);

/// Least time that config and manifest are given once something was brought.
const SHORTEST_RESERVE: Duration = Duration::from_millis(100);

/// The exports of a build.
pub(crate) struct CacheExports {
    shared: Arc<Shared>,
    budget: Option<Duration>,
    runtime: tokio::runtime::Handle,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What all exports use.
struct Shared {
    engine: Arc<Engine>,
    store: Store,
    importer: Arc<Importer>,
    pusher: Option<Arc<Pusher>>,
    wants_image: bool,
    targets: Vec<Arc<Target>>,
    reporter: Reporter,
    cancel: CancellationToken,
}

/// One export.
struct Target {
    spec: CacheExport,
    exporter: Exporter,
    /// `registry/`, for mounting from its other repositories.
    mount_prefix: Option<String>,
    step: StepContext,
    /// Layers by name in the store, each brought there once.
    layers: Mutex<HashMap<Digest, Arc<OnceCell<RemoteLayer>>>>,
}

/// What is to be exported.
struct Known {
    described: Vec<Described>,
    /// Each layer by its name in the store, on what it stands on.
    roots: HashMap<Digest, Root>,
}

/// Why an export failed.
enum Failure {
    /// The place did.
    Place(CacheError),
    /// A layer could not be had or packed.
    Layer(OpError),
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::Place(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Place(error) => error.fmt(f),
            Self::Layer(error) => error.fmt(f),
        }
    }
}

impl CacheExports {
    /// The exports of a request; none of them has begun. Must be made inside a tokio runtime.
    #[allow(clippy::too_many_arguments, reason = "each is another room's")]
    pub(crate) fn new(
        request: &BuildRequest,
        images: &Images,
        engine: &Arc<Engine>,
        store: &Store,
        importer: &Arc<Importer>,
        pusher: Option<&Arc<Pusher>>,
        wants_image: bool,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Self {
        let cancel = cancel.child_token();
        let targets = possible(request, reporter).filter_map(|spec| {
            let backend = backend(&spec.target, images.client())?;
            let mount_prefix = match &spec.target {
                CacheTarget::Registry { reference, .. } => Some(format!("{}/", reference.domain())),
                _ => None,
            };
            let step = StepContext {
                vertex: reporter.declare(format!("exporting cache to {}", backend.name())),
                reporter: reporter.clone(),
                cancel: cancel.clone(),
            };
            let exporter = Exporter::new(backend, spec.form);
            let layers = Mutex::default();
            Some(Arc::new(Target { spec: spec.clone(), exporter, mount_prefix, step, layers }))
        });
        let shared = Shared {
            engine: Arc::clone(engine),
            store: store.clone(),
            importer: Arc::clone(importer),
            pusher: pusher.cloned(),
            wants_image,
            targets: targets.collect(),
            reporter: reporter.clone(),
            cancel,
        };
        Self {
            shared: Arc::new(shared),
            budget: request.cache_export_budget,
            runtime: tokio::runtime::Handle::current(),
            tasks: Mutex::default(),
        }
    }

    /// Starts with the topmost layer of a step's result. Errors are left to [`CacheExports::finish`], which meets them again.
    pub(crate) fn layer_made(&self, steps: &Steps, step: usize, root: &Root) {
        if root.layers().is_empty() || !steps.kinds[step].cacheable {
            return;
        }
        let on_line = steps.is_on_line(step);
        for target in self.shared.targets.iter().filter(|target| target.wants(on_line)) {
            let (shared, target, root) = (Arc::clone(&self.shared), Arc::clone(target), root.clone());
            let task = self.runtime.spawn(async move { drop(target.bring(&shared, &root, on_line).await) });
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        }
    }

    /// Gives up what runs in the background.
    pub(crate) async fn stop(&self) {
        self.shared.cancel.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // One that panicked has nothing to give up.
            drop(task.await);
        }
    }

    /// Writes all caches, within the budget.
    ///
    /// # Errors
    /// Only of an export with `ignore-error=false`.
    pub(crate) async fn finish(&self, steps: &Steps) -> Result<(), BuildError> {
        let all = self.shared.targets.iter().map(|target| self.finish_reported(target, steps));
        let ended = futures_util::future::join_all(all).await;
        self.stop().await;
        ended.into_iter().collect()
    }

    async fn finish_reported(&self, target: &Arc<Target>, steps: &Steps) -> Result<(), BuildError> {
        let (vertex, reporter) = (target.step.vertex, &self.shared.reporter);
        let name = target.exporter.backend().name().to_owned();
        reporter.report(Event::Started { vertex, at: SystemTime::now() });
        let finished = target.finish(&self.shared, steps, self.budget).await;
        let at = SystemTime::now();
        let Err(message) = finished else {
            reporter.report(Event::Completed { vertex, at });
            return Ok(());
        };
        if self.shared.cancel.is_cancelled() {
            reporter.report(Event::Canceled { vertex, at });
            return Err(BuildError::Canceled);
        }
        if !target.spec.ignore_error {
            reporter.report(Event::Failed { vertex, at, error: message.clone() });
            return Err(BuildError::CacheExport { name, message });
        }
        reporter.report(Event::Completed { vertex, at });
        // That nobody answers there was said when the cache was to be read.
        let known = self.shared.importer.failures();
        if !known.iter().any(|failure| failure.unreachable && failure.cache == name) {
            let text = format!("exporting cache to {name}: {message}; the image is not affected");
            reporter.report(Event::Warning { text });
        }
        Ok(())
    }
}

impl Target {
    /// Whether it wants the layers of a step, which may be on the line of the image's.
    fn wants(&self, on_line: bool) -> bool {
        self.spec.mode == CacheMode::Max || on_line
    }

    /// Makes sure that the place has the topmost layer of `root`, once.
    async fn bring(&self, shared: &Shared, root: &Root, on_line: bool) -> Result<RemoteLayer, Failure> {
        let layer = root.layers().last().expect("asked of roots with a layer");
        let cell = {
            let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(layers.entry(*layer.id()).or_default())
        };
        let brought = cell.get_or_try_init(|| async {
            let packed = self.packed(shared, root, on_line).await.map_err(Failure::Layer)?;
            let described = shared.engine.describe_for_cache(root, &packed, &self.step).await;
            let described = described.map_err(Failure::Layer)?;
            if described.blob.is_some() {
                tokio::select! {
                    placed = self.place(shared, root, &packed.descriptor, false) => placed?,
                    () = self.step.cancel.cancelled() => return Err(Failure::Layer(OpFailure::Canceled.into())),
                }
            }
            Ok(described)
        });
        brought.await.cloned()
    }

    async fn packed(&self, shared: &Shared, root: &Root, on_line: bool) -> Result<PackedLayer, OpError> {
        // The image's own form comes first: it is packed anyway, and once pushed it can be mounted.
        if on_line && shared.wants_image && !self.spec.force_compression {
            let packed = shared.engine.pack_top(root, &self.step).await?;
            if let Some(pusher) = &shared.pusher {
                // If that fails, it is the push that has failed.
                drop(finish_layer(&shared.engine, Some(pusher), root, &self.step).await);
            }
            return Ok(packed);
        }
        let (wanted, force) = (self.spec.compression, self.spec.force_compression);
        shared.engine.pack_for_cache(root, wanted, force, &self.step).await
    }

    /// Looks for the blob, and sends it if it is not there.
    async fn place(
        &self,
        shared: &Shared,
        root: &Root,
        blob: &Descriptor,
        probe: bool,
    ) -> Result<(), Failure> {
        let sources = self.mount_sources(shared, blob).map_err(Failure::Layer)?;
        // What could not be had from there is sent again if it was made again, whatever the place says of it.
        let is_suspect = shared.engine.was_lost(&blob.digest);
        if !is_suspect && self.exporter.find(blob, &sources, probe).await? {
            return Ok(());
        }
        let layer = root.layers().last().expect("asked of roots with a layer");
        if layer.is_pulled() {
            shared.engine.ensure_blob(layer, &self.step).await.map_err(Failure::Layer)?;
        }
        self.exporter.send(blob, &shared.store.blob_path(&blob.digest)).await?;
        let (vertex, name) = (self.step.vertex, format!("writing layer {}", blob.digest));
        let (current, total, done) = (blob.size, blob.size, true);
        shared.reporter.report(Event::Status { vertex, name, current, total, done });
        if let Some(repository) = self.exporter.backend().repository() {
            let kept = shared.store.remember_blob_sources(&[blob.digest], &repository);
            kept.map_err(|error| Failure::Layer(error.into()))?;
        }
        Ok(())
    }

    fn mount_sources(&self, shared: &Shared, blob: &Descriptor) -> Result<Vec<String>, OpError> {
        let Some(prefix) = &self.mount_prefix else { return Ok(Vec::new()) };
        let known = shared.store.blob_sources(&blob.digest)?;
        Ok(known.iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect())
    }

    /// Brings everything that is still missing, then writes config and manifest. The error is a whole message.
    async fn finish(&self, shared: &Shared, steps: &Steps, budget: Option<Duration>) -> Result<(), String> {
        let reserve = budget.map(|budget| (budget / 5).min(LONGEST_RESERVE));
        let known: OnceCell<Known> = OnceCell::new();
        let bringing = async {
            let known = known.get_or_try_init(|| self.known(shared, steps)).await?;
            self.bring_all(shared, known).await
        };
        let brought = match (budget, reserve) {
            (Some(budget), Some(reserve)) => tokio::time::timeout(budget - reserve, bringing).await,
            _ => Ok(bringing.await),
        };
        let in_time = brought.is_ok();
        if let Ok(Err(failure)) = brought {
            return Err(failure.to_string());
        }
        let Some(known) = known.into_inner() else { return Err(out_of_time(budget)) };
        let contents = self.contents(&known);
        let (kept, all) = (contents.records.len(), known.described.len());
        if kept > 0 {
            let publishing = self.publish(shared, &contents, &known);
            let published = match reserve {
                Some(reserve) => tokio::time::timeout(reserve.max(SHORTEST_RESERVE), publishing)
                    .await
                    .map_err(|_| out_of_time(budget))?,
                None => publishing.await,
            };
            published.map_err(|failure| failure.to_string())?;
        }
        if !in_time {
            return Err(format!("{}: {kept} of {all} steps were written", out_of_time(budget)));
        }
        self.step.note(format!("{kept} steps"));
        Ok(())
    }

    async fn known(&self, shared: &Shared, steps: &Steps) -> Result<Known, Failure> {
        let wanted = |step: usize| self.wants(steps.is_on_line(step));
        let described = steps.describe(wanted, &shared.engine, &shared.store, &shared.importer).await;
        let described = described.map_err(Failure::Layer)?;
        let mut roots: HashMap<Digest, Root> = HashMap::new();
        for step in &described {
            for (place, layer) in step.root.layers().iter().enumerate() {
                roots.entry(*layer.id()).or_insert_with(|| step.root.prefix(place + 1));
            }
        }
        Ok(Known { described, roots })
    }

    /// Brings the layers of all records; a failure of one does not stop the others.
    async fn bring_all(&self, shared: &Shared, known: &Known) -> Result<(), Failure> {
        let bring = known.roots.values().map(|root| self.bring(shared, root, false));
        for brought in futures_util::future::join_all(bring).await {
            match brought {
                Ok(_) => {}
                // It can be made again, but not by an export.
                Err(Failure::Layer(error)) if error.is::<ResultLost>() => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The records whose layers have all been brought.
    fn contents(&self, known: &Known) -> Contents {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contents = Contents::default();
        let mut places: HashMap<Digest, usize> = HashMap::new();
        'records: for step in &known.described {
            let mut record = step.record.clone();
            for layer in step.root.layers() {
                let brought = layers.get(layer.id()).and_then(|cell| cell.get());
                let Some(brought) = brought else { continue 'records };
                record.chain.push(*places.entry(*layer.id()).or_insert_with(|| {
                    contents.layers.push(brought.clone());
                    contents.layers.len() - 1
                }));
            }
            contents.records.push(record);
        }
        // Layers of records that were left out half-way are left out, too.
        contents.retain_present(|_| true);
        contents
    }

    /// Writes config and manifest. A registry that refuses has lost blobs that its manifest named: they are looked for, one
    /// by one, and sent again.
    async fn publish(&self, shared: &Shared, contents: &Contents, known: &Known) -> Result<(), Failure> {
        let refused = match self.exporter.publish(contents).await {
            Ok(Published::Unchanged) => {
                self.step.note("nothing to send: the cache is there already");
                return Ok(());
            }
            Ok(Published::Written) => return Ok(()),
            Err(error) if error.is_unreachable() => return Err(error.into()),
            Err(error) => error,
        };
        let brought: Vec<(Digest, Descriptor)> = {
            let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
            let brought = layers.iter().filter_map(|(id, cell)| Some((*id, cell.get()?.blob.clone()?)));
            brought.filter(|(id, _)| known.roots.contains_key(id)).collect()
        };
        if brought.is_empty() {
            return Err(refused.into());
        }
        for (id, blob) in brought {
            self.place(shared, &known.roots[&id], &blob, true).await?;
        }
        self.exporter.publish(contents).await?;
        Ok(())
    }
}

pub(super) fn out_of_time(budget: Option<Duration>) -> String {
    let seconds = budget.unwrap_or_default().as_secs_f64();
    format!("the budget of {seconds} s is used up (--cache-export-budget)")
}
