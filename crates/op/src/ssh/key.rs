//! Private keys in files: OpenSSH's own format (PROTOCOL.key), PKCS#1 and PKCS#8.

use super::wire::{Reader, put_mpint, put_string};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use std::fmt;
use std::sync::Arc;

/// Longest key file that is read, in bytes.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// What an OpenSSH key begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Flags of a request to sign: which hash an RSA signature is made with.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Why a file is no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// It has a passphrase.
    #[error(
        "the key is encrypted: add it to an agent (ssh-add) and give --ssh ID=SOCKET, or take one without passphrase"
    )]
    Encrypted,
    /// It is something else.
    #[error(
        "it is neither the socket of an agent nor a private key in the format of OpenSSH, PKCS#1 or PKCS#8"
    )]
    NotAKey,
    /// The kind of key is not known here.
    #[error("keys of type {0} are not supported: add it to an agent (ssh-add) and give --ssh ID=SOCKET")]
    Unsupported(String),
    /// It is cut off or contradicts itself.
    #[error("the key is damaged")]
    Damaged,
}

/// A private key that signs for steps. Clones share it.
#[derive(Clone)]
pub struct SshKey(Arc<Inner>);

struct Inner {
    /// The public key as it is sent.
    blob: Vec<u8>,
    comment: String,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair, Curve),
    Rsa(Box<RsaKeyPair>),
}

#[derive(Clone, Copy)]
struct Curve {
    name: &'static str,
    algorithm: &'static EcdsaSigningAlgorithm,
}

const CURVES: [Curve; 2] = [
    Curve { name: "nistp256", algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING },
    Curve { name: "nistp384", algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING },
];

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshKey({})", self.0.comment)
    }
}

impl SshKey {
    /// Reads the content of a key file.
    ///
    /// # Errors
    /// [`SshKeyError`].
    pub fn parse(file: &[u8]) -> Result<Self, SshKeyError> {
        let text = std::str::from_utf8(file).map_err(|_| SshKeyError::NotAKey)?;
        let (_, rest) = text.split_once("-----BEGIN ").ok_or(SshKeyError::NotAKey)?;
        let (label, rest) = rest.split_once("-----").ok_or(SshKeyError::NotAKey)?;
        let (body, _) = rest.split_once("-----END ").ok_or(SshKeyError::Damaged)?;
        if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
            return Err(SshKeyError::Encrypted);
        }
        let mut body: String = body.split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(&body).map_err(|_| SshKeyError::Damaged);
        wipe(std::mem::take(&mut body).into_bytes());
        let decoded = decoded?;
        let inner = match label {
            "OPENSSH PRIVATE KEY" => openssh(&decoded),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&decoded).map(rsa).map_err(|_| SshKeyError::Damaged),
            "PRIVATE KEY" => pkcs8(&decoded),
            label => match label.strip_suffix(" PRIVATE KEY") {
                Some(kind) => Err(SshKeyError::Unsupported(format!("{kind} in this format"))),
                None => Err(SshKeyError::NotAKey),
            },
        };
        wipe(decoded);
        Ok(Self(Arc::new(inner?)))
    }

    /// The public key as it is sent.
    pub(super) fn blob(&self) -> &[u8] {
        &self.0.blob
    }

    /// What its owner calls it.
    pub(super) fn comment(&self) -> &str {
        &self.0.comment
    }

    /// A signature with its algorithm's name, as it is sent; `None` for RSA with SHA-1, which nobody should trust.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let (name, signature) = match &self.0.signer {
            Signer::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Signer::Ecdsa(pair, curve) => {
                let fixed = pair.sign(&SystemRandom::new(), data).ok()?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                let mut both = Vec::new();
                put_mpint(&mut both, r);
                put_mpint(&mut both, s);
                (format!("ecdsa-sha2-{}", curve.name), both)
            }
            Signer::Rsa(pair) => {
                let (name, padding): (_, &'static dyn ring::signature::RsaEncoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), data, &mut signature).ok()?;
                (name.to_owned(), signature)
            }
        };
        let mut out = Vec::new();
        put_string(&mut out, name.as_bytes());
        put_string(&mut out, &signature);
        Some(out)
    }
}

/// Overwrites bytes that nobody needs any more.
fn wipe(mut bytes: Vec<u8>) {
    bytes.fill(0);
    // Keeps the compiler from leaving out writes that nobody reads.
    std::hint::black_box(&bytes);
}

fn openssh(bytes: &[u8]) -> Result<Inner, SshKeyError> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(SshKeyError::NotAKey)?);
    let cipher = reader.string().ok_or(SshKeyError::Damaged)?;
    if cipher != b"none" {
        return Err(SshKeyError::Encrypted);
    }
    let mut section = || -> Option<(&[u8], &[u8])> {
        let (_kdf, _options) = (reader.string()?, reader.string()?);
        // More than one key was never written by anything.
        let count = reader.u32()?;
        (count == 1).then_some(())?;
        Some((reader.string()?, reader.string()?))
    };
    let (blob, private) = section().ok_or(SshKeyError::Damaged)?;
    let mut reader = Reader(private);
    let checks = (reader.u32(), reader.u32());
    if checks.0.is_none() || checks.0 != checks.1 {
        return Err(SshKeyError::Damaged);
    }
    let kind = reader.string().ok_or(SshKeyError::Damaged)?;
    let kind = String::from_utf8_lossy(kind).into_owned();
    let signer = match kind.as_str() {
        "ssh-ed25519" => ed25519(&mut reader),
        "ssh-rsa" => rsa_of_parts(&mut reader),
        kind if kind.starts_with("ecdsa-sha2-") => {
            let curve = CURVES.into_iter().find(|curve| kind.ends_with(curve.name));
            let curve = curve.ok_or_else(|| SshKeyError::Unsupported(kind.to_owned()))?;
            ecdsa(&mut reader, curve)
        }
        kind => return Err(SshKeyError::Unsupported(kind.to_owned())),
    };
    let signer = signer.ok_or(SshKeyError::Damaged)?;
    let comment = String::from_utf8_lossy(reader.string().unwrap_or_default()).into_owned();
    Ok(Inner { blob: blob.to_vec(), comment, signer })
}

fn ed25519(reader: &mut Reader<'_>) -> Option<Signer> {
    let public = reader.string()?;
    // The seed, and the public key once more.
    let seed = reader.string()?.get(..32)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).ok().map(Signer::Ed25519)
}

fn ecdsa(reader: &mut Reader<'_>, curve: Curve) -> Option<Signer> {
    let (_name, public, private) = (reader.string()?, reader.string()?, reader.mpint()?);
    // Left of a compressed point's length there is nothing: an uncompressed one has twice the scalar's length and a mark.
    let length = public.len().checked_sub(1)? / 2;
    let mut scalar = vec![0; length.checked_sub(private.len())?];
    scalar.extend_from_slice(private);
    let pair =
        EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &scalar, public, &SystemRandom::new());
    wipe(scalar);
    Some(Signer::Ecdsa(pair.ok()?, curve))
}

/// The file leaves out the exponents of the Chinese remainder theorem.
fn rsa_of_parts(reader: &mut Reader<'_>) -> Option<Signer> {
    let (n, e, d) = (reader.mpint()?, reader.mpint()?, reader.mpint()?);
    let (q_inverse, p, q) = (reader.mpint()?, reader.mpint()?, reader.mpint()?);
    let exponent = |prime: &[u8]| {
        let below = BigUint::from_bytes_be(prime).checked_sub_one()?;
        Some((BigUint::from_bytes_be(d) % below).to_bytes_be())
    };
    let (d_p, d_q) = (exponent(p)?, exponent(q)?);
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: q_inverse,
    };
    let pair = RsaKeyPair::from_components(&components);
    wipe(d_p);
    wipe(d_q);
    Some(Signer::Rsa(Box::new(pair.ok()?)))
}

trait CheckedSubOne: Sized {
    /// One less, if that is still something to divide by.
    fn checked_sub_one(self) -> Option<Self>;
}

impl CheckedSubOne for BigUint {
    fn checked_sub_one(self) -> Option<Self> {
        if self.bits() < 2 { None } else { Some(self - 1u32) }
    }
}

fn rsa(pair: RsaKeyPair) -> Inner {
    let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let mut blob = Vec::new();
    put_string(&mut blob, b"ssh-rsa");
    put_mpint(&mut blob, &public.e);
    put_mpint(&mut blob, &public.n);
    Inner { blob, comment: String::new(), signer: Signer::Rsa(Box::new(pair)) }
}

fn pkcs8(bytes: &[u8]) -> Result<Inner, SshKeyError> {
    if let Ok(pair) = RsaKeyPair::from_pkcs8(bytes) {
        return Ok(rsa(pair));
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, pair.public_key().as_ref());
        return Ok(Inner { blob, comment: String::new(), signer: Signer::Ed25519(pair) });
    }
    for curve in CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm, bytes, &SystemRandom::new()) {
            let mut blob = Vec::new();
            put_string(&mut blob, format!("ecdsa-sha2-{}", curve.name).as_bytes());
            put_string(&mut blob, curve.name.as_bytes());
            put_string(&mut blob, pair.public_key().as_ref());
            return Ok(Inner { blob, comment: String::new(), signer: Signer::Ecdsa(pair, curve) });
        }
    }
    Err(SshKeyError::Unsupported("this kind in PKCS#8".to_owned()))
}
