//! `RUN --mount`: CSV fields → [`MountSpec`].

use thiserror::Error;

/// Kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MountType {
    /// Part of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret's file or variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Everyone, one directory.
    Shared,
    /// Everyone, own copies.
    Private,
    /// One after the other.
    Locked,
}

/// One `--mount` as it was written, with variables expanded and `read_only` decided. Empty strings and `None`
/// mean "not written": targets and ids that derive from others are the lowering's business (features A10).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountSpec {
    /// `type`
    pub kind: MountType,
    /// `from`: stage, image or named context.
    pub from: String,
    /// `source`, `src`
    pub source: String,
    /// `target`, `dst`, `destination`
    pub target: String,
    /// bind, secret and ssh: true unless written otherwise; cache and tmpfs: false unless written otherwise.
    pub read_only: bool,
    /// `size` of a tmpfs in bytes; 0 when not written.
    pub size_limit: i64,
    /// `id`
    pub id: String,
    /// `sharing`
    pub sharing: Option<Sharing>,
    /// `required`
    pub required: bool,
    /// `env`
    pub env: Option<String>,
    /// `mode`, permission bits
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Why a `--mount` is refused. The text is BuildKit's, with its "did you mean".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct MountError(pub String);

impl MountSpec {
    /// Reads a mount once variables are known. `expand` turns a raw value into an expanded one, or gives the
    /// message of the expansion's error.
    pub fn parse(
        value: &str,
        mut expand: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<MountSpec, MountError> {
        let _ = (value, &mut expand);
        Err(MountError("not read yet".into()))
    }

    /// The part of the check that needs no variables: CSV syntax and `from` without variables. Parsing a
    /// Dockerfile does this by itself.
    pub fn check(value: &str) -> Result<(), MountError> {
        let _ = value;
        Ok(())
    }
}
