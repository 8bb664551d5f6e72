//! Global arguments: platform arguments, `ARG`s before the first FROM, proxies (A5).

use crate::ast::{Dockerfile, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::env::Env;
use crate::lower::LowerOptions;
use crate::shell::Lex;
use rbuild_oci::Platform;

/// The magic argument.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Proxies that need no declaration, lower case.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Arguments that never reach a RUN's environment.
pub(crate) const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// BUILDPLATFORM, TARGETPLATFORM, their parts and TARGETSTAGE; build arguments override them.
fn platform_args(options: &LowerOptions, target: &str) -> Env {
    let mut args = Env::new();
    let mut set = |name: String, value: &str| {
        let value = options.build_arg(&name).unwrap_or(value);
        args.set(&name, value);
    };
    let mut set_platform = |prefix: &str, platform: &Platform| {
        set(format!("{prefix}PLATFORM"), &platform.format_all());
        set(format!("{prefix}OS"), &platform.os);
        set(format!("{prefix}OSVERSION"), platform.os_version.as_deref().unwrap_or_default());
        set(format!("{prefix}ARCH"), &platform.architecture);
        set(format!("{prefix}VARIANT"), platform.variant.as_deref().unwrap_or_default());
    };
    set_platform("BUILD", &options.build_platform);
    set_platform("TARGET", options.platform());
    set("TARGETSTAGE".into(), target);
    args
}

/// The global arguments with their values; with `defaults_only` as if no ARG were given a value.
pub(crate) fn global_args(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    lex: &Lex,
    defaults_only: bool,
) -> Result<Env, Diagnostic> {
    let last = dockerfile.stages.last().and_then(|stage| stage.name.as_deref());
    let target = options.target.as_deref().or(last).unwrap_or("default");
    let mut args = platform_args(options, target);
    for instruction in &dockerfile.meta_args {
        let InstructionKind::Arg(arg) = &instruction.kind else { continue };
        for pair in &arg.pairs {
            let name = pair.name.as_str();
            let given = options.build_arg(name).filter(|_| !defaults_only);
            let value = match (given, &pair.default) {
                (Some(value), _) => value.to_owned(),
                (None, Some(default)) => lex
                    .word(default.as_str(), &args)
                    .map_err(|error| Diagnostic::error(error.to_string(), instruction.lines))?,
                (None, None) => continue,
            };
            args.set(name, &value);
        }
    }
    Ok(args)
}

/// Proxies among the build arguments, in both cases of spelling: they win over variables of the image.
pub(crate) fn proxies(options: &LowerOptions) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in PROXIES {
        let mut given: Vec<_> =
            options.build_args.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).collect();
        given.sort();
        if let Some((_, value)) = given.last().filter(|(_, value)| !value.is_empty()) {
            out.push((name.to_ascii_uppercase(), value.clone()));
            out.push((name.to_owned(), value.clone()));
        }
    }
    out
}
