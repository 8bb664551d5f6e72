//! What helps against errors whose messages are BuildKit's, where the place that finds them knows nothing better.

/// Beginnings of messages.
const BEGINNINGS: [(&str, &str); 12] = [
    (
        "invalid containerPort: ",
        "write a number from 1 to 65535, or a range like 8000-8010, with /tcp, /udp or /sctp",
    ),
    ("invalid hostPort: ", "write a number from 1 to 65535, or a range like 8000-8010"),
    ("invalid port: ", "write a number from 1 to 65535, or a range like 8000-8010, with /tcp, /udp or /sctp"),
    ("invalid signal: ", "write a name like SIGTERM or a number like 15"),
    ("invalid stage index ", "stages are counted from 0, and can be named: FROM image AS name"),
    ("invalid checksum digest", "write sha256: and the 64 hexadecimal digits that sha256sum prints"),
    ("unsupported digest algorithm", "write sha256: and the 64 hexadecimal digits that sha256sum prints"),
    ("failed to parse platform ", "write os/architecture or os/architecture/variant, such as linux/arm64"),
    ("failed to parse stage name ", "write [registry/]name[:tag][@digest] in lower case"),
    ("invalid mount target \"/\"", "add target=/path"),
    ("HEALTHCHECK NONE takes no arguments", "leave them out, or write HEALTHCHECK CMD command"),
    ("VOLUME specified can not be an empty string", "write VOLUME /path"),
];

/// Ends of messages.
const ENDS: [(&str, &str); 3] = [
    ("isn't allowed as an ONBUILD trigger", "write the instruction without ONBUILD"),
    ("`ONBUILD ONBUILD` isn't allowed", "write one ONBUILD: triggers act in the next build only"),
    (
        ") in substitution",
        "close it with }; the modifiers are :- - :+ + :? ? # ## % %% / //, and \\$ is a dollar sign",
    ),
];

/// The remedy for a message, if it is one of those.
pub(crate) fn of(message: &str) -> Option<&'static str> {
    let begins = BEGINNINGS.iter().find(|(text, _)| message.starts_with(text));
    begins.or_else(|| ENDS.iter().find(|(text, _)| message.ends_with(text))).map(|(_, help)| *help)
}
