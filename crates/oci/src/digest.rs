//! `sha256:<64 lower-case hex digits>`, the only digest algorithm accepted.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use std::fmt;
use std::io;
use std::str::FromStr;

/// A SHA-256 content digest.
///
/// Parsing is strict (image-spec, descriptor.md "Digests"): a digest that parses can be used as a file name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a string is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:hex` form at all.
    #[error("invalid digest `{0}`: expected `sha256:` and 64 hex digits")]
    Format(String),
    /// Well-formed, but not SHA-256.
    #[error("unsupported digest algorithm in `{0}`: only sha256 is supported")]
    Algorithm(String),
}

impl Digest {
    /// Wraps the 32 raw bytes of a SHA-256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `data`.
    pub fn of(data: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(data.as_ref()).into())
    }

    /// The 64 hex digits, without the algorithm: the file name below `blobs/sha256/`.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(64);
        for byte in self.0 {
            out.push(DIGITS[usize::from(byte >> 4)] as char);
            out.push(DIGITS[usize::from(byte & 15)] as char);
        }
        out
    }

    /// The first 12 hex digits, as people see image ids.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// Parses 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let bytes = hex.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut out = [0; 32];
        for (i, pair) in bytes.chunks_exact(2).enumerate() {
            out[i] = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(out))
    }
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::Format(text.to_owned()))?;
        if algorithm != "sha256" {
            let known_form = !algorithm.is_empty()
                && algorithm
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+._-".contains(&c));
            return Err(if known_form {
                DigestError::Algorithm(text.to_owned())
            } else {
                DigestError::Format(text.to_owned())
            });
        }
        Self::from_hex(hex).ok_or_else(|| DigestError::Format(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Passes bytes on to `inner` while hashing and counting them.
pub struct Sha256Writer<W> {
    inner: W,
    hasher: sha2::Sha256,
    written: u64,
}

impl<W> Sha256Writer<W> {
    /// Starts with nothing written.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), written: 0 }
    }

    /// The inner writer, the digest of all that was written, and its length in bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hasher.finalize().into()), self.written)
    }
}

impl<W: io::Write> io::Write for Sha256Writer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of("").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(""));
    }

    #[test]
    fn a_digest_that_could_be_a_path_is_refused() {
        for bad in ["sha256:../../x", "sha256:", "sha256", "", "SHA256:00", "sha256:E3B0", "/etc:aa"] {
            assert!(matches!(bad.parse::<Digest>(), Err(DigestError::Format(_))), "{bad}");
        }
        assert!(matches!("sha512:ab".parse::<Digest>(), Err(DigestError::Algorithm(_))));
    }

    #[test]
    fn writer_hashes_what_it_passes_on() {
        use std::io::Write as _;
        let mut writer = Sha256Writer::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        let (inner, digest, len) = writer.finish();
        assert_eq!((inner.as_slice(), digest, len), (&b"abc"[..], Digest::of("abc"), 3));
    }
}
