//! `os/arch[/variant]` with containerd's normalisation.

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

/// Why a string is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is an invalid platform: {reason}")]
pub struct PlatformError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { architecture: architecture.into(), os: "linux".into(), os_version: None, variant: None }
    }

    /// `linux/<architecture>`.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.into(), os: "linux".into(), os_version: None, variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture) {
            (Some(os), Some(architecture)) if !os.is_empty() && !architecture.is_empty() => Ok(Self {
                os: os.into(),
                architecture: architecture.into(),
                os_version: None,
                variant: variant.map(Into::into),
            }),
            _ => Err(PlatformError { text: text.into(), reason: "expected os/arch".into() }),
        }
    }
}
