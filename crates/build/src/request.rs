//! What a build is asked to do, resolved: nothing here looks at the environment or the terminal.

use crate::cache::{CacheExport, CacheImport, MountsExport, MountsImport};
use rbuild_context::Modes;
use rbuild_ir::{NetworkMode, RemoteUrl};
use rbuild_layer::Compression;
use rbuild_oci::{Digest, Platform, Reference};
use rbuild_op::Confidential;
use rbuild_runtime::Cgroup;
use rbuild_solver::NoCache;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The main build context.
    pub context: ContextSource,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// `--build-context`, by name.
    pub named_contexts: Vec<(String, NamedContext)>,
    /// `-t`; each with a tag.
    pub tags: Vec<Reference>,
    /// `--build-arg` with a value, in order; the environment is already looked up.
    pub build_args: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--target`.
    pub target: Option<String>,
    /// `--platform`: each once, in the order of the result. Without any, the build platform is built for, and the image has
    /// its base's.
    pub platforms: Vec<Platform>,
    /// Whether the result is an index of images also for one platform (`BUILDKIT_MULTI_PLATFORM`); it is for several.
    pub index: bool,
    /// `--no-cache`, `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--pull`: ask the registry for base images even if the store has them.
    pub pull: bool,
    /// `--offline`: make no request.
    pub offline: bool,
    /// `--locked`: whatever moves must be in the lock file.
    pub locked: bool,
    /// `--lock-file`; by default it is looked for beside the Dockerfile.
    pub lock_file: Option<PathBuf>,
    /// `--max-resolution-age`: how old an answer about a tag, URL or branch may be.
    pub max_resolution_age: Duration,
    /// `--push`: push every tag.
    pub push: bool,
    /// `-o`.
    pub outputs: Vec<Output>,
    /// `--network`, the default of every RUN.
    pub network: NetworkMode,
    /// `--add-host`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// `--ulimit`, `name=soft:hard`.
    pub ulimits: Vec<String>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--cgroup-parent`, `--resource`: the cgroup of every RUN.
    pub cgroup: Option<Cgroup>,
    /// `--allow`.
    pub entitlements: BTreeSet<Entitlement>,
    /// `--secret` and `--ssh`; the values are already read.
    pub confidential: Confidential,
    /// `--max-parallelism`.
    pub max_parallelism: Option<usize>,
    /// Whether digests of unchanged context files may come from the stat cache.
    pub stat_cache: bool,
    /// Which modes the files of directories, archives and checkouts that are contexts have.
    pub context_modes: Modes,
    /// How new layers are packed.
    pub compression: Compression,
    /// `--cache-from`.
    pub cache_from: Vec<CacheImport>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheExport>,
    /// `--cache-export-budget`: time that exporting caches may take after everything else; `None` is no limit.
    pub cache_export_budget: Option<Duration>,
    /// `--cache-mounts-from`.
    pub cache_mounts_from: Vec<MountsImport>,
    /// `--cache-mounts-to`.
    pub cache_mounts_to: Vec<MountsExport>,
    /// `--load`: a pushed image is kept in the store even if layers have to be downloaded only for that.
    pub load: bool,
    /// Whether SOURCE_DATE_EPOCH also clamps file times in new layers (`rewrite-timestamp`).
    pub rewrite_timestamp: bool,
}

impl BuildRequest {
    /// Whether the result is an index of images, and not an image (B-024, B-025).
    pub fn makes_index(&self) -> bool {
        self.index || self.platforms.len() > 1
    }
}

/// The main build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// A tar archive, possibly compressed, in a file that belongs to this build.
    Archive(PathBuf),
    /// No files: the Dockerfile came alone.
    Empty,
    /// A git repository, an archive behind a URL, or a Dockerfile behind a URL (D-003).
    Remote(RemoteUrl),
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` (or `dockerfile`) in the context.
    Default,
    /// A path relative to the working directory, or inside an archive or a fetched context.
    Path(PathBuf),
    /// A file behind a URL (D-002).
    Url(RemoteUrl),
    /// The text itself, with a name for messages.
    Text {
        /// e.g. `<stdin>`.
        name: String,
        /// Its bytes.
        text: Vec<u8>,
    },
}

/// The value of a `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// `oci-layout://dir[:tag|@digest]`.
    OciLayout {
        /// The layout.
        dir: PathBuf,
        /// Which image of it; the only one, or `latest`, if not given.
        image: Option<LayoutImage>,
    },
    /// `docker-image://reference`.
    Image(Reference),
    /// A git repository, or a file behind a URL.
    Remote(RemoteUrl),
}

/// An image of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutImage {
    /// By `org.opencontainers.image.ref.name`.
    Tag(String),
    /// By digest.
    Digest(Digest),
}

/// What to do with the result besides keeping it in the store under its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An OCI layout, as a tar or (`tar=false`, or an existing directory) a directory.
    Oci {
        /// Where.
        dest: Destination,
        /// Whether as a tar archive.
        tar: bool,
        /// Names it has there beside the tags.
        names: Vec<Reference>,
    },
    /// An archive for `docker load`.
    Docker {
        /// Where; `None` is the store.
        dest: Option<Destination>,
        /// Names it has there beside the tags.
        names: Vec<Reference>,
    },
    /// The root filesystem in a directory.
    Local {
        /// The directory.
        dir: PathBuf,
        /// Whether each platform has a directory of its own in it (`platform-split`); by default if an index is made.
        split: Option<bool>,
    },
    /// The root filesystem as a tar.
    Tar {
        /// Where.
        dest: Destination,
        /// As for [`Output::Local`].
        split: Option<bool>,
    },
    /// Into the store and, if `push`, to the registry, under these names in place of the tags if there are any.
    Image {
        /// Names.
        names: Vec<Reference>,
        /// Whether to push.
        push: bool,
    },
    /// Keep nothing but the cache.
    CacheOnly,
}

/// Where a stream of bytes goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file or directory, written completely or not at all.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// Permissions that a user grants a build (`--allow`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// RUN --network=host.
    NetworkHost,
    /// RUN --security=insecure.
    SecurityInsecure,
    /// RUN --device: of any device, or of those that a name stands for.
    Device(Option<String>),
}
