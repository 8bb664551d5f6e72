//! `--history-limits` (C-024): how much history is kept.

use super::bytes;
use crate::exit::Usage;
use anyhow::Result;
use rbuild_build::Limits;
use std::time::Duration;

/// `entries=N,age=30d,bytes=512mb`, each optional.
pub(crate) fn limits(text: Option<&str>) -> Result<Limits> {
    let mut limits = Limits::default();
    for field in text.unwrap_or_default().split(',').map(str::trim).filter(|field| !field.is_empty()) {
        let problem = || {
            Usage::new(format!(
                "invalid --history-limits `{field}`: expected entries=N, age=30d or bytes=512mb"
            ))
        };
        let (name, value) = field.split_once('=').ok_or_else(problem)?;
        match name {
            "entries" => limits.entries = value.parse().map_err(|_| problem())?,
            "age" => limits.age = duration(value).ok_or_else(problem)?,
            "bytes" => limits.bytes = bytes(value).map_err(|_| problem())?,
            _ => return Err(problem().into()),
        }
    }
    Ok(limits)
}

/// `90s`, `15m`, `48h`, `30d`, `4w`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_024_limits_are_read() {
        assert_eq!(limits(None).unwrap(), Limits::default());
        let read = limits(Some("entries=5,age=48h, bytes=1mb")).unwrap();
        let expected = Limits { entries: 5, age: Duration::from_secs(48 * 3600), bytes: 1 << 20 };
        assert_eq!(read, expected);
        for bad in ["entries", "entries=x", "age=5", "age=-1d", "bytes=1q", "lines=4"] {
            assert!(limits(Some(bad)).is_err(), "{bad}");
        }
    }
}
