use super::*;
use crate::{Digest, conformance};

#[test]
fn golden_platforms() {
    let Some(cases) = conformance::golden("platforms.json") else { return };
    let on_amd64 = Platform::host().architecture == "amd64";
    let (mut run, mut skipped, mut failures) = (0, 0, Vec::new());
    for case in &cases {
        let text = case["platform"].as_str().unwrap();
        if !on_amd64 && KNOWN_OS.contains(&text) {
            skipped += 1;
            continue;
        }
        run += 1;
        let (found, expected) = match text.parse::<Platform>() {
            Ok(platform) => (
                format!(
                    "{}|{}|{}|{}|{platform}|{}",
                    platform.architecture,
                    platform.os,
                    platform.os_version.clone().unwrap_or_default(),
                    platform.variant.clone().unwrap_or_default(),
                    platform.normalized().format_all()
                ),
                [
                    "/parsed/architecture",
                    "/parsed/os",
                    "/parsed/os_version",
                    "/parsed/variant",
                    "/format",
                    "/normalized",
                ]
                .map(|key| case.pointer(key).and_then(|v| v.as_str()).unwrap_or("(error)"))
                .join("|"),
            ),
            Err(error) => (error.to_string(), case["error"].as_str().unwrap_or("no error").to_owned()),
        };
        if found != expected {
            failures.push(format!("{text}: found {found}, expected {expected}"));
        }
    }
    conformance::finish("platforms.json", run, skipped, &failures);
}

fn entry(platform: &str) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(platform), 1);
    descriptor.platform = (!platform.is_empty()).then(|| platform.parse().unwrap());
    descriptor
}

#[test]
fn the_best_entry_is_chosen_with_variant_fallback() {
    for (wanted, offered, chosen) in [
        ("linux/amd64", vec!["linux/arm64", "linux/amd64"], Some(1)),
        ("linux/amd64", vec!["linux/amd64/v2"], None),
        ("linux/amd64/v3", vec!["linux/amd64", "linux/amd64/v2"], Some(1)),
        ("linux/amd64/v3", vec!["linux/amd64", "linux/amd64/v4"], Some(0)),
        ("linux/amd64", vec!["linux/386"], Some(0)),
        ("linux/arm/v7", vec!["linux/arm/v5", "linux/arm/v6"], Some(1)),
        ("linux/arm", vec!["linux/arm/v7"], Some(0)),
        ("linux/arm/v6", vec!["linux/arm/v7"], None),
        ("linux/arm64", vec!["linux/arm/v7", "linux/arm64/v8"], Some(1)),
        ("linux/arm64", vec!["linux/arm/v6", "linux/arm/v7"], Some(1)),
        ("linux/arm64/v9", vec!["linux/arm64"], Some(0)),
        ("linux/amd64", vec!["windows/amd64", "unknown/unknown"], None),
        ("linux/amd64", vec!["", "linux/amd64"], Some(1)),
        ("linux/amd64", vec!["linux/arm64", ""], Some(1)),
        ("linux/s390x", vec!["linux/s390x", "linux/s390x"], Some(0)),
        ("windows(10.0.17763)/amd64", vec!["windows(10.0.1)/amd64", "windows(10.0.17763.5)/amd64"], Some(1)),
    ] {
        let entries: Vec<_> = offered.iter().map(|p| entry(p)).collect();
        let wanted_platform: Platform = wanted.parse().unwrap();
        assert_eq!(best_match(&entries, &wanted_platform), chosen, "{wanted} of {offered:?}");
    }
}

#[test]
fn a_huge_variant_makes_no_huge_list() {
    let platform: Platform = "linux/amd64/v4000000000".parse().unwrap();
    assert!(platform.matcher().candidates.len() < 20);
}

proptest::proptest! {
    #[test]
    fn normalising_twice_changes_nothing(text in "[a-zA-Z0-9_./()-]{0,24}") {
        if let Ok(platform) = text.parse::<Platform>() {
            let once = platform.normalized();
            proptest::prop_assert_eq!(&once.normalized(), &once);
            proptest::prop_assert_eq!(once.matcher().rank(&platform), Some(0));
        }
    }
}
