//! `RUN --mount`: CSV fields → [`MountSpec`].

use thiserror::Error;

use crate::csv;
use crate::dump::go_quote;
use crate::number::{parse_bool, parse_u32, ram_in_bytes};
use crate::suggest::with_suggestion;

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

impl MountError {
    /// What to do about it, if more can be said than the message does.
    pub(crate) fn remedy(&self) -> Option<String> {
        let names = |names: &[&str]| names.join(", ");
        let MountError(message) = self;
        if message.starts_with("unsupported mount type") {
            return Some(format!("the types are {}", names(&MountType::ALL.map(|(name, _)| name))));
        }
        if message.starts_with("unsupported sharing value") {
            return Some(format!(
                "write sharing= with one of {}",
                names(&Sharing::ALL.map(|(name, _)| name))
            ));
        }
        if message.starts_with("unexpected key") && !message.contains("for mount type") {
            return Some(format!("the keys are {}", names(&KEYS)));
        }
        message
            .contains("must be a key=value pair")
            .then(|| "write --mount=type=…,target=… without blanks, fields separated by commas".to_owned())
    }
}

impl MountType {
    const ALL: [(&'static str, MountType); 5] = [
        ("bind", MountType::Bind),
        ("cache", MountType::Cache),
        ("tmpfs", MountType::Tmpfs),
        ("secret", MountType::Secret),
        ("ssh", MountType::Ssh),
    ];

    /// The name in `type=`.
    pub fn as_str(self) -> &'static str {
        match self {
            MountType::Bind => "bind",
            MountType::Cache => "cache",
            MountType::Tmpfs => "tmpfs",
            MountType::Secret => "secret",
            MountType::Ssh => "ssh",
        }
    }
}

impl Sharing {
    const ALL: [(&'static str, Sharing); 3] =
        [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

    /// The name in `sharing=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Sharing::Shared => "shared",
            Sharing::Private => "private",
            Sharing::Locked => "locked",
        }
    }
}

/// What may stand before `=`, in the order of suggestions.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "ro",
    "rw",
    "readwrite",
    "size",
    "env",
    "destination",
];

impl MountSpec {
    /// Reads a mount once variables are known. `expand` turns a raw value into an expanded one, or gives the
    /// message of the expansion's error.
    pub fn parse(
        value: &str,
        mut expand: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<MountSpec, MountError> {
        let mut spec = MountSpec::default();
        let mut read_only = None;
        for field in fields(value)? {
            match field.split_once('=') {
                None => spec.bare(&field, &mut read_only)?,
                Some((key, raw)) => {
                    let value = expand(raw).map_err(MountError)?;
                    spec.pair(&key.to_lowercase(), &value, &field, &mut read_only)?;
                }
            }
        }
        spec.read_only = read_only.unwrap_or(!matches!(spec.kind, MountType::Cache | MountType::Tmpfs));
        spec.validate()?;
        Ok(spec)
    }

    /// BuildKit's check before variables are known: CSV syntax and `from` without variables.
    pub fn check(value: &str) -> Result<(), MountError> {
        for field in fields(value)? {
            let Some((key, value)) = field.split_once('=') else { continue };
            if key.eq_ignore_ascii_case("from") {
                Self::check_from(value)?;
            }
        }
        Ok(())
    }

    /// The part of [`MountSpec::check`] that looks at the value of `from`.
    pub(crate) fn check_from(value: &str) -> Result<(), MountError> {
        match value.find('$').is_some_and(|at| at + 1 < value.len()) {
            true => fail("'from' doesn't support variable expansion, define alias stage instead"),
            false => Ok(()),
        }
    }

    /// The part of [`MountSpec::check`] that is done while parsing a Dockerfile: CSV syntax. Variables of `from` are
    /// looked at when the ARGs in scope are known, because some of them are put in (see `scope.rs`).
    pub(crate) fn check_syntax(value: &str) -> Result<(), MountError> {
        fields(value).map(|_| ())
    }

    /// A key without a value.
    fn bare(&mut self, field: &str, read_only: &mut Option<bool>) -> Result<(), MountError> {
        let key = field.to_lowercase();
        match key.as_str() {
            "readonly" | "ro" => *read_only = Some(true),
            "readwrite" | "rw" => *read_only = Some(false),
            "required" => {
                self.only_for(&key, matches!(self.kind, MountType::Secret | MountType::Ssh))?;
                self.required = true;
            }
            _ => return fail(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn pair(
        &mut self,
        key: &str,
        value: &str,
        field: &str,
        read_only: &mut Option<bool>,
    ) -> Result<(), MountError> {
        let boolean =
            || parse_bool(value).ok_or_else(|| MountError(format!("invalid value for {key}: {value}")));
        let number = |radix| {
            parse_u32(value, radix).ok_or_else(|| MountError(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => self.kind = one_of(&MountType::ALL, value, "unsupported mount type")?,
            "from" => self.from = value.to_owned(),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "readonly" | "ro" => *read_only = Some(boolean()?),
            "readwrite" | "rw" => *read_only = Some(!boolean()?),
            "required" => {
                self.only_for(key, matches!(self.kind, MountType::Secret | MountType::Ssh))?;
                self.required = boolean()?;
            }
            "size" => {
                self.only_for(key, self.kind == MountType::Tmpfs)?;
                let size = ram_in_bytes(value);
                self.size_limit =
                    size.map_err(|_| MountError(format!("invalid value for {key}: {value}")))?;
            }
            "id" => self.id = value.to_owned(),
            "sharing" => self.sharing = Some(one_of(&Sharing::ALL, value, "unsupported sharing value")?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return fail(with_suggestion(message, key, KEYS, true));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, allowed: bool) -> Result<(), MountError> {
        match allowed {
            true => Ok(()),
            false => fail(format!("unexpected key '{key}' for mount type '{}'", self.kind.as_str())),
        }
    }

    /// What keys may not stand together.
    fn validate(&self) -> Result<(), MountError> {
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return fail(format!("{key} not allowed for \"{}\" type mounts", self.kind.as_str()));
            }
        }
        if self.kind == MountType::Secret {
            if !self.from.is_empty() {
                return fail("secret mount should not have a from");
            }
            if self.sharing.is_some() {
                return fail("secret mount should not define sharing");
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return fail("invalid secret mount. one of source, target required");
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return fail("both source and id can't be set");
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return fail(format!("invalid cache sharing set for {} mount", self.kind.as_str()));
        }
        Ok(())
    }
}

fn fail<T>(message: impl Into<String>) -> Result<T, MountError> {
    Err(MountError(message.into()))
}

fn fields(value: &str) -> Result<Vec<String>, MountError> {
    csv::fields(value).map_err(|error| MountError(format!("failed to parse csv mounts: {error}")))
}

fn one_of<T: Copy>(all: &[(&'static str, T)], value: &str, what: &str) -> Result<T, MountError> {
    let lower = value.to_lowercase();
    match all.iter().find(|(name, _)| *name == lower) {
        Some((_, found)) => Ok(*found),
        None => {
            let message = format!("{what} {}", go_quote(value));
            fail(with_suggestion(message, value, all.iter().map(|(name, _)| *name), true))
        }
    }
}
