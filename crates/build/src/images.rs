//! Base images: what a reference stands for, and where the blobs are.

use crate::layout::Layout;
use crate::request::{BuildRequest, NamedContext};
use async_trait::async_trait;
use rbuild_event::Event;
use rbuild_frontend::{ImageRequest, ResolveError, ResolvedImage, Resolver};
use rbuild_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use rbuild_op::{BlobFetcher, OpFailure, PulledLayer, Resolving};
use rbuild_registry::{Blocking, Client, ClientConfig, RegistryError};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::Store;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::OnceCell;

/// Prefix of the references that stand for OCI layouts given as named contexts; the context's name follows.
pub(crate) const LAYOUT_SCHEME: &str = "oci-layout://";
/// Largest manifest or config that is read.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 4;
/// Bytes between two progress events of a transfer.
const PROGRESS_STEP: u64 = 1 << 20;

/// Where an image's documents and blobs are.
#[derive(Debug, Clone)]
enum Place {
    /// In our own store.
    Store,
    /// In another OCI layout.
    Layout(Layout),
    /// In a registry.
    Registry(Reference),
}

/// An image that was found.
struct Found {
    resolved: ResolvedImage,
    layers: Vec<PulledLayer>,
    /// The name with tag that was looked up, and what it names.
    tag: Option<(String, Digest)>,
}

/// Finds base images and fetches their blobs.
pub(crate) struct Images {
    store: Store,
    config: ClientConfig,
    client: OnceLock<Client>,
    layouts: BTreeMap<String, (Layout, Option<crate::LayoutImage>)>,
    pull: bool,
    resolving: Resolving,
    /// The registry's own answer is wanted, not what was remembered.
    asking: bool,
    runtime: tokio::runtime::Handle,
    known: Mutex<HashMap<ImageRequest, Arc<Result<Found, Failure>>>>,
    blobs: Mutex<HashMap<Digest, Place>>,
    /// What registries have answered: the platforms of a build see one state of a tag.
    answers: Mutex<HashMap<Reference, Arc<OnceCell<Descriptor>>>>,
    reporter: rbuild_event::Reporter,
}

/// Why an image was not found.
#[derive(Debug, Clone)]
struct Failure {
    message: String,
    registry: bool,
    /// The registry has answered that there is no such image, or none for us.
    absent: bool,
    /// The store could not be read or written.
    machine: bool,
}

impl Failure {
    fn local(message: impl Into<String>) -> Self {
        Self { message: message.into(), registry: false, absent: false, machine: false }
    }
}

impl From<rbuild_store::StoreError> for Failure {
    fn from(error: rbuild_store::StoreError) -> Self {
        Self { machine: true, ..Self::local(error.to_string()) }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let absent = matches!(error, RegistryError::NotFound { .. } | RegistryError::Denied { .. });
        Self { message: error.to_string(), registry: true, absent, machine: false }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Images {
    /// Must be made inside a tokio runtime.
    pub(crate) fn new(
        store: Store,
        config: ClientConfig,
        request: &BuildRequest,
        resolving: Resolving,
        reporter: rbuild_event::Reporter,
    ) -> Self {
        let layouts = request.named_contexts.iter().filter_map(|(name, context)| match context {
            NamedContext::OciLayout { dir, image } => Some((name.clone(), (Layout::new(dir), image.clone()))),
            _ => None,
        });
        Self {
            store,
            config,
            client: OnceLock::new(),
            layouts: layouts.collect(),
            pull: request.pull,
            resolving,
            asking: false,
            runtime: tokio::runtime::Handle::current(),
            known: Mutex::default(),
            blobs: Mutex::default(),
            answers: Mutex::default(),
            reporter,
        }
    }

    /// The same for who wants to know what names are now, to write that down.
    #[must_use]
    pub(crate) fn asking(self) -> Self {
        Self { asking: true, ..self }
    }

    /// What every name with a tag, and without a digest of its own, was found to name.
    pub(crate) fn tags(&self) -> BTreeMap<String, Digest> {
        let known = locked(&self.known);
        let found = known.values().filter_map(|found| found.as_ref().as_ref().ok());
        found.filter_map(|found| found.tag.clone()).collect()
    }

    /// The registry client, made when it is first needed.
    pub(crate) fn client(&self) -> &Client {
        self.client.get_or_init(|| Client::new(self.config.clone()))
    }

    /// Finds images side by side, before lowering asks for them.
    pub(crate) async fn prefetch(&self, requests: &[ImageRequest]) {
        futures_util::future::join_all(requests.iter().map(|request| self.find(request))).await;
    }

    /// The layers of every image that was found, by manifest.
    pub(crate) fn layers(&self) -> Vec<(Digest, Vec<PulledLayer>)> {
        let known = locked(&self.known);
        let found = known.values().filter_map(|found| found.as_ref().as_ref().ok());
        found.map(|found| (found.resolved.manifest, found.layers.clone())).collect()
    }

    /// Whether some image was not found because of a registry. An image that no registry has, and that is called almost
    /// like one of the `stages`, is a mistake in the Dockerfile.
    pub(crate) fn registry_failed(&self, stages: &[&str]) -> bool {
        locked(&self.known).iter().any(|(request, found)| match &**found {
            Err(failure) => failure.registry && !(failure.absent && is_near(&request.reference, stages)),
            Ok(_) => false,
        })
    }

    /// What kept the store from being read or written while images were looked up.
    pub(crate) fn machine_failed(&self) -> Option<String> {
        let known = locked(&self.known);
        let mut failures = known.values().filter_map(|found| found.as_ref().as_ref().err());
        failures.find(|failure| failure.machine).map(|failure| failure.message.clone())
    }

    async fn find(&self, request: &ImageRequest) -> Arc<Result<Found, Failure>> {
        if let Some(known) = locked(&self.known).get(request) {
            return Arc::clone(known);
        }
        let found = Arc::new(self.look_up(request).await);
        locked(&self.known).insert(request.clone(), Arc::clone(&found));
        found
    }

    async fn look_up(&self, request: &ImageRequest) -> Result<Found, Failure> {
        if let Some(name) = request.reference.strip_prefix(LAYOUT_SCHEME) {
            let (layout, image) =
                self.layouts.get(name).ok_or_else(|| Failure::local(format!("no build context `{name}`")))?;
            let descriptor = layout.find(image.as_ref()).map_err(Failure::local)?;
            return self.load(&Place::Layout(layout.clone()), descriptor, request).await;
        }
        let reference: Reference = request
            .reference
            .parse()
            .map_err(|error| Failure::local(format!("{}: {error}", request.reference)))?;
        let tagged = reference.with_default_tag();
        if tagged.digest().is_some() {
            return self.look_up_reference(tagged, request).await.map(|(found, _)| found);
        }
        let name = tagged.to_string();
        let pin = self.resolving.image(&name).map_err(|error| Failure::local(error.to_string()))?;
        let (mut found, digest) = match pin {
            Some(digest) => (self.look_up_reference(tagged.with_digest(digest), request).await?.0, digest),
            None => self.look_up_reference(tagged, request).await?,
        };
        found.tag = Some((name, digest));
        Ok(found)
    }

    /// The image, and what the reference itself names: an index perhaps.
    async fn look_up_reference(
        &self,
        reference: Reference,
        request: &ImageRequest,
    ) -> Result<(Found, Digest), Failure> {
        if let Some(descriptor) = self.in_store(&reference)? {
            let digest = descriptor.digest;
            return Ok((self.load(&Place::Store, descriptor, request).await?, digest));
        }
        self.look_up_remote(reference, request).await
    }

    /// An image that the store has under this name; not asked under --pull, except for a pinned digest, which cannot
    /// have changed.
    fn in_store(&self, reference: &Reference) -> Result<Option<Descriptor>, Failure> {
        if self.pull && reference.digest().is_none() {
            return Ok(None);
        }
        let name = rbuild_store::image_name(reference);
        let images = self.store.images()?;
        let named = images.into_iter().find(|image| match reference.digest() {
            Some(digest) => image.descriptor.digest == digest,
            None => image.name.as_deref() == Some(&name),
        });
        Ok(named.map(|image| image.descriptor))
    }

    /// The registry is asked what a tag is now (C-019); if it cannot be reached, what it was last time is used.
    async fn look_up_remote(
        &self,
        reference: Reference,
        request: &ImageRequest,
    ) -> Result<(Found, Digest), Failure> {
        let remembered = self.store.resolution(&reference, &request.platform)?;
        let remembered = remembered.filter(|known| self.store.blob_path(&known.descriptor.digest).exists());
        let place = Place::Registry(reference.clone());
        let settled = remembered.as_ref().filter(|known| self.need_not_ask(&reference, known.resolved));
        if let Some(known) = settled {
            let digest = reference.digest().unwrap_or(known.descriptor.digest);
            return Ok((self.load(&place, known.descriptor.clone(), request).await?, digest));
        }
        if self.resolving.offline {
            let missing = OpFailure::Offline(reference.to_string());
            return Err(Failure {
                message: missing.to_string(),
                registry: true,
                absent: false,
                machine: false,
            });
        }
        let descriptor = match self.ask(&reference).await {
            Ok(descriptor) => descriptor,
            Err(error) => match remembered.filter(|_| !self.pull && !self.asking && is_unreachable(&error)) {
                Some(known) => {
                    let text = format!("{error}; using what {reference} was when it was last resolved");
                    self.reporter.report(Event::Warning { text });
                    known.descriptor
                }
                None => return Err(error.into()),
            },
        };
        let digest = descriptor.digest;
        let found = self.load(&place, descriptor, request).await?;
        let manifest = Descriptor::new(
            media_type::OCI_MANIFEST,
            found.resolved.manifest,
            self.store.blob_size(&found.resolved.manifest)?.unwrap_or_default(),
        );
        self.store.remember_resolution(&reference, &request.platform, &manifest)?;
        let blobs: Vec<Digest> = found.layers.iter().map(|layer| layer.descriptor.digest).collect();
        self.store.remember_blob_sources(&blobs, &reference.name())?;
        Ok((found, digest))
    }

    /// What the registry says that a reference names, asked once.
    async fn ask(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let answer = Arc::clone(locked(&self.answers).entry(reference.clone()).or_default());
        answer.get_or_try_init(|| self.client().resolve_descriptor(reference)).await.cloned()
    }

    /// Whether what is remembered of a reference is enough: a digest cannot change, and a tag was asked for just now.
    fn need_not_ask(&self, reference: &Reference, asked: i64) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed());
        reference.digest().is_some()
            || (!self.pull && !self.asking && self.resolving.is_fresh(asked, now))
            || self.resolving.offline
    }

    /// Reads manifest and config, following indexes to the platform.
    async fn load(
        &self,
        place: &Place,
        mut descriptor: Descriptor,
        request: &ImageRequest,
    ) -> Result<Found, Failure> {
        for _ in 0..MAX_DEPTH {
            let bytes = self.document(place, &descriptor).await?;
            let parsed: DocumentKind = parse(&bytes, &request.reference)?;
            if !parsed.is_index(&descriptor) {
                return self.load_manifest(place, descriptor, &bytes, request).await;
            }
            let index: Index = parse(&bytes, &request.reference)?;
            let chosen = rbuild_oci::best_match(&index.manifests, &request.platform).ok_or_else(|| {
                let platform = &request.platform;
                let has: Vec<String> = index
                    .manifests
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref())
                    .map(Platform::to_string)
                    .collect();
                Failure::local(format!(
                    "{}: no match for platform in manifest: {platform} (it has: {})",
                    request.reference,
                    has.join(", ")
                ))
            })?;
            descriptor = index.manifests[chosen].clone();
        }
        Err(Failure::local(format!("{}: indexes are nested too deeply", request.reference)))
    }

    async fn load_manifest(
        &self,
        place: &Place,
        descriptor: Descriptor,
        bytes: &[u8],
        request: &ImageRequest,
    ) -> Result<Found, Failure> {
        let manifest: Manifest = parse(bytes, &request.reference)?;
        if manifest.schema_version != 2 {
            let problem = format!(
                "{}: manifests of schema {} are not supported",
                request.reference, manifest.schema_version
            );
            return Err(Failure::local(problem));
        }
        let config = self.document(place, &manifest.config).await?;
        let config: ImageConfig = parse(&config, &request.reference)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Failure::local(format!(
                "{}: the manifest has {} layers, but the config {}: the image is damaged",
                request.reference,
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        let layers: Vec<PulledLayer> = (manifest.layers.iter().zip(diff_ids))
            .map(|(descriptor, diff_id)| PulledLayer { descriptor: descriptor.clone(), diff_id: *diff_id })
            .collect();
        let mut blobs = locked(&self.blobs);
        for layer in &layers {
            blobs.insert(layer.descriptor.digest, place.clone());
        }
        Ok(Found { resolved: ResolvedImage { manifest: descriptor.digest, config }, layers, tag: None })
    }

    /// A manifest, index or config, verified; what comes from elsewhere is kept in the store.
    async fn document(&self, place: &Place, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        if self.store.has_blob(&descriptor.digest)? {
            return Ok(self.store.read_blob(&descriptor.digest, MAX_DOCUMENT)?);
        }
        let bytes = match place {
            Place::Store => {
                return Err(Failure::local(format!("blob {} is missing in the store", descriptor.digest)));
            }
            Place::Layout(layout) => layout.document(descriptor).map_err(Failure::local)?,
            Place::Registry(reference) if self.resolving.offline => {
                let missing = OpFailure::Offline(format!("{} of {reference}", descriptor.digest));
                return Err(Failure {
                    message: missing.to_string(),
                    registry: true,
                    absent: false,
                    machine: false,
                });
            }
            Place::Registry(reference) => {
                let kind = &descriptor.media_type;
                if media_type::is_index(kind) || media_type::is_manifest(kind) {
                    self.client().manifest(reference, descriptor).await?
                } else {
                    self.client().blob_bytes(reference, descriptor).await?
                }
            }
        };
        if bytes.len() as u64 <= MAX_DOCUMENT {
            self.store.put_blob(&bytes)?;
        }
        Ok(bytes)
    }

    /// Whether the blob belongs to an image that was found in this build.
    pub(crate) fn knows(&self, blob: &Descriptor) -> bool {
        locked(&self.blobs).contains_key(&blob.digest)
    }

    fn place_of(&self, blob: &Descriptor) -> Result<Option<Place>, OpError> {
        if let Some(place) = locked(&self.blobs).get(&blob.digest) {
            return Ok(Some(place.clone()));
        }
        for repository in self.store.blob_sources(&blob.digest)? {
            if let Ok(reference) = repository.parse() {
                return Ok(Some(Place::Registry(reference)));
            }
        }
        Ok(None)
    }

    async fn download(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        step: &StepContext,
    ) -> Result<(), OpError> {
        if self.resolving.offline {
            return Err(OpFailure::Offline(format!("layer {} of {reference}", blob.digest)).into());
        }
        let writer = self.store.ingest_unhashed()?;
        let mut sink = Blocking(writer);
        let progress = transfer_progress(blob, step);
        let pulled = tokio::select! {
            pulled = self.client().pull_blob(reference, blob, &mut sink, progress) => pulled,
            () = step.cancel.cancelled() => return Err(OpFailure::Canceled.into()),
        };
        pulled?;
        sink.0.commit_as(blob.digest, blob.size)?;
        Ok(())
    }
}

/// Reports a transfer of a blob under a step.
pub(crate) fn transfer_progress(blob: &Descriptor, step: &StepContext) -> impl FnMut(u64) + Send + use<> {
    let (name, total, step) = (blob.digest.to_string(), blob.size, step.clone());
    let mut told = 0;
    move |current: u64| {
        if current >= told + PROGRESS_STEP || current == total {
            told = current;
            let (vertex, name, done) = (step.vertex, name.clone(), current == total);
            step.reporter.report(Event::Status { vertex, name, current, total, done });
        }
    }
}

/// Whether an image's name is that of a stage with a slip in it.
fn is_near(reference: &str, stages: &[&str]) -> bool {
    let Ok(reference) = reference.parse::<Reference>() else { return false };
    let familiar = reference.without_tag().familiar();
    rbuild_frontend::suggest::suggest(&familiar, stages.iter().copied(), false).is_some()
}

/// Whether an error means that nobody answered, rather than that the answer was no.
fn is_unreachable(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Connect { .. } | RegistryError::Timeout { .. })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], reference: &str) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::local(format!("{reference}: damaged document: {error}")))
}

/// Enough of a document to tell an index from a manifest.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentKind {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl DocumentKind {
    fn is_index(&self, descriptor: &Descriptor) -> bool {
        let kind = self.media_type.as_deref().unwrap_or(&descriptor.media_type);
        media_type::is_index(kind) || (self.manifests.is_some() && !media_type::is_manifest(kind))
    }
}

impl Resolver for Images {
    /// Called on a blocking thread.
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let found = self.runtime.block_on(self.find(request));
        match &*found {
            Ok(found) => Ok(found.resolved.clone()),
            Err(failure) => Err(ResolveError { message: failure.message.clone() }),
        }
    }
}

#[async_trait]
impl BlobFetcher for Images {
    async fn fetch(&self, blob: &Descriptor, step: &StepContext) -> Result<(), OpError> {
        match self.place_of(blob)? {
            Some(Place::Registry(reference)) => self.download(&reference, blob, step).await,
            Some(Place::Layout(layout)) => {
                let (store, blob) = (self.store.clone(), blob.clone());
                let copied = tokio::task::spawn_blocking(move || -> Result<(), OpError> {
                    let path = layout.blob_path(&blob.digest);
                    let mut file = std::fs::File::open(&path)
                        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
                    let mut writer = store.ingest()?;
                    std::io::copy(&mut file, &mut writer)?;
                    writer.commit(Some((blob.digest, blob.size)))?;
                    Ok(())
                });
                copied.await?
            }
            Some(Place::Store) | None => Err(OpFailure::LayerLost(blob.digest).into()),
        }
    }
}
