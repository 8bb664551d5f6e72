//! Replays of the conformance data for tests inside this crate.

use serde_json::Value;
use std::path::PathBuf;

/// Calls `check` with every entry of `golden/<name>`; it gives why an entry differs. Prints the numbers, fails below 99 %.
pub(crate) fn replay(name: &str, check: impl Fn(&Value) -> Option<String>) {
    #[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    let text = match std::fs::read_to_string(root.join("golden").join(name)) {
        Ok(text) => text,
        Err(error) => return println!("skipped: golden/{name}: {error}"),
    };
    let entries: Vec<Value> = serde_json::from_str(&text).expect("the table is JSON");
    let failures: Vec<String> = entries.iter().filter_map(check).collect();
    failures.iter().for_each(|failure| println!("  differs: {failure}"));
    let passed = entries.len() - failures.len();
    println!("golden/{name}: {} run, {passed} passed, 0 skipped", entries.len());
    assert!(
        passed > 0 && passed * 100 >= entries.len() * 99,
        "golden/{name}: only {passed} of {}",
        entries.len()
    );
}

/// Why `got` is not `expected`.
pub(crate) fn differs<T: PartialEq + std::fmt::Debug>(entry: &Value, got: T, expected: T) -> Option<String> {
    (got != expected).then(|| format!("{entry}: expected {expected:?}, got {got:?}"))
}
