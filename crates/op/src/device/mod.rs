//! Devices of the machine for RUN --device, as the Container Device Interface describes them.
//!
//! Environment variables, device nodes and bind mounts of a specification are applied; one with hooks, network
//! devices, groups or Intel RDT is refused when a step wants it.

mod edit;
mod spec;
#[cfg(test)]
mod tests;

use spec::{Device, SpecFile};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Annotation with a name for several devices of a kind.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Annotation of devices that need no `--allow`.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// Most specification files that are looked at.
const MAX_FILES: usize = 1000;

/// What is wrong with a device that a step wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is not one of a CDI device.
    #[error("invalid device {0:?}: it has to be vendor/class, vendor/class=name or vendor/class=*")]
    Name(String),
    /// No specification has such a device.
    #[error("required device {name:?} is not registered{}", listed(.problems))]
    Missing {
        /// As the step wants it.
        name: String,
        /// Specification files that could not be read, and why.
        problems: Vec<String>,
    },
    /// A device asks for something that steps do not have.
    #[error("device {name:?} of {}: {what}", .file.display())]
    Unusable {
        /// `vendor/class=name`.
        name: String,
        /// Its specification.
        file: PathBuf,
        /// What is in the way.
        what: String,
    },
}

fn listed(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("; {problem}")).collect()
}

/// The devices that a machine's CDI specifications describe.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    /// By `vendor/class=name`.
    registered: BTreeMap<String, Registered>,
    problems: Vec<String>,
}

#[derive(Debug, Clone)]
struct Registered {
    file: Arc<(PathBuf, SpecFile)>,
    device: Device,
}

impl Registered {
    fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = [&self.device.annotations, &self.file.1.annotations];
        annotations.iter().find_map(|list| list.get(name)).map(String::as_str)
    }
}

impl Devices {
    /// Reads the `.json` and `.yaml` files of some directories; those that are missing are empty. A device in a later
    /// directory replaces one of the same name in an earlier; of two in one directory neither counts.
    pub fn read(dirs: &[PathBuf]) -> Self {
        let mut all = Self::default();
        for dir in dirs {
            let mut found = BTreeMap::new();
            let mut twice = BTreeSet::new();
            for path in all.spec_files(dir) {
                let spec = match SpecFile::read(&path) {
                    Ok(spec) => spec,
                    Err(error) => {
                        all.problems.push(format!("{} was not understood: {error}", path.display()));
                        continue;
                    }
                };
                let file = Arc::new((path, spec));
                for device in &file.1.devices {
                    let name = format!("{}={}", file.1.kind, device.name);
                    let entry = Registered { file: Arc::clone(&file), device: device.clone() };
                    if let Some(other) = found.insert(name.clone(), entry) {
                        let (one, two) = (other.file.0.display(), file.0.display());
                        all.problems.push(format!("{name} is described twice, by {one} and {two}"));
                        twice.insert(name);
                    }
                }
            }
            found.retain(|name, _| !twice.contains(name));
            all.registered.extend(found);
        }
        all
    }

    fn spec_files(&mut self, dir: &Path) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.problems.push(format!("{} cannot be read: {error}", dir.display()));
                }
                return Vec::new();
            }
        };
        let is_spec = |path: &PathBuf| path.extension().is_some_and(|end| end == "json" || end == "yaml");
        let paths = entries.flatten().map(|entry| entry.path()).filter(is_spec);
        let mut paths: Vec<PathBuf> = paths.take(MAX_FILES).collect();
        paths.sort();
        paths
    }

    /// The registered devices that a name stands for: `vendor/class` is the first of its kind, `vendor/class=*` all of
    /// them, and a name that is no device's may be the class annotation of some.
    ///
    /// # Errors
    /// The name is no device name, or there is none and it is `required`.
    pub fn find(&self, wanted: &str, required: bool) -> Result<Vec<String>, DeviceError> {
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        if !is_kind(kind) {
            return Err(DeviceError::Name(wanted.to_owned()));
        }
        let prefix = format!("{kind}=");
        let mut of_kind = self.registered.iter().filter(|(name, _)| name.starts_with(&prefix));
        let found: Vec<String> = match name {
            "" => of_kind.next().map(|(name, _)| name.clone()).into_iter().collect(),
            "*" => of_kind.map(|(name, _)| name.clone()).collect(),
            _ if self.registered.contains_key(wanted) => vec![wanted.to_owned()],
            class => of_kind
                .filter(|(_, one)| one.annotation(CLASS) == Some(class))
                .map(|(n, _)| n.clone())
                .collect(),
        };
        if found.is_empty() && required {
            return Err(DeviceError::Missing { name: wanted.to_owned(), problems: self.problems.clone() });
        }
        Ok(found)
    }

    /// Whether a step could be given what it wants.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn check(&self, wanted: &[rbuild_ir::Device]) -> Result<(), DeviceError> {
        self.for_step(wanted).map(drop)
    }

    /// Whether a registered device may be used without being allowed, by its annotation.
    pub fn is_auto_allowed(&self, name: &str) -> bool {
        let value = self.registered.get(name).and_then(|device| device.annotation(AUTO_ALLOW));
        matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// `vendor/class`: letters, digits, `_`, `-` and in the vendor `.`; a letter first, a letter or digit last.
fn is_kind(kind: &str) -> bool {
    let part = |text: &str, more: &str| {
        text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
            && text.chars().last().is_some_and(|c| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    kind.split_once('/').is_some_and(|(vendor, class)| part(vendor, "_-.") && part(class, "_-"))
}
