use crate::Chmod;
use serde_json::Value;
use std::path::PathBuf;

fn conformance(file: &str) -> Option<Value> {
    #[expect(clippy::disallowed_methods, reason = "a test is told by the environment where the data is")]
    let root = std::env::var_os("RBUILD_CONFORMANCE").map(PathBuf::from);
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance");
    match std::fs::read(root.unwrap_or_else(|| beside.into()).join(file)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(error) => {
            println!("skipped: {file}: {error}");
            None
        }
    }
}

///
#[test]
fn replay_golden_chmod_symbolic() {
    let Some(data) = conformance("golden/chmod-symbolic.json") else { return };
    let (mut run, mut passed) = (0, 0);
    for entry in data.as_array().unwrap() {
        let text = entry["chmod"].as_str().unwrap();
        let octal = |value: &Value| u32::from_str_radix(value.as_str().unwrap(), 8).unwrap();
        let chmod = match (Chmod::parse(text), entry["error"].is_string()) {
            (Ok(chmod), false) => chmod,
            (parsed, expected) => {
                run += 1;
                passed += usize::from(parsed.is_err() == expected);
                continue;
            }
        };
        for result in entry["results"].as_array().unwrap() {
            let got = chmod.apply(octal(&result["mode"]), result["dir"] == true);
            run += 1;
            passed += usize::from(got == octal(&result["result"]));
            if got != octal(&result["result"]) {
                println!("  differs: {text} on {result}: {got:o}");
            }
        }
    }
    println!("golden/chmod-symbolic.json: {run} run, {passed} passed, 0 skipped");
    assert!(run > 0 && passed * 100 >= run * 99);
}

///
#[test]
fn chmod_texts() {
    assert_eq!(Chmod::parse("0755").unwrap(), Chmod::Octal(0o755));
    assert_eq!(Chmod::parse("7777").unwrap(), Chmod::Octal(0o7777));
    for bad in ["", "0999", "10000", "77777777777777", "u", "rwx", "u=,", "a+q", "-1", "+x,"] {
        let want =
            format!("invalid chmod parameter: '{bad}'. it should be octal string and between 0 and 07777");
        assert_eq!(Chmod::parse(bad).unwrap_err().to_string(), want);
    }
    let parent = |text: &str| Chmod::parent_mode(Some(&Chmod::parse(text).unwrap()));
    assert_eq!((parent("7700"), parent("u+s"), Chmod::parent_mode(None)), (0o700, 0o755, 0o755));
}
