//! The canonical description of one step (`spec.json`, DESIGN 5b).

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Cgroup, RuntimeError};

/// Docker's fourteen default capabilities.
pub const DEFAULT_CAPABILITIES: u64 = 0x0000_0000_a804_25fb;

/// `PATH` of a step whose environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of `/dev/shm` when the build does not say otherwise: 64 MiB, as Docker's.
pub(crate) const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Everything that decides what one step sees and may do. Host paths are absolute and UTF-8.
///
/// Secrets are named by mounts and never contained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Directories that make the root filesystem, base first. Directories that appear twice keep their topmost
    /// place. Empty for a step that starts from nothing: then `upper` itself is the root.
    pub lower: Vec<PathBuf>,
    /// Directory that takes the step's changes; after the step it is the layer.
    pub upper: PathBuf,
    /// Empty directory on the filesystem of `upper`, used by overlayfs; to be deleted after the step, never
    /// used again.
    pub work: PathBuf,
    /// The program and its arguments. A program without `/` is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// A program in the root that executes the one of `args`, which is for another kind of machine: it is given the
    /// program's path and arguments, as QEMU's user-mode emulators want them.
    #[serde(default)]
    pub emulator: Option<String>,
    /// Environment, in order; of a name that appears twice the last one counts. `PATH` and `HOME` are added when absent,
    /// `HOME` also when empty.
    pub env: Vec<(String, String)>,
    /// Further variables, after `env`, whose values are secrets: their places among those given to
    /// [`Launcher::spawn_with_secrets`](crate::Launcher::spawn_with_secrets).
    #[serde(default)]
    pub secret_env: Vec<(String, usize)>,
    /// Working directory, absolute inside the root; created 0755 when missing, for the step's user where no mount covers it.
    pub cwd: String,
    /// As `USER` is written: name or id, optionally `:group`. Empty is root. Resolved in the root's own files.
    pub user: String,
    /// Host name inside the step.
    pub hostname: String,
    /// Which network the step sees.
    pub network: Network,
    /// Further mounts, applied in this order.
    pub mounts: Vec<MountSpec>,
    /// Content of `/etc/hosts`, mounted read-only for the step and never part of the layer.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`, mounted read-only for the step and never part of the layer.
    pub resolv_conf: String,
    /// Capabilities of the step as the bit set of `capabilities(7)`; those the builder lacks are left out.
    pub capabilities: u64,
    /// RUN --security=insecure: every capability that the builder has, also for users other than root; nothing of
    /// `/proc` and `/sys` is hidden or read-only, the machine's cgroups are there, devices work, and the usual ones of
    /// virtual machines, FUSE and loop devices are in `/dev`. `capabilities` is not looked at.
    #[serde(default)]
    pub privileged: bool,
    /// Further nodes of `/dev`, which work whatever the privileges.
    #[serde(default)]
    pub devices: Vec<DeviceNode>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits to set; all others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// The step's own cgroup; without one it runs in the builder's.
    #[serde(default)]
    pub cgroup: Option<Cgroup>,
    /// Kill the step after so many milliseconds.
    pub deadline_ms: Option<u64>,
    /// User namespace of the step.
    pub userns: UserNamespace,
    /// System call filter of the step; a privileged one has none.
    pub seccomp: Seccomp,
}

impl Spec {
    /// A step with BuildKit's defaults: root, `/`, the host's network, Docker's capabilities, umask 022.
    pub fn new(lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf, args: Vec<String>) -> Self {
        Spec {
            lower,
            upper,
            work,
            args,
            emulator: None,
            env: Vec::new(),
            secret_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: "buildkitsandbox".to_owned(),
            network: Network::Host,
            mounts: Vec::new(),
            hosts: String::new(),
            resolv_conf: String::new(),
            capabilities: DEFAULT_CAPABILITIES,
            privileged: false,
            devices: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            umask: 0o022,
            rlimits: Vec::new(),
            cgroup: None,
            deadline_ms: None,
            userns: UserNamespace::None,
            seccomp: Seccomp::Docker,
        }
    }

    /// Checks what can be checked without touching a file.
    pub(crate) fn validate(&self) -> Result<(), RuntimeError> {
        if self.args.is_empty() {
            return Err(RuntimeError::invalid("args", "arguments are required"));
        }
        let strings = self.args.iter().chain(self.env.iter().flat_map(|(k, v)| [k, v]));
        if strings.chain([&self.cwd, &self.user, &self.hostname]).any(|s| s.contains('\0')) {
            return Err(RuntimeError::invalid(
                "args",
                "arguments, environment and paths must not contain NUL",
            ));
        }
        let mut names = self.env.iter().map(|(k, _)| k).chain(self.secret_env.iter().map(|(k, _)| k));
        if let Some(name) = names.find(|k| k.is_empty() || k.contains(['=', '\0'])) {
            return Err(RuntimeError::invalid("env", format!("`{name}` cannot be the name of a variable")));
        }
        if !self.cwd.starts_with('/') {
            return Err(RuntimeError::invalid("cwd", format!("`{}` is not absolute", self.cwd)));
        }
        let host = self.lower.iter().chain([&self.upper, &self.work]);
        let sources = self.mounts.iter().flat_map(MountSpec::host_paths);
        for path in host.chain(sources) {
            check_host_path(path)?;
        }
        self.devices.iter().try_for_each(DeviceNode::check)?;
        self.mounts.iter().try_for_each(|m| check_target(&m.target))
    }
}

/// A device of the machine, as a node below `/dev`. There is no device cgroup: whoever may open it may do with it what its
/// mode lets them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path inside the step below `/dev`, such as `/dev/dri/card0`, without `.`, `..` and `//`; missing directories are
    /// made. A node that `/dev` has already is replaced.
    pub path: String,
    /// Whether it is a block device, else a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl DeviceNode {
    /// Names of `/dev` that are links or filesystems of their own.
    const TAKEN: [&str; 8] = ["fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm", "mqueue"];

    /// The path below `/dev`.
    pub(crate) fn name(&self) -> &str {
        self.path.strip_prefix("/dev/").unwrap_or_default()
    }

    fn check(&self) -> Result<(), RuntimeError> {
        let name = self.name();
        let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        let taken = name.split('/').next().is_some_and(|first| Self::TAKEN.contains(&first));
        if taken || name.split('/').any(bad) {
            let problem = format!("a device node cannot be made at {:?}: it has to be below /dev", self.path);
            return Err(RuntimeError::invalid("devices", problem));
        }
        Ok(())
    }
}

fn check_host_path(path: &Path) -> Result<(), RuntimeError> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(RuntimeError::invalid("path", format!("`{shown}` on the host is not absolute")));
    }
    if path.to_str().is_none_or(|s| s.contains('\0')) {
        return Err(RuntimeError::invalid("path", format!("`{shown}` is not UTF-8 without NUL")));
    }
    Ok(())
}

fn check_target(target: &str) -> Result<(), RuntimeError> {
    let named = Path::new(target).components().any(|c| matches!(c, Component::Normal(_)));
    if !target.starts_with('/') || !named || target.contains('\0') {
        return Err(RuntimeError::invalid("mounts", format!("invalid mount target {target:?}")));
    }
    Ok(())
}

/// Which network a step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The network of the machine.
    Host,
    /// A network namespace with nothing but a loopback interface that is up.
    None,
}

/// Identity mapping of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// The step's ids are the machine's ids.
    #[default]
    None,
}

/// System call filter of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Docker's default profile, as far as `capabilities` let it apply. Steps of hosts other than x86_64 and aarch64, and
    /// those where the kernel refuses ([`Outcome::unfiltered`](crate::Outcome::unfiltered)), have no filter.
    #[default]
    Docker,
    /// No filter.
    None,
}

/// One mount of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path inside the root. Symbolic links resolve inside the root; what is missing is created, and
    /// removed after the step when still empty.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Refuse writes.
    pub readonly: bool,
}

impl MountSpec {
    fn host_paths(&self) -> Vec<&PathBuf> {
        match &self.kind {
            MountKind::Bind { source, .. } => vec![source],
            MountKind::Tmpfs { .. } | MountKind::File { .. } => Vec::new(),
            MountKind::Overlay { lower, scratch, .. } => {
                lower.iter().chain(scratch.iter().flat_map(|s| [&s.upper, &s.work])).collect()
            }
        }
    }
}

/// What a [`MountSpec`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Trusted path on the host.
        source: PathBuf,
        /// Path below `source`, resolved inside it; empty for `source` itself.
        subpath: String,
    },
    /// An empty tmpfs.
    Tmpfs {
        /// Limit in bytes; `None` is the kernel's default of half the memory.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A chain of layers, as the root's: a stage as mount source, or a writable mount whose writes are discarded.
    Overlay {
        /// Directories, base first; at least one.
        lower: Vec<PathBuf>,
        /// Where writes go; `None` makes the mount read-only.
        scratch: Option<Scratch>,
        /// Path below the chain's root, resolved inside it; empty for the root itself.
        subpath: String,
    },
    /// A file that exists in memory for this step only. Always read-only, nosuid and nodev.
    File {
        /// Its bytes.
        content: FileContent,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Whether it may be executed, as far as `mode` lets it.
        executable: bool,
    },
}

/// The bytes of a [`MountKind::File`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileContent {
    /// These.
    Text(String),
    /// Those of a secret: its place among those given to
    /// [`Launcher::spawn_with_secrets`](crate::Launcher::spawn_with_secrets).
    Secret(usize),
}

/// The writable side of an overlay mount; both directories are empty and on one filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// Takes the changes.
    pub upper: PathBuf,
    /// For overlayfs' own use.
    pub work: PathBuf,
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Name as in `--ulimit`: `nofile`, `nproc`, `core`, …
    pub resource: String,
    /// Soft limit; `None` is unlimited. Lowered to the hard limit when above it.
    pub soft: Option<u64>,
    /// Hard limit; `None` is unlimited. Lowered to the builder's own hard limit when above it and the builder may not raise it.
    pub hard: Option<u64>,
}

#[cfg(test)]
mod tests;
