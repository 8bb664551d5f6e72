//! Reading caches: their metadata once, all at the same time; their blobs when somebody needs them.

use crate::backend::{Backend, read};
use crate::contents::{Contents, RemoteLayer, RemoteRecord};
use crate::documents::{CONFIG_MEDIA_TYPE, MAX_CONFIG, parse_config};
use crate::error::CacheError;
use crate::inline::parse_inline;
use rbuild_event::{Event, Reporter};
use rbuild_oci::{Descriptor, Digest, Index, Manifest, Platform, RootFs, best_match, media_type};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;

/// How long the metadata of a cache may take: a build must not wait for a dead registry as a pull does.
const METADATA_TIMEOUT: Duration = Duration::from_secs(20);

/// A record that an imported cache has.
#[derive(Debug, Clone)]
pub struct Cached<'a> {
    /// The cache's name.
    pub cache: &'a str,
    /// `registry/path` of the cache's blobs, if it is in a registry.
    pub repository: Option<String>,
    /// The record.
    pub record: &'a RemoteRecord,
    /// Its layers, the base first.
    pub layers: Vec<&'a RemoteLayer>,
}

/// A cache that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportFailure {
    /// The cache's name.
    pub cache: String,
    /// Why, in one line.
    pub message: String,
    /// Whether nobody answered: what is missing in the cache is not known then.
    pub unreachable: bool,
}

/// One cache that was read.
struct Loaded {
    backend: Arc<dyn Backend>,
    contents: Contents,
    by_key: HashMap<Digest, usize>,
    by_operation: HashMap<Digest, Vec<usize>>,
    blobs: HashSet<Digest>,
}

/// The caches of `--cache-from`. Nothing is read before [`Importer::load`].
pub struct Importer {
    backends: Vec<Arc<dyn Backend>>,
    platforms: Vec<Platform>,
    reporter: Reporter,
    loaded: OnceCell<Vec<Loaded>>,
    failures: Mutex<Vec<ImportFailure>>,
    on_failure: Option<OnFailure>,
}

/// Told of every cache that is there, or may be, and could not be read.
pub type OnFailure = Box<dyn Fn(&ImportFailure) + Send + Sync>;

impl Importer {
    /// An importer of these caches, which are asked in this order. Of an index of images, those of `platforms` are read.
    pub fn new(backends: Vec<Arc<dyn Backend>>, platforms: Vec<Platform>, reporter: Reporter) -> Self {
        let (loaded, failures) = (OnceCell::new(), Mutex::default());
        Self { backends, platforms, reporter, loaded, failures, on_failure: None }
    }

    /// Tells `told` of every cache that is there, or may be, and could not be read.
    #[must_use]
    pub fn on_failure(self, told: OnFailure) -> Self {
        Self { on_failure: Some(told), ..self }
    }

    /// Whether there is nothing to import.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Reads the metadata of all caches; later calls wait for the first. A cache that cannot be read is warned of, once.
    pub async fn load(&self) {
        let load = || async {
            let all = self.backends.iter().map(|backend| self.load_reported(backend));
            futures_util::future::join_all(all).await.into_iter().flatten().collect()
        };
        self.loaded.get_or_init(load).await;
    }

    /// The caches that could not be read so far.
    pub fn failures(&self) -> Vec<ImportFailure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn load_reported(&self, backend: &Arc<dyn Backend>) -> Vec<Loaded> {
        let vertex = self.reporter.declare(format!("importing cache manifest from {}", backend.name()));
        self.reporter.report(Event::Started { vertex, at: SystemTime::now() });
        let loaded = match tokio::time::timeout(METADATA_TIMEOUT, load(&**backend, &self.platforms)).await {
            Ok(loaded) => loaded,
            Err(_) => {
                let seconds = METADATA_TIMEOUT.as_secs();
                Err(CacheError::Slow { seconds })
            }
        };
        let contents = match loaded {
            Ok(contents) if contents.is_empty() => {
                let text = "nothing of it was written by rbuild: its records are not used".to_owned();
                self.reporter.report(Event::Note { vertex, text });
                contents
            }
            Ok(contents) => contents,
            Err(error) => {
                self.failed(backend.name(), &error);
                Vec::new()
            }
        };
        self.reporter.report(Event::Completed { vertex, at: SystemTime::now() });
        contents.into_iter().map(|contents| Loaded::new(Arc::clone(backend), contents)).collect()
    }

    fn failed(&self, cache: &str, error: &CacheError) {
        let message = error.to_string();
        let text = format!("importing cache from {cache}: {message}; the build goes on without it");
        self.reporter.report(Event::Warning { text });
        let failure = ImportFailure { cache: cache.to_owned(), message, unreachable: error.is_unreachable() };
        if let Some(told) = self.on_failure.as_ref().filter(|_| !error.is_not_found()) {
            told(&failure);
        }
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }

    fn caches(&self) -> &[Loaded] {
        self.loaded.get().map_or(&[], Vec::as_slice)
    }

    /// The records of a key, that of the first cache first. Nothing before [`Importer::load`] is through.
    pub fn records(&self, key: &Digest) -> impl Iterator<Item = Cached<'_>> {
        let key = *key;
        self.caches().iter().filter_map(move |cache| Some(cache.cached(*cache.by_key.get(&key)?)))
    }

    /// The records of an operation on whatever inputs.
    pub fn records_of_operation(&self, operation: &Digest) -> impl Iterator<Item = Cached<'_>> {
        let operation = *operation;
        self.caches().iter().flat_map(move |cache| {
            let places = cache.by_operation.get(&operation).map_or(&[][..], Vec::as_slice);
            places.iter().map(|place| cache.cached(*place))
        })
    }

    /// Caches that should have a blob.
    pub fn sources(&self, blob: &Digest) -> Vec<Arc<dyn Backend>> {
        let having = self.caches().iter().filter(|cache| cache.blobs.contains(blob));
        having.map(|cache| Arc::clone(&cache.backend)).collect()
    }
}

impl Loaded {
    fn new(backend: Arc<dyn Backend>, contents: Contents) -> Self {
        let mut by_operation: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (place, record) in contents.records.iter().enumerate() {
            by_operation.entry(record.operation).or_default().push(place);
        }
        let by_key = contents.records.iter().enumerate().map(|(place, record)| (record.key, place)).collect();
        let blobs = contents.layers.iter().filter_map(|layer| Some(layer.blob.as_ref()?.digest)).collect();
        Self { backend, contents, by_key, by_operation, blobs }
    }

    fn cached(&self, place: usize) -> Cached<'_> {
        let record = &self.contents.records[place];
        let layers = record.chain.iter().map(|place| &self.contents.layers[*place]).collect();
        Cached { cache: self.backend.name(), repository: self.backend.repository(), record, layers }
    }
}

/// What an image config says about its inline cache.
#[derive(Deserialize)]
struct ImageConfigPart {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(rename = "moby.buildkit.cache.v0", default)]
    inline: Option<String>,
}

/// What one cache says; nothing if there is nothing in it for us.
async fn load(backend: &dyn Backend, platforms: &[Platform]) -> Result<Vec<Contents>, CacheError> {
    let Some((descriptor, bytes)) = backend.manifest().await? else {
        return Err(CacheError::NotFound);
    };
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(of_manifest(backend, &bytes).await?.into_iter().collect());
    }
    let index: Index = parse(&bytes)?;
    if let Some(config) = index.manifests.iter().find(|entry| entry.media_type == CONFIG_MEDIA_TYPE) {
        return Ok(cache_config(backend, config).await?.into_iter().collect());
    }
    let chosen: BTreeSet<usize> =
        platforms.iter().filter_map(|platform| best_match(&index.manifests, platform)).collect();
    if chosen.is_empty() {
        let wanted: Vec<String> = platforms.iter().map(Platform::to_string).collect();
        return Err(CacheError::Damaged(format!("it has nothing for {}", wanted.join(", "))));
    }
    let mut all = Vec::new();
    for place in chosen {
        let manifest = backend.manifest_by_digest(&index.manifests[place]).await?;
        all.extend(of_manifest(backend, &manifest).await?);
    }
    Ok(all)
}

/// What a cache's manifest says, or an image's.
async fn of_manifest(backend: &dyn Backend, manifest: &[u8]) -> Result<Option<Contents>, CacheError> {
    let damaged = |reason: String| CacheError::Damaged(reason);
    let manifest: Manifest = parse(manifest)?;
    if manifest.config.media_type == CONFIG_MEDIA_TYPE {
        return cache_config(backend, &manifest.config).await;
    }
    if !matches!(&*manifest.config.media_type, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        let kind = &manifest.config.media_type;
        return Err(damaged(format!("it is neither a cache nor an image: its config is `{kind}`")));
    }
    let config = read(backend, &manifest.config, MAX_CONFIG).await?;
    let config: ImageConfigPart = parse(&config)?;
    let Some(inline) = config.inline else { return Ok(None) };
    parse_inline(&inline, &manifest.layers, &config.rootfs.diff_ids).map_err(damaged)
}

async fn cache_config(backend: &dyn Backend, config: &Descriptor) -> Result<Option<Contents>, CacheError> {
    let bytes = read(backend, config, MAX_CONFIG).await?;
    parse_config(&bytes).map_err(CacheError::Damaged)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CacheError> {
    serde_json::from_slice(bytes).map_err(|error| CacheError::Damaged(format!("damaged document: {error}")))
}
