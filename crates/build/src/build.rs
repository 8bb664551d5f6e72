//! The pipeline.

use crate::cache::{self, CacheExports, Fetcher, MountsSource, StepKind, Steps};
use crate::contexts::Contexts;
use crate::dockerfile::{Inputs, read_inputs};
use crate::error::BuildError;
use crate::images::Images;
use crate::keep::Kept;
use crate::outputs::{self, Finished};
use crate::push::Pusher;
use crate::record::{Recording, Told};
use crate::request::{BuildRequest, Entitlement, Output};
use crate::shadow::Shadow;
use rbuild_cache::Importer;
use rbuild_event::{Event, Reporter, VertexId};
use rbuild_graph::Plan;
use rbuild_history::Limits;
use rbuild_ir::ImageResult;
use rbuild_oci::{Descriptor, Digest, Platform, Reference};
use rbuild_op::{CacheMountSource, Devices, Engine, EngineSettings, LayerCache, Remote, Root, operation};
use rbuild_registry::ClientConfig;
use rbuild_solver::{Observer, Op, Outcome, SolveOptions, Solver, StepContext};
use rbuild_store::{Budget, Store};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// What a build finds around it.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where the store is.
    pub store_root: PathBuf,
    /// How registries are reached.
    pub registry: ClientConfig,
    /// Content of the machine's /etc/resolv.conf, for RUN steps.
    pub resolv_conf: String,
    /// The same for RUN --network=host.
    pub resolv_conf_host: String,
    /// Soft limit of open files for RUN steps; `None` leaves them the builder's.
    pub open_files: Option<u64>,
    /// Directories with CDI specifications for RUN --device; later ones win.
    pub cdi_dirs: Vec<PathBuf>,
    /// Directories in which emulators of other kinds of machines are looked for ($PATH).
    pub emulators: Vec<PathBuf>,
    /// How much of the store's history is kept.
    pub history: Limits,
    /// Limits of the cache, as far as they are not the default ones of the store's disk.
    pub budget: Budget,
}

/// What a build made.
#[derive(Debug, Clone)]
pub struct BuildResult {
    /// Manifest or index of the image; `None` if no output wanted an image.
    pub manifest: Option<Descriptor>,
    /// Digest of its config: the image's id. An index has none.
    pub config: Option<Digest>,
    /// Names it has in the store.
    pub names: Vec<Reference>,
    /// Steps that were executed.
    pub executed: usize,
    /// Steps that were not.
    pub cached: usize,
    /// Name of its record in the store's history, if it was recorded.
    pub build: Option<String>,
    /// Bytes of unused cache that were removed at the end, to keep to the limits.
    pub collected: u64,
}

/// Builds. Cancelling `cancel` ends it soon, without a process, mount or temporary file left behind.
///
/// Must run on a multi-threaded tokio runtime.
///
/// # Errors
/// See [`BuildError`]; nothing half-written is left under a final name.
pub async fn build(
    environment: &Environment,
    request: BuildRequest,
    reporter: Reporter,
    cancel: CancellationToken,
) -> Result<BuildResult, BuildError> {
    let store = Store::open(&environment.store_root)?;
    let recording = Recording::begin(environment, &request, &store, reporter);
    let mut built = build_in(environment, request, store, &recording, cancel).await;
    recording.finish(&mut built);
    built
}

async fn build_in(
    environment: &Environment,
    mut request: BuildRequest,
    store: Store,
    recording: &Recording,
    cancel: CancellationToken,
) -> Result<BuildResult, BuildError> {
    outputs::check(&request)?;
    let reporter = recording.reporter();
    for text in store.take_warnings() {
        reporter.report(Event::Warning { text });
    }
    store.set_budget(environment.budget.or_defaults(store.disk()?));
    let _lease = store.lease()?;
    let remote = Remote::new(store.clone(), environment.registry.clone(), request.confidential.clone());
    let remote = remote.resolving(crate::remote::resolving(&request));
    let fetched = crate::remote::fetch(&mut request, &remote, &store, &reporter, &cancel).await?;
    let mut inputs = read_inputs(&request, fetched.main, &store)?;
    let resolving = crate::lockfile::resolving(&request, &inputs)?;
    let remote = remote.resolving(resolving.clone());
    let asking = crate::epoch::Asking {
        request: &request,
        fetched: &fetched,
        remote: &remote,
        store: &store,
        reporter: &reporter,
        cancel: &cancel,
    };
    let options = crate::lower::options(&request, &inputs);
    inputs.epoch = crate::epoch::resolve(&asking, &options[0], &inputs).await?;
    let registry = cache::registry_config(environment.registry.clone(), &request);
    let images = Images::new(store.clone(), registry, &request, resolving, reporter.clone());
    let images = Arc::new(images);
    let (mut definitions, args) = crate::lower::definitions(&request, &inputs, &images, &reporter).await?;
    let plan = Plan::of_all(&definitions).map_err(|error| BuildError::Dockerfile(error.to_string()))?;
    crate::entitlements::check(plan.vertices(), &request.entitlements, &inputs)?;
    let devices =
        crate::devices::grant(plan.vertices(), &environment.cdi_dirs, &request.entitlements, &inputs)?;
    crate::cgroup::check(plan.vertices(), &mut request).await?;
    definitions.iter_mut().for_each(|definition| cache::drop_inherited(&mut definition.image));
    let targets: Vec<ImageResult> = definitions.into_iter().map(|definition| definition.image).collect();
    let platforms: Vec<Platform> = targets.iter().map(|image| image.platform.clone()).collect();
    let importer = cache::importer(&request, &images, platforms.clone(), &reporter);
    let importer = Arc::new(importer.on_failure(recording.on_cache_failure()));
    if !importer.is_empty() && !store.has_records()? {
        // Everything will be missed here: read while the contexts are read. Else it may not be needed at all.
        let importer = Arc::clone(&importer);
        tokio::spawn(async move { importer.load().await });
    }
    let mounts = cache::mounts_source(&request, &images, &reporter);
    let plan = Arc::new(plan);
    let told = Told::new(Arc::clone(&plan), &inputs, &request, args, crate::record::joined(&platforms));
    let contexts = Contexts::open(&request, &mut inputs, &fetched, &store)?;
    let lazy = !request.load && !request.outputs.iter().any(outputs::writes_image);
    let build = Build {
        engine: Arc::new(engine(
            environment,
            &request,
            &contexts,
            &store,
            &images,
            &importer,
            mounts.as_ref(),
            targets[0].source_date_epoch,
            devices,
            remote,
            &cancel,
        )),
        names: names(&request),
        observer: recording.observer(told),
        declared: Arc::default(),
        pusher: Pusher::new(Arc::clone(&images), store.clone(), push_names(&request), lazy).map(Arc::new),
        images,
        importer,
        mounts,
        targets,
        request,
        store,
        reporter,
        cancel,
    };
    let (store, reporter) = (build.store.clone(), build.reporter.clone());
    let mut built = build.run(plan, &inputs).await;
    contexts.remember();
    let collected = collect(&store, &reporter).await;
    if let Ok(built) = &mut built {
        built.collected = collected;
    }
    // The index is opened when it is first asked, so that only now it is known whether it was damaged.
    for text in store.take_warnings() {
        reporter.report(Event::Warning { text });
    }
    built
}

/// Removes what is too much of the cache; how many bytes. That it cannot is no reason to fail.
async fn collect(store: &Store, reporter: &Reporter) -> u64 {
    if !store.has_placed() {
        return 0;
    }
    let store = store.clone();
    let report = match tokio::task::spawn_blocking(move || store.collect_garbage()).await {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => {
            reporter.report(Event::Warning { text: format!("the cache was not cleaned up: {error}") });
            None
        }
        Err(_) => None,
    };
    report.map_or(0, |report| report.bytes)
}

#[allow(clippy::too_many_arguments, reason = "each is another room's")]
fn engine(
    environment: &Environment,
    request: &BuildRequest,
    contexts: &Contexts,
    store: &Store,
    images: &Arc<Images>,
    importer: &Arc<Importer>,
    mounts: Option<&Arc<MountsSource>>,
    epoch: Option<i64>,
    devices: Devices,
    remote: Remote,
    cancel: &CancellationToken,
) -> Engine {
    let settings = EngineSettings {
        contexts: contexts.sources.clone(),
        compression: request.compression,
        epoch: epoch.filter(|_| request.rewrite_timestamp),
        resolv_conf: environment.resolv_conf.clone(),
        resolv_conf_host: environment.resolv_conf_host.clone(),
        open_files: environment.open_files,
        shm_size: request.shm_size,
        cgroup: request.cgroup.clone(),
        confidential: request.confidential.clone(),
        no_cache: request.no_cache.clone(),
        allow_insecure: request.entitlements.contains(&Entitlement::SecurityInsecure),
        allow_host_network: request.entitlements.contains(&Entitlement::NetworkHost),
        cache_mounts: mounts.map(|mounts| Arc::clone(mounts) as Arc<dyn CacheMountSource>),
        devices,
        emulators: environment.emulators.clone(),
        remote,
        cancel: cancel.clone(),
    };
    let fetcher = Fetcher::new(Arc::clone(images), Arc::clone(importer), store.clone());
    let engine = Engine::new(store.clone(), settings, Arc::new(fetcher));
    for (manifest, layers) in images.layers() {
        engine.know_image(manifest, layers);
    }
    engine
}

/// The names the image gets in the store.
fn names(request: &BuildRequest) -> Vec<Reference> {
    let mut names = request.tags.clone();
    for output in &request.outputs {
        if let Output::Image { names: more, .. } | Output::Docker { dest: None, names: more } = output {
            names.extend(more.iter().filter(|name| !request.tags.contains(name)).cloned());
        }
    }
    names
}

/// The names it is pushed under.
fn push_names(request: &BuildRequest) -> Vec<Reference> {
    let mut names: Vec<Reference> = if request.push { request.tags.clone() } else { Vec::new() };
    for output in &request.outputs {
        if let Output::Image { names: own, push: true } = output {
            names.extend(if own.is_empty() { request.tags.clone() } else { own.clone() });
        }
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.to_string()));
    names
}

/// A build under way.
pub(crate) struct Build {
    pub(crate) request: BuildRequest,
    pub(crate) store: Store,
    pub(crate) engine: Arc<Engine>,
    pub(crate) pusher: Option<Arc<Pusher>>,
    images: Arc<Images>,
    importer: Arc<Importer>,
    mounts: Option<Arc<MountsSource>>,
    pub(crate) names: Vec<Reference>,
    /// The images to make, one for each of the plan's targets.
    pub(crate) targets: Vec<ImageResult>,
    observer: Option<Arc<dyn Observer>>,
    /// Numbers of the steps, whichever attempt it is.
    declared: Arc<OnceLock<Vec<VertexId>>>,
    reporter: Reporter,
    cancel: CancellationToken,
}

impl Build {
    /// Solves and exports; again without the layers that turned out to be gone from the caches that named them (C-034).
    async fn run(&self, plan: Arc<Plan>, inputs: &Inputs) -> Result<BuildResult, BuildError> {
        let mut told = false;
        loop {
            let ended = self.attempt(Arc::clone(&plan), inputs).await;
            let Some(lost) = ended.as_ref().err().and_then(BuildError::lost) else { return ended };
            if !std::mem::replace(&mut told, true) {
                let text = format!("{lost}; the steps that it was to save run after all");
                self.reporter.report(Event::Warning { text });
            }
        }
    }

    async fn attempt(&self, plan: Arc<Plan>, inputs: &Inputs) -> Result<BuildResult, BuildError> {
        let export = StepContext {
            vertex: self.reporter.declare(self.title()),
            reporter: self.reporter.clone(),
            cancel: self.cancel.child_token(),
        };
        let shadow = Arc::new(Shadow::new(Arc::clone(&self.engine), self.pusher.clone()));
        let ops: Vec<_> = plan.vertices().iter().map(|vertex| operation(&self.engine, vertex)).collect();
        let kinds =
            ops.iter().map(|op| StepKind { reads_parent: op.reads_parent(), cacheable: op.cacheable() });
        let steps = Arc::new(Steps::new(Arc::clone(&plan), kinds.collect()));
        let caches = Arc::new(self.cache_exports());
        let solved = self.solve(ops, &steps, &shadow, &caches, &export).await;
        let solved = match solved {
            Ok(solved) => solved,
            Err(error) => {
                export.cancel.cancel();
                caches.stop().await;
                shadow.settle().await;
                let text = rbuild_frontend::decode(&inputs.text);
                return Err(BuildError::from_solve(error, &inputs.name, &text));
            }
        };
        steps.solved(&solved);
        self.reporter.report(Event::Started { vertex: export.vertex, at: SystemTime::now() });
        let exported = self.export(&solved.targets, &steps, &export).await;
        shadow.settle().await;
        let at = SystemTime::now();
        let kept = match exported {
            Ok(kept) => kept,
            Err(_) if self.cancel.is_cancelled() => {
                caches.stop().await;
                self.reporter.report(Event::Canceled { vertex: export.vertex, at });
                return Err(BuildError::Canceled);
            }
            Err(error) => {
                caches.stop().await;
                let text = error.to_string();
                self.reporter.report(Event::Failed { vertex: export.vertex, at, error: text });
                return Err(error);
            }
        };
        self.reporter.report(Event::Completed { vertex: export.vertex, at });
        if kept.is_none()
            && let Err(error) = self.engine.own_recorded_layers(&export).await
            && !self.cancel.is_cancelled()
        {
            let text = format!("a step will run again in the next build: {error}");
            self.reporter.report(Event::Warning { text });
        }
        let (caches, mounts) = tokio::join!(caches.finish(&steps), self.export_mounts());
        caches.and(mounts)?;
        let executed = solved.steps.iter().filter(|step| step.outcome != Outcome::Cached).count();
        Ok(BuildResult {
            manifest: kept.as_ref().map(|kept| kept.descriptor.clone()),
            config: kept.as_ref().and_then(Kept::config),
            names: self.names.clone(),
            executed,
            cached: solved.steps.len() - executed,
            build: None,
            collected: 0,
        })
    }

    async fn export_mounts(&self) -> Result<(), BuildError> {
        let used = self.engine.used_cache_mounts();
        let mounts = self.mounts.as_deref();
        cache::export_used(
            &self.request,
            &self.images,
            &self.store,
            mounts,
            &used,
            &self.reporter,
            &self.cancel,
        )
        .await
    }

    fn title(&self) -> &'static str {
        self.request.outputs.first().map_or("exporting to image", outputs::title)
    }

    /// Whether anything wants the result as an image: it always goes to the store unless only files are asked for.
    fn wants_image(&self) -> bool {
        let outputs = &self.request.outputs;
        outputs.is_empty()
            || !self.names.is_empty()
            || self.pusher.is_some()
            || outputs.iter().any(outputs::wants_image)
    }

    fn cache_exports(&self) -> CacheExports {
        CacheExports::new(
            &self.request,
            &self.images,
            &self.engine,
            &self.store,
            &self.importer,
            self.pusher.as_ref(),
            self.wants_image(),
            &self.reporter,
            &self.cancel,
        )
    }

    async fn solve(
        &self,
        ops: Vec<Arc<dyn Op<Output = Root>>>,
        steps: &Arc<Steps>,
        shadow: &Arc<Shadow>,
        caches: &Arc<CacheExports>,
        export: &StepContext,
    ) -> Result<rbuild_solver::Solved<Root>, rbuild_solver::SolveError> {
        let (engine, importer) = (Arc::clone(&self.engine), Arc::clone(&self.importer));
        let solver = Solver {
            cache: Arc::new(LayerCache::new(engine, self.reporter.clone(), importer)),
            options: SolveOptions {
                max_parallelism: self.request.max_parallelism,
                no_cache: self.request.no_cache.clone(),
            },
            reporter: self.reporter.clone(),
            observer: self.observer.clone(),
            cancel: self.cancel.clone(),
            declared: Arc::clone(&self.declared),
        };
        let (shadow, export, wants_image) = (Arc::clone(shadow), export.clone(), self.wants_image());
        let (plan, steps, caches) = (Arc::clone(&steps.plan), Arc::clone(steps), Arc::clone(caches));
        let on_output = move |step: usize, root: &Root| {
            steps.made(step, root);
            if wants_image && steps.is_on_line(step) && !root.layers().is_empty() {
                shadow.layer_made(root, export.clone());
            }
            caches.layer_made(&steps, step, root);
        };
        solver.solve(plan, ops, Arc::new(on_output)).await
    }

    async fn export(
        &self,
        roots: &[Option<Root>],
        steps: &Steps,
        step: &StepContext,
    ) -> Result<Option<Kept>, BuildError> {
        let kept = match self.wants_image() {
            true => Some(self.keep(roots, steps, step).await?),
            false => None,
        };
        let platforms = self.targets.iter().map(|image| &image.platform);
        let finished = Finished {
            store: &self.store,
            engine: &self.engine,
            trees: platforms.zip(roots.iter().map(Option::as_ref)).collect(),
            is_index: self.request.makes_index(),
            kept: kept.as_ref(),
            names: &self.names,
            epoch: self.targets[0].source_date_epoch,
        };
        for output in &self.request.outputs {
            outputs::write(output, &finished, step).await?;
        }
        Ok(kept)
    }
}
