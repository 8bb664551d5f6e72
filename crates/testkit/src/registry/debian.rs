//! Debian's `docker-registry` as a child process.

use super::ca::CertAuthority;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// How the registry is set up.
#[derive(Debug, Default)]
pub struct DebianOptions {
    /// Speak TLS with a certificate of this CA, for 127.0.0.1 and localhost.
    pub tls: Option<Arc<CertAuthority>>,
    /// User and password (needs `htpasswd` of apache2-utils).
    pub basic: Option<(String, String)>,
}

/// A running docker-registry with an empty storage; killed when dropped.
#[derive(Debug)]
pub struct DebianRegistry {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl DebianRegistry {
    /// Starts the registry; `None` with a printed `skipped:` line if what it needs is not installed.
    ///
    /// # Panics
    /// If it is installed but does not start.
    pub fn start(test: &str, options: &DebianOptions) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            skip(test, "docker-registry is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut extra = String::new();
        if let Some((username, password)) = &options.basic {
            let Some(line) = htpasswd(username, password) else {
                skip(test, "htpasswd is not installed (apache2-utils)");
                return None;
            };
            let file = directory.path().join("htpasswd");
            std::fs::write(&file, line).expect("the file can be written");
            extra += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        }
        let mut tls = String::new();
        if let Some(ca) = &options.tls {
            let pair = ca.sign(&["127.0.0.1", "localhost"]);
            let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
            std::fs::write(&certificate, pair.certificate).expect("the file can be written");
            std::fs::write(&key, pair.key).expect("the file can be written");
            tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        }
        // The port may be taken between finding and using it: try a few.
        (0..5)
            .find_map(|_| Self::spawn(&directory, &tls, &extra))
            .map(|(child, port)| Self { child, port, directory })
            .or_else(|| panic!("docker-registry did not start"))
    }

    fn spawn(directory: &tempfile::TempDir, tls: &str, extra: &str) -> Option<(Child, u16)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).ok()?.port();
        let storage = directory.path().join("storage");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}{extra}",
            storage.display()
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("the file can be written");
        let log = std::fs::File::create(directory.path().join("log")).expect("the file can be made");
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .ok()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if child.try_wait().ok().flatten().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some((child, port));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it keeps its data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::print_stdout, reason = "tests say what they skip")]
fn skip(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
}

/// One line of a password file with bcrypt, the only form docker-registry takes.
fn htpasswd(username: &str, password: &str) -> Option<String> {
    let mut child = Command::new("htpasswd")
        .args(["-inB", "-C", "4", username])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(password.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
