//! What the operations share: bringing layers into the form that somebody needs.

mod content;
mod records;

pub use records::{MAX_KEPT_BYTES, MAX_KEPT_FILES};

use crate::bridge::{blocking, writing};
use crate::error::OpFailure;
use crate::exec::{BoundCell, CacheMountSource};
use crate::fetch::{BlobFetcher, PulledLayer};
use crate::implied::Place;
use crate::layer::{Layer, Root, from_epoch, since_epoch};
use crate::secret::Confidential;
use rbuild_context::Ignore;
use rbuild_event::Reporter;
use rbuild_layer::{Compression, PackOptions};
use rbuild_oci::{Descriptor, Digest, media_type};
use rbuild_runtime::{Cgroup, Launcher, RuntimeError};
use rbuild_snapshot::{ChainView, DirLayer, Recipe};
use rbuild_solver::{NoCache, OpError, StepContext};
use rbuild_store::{Batch, LayerId, LayerIngest, LayerKind, Packed, Store};
use rbuild_tree::{LayerEntry, Metadata, Tree, TreePath};
use records::PendingRecord;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Layers that are packed at once. Packing is parallel inside; two let one read while the other computes.
const PACKING_AT_ONCE: usize = 2;

/// Name of the packed form that a registry's own blob is.
const PULLED: &str = "pulled";

/// A local build context.
#[derive(Clone)]
pub struct LocalSource {
    /// Its files, without those that .dockerignore excludes.
    pub tree: Arc<dyn Tree>,
    /// The rules that excluded them, for explanations.
    pub ignore: Option<Arc<Ignore>>,
    /// It was a tar archive: what that says of owners and capabilities counts, as it does in a stage.
    pub archive: bool,
}

impl LocalSource {
    /// The rule that excludes a path: `.dockerignore:3`.
    pub(crate) fn excluded_by(&self, path: &TreePath) -> Option<String> {
        let ignore = self.ignore.as_ref()?;
        ignore.rule(path).map(|rule| format!("{}:{}", ignore.file(), rule.line))
    }
}

/// What an engine is told.
pub struct EngineSettings {
    /// Local contexts by name; `context` is the main one.
    pub contexts: BTreeMap<String, LocalSource>,
    /// How layers are packed.
    pub compression: Compression,
    /// Times later than this become this while a layer is packed.
    pub epoch: Option<i64>,
    /// `/etc/resolv.conf` of RUN steps.
    pub resolv_conf: String,
    /// The same for those with `--network=host`.
    pub resolv_conf_host: String,
    /// Soft limit of open files of RUN steps that no `--ulimit` says otherwise for.
    pub open_files: Option<u64>,
    /// Size of `/dev/shm` of RUN steps in bytes.
    pub shm_size: Option<u64>,
    /// Cgroup of RUN steps, already checked; `None` leaves them in the builder's.
    pub cgroup: Option<Cgroup>,
    /// Whether RUN --network=host was granted.
    pub allow_host_network: bool,
    /// Whether RUN --security=insecure was granted.
    pub allow_insecure: bool,
    /// Devices that RUN --device may name; whether they were granted is the caller's to check.
    pub devices: crate::device::Devices,
    /// Secrets and SSH agents of RUN steps.
    pub confidential: Confidential,
    /// Steps whose cache mounts begin empty.
    pub no_cache: NoCache,
    /// Where new cache mounts may be had from, instead of what they begin with.
    pub cache_mounts: Option<Arc<dyn CacheMountSource>>,
    /// Directories in which emulators of other kinds of machines are looked for.
    pub emulators: Vec<PathBuf>,
    /// Fetches what ADD names by URL.
    pub remote: crate::remote::Remote,
    /// Stops all work.
    pub cancel: CancellationToken,
}

/// Shared by all operations of a build.
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) settings: EngineSettings,
    /// Made when the first RUN needs it: it costs a mount.
    launcher: OnceLock<Launcher>,
    /// Whether it was said that steps run without a system call filter.
    pub(crate) unfiltered_said: AtomicBool,
    /// Unpacked archives that recipes refer to, kept to the end of the build.
    #[allow(dead_code, reason = "held for its Drop: the directories go with the build")]
    staged: Mutex<Vec<LayerIngest>>,
    fetcher: Arc<dyn BlobFetcher>,
    layers: Mutex<HashMap<LayerId, Arc<Layer>>>,
    images: Mutex<HashMap<Digest, Vec<PulledLayer>>>,
    pending: Mutex<Vec<PendingRecord>>,
    packing: Semaphore,
    made: AtomicU64,
    /// Parts of local contexts that RUN steps mount, by context and path.
    pub(crate) bound: Mutex<HashMap<(String, String), BoundCell>>,
    /// Directories of cache mounts that this build has emptied.
    pub(crate) fresh_caches: Mutex<HashSet<PathBuf>>,
    /// Cache mounts that steps of this build have used: their directories and ids.
    pub(crate) used_caches: Mutex<BTreeMap<Digest, String>>,
    /// Imported layers that could not be had: no record with one of them is used in this build.
    pub(crate) lost: Mutex<HashSet<LayerId>>,
    /// Their blobs.
    pub(crate) lost_blobs: Mutex<HashSet<Digest>>,
    /// SOURCE_DATE_EPOCH that imported layers were packed under, as far as they have one.
    pub(crate) epochs: Mutex<HashMap<LayerId, Option<i64>>>,
}

/// A layer as a blob of this build's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The blob, with an OCI media type.
    pub descriptor: Descriptor,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// An engine on a store.
    pub fn new(store: Store, settings: EngineSettings, fetcher: Arc<dyn BlobFetcher>) -> Self {
        Self {
            store,
            settings,
            launcher: OnceLock::new(),
            unfiltered_said: AtomicBool::new(false),
            staged: Mutex::default(),
            fetcher,
            layers: Mutex::default(),
            images: Mutex::default(),
            pending: Mutex::default(),
            packing: Semaphore::new(PACKING_AT_ONCE),
            made: AtomicU64::new(0),
            bound: Mutex::default(),
            fresh_caches: Mutex::default(),
            used_caches: Mutex::default(),
            lost: Mutex::default(),
            lost_blobs: Mutex::default(),
            epochs: Mutex::default(),
        }
    }

    /// The cache mounts that steps of this build have used: the names of their directories, and their ids.
    pub fn used_cache_mounts(&self) -> Vec<(Digest, String)> {
        locked(&self.used_caches).iter().map(|(directory, id)| (*directory, id.clone())).collect()
    }

    pub(crate) fn launcher(&self) -> Result<&Launcher, RuntimeError> {
        if let Some(launcher) = self.launcher.get() {
            return Ok(launcher);
        }
        let launcher = Launcher::new()?;
        Ok(self.launcher.get_or_init(|| launcher))
    }

    /// Keeps a staging directory until the build is over.
    pub(crate) fn keep_staged(&self, staged: LayerIngest) {
        locked(&self.staged).push(staged);
    }

    /// A context for work that nobody watches.
    pub(crate) fn quiet_step(&self) -> StepContext {
        StepContext { vertex: 0, reporter: Reporter::silent(), cancel: self.settings.cancel.child_token() }
    }

    /// Tells the engine what layers the image with this manifest has.
    pub fn know_image(&self, manifest: Digest, layers: Vec<PulledLayer>) {
        for layer in &layers {
            let known = self.intern(Layer::pulled(layer.clone()));
            // The layer may have been met in a record before its image was resolved.
            known.pulled.get_or_init(|| layer.clone());
        }
        locked(&self.images).insert(manifest, layers);
    }

    /// The root filesystem of an image that was made known.
    pub(crate) fn image_root(&self, manifest: &Digest) -> Option<Root> {
        let layers = locked(&self.images).get(manifest)?.clone();
        Some(Root::new(layers.into_iter().map(|layer| self.intern(Layer::pulled(layer))).collect::<Vec<_>>()))
    }

    /// The one value of this layer in this build.
    pub(crate) fn intern(&self, layer: Layer) -> Arc<Layer> {
        Arc::clone(locked(&self.layers).entry(layer.id).or_insert_with(|| Arc::new(layer)))
    }

    /// The root of a chain that a record names; `None` if a layer of it is lost.
    pub(crate) fn root_of_chain(&self, chain: &[LayerId]) -> Result<Option<Root>, OpError> {
        let mut layers = Vec::with_capacity(chain.len());
        for id in chain {
            if self.is_lost(id) {
                return Ok(None);
            }
            let known = locked(&self.layers).get(id).cloned();
            layers.push(match known {
                Some(layer) => layer,
                None => self.intern(self.stored_layer(id)?),
            });
        }
        Ok(Some(Root::new(layers)))
    }

    /// The one value of a layer in this build, if it was met before.
    pub(crate) fn known_layer(&self, id: &LayerId) -> Option<Arc<Layer>> {
        locked(&self.layers).get(id).cloned()
    }

    fn stored_layer(&self, id: &LayerId) -> Result<Layer, OpError> {
        let Some(row) = self.store.layer(id)? else { return Ok(Layer::stored(*id, None)) };
        if row.kind != LayerKind::Pulled {
            return Ok(Layer::stored(*id, Some(from_epoch(row.created, row.created_nanos))));
        }
        // A layer that a step made elsewhere has a time, one of a base image has none.
        let is_imported = (row.created, row.created_nanos) != (0, 0);
        let layer = Layer::stored(*id, is_imported.then(|| from_epoch(row.created, row.created_nanos)));
        if let Some(packed) = self.store.packed_known(id)?.into_iter().find(|form| form.codec == PULLED) {
            let descriptor = Descriptor::new(packed.media_type, packed.blob, packed.size);
            layer.pulled.get_or_init(|| PulledLayer { descriptor, diff_id: packed.diff_id });
        }
        Ok(layer)
    }

    /// A name for a layer that is about to be made; no two are equal, in any process.
    pub(crate) fn new_layer_id(&self) -> LayerId {
        let (seconds, nanos) = since_epoch(SystemTime::now());
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let address = std::ptr::from_ref(self) as usize;
        Digest::of(format!("rbuild.layer.v1\n{process}\n{address}\n{seconds}.{nanos}\n{number}"))
    }

    /// The layer's overlay directory, which is made if the layer is only a recipe, a blob, or in a registry.
    pub(crate) async fn dir_of(
        self: &Arc<Self>,
        layer: &Arc<Layer>,
        step: &StepContext,
    ) -> Result<PathBuf, OpError> {
        let dir = layer.dir.get_or_try_init(|| async {
            if let Some(dir) = self.store.layer_dir(&layer.id)? {
                return Ok(dir);
            }
            match &layer.recipe {
                Some(recipe) => self.materialize(layer, Arc::clone(recipe)).await,
                None => self.unpack(layer, step).await,
            }
        });
        dir.await.cloned()
    }

    async fn materialize(&self, layer: &Arc<Layer>, recipe: Arc<Recipe>) -> Result<PathBuf, OpError> {
        let (store, row) = (self.store.clone(), written_row(layer));
        let dir = writing(&self.store, move || -> Result<PathBuf, OpError> {
            let ingest = store.new_layer_dir()?;
            rbuild_snapshot::materialize(&recipe, &ingest.upper)?;
            let dir = store.commit_layer_dir(ingest, &row.id)?;
            store.put_layer(row.clone())?;
            Ok(dir)
        });
        let dir = dir.await?;
        self.now_owned(layer)?;
        Ok(dir)
    }

    async fn unpack(&self, layer: &Arc<Layer>, step: &StepContext) -> Result<PathBuf, OpError> {
        // Another process may be at the same layer: it is unpacked once.
        let key = Digest::of([b"unpack\n", &layer.id.as_bytes()[..]].concat());
        let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
        if let Some(dir) = self.store.layer_dir(&layer.id)? {
            return Ok(dir);
        }
        self.unpack_as(layer, layer.id, Vec::new(), step).await
    }

    /// Unpacks the layer's blob as the directory `id` of the store, some of its directories with other metadata. The caller
    /// holds a lock.
    pub(crate) async fn unpack_as(
        &self,
        layer: &Arc<Layer>,
        id: LayerId,
        directories: Vec<(TreePath, Metadata)>,
        step: &StepContext,
    ) -> Result<PathBuf, OpError> {
        let packed = self.blob_of(layer, step).await?;
        let store = self.store.clone();
        let rows = layer.is_pulled().then(|| self.pulled_rows(layer, &packed)).transpose()?;
        let unpacked = writing(&self.store, move || -> Result<PathBuf, OpError> {
            let ingest = store.new_layer_dir()?;
            let blob = store.open_blob(&packed.descriptor.digest)?;
            let dest = std::fs::File::open(&ingest.upper)?;
            let unpacked =
                rbuild_layer::unpack_layer(blob, &packed.descriptor.media_type, &dest, &Default::default())?;
            if unpacked.diff_id != packed.diff_id {
                return Err(OpFailure::WrongDiffId {
                    blob: packed.descriptor.digest,
                    expected: packed.diff_id,
                    found: unpacked.diff_id,
                }
                .into());
            }
            rbuild_snapshot::set_directories(&ingest.upper, &directories)?;
            if !unpacked.implied_parents.is_empty() {
                ingest.set_note(&crate::implied::to_note(&unpacked.implied_parents))?;
            }
            let dir = store.commit_layer_dir(ingest, &id)?;
            if let Some(rows) = &rows {
                store.write(rows)?;
            }
            Ok(dir)
        })
        .await;
        unpacked.map_err(|error| self.lost_if_damaged(layer, error))
    }

    /// A blob of this layer that is in the store, fetched if need be.
    async fn blob_of(&self, layer: &Arc<Layer>, step: &StepContext) -> Result<PackedLayer, OpError> {
        if let Some(row) = self.store.packed_any(&layer.id)?.into_iter().next() {
            return Ok(packed_layer(&row));
        }
        let pulled = layer.pulled.get().ok_or(OpFailure::LayerLost(layer.id))?;
        self.fetch(layer, pulled, step).await?;
        Ok(PackedLayer { diff_id: pulled.diff_id, descriptor: pulled.descriptor.clone() })
    }

    async fn fetch(&self, layer: &Layer, pulled: &PulledLayer, step: &StepContext) -> Result<(), OpError> {
        if self.store.has_blob(&pulled.descriptor.digest)? {
            return Ok(());
        }
        let fetched = self.fetcher.fetch(&pulled.descriptor, step).await;
        fetched.map_err(|error| self.lost_if_unavailable(layer, error, &step.cancel))
    }

    /// Brings the blob of a base image's layer into the store, for an image that is kept there.
    pub async fn ensure_blob(&self, layer: &Arc<Layer>, step: &StepContext) -> Result<(), OpError> {
        let Some(pulled) = layer.pulled.get() else { return Ok(()) };
        let key = Digest::of([b"unpack\n", &layer.id.as_bytes()[..]].concat());
        let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
        self.fetch(layer, pulled, step).await?;
        let packed = PackedLayer { diff_id: pulled.diff_id, descriptor: pulled.descriptor.clone() };
        self.store.write(&self.pulled_rows(layer, &packed)?)?;
        Ok(())
    }

    /// The overlay directories of a root, base first.
    pub(crate) async fn dirs_of(
        self: &Arc<Self>,
        root: &Root,
        step: &StepContext,
    ) -> Result<Vec<PathBuf>, OpError> {
        let dirs = root.layers.iter().map(|layer| self.dir_of(layer, step));
        let dirs = futures_util::future::try_join_all(dirs).await?;
        let places = self.fitted(root, dirs.into_iter().map(Place::Dir).collect(), step).await?;
        let dirs = places.into_iter().map(Place::dir).collect::<Result<Vec<_>, OpError>>()?;
        self.mountable(&root.layers, dirs, step).await
    }

    /// The files of a root. Layers that are recipes are looked at as they are; all others become directories.
    pub async fn view(
        self: &Arc<Self>,
        root: Option<&Root>,
        step: &StepContext,
    ) -> Result<Arc<ChainView>, OpError> {
        let Some(root) = root else { return Ok(Arc::new(ChainView::new(Vec::new()))) };
        let view = root.view.get_or_try_init(|| async {
            let places = root.layers.iter().map(|layer| self.place_of(layer, step));
            let places = futures_util::future::try_join_all(places).await?;
            let places = self.fitted(root, places, step).await?;
            let layers = places.into_iter().map(Place::open).collect::<Result<Vec<_>, OpError>>()?;
            Ok::<_, OpError>(Arc::new(ChainView::new(layers)))
        });
        view.await.cloned()
    }

    async fn place_of(self: &Arc<Self>, layer: &Arc<Layer>, step: &StepContext) -> Result<Place, OpError> {
        match &layer.recipe {
            Some(recipe) => Ok(Place::Recipe(Arc::clone(recipe))),
            None => Ok(Place::Dir(self.dir_of(layer, step).await?)),
        }
    }

    /// The entries of the root's topmost layer.
    async fn entries_of_top(self: &Arc<Self>, root: &Root, step: &StepContext) -> Result<Entries, OpError> {
        let layer = root.layers.last().expect("asked of roots with a layer");
        if let Some(recipe) = &layer.recipe {
            return Ok(Entries::Recipe(Arc::clone(recipe)));
        }
        let dir = self.dir_of(layer, step).await?;
        let written = self.store.layer(&layer.id)?.is_some_and(|row| row.kind == LayerKind::Written);
        // A directory that was made from a recipe holds exactly the recipe's entries; what a RUN left is compared with
        // what was there before.
        let below = if written { None } else { Some(root.below_top()) };
        let lower = self.view(below.as_ref(), step).await?;
        blocking(move || -> Result<Entries, OpError> {
            let upper = DirLayer::open(dir)?;
            Ok(Entries::Diffed(rbuild_snapshot::diff_upper(&upper, &*lower)?))
        })
        .await
    }

    /// Packs the root's topmost layer, unless it is packed already. A base image's layer is taken as it is.
    pub async fn pack_top(self: &Arc<Self>, root: &Root, step: &StepContext) -> Result<PackedLayer, OpError> {
        let layer = root.layers.last().expect("asked of roots with a layer");
        if let Some(pulled) = layer.pulled.get() {
            let mut descriptor = pulled.descriptor.clone();
            descriptor.media_type = media_type::layer_to_oci(&descriptor.media_type).to_owned();
            return Ok(PackedLayer { diff_id: pulled.diff_id, descriptor });
        }
        let packed =
            layer.packed.get_or_try_init(|| self.pack_once(root, layer, self.settings.compression, step));
        packed.await.cloned()
    }

    /// Packs a layer with these settings unless the store has it so.
    pub(crate) async fn pack_once(
        self: &Arc<Self>,
        root: &Root,
        layer: &Arc<Layer>,
        compression: Compression,
        step: &StepContext,
    ) -> Result<PackedLayer, OpError> {
        let codec = compression.codec();
        if let Some(row) = self.store.packed(&layer.id, &codec, self.settings.epoch)? {
            return Ok(packed_layer(&row));
        }
        let _turn = self.packing.acquire().await.expect("the semaphore is never closed");
        // Another process may be at the same layer.
        let key = Digest::of([b"pack\n", &layer.id.as_bytes()[..]].concat());
        let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
        if let Some(row) = self.store.packed(&layer.id, &codec, self.settings.epoch)? {
            return Ok(packed_layer(&row));
        }
        let entries = self.entries_of_top(root, step).await?;
        let packed = self.pack(layer, entries, compression, step.cancel.clone()).await?;
        self.now_owned(layer)?;
        Ok(packed)
    }

    async fn pack(
        &self,
        layer: &Arc<Layer>,
        entries: Entries,
        compression: Compression,
        cancel: CancellationToken,
    ) -> Result<PackedLayer, OpError> {
        let (store, row, written) = (self.store.clone(), written_row(layer), layer.recipe.is_some());
        let options = PackOptions { compression, epoch: self.settings.epoch, ..PackOptions::default() };
        blocking(move || -> Result<PackedLayer, OpError> {
            let mut writer = store.ingest_unhashed()?;
            let entries = entries.as_slice().iter().map(|entry| match cancel.is_cancelled() {
                false => Ok(entry.clone()),
                true => Err(OpFailure::Canceled),
            });
            let packed = rbuild_layer::pack(entries, &options, &mut writer)?;
            writer.commit_as(packed.blob, packed.size)?;
            let form = Packed {
                layer: row.id,
                codec: options.compression.codec(),
                epoch: options.epoch,
                diff_id: packed.diff_id,
                blob: packed.blob,
                size: packed.size,
                tar_size: packed.tar_size,
                media_type: packed.media_type.to_owned(),
            };
            let result = packed_layer(&form);
            let batch = if written { Batch::new().layer(row) } else { Batch::new() };
            store.write(&batch.packed(form))?;
            Ok(result)
        })
        .await
    }

    /// The rows of a layer that came as a blob.
    fn pulled_rows(&self, layer: &Layer, packed: &PackedLayer) -> Result<Batch, OpError> {
        let mut row = store_row(layer, LayerKind::Pulled);
        if !layer.is_imported() {
            row.content_digest = Some(layer.id);
        }
        Ok(Batch::new().layer(row).packed(pulled_form(layer, packed, self.epoch_of(layer))))
    }
}

/// The entries of a layer.
enum Entries {
    Recipe(Arc<Recipe>),
    Diffed(Vec<LayerEntry>),
}

impl Entries {
    fn as_slice(&self) -> &[LayerEntry] {
        match self {
            Entries::Recipe(recipe) => recipe.entries(),
            Entries::Diffed(entries) => entries,
        }
    }
}

fn packed_layer(row: &Packed) -> PackedLayer {
    let media_type = media_type::layer_to_oci(&row.media_type).to_owned();
    PackedLayer { diff_id: row.diff_id, descriptor: Descriptor::new(media_type, row.blob, row.size) }
}

/// The row of a layer in the store.
fn store_row(layer: &Layer, kind: LayerKind) -> rbuild_store::Layer {
    let (created, created_nanos) = layer.created.map_or((0, 0), since_epoch);
    let content_digest = layer.content.get().copied();
    rbuild_store::Layer {
        id: layer.id,
        kind,
        content_digest,
        created,
        created_nanos,
        bytes: 0,
        has_dir: false,
    }
}

fn written_row(layer: &Layer) -> rbuild_store::Layer {
    store_row(layer, LayerKind::Written)
}

/// What the store is told of a registry's own blob.
fn pulled_form(layer: &Layer, packed: &PackedLayer, epoch: Option<i64>) -> Packed {
    Packed {
        layer: layer.id,
        codec: PULLED.to_owned(),
        epoch,
        diff_id: packed.diff_id,
        blob: packed.descriptor.digest,
        size: packed.descriptor.size,
        tar_size: 0,
        media_type: packed.descriptor.media_type.clone(),
    }
}
