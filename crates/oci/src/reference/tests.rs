use super::*;
use crate::conformance;

#[test]
fn golden_references() {
    let Some(cases) = conformance::golden("image-reference.json") else { return };
    let mut failures = Vec::new();
    for case in &cases {
        let text = case["ref"].as_str().unwrap();
        let parsed = text.parse::<Reference>();
        let (found, expected) = match &parsed {
            Ok(reference) => (
                format!(
                    "{}|{}|{}|{}|{}|{}",
                    reference.domain(),
                    reference.path(),
                    reference.familiar(),
                    reference,
                    reference.clone().with_default_tag(),
                    reference.tag().unwrap_or_default()
                ),
                ["domain", "path", "familiar", "normalized", "tag_name_only", "tag"]
                    .map(|key| case[key].as_str().unwrap_or_default())
                    .join("|"),
            ),
            Err(error) => (error.to_string(), case["error"].as_str().unwrap_or("no error").to_owned()),
        };
        if found != expected {
            failures.push(format!("{text}: found {found}, expected {expected}"));
        }
    }
    conformance::finish("image-reference.json", cases.len(), 0, &failures);
}

#[test]
fn references_are_normalised() {
    for (text, normalised, familiar) in [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("me/app:1", "docker.io/me/app:1", "me/app:1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("index.docker.io/a", "docker.io/library/a:latest", "a:latest"),
        ("docker.io/library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
    ] {
        let reference = text.parse::<Reference>().unwrap().with_default_tag();
        assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (normalised, familiar));
    }
}

#[test]
fn bad_references_have_dockers_messages() {
    let long = "a".repeat(256);
    for (text, message) in [
        ("", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("../../x", "invalid reference format"),
        ("a\0b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("häuser", "invalid reference format"),
        ("App", "invalid reference format: repository name (library/App) must be lowercase"),
        ("[::1/a", "invalid reference format"),
        ("[::1]x/a", "invalid reference format"),
        (&long, "repository name must not be more than 255 characters"),
        ("a@sha512:00000000000000000000000000000000", "unsupported digest algorithm"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), message, "{text:?}");
    }
}

#[test]
fn a_tag_is_replaced_only_by_a_valid_one() {
    let reference: Reference = "debian:12".parse().unwrap();
    assert_eq!(reference.with_tag("13").unwrap().familiar(), "debian:13");
    assert_eq!(reference.with_tag("a/b"), Err(ReferenceError::Format));
    assert_eq!(reference.with_tag(""), Err(ReferenceError::Format));
    assert_eq!(reference.without_tag().familiar(), "debian");
}

proptest::proptest! {
    #[test]
    fn any_text_parses_or_fails_and_round_trips(text in "[a-zA-Z0-9:@/._\\[\\]-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            proptest::prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            // A familiar name of 64 hex digits is refused on the way back, as docker refuses it.
            if let Ok(again) = reference.familiar().parse::<Reference>() {
                proptest::prop_assert_eq!(again, reference);
            }
        }
    }
}
