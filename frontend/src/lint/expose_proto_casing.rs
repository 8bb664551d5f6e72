//! ExposeProtoCasing (E-021).

use super::{Finding, Rule};

/// `80/TCP` is `80/tcp`.
pub(crate) static RULE: Rule = Rule::new(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase",
);

/// `port`: one expanded word.
pub(crate) fn check(port: &str) -> Option<Finding> {
    let (number, proto) = port.split_once('/')?;
    let lower = proto.to_lowercase();
    (lower != proto).then(|| {
        Finding::new(&RULE, format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"))
            .help(format!("write {number}/{lower}"))
    })
}
