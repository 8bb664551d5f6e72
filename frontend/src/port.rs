//! Words of EXPOSE and names of signals: what the image config accepts.

use std::net::IpAddr;

/// Reads one word of EXPOSE, variables expanded: `[[ip:]host:]port[-end][/proto]`. Gives `port/proto` for every
/// port of the range; the host parts are checked and dropped.
pub fn parse_expose_word(word: &str) -> Result<Vec<String>, String> {
    let (address, proto) = word.split_once('/').unwrap_or((word, ""));
    let (front, container) = address.rsplit_once(':').unwrap_or(("", address));
    let (ip, host) = front.rsplit_once(':').unwrap_or(("", front));
    let quoted = crate::dump::go_quote(word);
    if container.is_empty() {
        return Err(format!("invalid port: {quoted}: no port specified"));
    }
    let proto = match proto.to_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(format!("invalid port: {quoted}: invalid proto: {proto}")),
    };
    check_ip(ip)?;
    let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if last - first != host_last - host_first && first != last {
            let message = "invalid ranges specified for container and host Ports";
            return Err(format!("{message}: {container} and {host}"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{proto}")).collect())
}

fn check_ip(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let bare = match text.strip_prefix('[') {
        None => text,
        Some(rest) => rest
            .strip_suffix(']')
            .ok_or_else(|| format!("invalid IP address {text}: address {text}:: missing ']' in address"))?,
    };
    match bare.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("invalid IP address: {bare}")),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => text.parse().ok().map(|port| (port, port))?,
    };
    (first <= last).then_some((first, last))
}

/// Signals of Linux by number, from 1 on.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Lowest and highest real-time signal.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of a signal: a number other than 0, or a name in any case, with or without `SIG`, or
/// `RTMIN+n` (n to 15), `RTMAX-n` (n to 14).
pub fn parse_signal(text: &str) -> Result<i32, String> {
    let invalid = || format!("invalid signal: {text}");
    if let Ok(number) = text.parse::<i32>() {
        return if number == 0 { Err(invalid()) } else { Ok(number) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = SIGNALS.iter().position(|known| *known == name) {
        return Ok(at as i32 + 1);
    }
    let step = |digits: &str, most: i32| digits.parse::<i32>().ok().filter(|n| (1..=most).contains(n));
    let number = match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        "UNUSED" => Some(31),
        "RTMIN" => Some(REAL_TIME.0),
        "RTMAX" => Some(REAL_TIME.1),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(digits), _) => step(digits, 15).map(|n| REAL_TIME.0 + n),
            (_, Some(digits)) => step(digits, 14).map(|n| REAL_TIME.1 - n),
            _ => None,
        },
    };
    number.ok_or_else(invalid)
}
