//! CA certificates and client certificates on disk (F-007).

use crate::config::ClientConfig;
use crate::error::RegistryError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Largest PEM file that is read, in bytes.
const MAX_PEM: u64 = 16 * 1024 * 1024;
/// Where distributions keep their bundle; the first that exists is read.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What certs.d says about one host.
#[derive(Debug, Default)]
pub(crate) struct HostCerts {
    /// Additional CAs.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// Client certificate chain and key.
    pub(crate) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Whether any certs.d root has a directory for `host`.
pub(crate) fn has_directory(config: &ClientConfig, host: &str) -> bool {
    config.certs_dirs.iter().any(|root| root.join(host).is_dir())
}

/// Reads the certs.d directories of `host` (`name` or `name:port`).
pub(crate) fn host_certs(config: &ClientConfig, host: &str) -> Result<HostCerts, RegistryError> {
    let mut out = HostCerts::default();
    for root in &config.certs_dirs {
        let directory = root.join(host);
        let Some(files) = list(&directory)? else { continue };
        for file in &files {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => out.authorities.extend(certificates(file)?),
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !files.contains(&key) {
                        return Err(RegistryError::Config(format!(
                            "{}: missing key {} for this client certificate; CA certificates must use the extension .crt",
                            file.display(),
                            name(&key)
                        )));
                    }
                    if out.identity.is_none() {
                        out.identity = Some((certificates(file)?, private_key(&key)?));
                    }
                }
                Some("key") if !files.contains(&file.with_extension("cert")) => {
                    return Err(RegistryError::Config(format!(
                        "{}: missing client certificate {} for this key",
                        file.display(),
                        name(&file.with_extension("cert"))
                    )));
                }
                _ => {}
            }
        }
    }
    Ok(out)
}

/// The system's CAs, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Unreadable entries are left out.
pub(crate) fn system_authorities(config: &ClientConfig) -> Vec<CertificateDer<'static>> {
    let mut files: Vec<PathBuf> = Vec::new();
    if config.ca_file.is_none() && config.ca_dirs.is_empty() {
        files.extend(SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    }
    files.extend(config.ca_file.clone());
    for directory in &config.ca_dirs {
        files.extend(list(directory).ok().flatten().unwrap_or_default());
    }
    files.iter().flat_map(|file| certificates(file).unwrap_or_default()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn problem(path: &Path, message: impl std::fmt::Display) -> RegistryError {
    RegistryError::Config(format!("{}: {message}", path.display()))
}

/// The files of a directory, sorted; `None` when there is none.
fn list(directory: &Path) -> Result<Option<Vec<PathBuf>>, RegistryError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(problem(directory, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| problem(directory, error))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(Some(files))
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let size = std::fs::metadata(path).map_err(|error| problem(path, error))?.len();
    if size > MAX_PEM {
        return Err(problem(path, format!("larger than {MAX_PEM} bytes")));
    }
    std::fs::read(path).map_err(|error| problem(path, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let bytes = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| problem(path, format!("not PEM certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(problem(path, "no PEM certificate in it"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, RegistryError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| problem(path, format!("no PEM private key: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &Path) -> ClientConfig {
        ClientConfig { certs_dirs: vec![root.into()], ..ClientConfig::default() }
    }

    #[test]
    fn pairs_must_be_complete_and_errors_name_the_file() {
        for (file, text) in [
            ("client.cert", "missing key client.key"),
            ("client.key", "missing client certificate client.cert"),
            ("ca.crt", "no PEM certificate"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let directory = root.path().join("r.example:5000");
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join(file), "nonsense").unwrap();
            let error = host_certs(&config(root.path()), "r.example:5000").unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(file), "{error}");
            assert!(has_directory(&config(root.path()), "r.example:5000"));
            assert!(!has_directory(&config(root.path()), "r.example"));
        }
    }

    #[test]
    fn system_bundle_is_replaced_by_given_values() {
        let root = tempfile::tempdir().unwrap();
        let key = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let file = root.path().join("bundle.pem");
        std::fs::write(&file, key.cert.pem()).unwrap();
        let given = ClientConfig { ca_file: Some(file), ..ClientConfig::default() };
        assert_eq!(system_authorities(&given).len(), 1);
        let given = ClientConfig { ca_dirs: vec![root.path().into()], ..ClientConfig::default() };
        assert_eq!(system_authorities(&given).len(), 1);
    }
}
