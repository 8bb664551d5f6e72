//! ExposeInvalidFormat (E-022).

use super::{Finding, Rule};

/// EXPOSE names ports of the container; hosts are `docker run -p`'s business.
pub(crate) static RULE: Rule = Rule::new(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);

/// `port`: one expanded word.
pub(crate) fn check(port: &str) -> Option<Finding> {
    let (address, proto) = port.split_once('/').unwrap_or((port, ""));
    let (host, container) = address.rsplit_once(':')?;
    (!host.trim_matches(':').is_empty()).then(|| {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        let slash = if proto.is_empty() { "" } else { "/" };
        Finding::new(&RULE, message).help(format!("write EXPOSE {container}{slash}{proto}"))
    })
}
