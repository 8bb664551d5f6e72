//! Golden files for tests, when they are on this machine.

use std::path::PathBuf;

/// The cases of `golden/<name>`, or `None` with a printed skip line.
#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the data is")]
pub(crate) fn golden(name: &str) -> Option<Vec<serde_json::Value>> {
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    let path = root.join("golden").join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("golden files are JSON arrays")),
        Err(error) => {
            println!("skipped: {name}: {}: {error}", path.display());
            None
        }
    }
}

/// Prints what was replayed and fails below 99 %.
pub(crate) fn finish(name: &str, run: usize, skipped: usize, failures: &[String]) {
    let passed = run - failures.len();
    failures.iter().for_each(|failure| println!("  differs: {failure}"));
    println!("golden/{name}: {run} run, {passed} passed, {skipped} skipped");
    assert!(run > 0 && passed * 100 >= run * 99, "golden/{name}: only {passed} of {run}");
}
