//! A throw-away certificate authority.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::Path;

/// A CA and what it signs, as PEM.
pub struct CertAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its PKCS#8 key.
    pub key: String,
}

impl std::fmt::Debug for CertAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertAuthority")
    }
}

impl Default for CertAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl CertAuthority {
    /// A new CA with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "rbuild test CA");
        let key = KeyPair::generate().expect("the random generator works");
        let pem = params.self_signed(&key).expect("the parameters are complete").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The CA's own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server and client certificate for `names` (host names or addresses).
    pub fn sign(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are host names");
        params.distinguished_name.push(DnType::CommonName, "rbuild test");
        let key = KeyPair::generate().expect("the random generator works");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are complete");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Puts the CA into the certs.d directory `root` for `host`.
    pub fn install(&self, root: &Path, host: &str) {
        let directory = root.join(host);
        std::fs::create_dir_all(&directory).expect("the directory can be made");
        std::fs::write(directory.join("ca.crt"), &self.pem).expect("the file can be written");
    }
}
