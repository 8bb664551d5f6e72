//! `--platform`, and what follows from several of them (D-005, A-055).

use crate::exit::Usage;
use anyhow::Result;
use rbuild_frontend::number::parse_bool;
use rbuild_oci::Platform;

/// Build argument that asks for an index also for one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// The platforms, each once, in the order they are given in: flags may be repeated, and each may have a list.
pub(super) fn platforms(given: &[String]) -> Result<Vec<Platform>> {
    let mut found = Vec::new();
    for text in given.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        let platform = match text {
            "local" => Platform::host(),
            text => text.parse().map_err(|error| Usage::new(format!("--platform: {error}")))?,
        };
        let platform: Platform = platform.normalized();
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    Ok(found)
}

/// Whether the result is to be an index.
pub(super) fn makes_index(build_args: &[(String, String)], platforms: &[Platform]) -> Result<bool> {
    let given = build_args.iter().rev().find(|(name, _)| name == MULTI_PLATFORM).map(|(_, value)| value);
    let Some(value) = given.filter(|value| !value.is_empty()) else { return Ok(platforms.len() > 1) };
    let wanted = parse_bool(value).ok_or_else(|| {
        Usage::new(format!("--build-arg {MULTI_PLATFORM}: invalid boolean value for multi-platform: {value}"))
    })?;
    if !wanted && platforms.len() > 1 {
        let problem = format!(
            "conflicting config: returning multiple target platforms is not allowed with {MULTI_PLATFORM}={value}: give one --platform, or leave it out"
        );
        return Err(Usage::new(problem).into());
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(given: &[&str]) -> Vec<String> {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        platforms(&given).unwrap().iter().map(Platform::to_string).collect()
    }

    // D-005
    #[test]
    fn platforms_are_named_once_in_order() {
        let host = Platform::host().to_string();
        assert_eq!(
            shown(&["linux/arm64,linux/amd64", "aarch64, linux/arm", ""]),
            ["linux/arm64", "linux/amd64", "linux/arm/v7"]
        );
        assert_eq!(shown(&["local"]), [host]);
        assert!(platforms(&["linux/amd64,linux/a b".into()]).is_err());
    }

    //
    #[test]
    fn an_index_can_be_asked_for() {
        let index = |value: &str, platforms: &[Platform]| {
            makes_index(&[(MULTI_PLATFORM.to_owned(), value.to_owned())], platforms)
        };
        let two = [Platform::linux("amd64"), Platform::linux("arm64")];
        assert!(index("1", &two[..1]).unwrap() && index("", &two).unwrap());
        assert!(!index("0", &two[..1]).unwrap() && !index("", &two[..1]).unwrap());
        assert!(index("maybe", &[]).is_err());
        let conflict = index("false", &two).unwrap_err().to_string();
        assert!(conflict.contains("returning multiple target platforms is not allowed"), "{conflict}");
    }
}
