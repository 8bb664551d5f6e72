//! Names of steps in progress lines.

use super::state::State;
use crate::env::{Env, Lookup};
use crate::shell::Lex;
use crate::stage::Plan;
use rbuild_oci::Platform;

/// `[stage 2/5] ` in front of a step; counts the step.
pub(super) fn prefixed(plan: &Plan<'_>, node: usize, state: &mut State, text: &str) -> String {
    let node = &plan.nodes[node];
    if node.total == 0 {
        return text.to_owned();
    }
    state.step += 1;
    let width = node.total.to_string().len();
    let platform = match plan.options.multi_platform {
        true => format!("{}{} ", state.platform.format_all(), cross_target(&state.platform, &state.env)),
        false => String::new(),
    };
    let stage = if node.shown.is_empty() { String::new() } else { format!("{} ", node.shown) };
    let on_build = if state.on_build { "ONBUILD " } else { "" };
    format!("[{platform}{stage}{:width$}/{}] {on_build}{text}", state.step, node.total)
}

/// An instruction as written, variables expanded, its keyword in upper case. What cannot be expanded stays.
pub(super) fn shown(text: &str, lex: &Lex, env: &dyn Lookup) -> String {
    let text = text.trim_end();
    let text = lex.word(text, env).unwrap_or_else(|_| text.to_owned());
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// `->arm64` when the stage says by TARGET… arguments that it compiles for another platform.
fn cross_target(own: &Platform, env: &Env) -> String {
    let Some(target) = target_of(env, own) else { return String::new() };
    let target = target.normalized();
    match &target.variant {
        _ if target.os != own.os => format!("->{}", target.format_all()),
        _ if target.architecture == own.architecture => String::new(),
        Some(variant) => format!("->{}/{variant}", target.architecture),
        None => format!("->{}", target.architecture),
    }
}

fn target_of(env: &Env, own: &Platform) -> Option<Platform> {
    let mut parts: Option<Platform> = None;
    for (name, value) in env.iter() {
        let part = |parts: &mut Option<Platform>, set: fn(&mut Platform, &str)| {
            let platform =
                parts.get_or_insert_with(|| Platform { variant: None, os_version: None, ..own.clone() });
            if !value.is_empty() {
                set(platform, value);
            }
        };
        match name {
            "TARGETPLATFORM" => {
                if let Ok(platform) = value.parse() {
                    return Some(platform);
                }
            }
            "TARGETOS" => part(&mut parts, |platform, value| platform.os = value.to_owned()),
            "TARGETARCH" => part(&mut parts, |platform, value| platform.architecture = value.to_owned()),
            "TARGETVARIANT" => part(&mut parts, |platform, value| platform.variant = Some(value.to_owned())),
            _ => {}
        }
    }
    parts
}
