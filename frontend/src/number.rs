//! Numbers as Go reads them: durations, sizes, booleans.

use crate::dump::go_quote;

/// Largest magnitude of a duration in nanoseconds.
const MAX_DURATION: u64 = 1 << 63;

/// A Go duration (`1h30m`, `1.5s`, `-2ms`, `0`) in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", go_quote(text)));
        }
        let Some(scale) = unit_nanoseconds(unit) else {
            return Err(format!("time: unknown unit {} in duration {}", go_quote(unit), go_quote(text)));
        };
        let part = part_nanoseconds(whole, fraction, scale).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|&total| total <= MAX_DURATION).ok_or_else(invalid)?;
        rest = tail;
    }
    match text.starts_with('-') {
        true => Ok((total as i64).wrapping_neg()),
        false => i64::try_from(total).map_err(|_| invalid()),
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn part_nanoseconds(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanoseconds = whole.checked_mul(scale)?;
    // More digits than fit into 63 bits are ignored.
    let kept = &fraction[..fraction.len().min(18)];
    if let Ok(value) = kept.parse::<u64>() {
        let power = 10f64.powi(kept.len() as i32);
        nanoseconds = nanoseconds.checked_add((value as f64 * (scale as f64 / power)) as u64)?;
    }
    (nanoseconds <= MAX_DURATION).then_some(nanoseconds)
}

/// A size with a binary unit (`10m`, `1.5g`, `1KiB`, `64 mb`) in bytes.
pub fn ram_in_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let at = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let number = if text[at..].starts_with(' ') { &text[..at] } else { &text[..=at] };
    let original_suffix = &text[at + 1..];
    let Ok(number) = number.parse::<f64>() else {
        return Err(format!("strconv.ParseFloat: parsing {}: invalid syntax", go_quote(number)));
    };
    if number < 0.0 {
        return Err(invalid());
    }
    let suffix = original_suffix.to_ascii_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(suffix.as_str(), "" | "b") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{original_suffix}'")),
    };
    if power > 0 && !matches!(&suffix[1..], "" | "b" | "ib") {
        return Err(format!("invalid suffix: '{original_suffix}'"));
    }
    Ok((number * 1024f64.powi(power)) as i64)
}

/// Go's `ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Digits only, as Go's `ParseUint` with 32 bits.
pub fn parse_u32(text: &str, radix: u32) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}
