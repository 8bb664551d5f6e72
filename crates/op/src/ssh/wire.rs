//! Strings and integers of the SSH protocols (RFC 4251, section 5).

/// Reads from the front; `None` at an end that comes too early.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).ok()?)
    }

    /// A positive integer, without leading zeros.
    pub(super) fn mpint(&mut self) -> Option<&'a [u8]> {
        Some(trimmed(self.string()?))
    }
}

/// Without leading zeros.
pub(super) fn trimmed(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

/// A positive integer: one whose first bit is set gets a zero in front.
pub(super) fn put_mpint(out: &mut Vec<u8>, number: &[u8]) {
    let number = trimmed(number);
    let sign: &[u8] = if number.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    put_string(out, &[sign, number].concat());
}
