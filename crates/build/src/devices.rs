//! RUN --device: whether the devices are there and granted, found out before anything is executed.

use crate::dockerfile::Inputs;
use crate::entitlements::find;
use crate::error::BuildError;
use crate::request::Entitlement;
use rbuild_frontend::Diagnostic;
use rbuild_frontend::ast::LineRange;
use rbuild_ir::{Device, Op, Vertex};
use rbuild_op::{DeviceError, Devices};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Reads the specifications, if any step wants a device, and refuses what is missing, unusable or not granted.
pub(crate) fn grant(
    vertices: &[Vertex],
    dirs: &[PathBuf],
    granted: &BTreeSet<Entitlement>,
    inputs: &Inputs,
) -> Result<Devices, BuildError> {
    let wanted = |vertex: &Vertex| matches!(&vertex.op, Op::Exec(exec) if !exec.devices.is_empty());
    if !vertices.iter().any(wanted) {
        return Ok(Devices::default());
    }
    let devices = Devices::read(dirs);
    let text = rbuild_frontend::decode(&inputs.text);
    let mut refusals = Vec::new();
    for vertex in vertices {
        let Op::Exec(exec) = &vertex.op else { continue };
        let refusal = match forbidden(&devices, &exec.devices, granted) {
            Err(error) => Some(diagnostic(vertex, error.to_string(), None)),
            Ok(names) if !names.is_empty() => {
                let help: Vec<String> = names.iter().map(|name| format!("--allow device={name}")).collect();
                let help = format!("grant it with {} if you trust what the step does", help.join(" "));
                let message = match &names[..] {
                    [name] => format!("device {name} is requested by the build but not allowed"),
                    names => {
                        format!("devices {} are requested by the build but not allowed", names.join(", "))
                    }
                };
                Some(diagnostic(vertex, message, Some(help)))
            }
            Ok(_) => devices.check(&exec.devices).err().map(|e| diagnostic(vertex, e.to_string(), None)),
        };
        if let Some(refusal) = refusal {
            let refusal = refusal.with_span(find("--device", &text, &vertex.lines));
            refusals.push(rbuild_frontend::render(&refusal, &inputs.name, &text));
        }
    }
    // Several platforms have the same lines.
    let mut seen = BTreeSet::new();
    refusals.retain(|refusal| seen.insert(refusal.clone()));
    if refusals.is_empty() { Ok(devices) } else { Err(BuildError::Dockerfile(refusals.join("\n"))) }
}

fn diagnostic(vertex: &Vertex, message: String, help: Option<String>) -> Diagnostic {
    let (start, end) = (vertex.lines.start, vertex.lines.end.saturating_sub(1));
    let lines = LineRange::new(start as usize, end.max(start) as usize);
    let diagnostic = Diagnostic::error(message, lines);
    match help {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

/// The registered devices among those wanted that nobody granted.
fn forbidden(
    devices: &Devices,
    wanted: &[Device],
    granted: &BTreeSet<Entitlement>,
) -> Result<Vec<String>, DeviceError> {
    let mut allowed = BTreeSet::new();
    let mut all = false;
    for entitlement in granted {
        match entitlement {
            Entitlement::Device(None) => all = true,
            Entitlement::Device(Some(name)) => allowed.extend(devices.find(name, false)?),
            Entitlement::NetworkHost | Entitlement::SecurityInsecure => {}
        }
    }
    let mut names = Vec::new();
    for device in wanted {
        for name in devices.find(&device.name, device.required)? {
            let free = all || allowed.contains(&name) || devices.is_auto_allowed(&name);
            if !free && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}
