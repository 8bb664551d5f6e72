//! Keys as `ssh-keygen` writes them; their signatures as `ring` checks them.

use super::key::{SshKey, SshKeyError};
use super::wire::Reader;
use ring::signature as verify;
use std::path::Path;
use std::process::{Command, Stdio};

/// A new key's file; `None` where there is no ssh-keygen.
fn generate(dir: &Path, name: &str, args: &[&str]) -> Option<Vec<u8>> {
    let path = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "a comment", "-f"]).arg(&path).args(args);
    let made =
        command.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    made.then(|| std::fs::read(&path).unwrap())
}

fn check(key: &SshKey, flags: u32) {
    let (data, signed) = (b"session", key.sign(b"session", flags).expect("a signature"));
    let mut reader = Reader(&signed);
    let (name, signature) = (reader.string().unwrap(), reader.string().unwrap());
    let mut blob = Reader(key.blob());
    let kind = String::from_utf8(blob.string().unwrap().to_vec()).unwrap();
    let verified = match kind.as_str() {
        "ssh-ed25519" => {
            verify::UnparsedPublicKey::new(&verify::ED25519, blob.string().unwrap()).verify(data, signature)
        }
        "ssh-rsa" => {
            let (e, n) = (blob.mpint().unwrap(), blob.mpint().unwrap());
            let (expected, algorithm) = match flags {
                4 => ("rsa-sha2-512", &verify::RSA_PKCS1_2048_8192_SHA512),
                _ => ("rsa-sha2-256", &verify::RSA_PKCS1_2048_8192_SHA256),
            };
            assert_eq!(name, expected.as_bytes());
            verify::RsaPublicKeyComponents { n, e }.verify(algorithm, data, signature)
        }
        kind => {
            let (_, point) = (blob.string().unwrap(), blob.string().unwrap());
            let half = point.len() / 2;
            let mut numbers = Reader(signature);
            let fixed: Vec<u8> = [numbers.mpint().unwrap(), numbers.mpint().unwrap()]
                .iter()
                .flat_map(|number| [vec![0; half - number.len()], number.to_vec()].concat())
                .collect();
            let algorithm = match kind {
                "ecdsa-sha2-nistp256" => &verify::ECDSA_P256_SHA256_FIXED,
                _ => &verify::ECDSA_P384_SHA384_FIXED,
            };
            verify::UnparsedPublicKey::new(algorithm, point).verify(data, &fixed)
        }
    };
    assert!(verified.is_ok(), "{kind} {flags}");
}

#[test]
fn d_012_keys_of_every_kind_sign() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args, flags) in [
        ("ed25519", &["-t", "ed25519", "-N", ""][..], &[0][..]),
        ("p256", &["-t", "ecdsa", "-b", "256", "-N", ""], &[0]),
        ("p384", &["-t", "ecdsa", "-b", "384", "-N", ""], &[0]),
        ("rsa", &["-t", "rsa", "-b", "2048", "-N", ""], &[2, 4]),
        ("rsa-pem", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"], &[2, 4]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PKCS8"], &[2]),
        ("p256-pkcs8", &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PKCS8"], &[0]),
    ] {
        let Some(file) = generate(dir.path(), name, args) else {
            println!("skipped: d_012_keys_of_every_kind_sign: no ssh-keygen (package openssh-client)");
            return;
        };
        let key = SshKey::parse(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        flags.iter().for_each(|flags| check(&key, *flags));
        // The public half is the one that ssh-keygen wrote beside it.
        let public = std::fs::read_to_string(dir.path().join(format!("{name}.pub"))).unwrap();
        use base64::Engine as _;
        let blob = base64::engine::general_purpose::STANDARD.encode(key.blob());
        assert_eq!(public.split(' ').nth(1), Some(blob.as_str()), "{name}");
        if !name.contains('-') {
            assert_eq!(key.comment(), "a comment");
        }
        // Cut off anywhere, it is an error.
        for end in (0..file.len().saturating_sub(40)).step_by(17) {
            assert!(SshKey::parse(&file[..end]).is_err(), "{name} {end}");
        }
    }
}

#[test]
fn d_012_keys_that_cannot_be_used_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args, expected) in [
        ("locked", &["-t", "ed25519", "-N", "secret"][..], SshKeyError::Encrypted),
        ("locked-pem", &["-t", "rsa", "-b", "2048", "-N", "secret", "-m", "PEM"], SshKeyError::Encrypted),
        ("locked-pkcs8", &["-t", "rsa", "-b", "2048", "-N", "secret", "-m", "PKCS8"], SshKeyError::Encrypted),
        (
            "p521",
            &["-t", "ecdsa", "-b", "521", "-N", ""],
            SshKeyError::Unsupported("ecdsa-sha2-nistp521".into()),
        ),
        (
            "p256-pem",
            &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PEM"],
            SshKeyError::Unsupported("EC in this format".into()),
        ),
    ] {
        let Some(file) = generate(dir.path(), name, args) else {
            println!("skipped: d_012_keys_that_cannot_be_used_are_told_apart: no ssh-keygen");
            return;
        };
        assert_eq!(SshKey::parse(&file).map(drop), Err(expected), "{name}");
    }
    for other in [
        &b""[..],
        b"\xff",
        b"ssh-ed25519 AAAA",
        b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    ] {
        assert_eq!(SshKey::parse(other).map(drop), Err(SshKeyError::NotAKey));
    }
}
