//! Numbers in tar headers and PAX records.

use rbuild_tree::Timestamp;

/// A header field: octal text padded with spaces and NULs, or GNU's base-256 (the first byte's top bit set, two's
/// complement). Empty is 0.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let padding = |c: &u8| *c == b' ' || *c == 0;
    let start = bytes.iter().position(|c| !padding(c)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|c| !padding(c)).map_or(start, |i| i + 1);
    let mut value = 0_i64;
    for c in &bytes[start..end] {
        // A NUL or space ends the number; what old writers left behind it is not read.
        if padding(c) {
            break;
        }
        let digit = c.checked_sub(b'0').filter(|d| *d < 8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

fn base256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
    let mut value: i128 = if negative { i128::from(first as i8) } else { i128::from(first) };
    for byte in &bytes[1..] {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

/// A PAX decimal integer without sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, c| {
        let digit = c.checked_sub(b'0').filter(|d| *d < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A PAX time: `[-]seconds[.fraction]`; digits beyond nanoseconds are cut off.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|c| *c == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let whole = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0_u32, |n, i| n * 10 + fraction.get(i).map_or(0, |c| u32::from(c - b'0')));
    Some(match (negative, nanos) {
        (false, _) => Timestamp { seconds: whole, nanos },
        (true, 0) => Timestamp { seconds: -whole, nanos: 0 },
        (true, _) => Timestamp { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"644\0junk", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"\x80\0\0\0\xee\x6b\x28\0", Some(0xee6b_2800)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(field(bytes), value, "{bytes:?}");
        }
    }

    #[test]
    fn pax_times() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        for (text, value) in [
            ("0", at(0, 0)),
            ("1700000000.123456789", at(1_700_000_000, 123_456_789)),
            ("1.5", at(1, 500_000_000)),
            ("1.0000000019", at(1, 1)),
            ("1.", at(1, 0)),
            ("-1", at(-1, 0)),
            ("-0.25", at(-1, 750_000_000)),
            ("", None),
            (".5", None),
            ("1e9", None),
            ("1.5x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text.as_bytes()), value, "{text}");
        }
    }
}
