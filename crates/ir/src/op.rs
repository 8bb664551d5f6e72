//! One type per operation. Field order is part of the canonical encoding; `#[serde(skip)]` fields are not in the key.

use crate::{GitOp, HttpOp, Source};
use rbuild_oci::{Digest, Platform};
use serde::Serialize;

/// An operation.
#[expect(clippy::large_enum_variant, reason = "one per vertex; a box would gain nothing")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// The root filesystem of an image. No parent, no inputs.
    Image(ImageOp),
    /// Runs a process in the parent's root.
    Exec(ExecOp),
    /// Writes files into the parent's root.
    Copy(CopyOp),
    /// Creates a directory and its parents in the parent's root.
    Mkdir(MkdirOp),
    /// A file behind a URL. No parent, no inputs.
    Http(HttpOp),
    /// A tree of a git repository. No parent, no inputs.
    Git(GitOp),
}

/// FROM an image, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageOp {
    /// Digest of the image's manifest (C-009: the key is digest + platform, not the name).
    pub manifest: Digest,
    /// Platform it was chosen for.
    pub platform: Platform,
    /// Name as asked for (`docker.io/library/debian:12`, or `oci-layout://…` of a named context).
    #[serde(skip)]
    pub reference: String,
}

/// Network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The builder's choice.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's network namespace; needs an entitlement.
    Host,
}

/// Privileges of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// Privileged; needs an entitlement.
    Insecure,
}

/// RUN (C-014).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecOp {
    /// argv, the shell included.
    pub args: Vec<String>,
    /// Environment in order: image Env with declared ARGs on top, PATH default included.
    pub env: Vec<(String, String)>,
    /// Absolute working directory; created when missing.
    pub cwd: String,
    /// As written in USER; empty is root.
    pub user: String,
    /// Hostname; `None` is the default name.
    pub hostname: Option<String>,
    /// Network mode.
    pub network: NetworkMode,
    /// Security mode.
    pub security: SecurityMode,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Devices of the machine, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Heredoc scripts made available below `/dev/pipes/` (name, content), A-123.
    pub pipes: Vec<(String, String)>,
    /// Names given by --add-host (addresses are not in the key).
    pub extra_host_names: Vec<String>,
    /// `name=soft:hard`, sorted.
    pub ulimits: Vec<String>,
    /// Platform of the stage.
    pub platform: Platform,
    /// Undeclared proxy variables: given to the process, not in the key.
    #[serde(skip)]
    pub proxy_env: Vec<(String, String)>,
    /// Lines for /etc/hosts: (name, address).
    #[serde(skip)]
    pub extra_hosts: Vec<(String, String)>,
}

/// One `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// `vendor/class`, `vendor/class=name` or `vendor/class=*`, as written.
    pub name: String,
    /// Whether a machine without such a device cannot run the step.
    pub required: bool,
}

/// One `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Absolute target; empty for a secret that is a variable only.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether writes are refused.
    pub readonly: bool,
}

/// Sharing of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are BuildKit's")]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// Kinds of mounts (A10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(missing_docs, reason = "fields are the options of features.md A-083 to A-089")]
pub enum MountKind {
    /// `from` is `None` for the main context, else a source.
    Bind {
        from: Source,
        source: String,
    },
    Cache {
        id: String,
        sharing: Sharing,
        mode: u32,
        uid: u32,
        gid: u32,
        /// Whether mode, uid or gid were given for the whole of it: BuildKit then begins with an empty directory on top of
        /// `from`, apart from those for which none was given.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        owned: bool,
        from: Option<Source>,
        source: String,
    },
    Tmpfs {
        size: Option<u64>,
    },
    Secret {
        id: String,
        env: Option<String>,
        file: bool,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Ssh {
        id: String,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyOp {
    /// Copied in order.
    pub sources: Vec<CopySource>,
    /// Absolute and clean destination; a trailing `/` says that it has to be a directory.
    pub dest: String,
    /// `--chown` after expansion, as written.
    pub chown: Option<String>,
    /// `--chmod` after expansion: octal or symbolic.
    pub chmod: Option<String>,
    /// `--link`: an own layer that never reads the parent.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// What happens to archives.
    pub unpack: Unpack,
    /// ADD rather than COPY (error texts only differ, so it is not in the key).
    #[serde(skip)]
    pub is_add: bool,
}

/// Whether archives are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// COPY, `ADD --unpack=false`.
    Never,
    /// ADD: a file of a build context when it is a tar; never what was fetched.
    Auto,
    /// `ADD --unpack`: whatever is a tar.
    Always,
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CopySource {
    /// A path or wildcard in a tree.
    Path {
        /// Which tree.
        from: Source,
        /// Cleaned, starting with `/`; keeps `/./` pivots under --parents.
        path: String,
    },
    /// A heredoc: a file with this content, mode 0644.
    Inline {
        /// File name.
        name: String,
        /// Content.
        data: String,
        /// The content where it is no UTF-8, which `data` cannot hold.
        #[serde(skip_serializing_if = "Option::is_none")]
        raw: Option<Vec<u8>>,
    },
}

/// WORKDIR's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MkdirOp {
    /// Absolute.
    pub path: String,
    /// USER at that point, owner of what is created; empty is root.
    pub user: String,
    /// SOURCE_DATE_EPOCH, which WORKDIR writes as the new directories' time.
    pub epoch: Option<i64>,
}
