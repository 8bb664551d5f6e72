//! A CDI specification file: <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file that is read. Those of machines with eight GPUs have some 100 KiB.
const MAX_BYTES: u64 = 8 << 20;

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpecFile {
    #[serde(rename = "cdiVersion")]
    _version: String,
    /// `vendor/class`.
    pub(super) kind: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) devices: Vec<Device>,
    /// What every device of the file brings.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// What a device does to a step.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edits {
    /// `NAME=value`.
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) device_nodes: Vec<Node>,
    #[serde(default)]
    pub(super) mounts: Vec<Mount>,
    #[serde(default)]
    pub(super) hooks: Vec<Ignored>,
    #[serde(default)]
    pub(super) net_devices: Vec<Ignored>,
    #[serde(default, rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
    #[serde(default)]
    pub(super) intel_rdt: Option<Ignored>,
}

/// Something that is only known to be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    /// In the step.
    pub(super) path: String,
    /// On the machine, if it is another one.
    #[serde(default)]
    pub(super) host_path: Option<String>,
    /// `c`, `u`, `b` or `p`; looked up on the machine when not given.
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) major: Option<u32>,
    #[serde(default)]
    pub(super) minor: Option<u32>,
    #[serde(default)]
    pub(super) file_mode: Option<u32>,
    /// Rights for a device cgroup, which steps do not have.
    #[serde(default, rename = "permissions")]
    _permissions: Option<String>,
    #[serde(default)]
    pub(super) uid: Option<u32>,
    #[serde(default)]
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
}

impl SpecFile {
    /// Reads a `.json` or `.yaml` file; says what is wrong with it otherwise.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        // A file that is not regular could block for ever.
        let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if !meta.is_file() {
            return Err("it is not a file".to_owned());
        }
        let mut text = String::new();
        let file = File::open(path).map_err(|error| error.to_string())?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let spec: Self = match is_json {
            true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
            false => serde_saphyr::from_str(&text).map_err(|error| first_line(&error.to_string()))?,
        };
        spec.check().map(|()| spec)
    }

    fn check(&self) -> Result<(), String> {
        if !super::is_kind(&self.kind) {
            return Err(format!("{:?} is not of the form vendor/class", self.kind));
        }
        match self.devices.iter().find(|device| !is_device_name(&device.name)) {
            Some(device) => Err(format!("{:?} cannot be the name of a device", device.name)),
            None => Ok(()),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Letters, digits and `_-.:`, with a letter or digit at both ends.
fn is_device_name(name: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    end(name.chars().next())
        && end(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
}
