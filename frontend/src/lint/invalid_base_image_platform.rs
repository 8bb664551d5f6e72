//! InvalidBaseImagePlatform (E-014).

use super::{Finding, Rule};
use rbuild_oci::Platform;

/// The base image is for another kind of machine. This rule has no page.
pub(crate) static RULE: Rule =
    Rule::new("InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform");

/// `image` as written in FROM.
pub(crate) fn check(image: &str, expected: &Platform, actual: &Platform) -> Option<Finding> {
    (expected.os != actual.os || expected.architecture != actual.architecture).then(|| {
        let (expected, actual) = (expected.normalized().to_string(), actual.normalized().to_string());
        let message = format!(
            "Base image {image} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
        );
        let help = format!("use an image that exists for {expected}, or build with --platform={actual}");
        Finding::new(&RULE, message).help(help)
    })
}
