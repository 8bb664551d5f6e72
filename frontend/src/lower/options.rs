//! What lowering is told besides the Dockerfile.

use rbuild_ir::NetworkMode;
use rbuild_oci::{Platform, Reference};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The options of one build for one platform.
#[derive(Debug, Clone)]
pub struct LowerOptions {
    /// `--build-arg`, in order; the last of a name counts. Names without a value are left out by the caller.
    pub build_args: Vec<(String, String)>,
    /// `--target`; the last stage when `None`.
    pub target: Option<String>,
    /// Where steps run.
    pub build_platform: Platform,
    /// `--platform`; when `None` the build platform, and the result takes the base image's.
    pub target_platform: Option<Platform>,
    /// Several platforms are built: step names carry theirs.
    pub multi_platform: bool,
    /// `--label`, merged last (B-005).
    pub labels: Vec<(String, String)>,
    /// `--network`: what a RUN without an own mode gets.
    pub network: NetworkMode,
    /// `--add-host`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// `--ulimit`, as `name=soft:hard`.
    pub ulimits: Vec<String>,
    /// `--build-context` by name as written.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Host name inside RUN; BUILDKIT_SANDBOX_HOSTNAME is used when `None`.
    pub hostname: Option<String>,
    /// The time of what SOURCE_DATE_EPOCH names (see [`crate::epoch_source`]), in seconds since 1970.
    pub epoch: Option<i64>,
    /// The main context's ignore file, for the check CopyIgnoredFile.
    pub ignore: Option<IgnoreRules>,
    /// Lower every stage, so that the checks see all of them. The definition is still that of the target.
    pub all_stages: bool,
}

/// One pattern of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreRule {
    /// Its line, from 1.
    pub line: usize,
    /// The pattern after cleaning, with its `!`.
    pub pattern: String,
}

/// The index of the pattern that excludes a relative path.
pub type ExcludedBy = Arc<dyn Fn(&str) -> Option<usize> + Send + Sync>;

/// An ignore file, as far as the checks need it. Matching is the caller's: it has a matcher already.
#[derive(Clone)]
pub struct IgnoreRules {
    /// Its name in messages.
    pub file: String,
    /// Its patterns in order.
    pub rules: Vec<IgnoreRule>,
    /// The index of the pattern that excludes a relative path or one of its parents; `None` when it is not excluded.
    pub excluded_by: ExcludedBy,
}

impl fmt::Debug for IgnoreRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IgnoreRules")
            .field("file", &self.file)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl IgnoreRules {
    /// The pattern that excludes a cleaned path. Files with `!` are not judged: something below an excluded directory
    /// may be wanted. The whole context is excluded only by a pattern that means everything.
    pub(crate) fn excludes(&self, path: &str) -> Option<&IgnoreRule> {
        if self.rules.iter().any(|rule| rule.pattern.starts_with('!')) {
            return None;
        }
        match path {
            "." | "/" => self.rules.iter().rfind(|rule| matches!(&*rule.pattern, "*" | "**" | "**/*")),
            path => self.rules.get((self.excluded_by)(path.trim_start_matches('/'))?),
        }
    }
}

/// What a named build context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory (or something that was made one); the operations refer to it by its name.
    Local,
    /// An image: a reference without `docker-image://`, or a whole `oci-layout://…`.
    Image(String),
}

impl Default for LowerOptions {
    fn default() -> Self {
        Self {
            build_args: Vec::new(),
            target: None,
            build_platform: Platform::host(),
            target_platform: None,
            multi_platform: false,
            labels: Vec::new(),
            network: NetworkMode::Default,
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            contexts: BTreeMap::new(),
            hostname: None,
            epoch: None,
            ignore: None,
            all_stages: false,
        }
    }
}

impl LowerOptions {
    /// The platform to build for.
    pub fn platform(&self) -> &Platform {
        self.target_platform.as_ref().unwrap_or(&self.build_platform)
    }

    /// The value of a build argument.
    pub fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Named contexts under the names that stages and images are looked up by.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    by_name: BTreeMap<String, (String, NamedContext)>,
}

impl Contexts {
    pub(crate) fn new(contexts: &BTreeMap<String, NamedContext>) -> Self {
        let by_name = contexts
            .iter()
            .filter_map(|(written, context)| {
                let (name, platform) = match written.split_once("::") {
                    Some((name, platform)) => (name, Some(platform)),
                    None => (written.as_str(), None),
                };
                let mut key = lookup_name(name)?;
                if let Some(platform) = platform {
                    let platform = platform
                        .parse::<Platform>()
                        .map_or_else(|_| platform.to_owned(), |platform| platform.normalized().format_all());
                    key = format!("{key}::{platform}");
                }
                Some((key, (written.clone(), context.clone())))
            })
            .collect();
        Self { by_name }
    }

    /// The context that stands for a stage or an image, with its name as written: first the one for the platform.
    pub(crate) fn find(&self, name: &str, platform: &Platform) -> Option<&(String, NamedContext)> {
        if self.by_name.is_empty() || ["scratch", "context"].iter().any(|own| name.eq_ignore_ascii_case(own))
        {
            return None;
        }
        let name = lookup_name(name)?;
        let with_platform = format!("{name}::{}", platform.normalized().format_all());
        self.by_name.get(&with_platform).or_else(|| self.by_name.get(&name))
    }
}

/// `debian` for `docker.io/library/debian:latest`.
fn lookup_name(name: &str) -> Option<String> {
    let familiar = name.parse::<Reference>().ok()?.familiar();
    Some(familiar.strip_suffix(":latest").map(str::to_owned).unwrap_or(familiar))
}
