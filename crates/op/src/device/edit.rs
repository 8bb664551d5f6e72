//! What the devices of one step add to it.

use super::spec::{Edits, Mount, Node};
use super::{DeviceError, Devices};
use rbuild_ir::Device;
use rbuild_runtime::{DeviceNode, MountKind, MountSpec, Spec};
use rustix::fs::{CWD, FileType, OFlags};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Permission bits of a node that has none in the specification.
const NODE_MODE: u32 = 0o666;

/// What is added to a step's spec.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StepDevices {
    pub(super) env: Vec<(String, String)>,
    pub(super) nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<MountSpec>,
    /// Devices that are not there and not required.
    pub(crate) missing: Vec<String>,
}

impl Devices {
    /// Everything that the devices of a step bring: what a file says for all its devices comes once, before the first.
    pub(crate) fn for_step(&self, wanted: &[Device]) -> Result<StepDevices, DeviceError> {
        let mut all = StepDevices::default();
        let (mut names, mut files) = (BTreeSet::new(), BTreeSet::new());
        for device in wanted {
            let found = self.find(&device.name, device.required)?;
            if found.is_empty() {
                all.missing.push(device.name.clone());
            }
            for name in found {
                let Some(registered) = self.registered.get(&name) else { continue };
                if !names.insert(name.clone()) {
                    continue;
                }
                let unusable = |what| DeviceError::Unusable {
                    name: name.clone(),
                    file: registered.file.0.clone(),
                    what,
                };
                if files.insert(registered.file.0.clone()) {
                    all.add(&registered.file.1.container_edits).map_err(unusable)?;
                }
                all.add(&registered.device.container_edits).map_err(unusable)?;
            }
        }
        Ok(all)
    }
}

impl StepDevices {
    /// Puts everything behind what the spec has.
    pub(crate) fn apply(self, spec: &mut Spec) {
        spec.env.extend(self.env);
        spec.devices.extend(self.nodes);
        spec.mounts.extend(self.mounts);
    }

    fn add(&mut self, edits: &Edits) -> Result<(), String> {
        let refused = [
            ("hooks", !edits.hooks.is_empty()),
            ("network devices (netDevices)", !edits.net_devices.is_empty()),
            ("further groups (additionalGids)", !edits.additional_gids.is_empty()),
            ("Intel RDT (intelRdt)", edits.intel_rdt.is_some()),
        ];
        if let Some((what, _)) = refused.iter().find(|(_, there)| *there) {
            return Err(format!("it needs {what}, which RUN steps do not have"));
        }
        for text in &edits.env {
            let (name, value) = text
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("`{text}` is not of the form NAME=value"))?;
            self.env.push((name.to_owned(), value.to_owned()));
        }
        for node in &edits.device_nodes {
            let node = device_node(node)?;
            self.nodes.retain(|other| other.path != node.path);
            self.nodes.push(node);
        }
        for mount in &edits.mounts {
            self.mounts.push(bind(mount)?);
        }
        Ok(())
    }
}

fn device_node(node: &Node) -> Result<DeviceNode, String> {
    let block = |kind: &str| match kind {
        "c" | "u" => Ok(false),
        "b" => Ok(true),
        "p" => Err(format!("{} is a named pipe, which steps do not get", node.path)),
        other => Err(format!("{}: `{other}` is no type of a device node", node.path)),
    };
    let kind = node.kind.as_deref().filter(|kind| !kind.is_empty()).map(block).transpose()?;
    let (block, major, minor) = match (kind, node.major, node.minor) {
        (Some(block), Some(major), Some(minor)) => (block, major, minor),
        (kind, ..) => {
            let (found, major, minor) = on_machine(node.host_path.as_deref().unwrap_or(&node.path))?;
            if kind.is_some_and(|kind| kind != found) {
                return Err(format!("{} is a device of another type on this machine", node.path));
            }
            (found, node.major.unwrap_or(major), node.minor.unwrap_or(minor))
        }
    };
    if !node.path.starts_with("/dev/") {
        return Err(format!("{} is not below /dev, where the devices of steps are", node.path));
    }
    Ok(DeviceNode {
        path: node.path.clone(),
        block,
        major,
        minor,
        mode: node.file_mode.unwrap_or(NODE_MODE) & 0o777,
        uid: node.uid.unwrap_or(0),
        gid: node.gid.unwrap_or(0),
    })
}

/// Whether the machine's node is a block device, and its numbers. It is looked at without being opened.
fn on_machine(path: &str) -> Result<(bool, u32, u32), String> {
    let opened = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let stat =
        opened.and_then(rustix::fs::fstat).map_err(|error| format!("{path} of this machine: {error}"))?;
    let numbers = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => Ok((false, numbers.0, numbers.1)),
        FileType::BlockDevice => Ok((true, numbers.0, numbers.1)),
        _ => Err(format!("{path} is not a device on this machine")),
    }
}

/// Mounts are binds; of the options only those about writing matter, the others loosen what steps are kept to.
fn bind(mount: &Mount) -> Result<MountSpec, String> {
    let of_bind = ["", "none", "bind"].contains(&mount.kind.as_deref().unwrap_or_default());
    if !of_bind {
        return Err(format!("{} is a mount other than a bind mount", mount.container_path));
    }
    for path in [&mount.host_path, &mount.container_path] {
        if !Path::new(path).is_absolute() {
            return Err(format!("the path of a mount is not absolute: `{path}`"));
        }
    }
    Ok(MountSpec {
        target: mount.container_path.clone(),
        kind: MountKind::Bind { source: PathBuf::from(&mount.host_path), subpath: String::new() },
        readonly: mount.options.iter().any(|option| option == "ro"),
    })
}
