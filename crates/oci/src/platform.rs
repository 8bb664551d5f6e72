//! `os/arch[/variant]` with containerd's parsing, normalisation and matching.

use crate::{Descriptor, media_type};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The platform an image runs on. Values are normalised by [`Platform::normalized`], not on construction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH, e.g. `amd64`.
    pub architecture: String,
    /// GOOS, e.g. `linux`.
    pub os: String,
    /// Windows only.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// e.g. `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a string is no platform; shown as containerd words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: invalid argument")]
pub struct PlatformError {
    /// What was given.
    pub text: String,
    /// What is wrong with it; quotes the text.
    pub reason: String,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { architecture: architecture.into(), os: "linux".into(), os_version: None, variant: None }
    }

    /// `linux/<architecture>`.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.into(), os: "linux".into(), os_version: None, variant: None }
    }

    /// One spelling for each platform: `linux/aarch64/v8` becomes `linux/arm64`, `linux/arm` becomes
    /// `linux/arm/v7`.
    pub fn normalized(&self) -> Self {
        let (architecture, variant) =
            normalize_arch(&self.architecture, self.variant.as_deref().unwrap_or_default());
        Self {
            architecture,
            os: normalize_os(&self.os),
            os_version: self.os_version.clone().filter(|v| !v.is_empty()),
            variant,
        }
    }

    /// Like `Display`, with the OS version: `windows(10.0.17763)/amd64`.
    pub fn format_all(&self) -> String {
        match &self.os_version {
            Some(version) if !version.is_empty() => {
                let rest = self.to_string();
                format!("{}({version}){}", self.os, &rest[self.os.len()..])
            }
            _ => self.to_string(),
        }
    }

    /// What can run where this platform is wanted, the best first (F-014).
    pub fn matcher(&self) -> PlatformMatcher {
        PlatformMatcher { candidates: fallbacks(&self.normalized()) }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// An ordered list of acceptable platforms, made by [`Platform::matcher`].
#[derive(Debug, Clone)]
pub struct PlatformMatcher {
    candidates: Vec<Platform>,
}

impl PlatformMatcher {
    /// 0 for what was asked for, more for each step of fallback, `None` for what cannot run.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        let offered = platform.normalized();
        self.candidates.iter().position(|wanted| {
            wanted.os == offered.os
                && wanted.architecture == offered.architecture
                && wanted.variant == offered.variant
                && os_version_fits(wanted.os_version.as_deref(), offered.os_version.as_deref())
        })
    }

    /// Whether `platform` is acceptable at all.
    pub fn matches(&self, platform: &Platform) -> bool {
        self.rank(platform).is_some()
    }
}

/// The index of the descriptor that fits `platform` best; the first of equals.
///
/// Entries without a platform are taken only when nothing else fits and they are manifests or indexes, as
/// containerd does; the caller then has to compare the config's own platform.
pub fn best_match(descriptors: &[Descriptor], platform: &Platform) -> Option<usize> {
    let matcher = platform.matcher();
    let ranked = descriptors.iter().enumerate().filter_map(|(i, descriptor)| match &descriptor.platform {
        Some(offered) => matcher.rank(offered).map(|rank| (rank, i)),
        None => {
            let kind = descriptor.media_type.as_str();
            (media_type::is_manifest(kind) || media_type::is_index(kind)).then_some((usize::MAX, i))
        }
    });
    ranked.min().map(|(_, i)| i)
}

/// A Windows build number fits when the wanted version is a prefix in whole components.
fn os_version_fits(wanted: Option<&str>, offered: Option<&str>) -> bool {
    match (wanted, offered) {
        (Some(wanted), Some(offered)) => {
            offered.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
        _ => true,
    }
}

/// `platform` and the weaker ones that run on it.
fn fallbacks(platform: &Platform) -> Vec<Platform> {
    let variant = platform.variant.as_deref().unwrap_or_default();
    let version = variant.strip_prefix('v').and_then(|v| v.parse::<u32>().ok()).filter(|v| *v < 16);
    let like = |architecture: &str, variant: String| {
        Platform { architecture: architecture.into(), variant: Some(variant), ..platform.clone() }
            .normalized()
    };
    let mut out = vec![platform.clone()];
    match platform.architecture.as_str() {
        "amd64" => {
            out.extend((1..version.unwrap_or(1)).rev().map(|v| like("amd64", format!("v{v}"))));
            out.push(Platform { architecture: "386".into(), variant: None, ..platform.clone() });
        }
        "arm" => out.extend((5..version.unwrap_or(5)).rev().map(|v| like("arm", format!("v{v}")))),
        "arm64" => {
            if !variant.is_empty() {
                out.push(like("arm64", "v8".into()));
            }
            out.extend((5..=8).rev().map(|v| like("arm", format!("v{v}"))));
        }
        _ => {}
    }
    out
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".into(),
        "macos" => "darwin".into(),
        os => os.into(),
    }
}

fn normalize_arch(architecture: &str, variant: &str) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
}

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const KNOWN_ARCH: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];
const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$";
const COMPONENT_PATTERN: &str = "^[A-Za-z0-9_.-]+$";

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os`, `arch`, `os/arch` or `os/arch/variant`; a lone OS gets this machine's architecture and a lone
    /// architecture gets linux.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = |reason: String| PlatformError { text: text.into(), reason };
        if text.contains('*') {
            return Err(error(format!("{text:?}: wildcards not yet supported")));
        }
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let (os, os_version) = parse_os(parts[0]).ok_or_else(|| {
            error(format!(
                "{:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match \"{OS_PATTERN}\"",
                parts[0]
            ))
        })?;
        if let Some(part) = parts[1..].iter().find(|part| !is_component(part)) {
            return Err(error(format!(
                "{part:?} is an invalid component of {text:?}: platform specifier component must match \"{COMPONENT_PATTERN}\""
            )));
        }
        let mut platform = Self { architecture: String::new(), os, os_version, variant: None };
        match parts[..] {
            [_] if KNOWN_OS.contains(&platform.os.as_str()) => {
                platform.architecture = Self::host().architecture;
            }
            [alone] => {
                (platform.architecture, platform.variant) = normalize_arch(alone, "");
                platform.forget_default_arm();
                platform.os = "linux".into();
                if !KNOWN_ARCH.contains(&platform.architecture.as_str()) {
                    return Err(error(format!("{text:?}: unknown operating system or architecture")));
                }
            }
            [_, architecture] => {
                (platform.architecture, platform.variant) = normalize_arch(architecture, "");
                platform.forget_default_arm();
            }
            [_, architecture, variant] => {
                (platform.architecture, platform.variant) = normalize_arch(architecture, variant);
                if platform.architecture == "arm64" && platform.variant.is_none() {
                    platform.variant = Some("v8".into());
                }
            }
            _ => return Err(error(format!("{text:?}: cannot parse platform specifier"))),
        }
        Ok(platform)
    }
}

impl Platform {
    /// `arm` stays without a variant when none was written: it is shown as it was given.
    fn forget_default_arm(&mut self) {
        if self.architecture == "arm" && self.variant.as_deref() == Some("v7") {
            self.variant = None;
        }
    }
}

/// `name` or `name(version)`. OS features (`+feature`) cannot be represented and are refused.
fn parse_os(part: &str) -> Option<(String, Option<String>)> {
    let (name, version) = match part.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')')?)),
        None => (part, None),
    };
    let valid_name =
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    if !valid_name {
        return None;
    }
    let version = match version {
        Some(version) if version.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c)) => {
            (!version.is_empty()).then(|| version.to_owned())
        }
        Some(_) => return None,
        None => None,
    };
    Some((normalize_os(name), version))
}

fn is_component(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
}

#[cfg(test)]
mod tests;
