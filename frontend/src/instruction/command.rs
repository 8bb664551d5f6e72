//! RUN, CMD, ENTRYPOINT, SHELL.

use super::{Fault, at_least_one, no_flags};
use crate::ast::{CommandLine, Device, NetworkMode, Node, RunInstruction, SecurityMode, Word};
use crate::csv;
use crate::dump::go_quote;
use crate::flag::{Flags, Kind, Known};
use crate::mount::MountSpec;
use crate::number::parse_bool;
use crate::suggest::with_suggestion;

const RUN_FLAGS: Known =
    &[("mount", Kind::Texts), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::Texts)];

fn command_line(node: &Node) -> CommandLine {
    CommandLine { args: node.args.clone(), prepend_shell: !node.json }
}

/// CMD and ENTRYPOINT.
pub(super) fn cmd(node: &Node) -> Result<CommandLine, Fault> {
    no_flags(node)?;
    Ok(command_line(node))
}

pub(super) fn shell(node: &Node) -> Result<Vec<Word>, Fault> {
    no_flags(node)?;
    if node.args.is_empty() {
        return Err(at_least_one(node).help("write SHELL [\"/bin/sh\", \"-c\"]"));
    }
    if !node.json {
        let fault = Fault::new("SHELL requires the arguments to be in JSON form", node.span);
        return Err(fault.help("write SHELL [\"/bin/sh\", \"-c\"], with double quotes"));
    }
    Ok(node.args.clone())
}

pub(super) fn run(node: &Node) -> Result<RunInstruction, Fault> {
    let flags = Flags::parse(&node.flags, RUN_FLAGS)?;
    let devices = flags.texts("device").iter().map(device).collect::<Result<_, _>>()?;
    let mounts = flags.texts("mount");
    for mount in &mounts {
        MountSpec::check_syntax(&mount.value).map_err(|error| Fault::new(error.0, mount.span))?;
    }
    Ok(RunInstruction {
        command: command_line(node),
        heredocs: node.heredocs.clone(),
        mounts,
        network: network(flags.given("network"))?,
        security: security(flags.given("security"))?,
        devices,
        flags_used: flags.used(),
    })
}

fn network(value: Option<Word>) -> Result<NetworkMode, Fault> {
    let Some(word) = value else { return Ok(NetworkMode::Default) };
    match word.as_str() {
        "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => {
            let fault = Fault::new(format!("invalid network mode {}", go_quote(other)), word.span);
            Err(fault.help("the modes are default, none and host"))
        }
    }
}

fn security(value: Option<Word>) -> Result<SecurityMode, Fault> {
    let Some(word) = value else { return Ok(SecurityMode::Sandbox) };
    match word.as_str() {
        "sandbox" => Ok(SecurityMode::Sandbox),
        "insecure" => Ok(SecurityMode::Insecure),
        other => {
            let fault = Fault::new(format!("security {} is not valid", go_quote(other)), word.span);
            Err(fault.help("the modes are sandbox and insecure"))
        }
    }
}

/// `name[,required]`, where the name may be written `name=…`.
fn device(word: &Word) -> Result<Device, Fault> {
    let fault = |message: String| Fault::new(message, word.span);
    let fields =
        csv::fields(&word.value).map_err(|error| fault(format!("failed to parse csv devices: {error}")))?;
    let mut device = Device::default();
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                let wrong = || fault(format!("invalid value for required: {value}"));
                device.required = parse_bool(value).ok_or_else(wrong)?;
            }
            ("name", Some(value)) if device.name.is_empty() => device.name = value.to_owned(),
            ("name", Some(_)) => return Err(fault(format!("device name already set to {}", device.name))),
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(fault(format!("invalid field '{field}' must be a key=value pair"))),
            (key, Some(_)) => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(fault(with_suggestion(message, key, ["name", "required"], true)));
            }
        }
    }
    Ok(device)
}
