//! What the tests share.

use rbuild_oci::{Descriptor, Digest, Reference, media_type};
use rbuild_registry::{Blocking, Client, ClientConfig, Clock, RegistryError, Timeouts};
use rbuild_testkit::TestRegistry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// A clock that never waits: it only writes down how long it should have, and moves itself on.
#[derive(Debug)]
pub(crate) struct TestClock {
    start: Instant,
    elapsed: Mutex<Duration>,
    pub(crate) waits: Mutex<Vec<Duration>>,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), elapsed: Mutex::default(), waits: Mutex::default() })
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }

    pub(crate) fn waits(&self) -> Vec<Duration> {
        self.waits.lock().unwrap().clone()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start + *self.elapsed.lock().unwrap()
    }
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + *self.elapsed.lock().unwrap()
    }
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.waits.lock().unwrap().push(duration);
        self.advance(duration);
        Box::pin(std::future::ready(()))
    }
}

/// A configuration whose retries cost no time.
pub(crate) fn config() -> ClientConfig {
    ClientConfig { clock: TestClock::new(), ..ClientConfig::default() }
}

/// Silence is noticed soon.
pub(crate) fn impatient() -> Timeouts {
    Timeouts { connect: Duration::from_millis(100), idle: Duration::from_millis(100), ..Timeouts::default() }
}

pub(crate) fn client() -> Client {
    Client::new(config())
}

pub(crate) fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

pub(crate) fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(bytes), bytes.len() as u64)
}

/// Bytes that differ everywhere.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(len)
    .collect()
}

pub(crate) const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

/// Puts a small manifest under `tag`.
pub(crate) fn put_manifest(registry: &TestRegistry, repository: &str, tag: &str) -> Digest {
    registry.put_manifest(repository, tag, media_type::OCI_MANIFEST, MANIFEST)
}

/// Pulls into memory. On failure, also what the sink holds.
pub(crate) async fn pull(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, (RegistryError, Vec<u8>)> {
    let mut sink = Blocking(Vec::new());
    match client.pull_blob(reference, descriptor, &mut sink, |_| {}).await {
        Ok(()) => Ok(sink.0),
        Err(error) => Err((error, sink.0)),
    }
}

/// A file with `bytes`.
pub(crate) fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}
