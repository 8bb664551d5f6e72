//! EXPOSE's ports.

use super::Outcome;
use crate::ast::Word;
use crate::env::Lookup;
use crate::quote::go_quote;
use crate::shell::Lex;
use std::net::IpAddr;

/// The ports of an EXPOSE as `port/protocol`: words are sorted, then expanded and split again.
pub(super) fn ports(words: &[Word], lex: &Lex, env: &dyn Lookup) -> Outcome<Vec<String>> {
    let mut sorted: Vec<&str> = words.iter().map(Word::as_str).collect();
    sorted.sort_unstable();
    let mut ports = Vec::new();
    for word in sorted {
        for spec in lex.words(word, env).map_err(|error| error.to_string())? {
            ports.extend(port_spec(&spec)?);
        }
    }
    Ok(ports)
}

/// One `[ip:][host:]port[-end][/protocol]`.
pub(crate) fn port_spec(spec: &str) -> Outcome<Vec<String>> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (ip, host, container) = match parts[..] {
        [container] => (String::new(), "", container),
        [host, container] => (String::new(), host, container),
        [ref ip @ .., host, container] => (ip.join(":"), host, container),
        [] => (String::new(), "", ""),
    };
    let invalid = |reason: String| Err(format!("invalid port: {}: {reason}", go_quote(spec)));
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return invalid("no port specified".into());
    }
    let protocol = match protocol.to_lowercase() {
        empty if empty.is_empty() => "tcp".to_owned(),
        known if ["tcp", "udp", "sctp"].contains(&known.as_str()) => known,
        other => return invalid(format!("invalid proto: {other}")),
    };
    check_ip(&ip)?;
    let Some((start, end)) = port_range(port) else { return Err(format!("invalid containerPort: {port}")) };
    if !host.is_empty() {
        let Some((host_start, host_end)) = port_range(host) else {
            return Err(format!("invalid hostPort: {host}"));
        };
        if end - start != host_end - host_start && end != start {
            let text = format!("invalid ranges specified for container and host Ports: {port} and {host}");
            return Err(text);
        }
    }
    Ok((start..=end).map(|port| format!("{port}/{protocol}")).collect())
}

fn check_ip(text: &str) -> Outcome {
    let ip = match text.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .ok_or_else(|| format!("invalid IP address {text}: address {text}:: missing ']' in address"))?,
        None => text,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    Ok(())
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start <= end).then_some((start, end))
}
