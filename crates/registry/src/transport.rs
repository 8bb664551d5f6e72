//! One HTTP request: what is sent, how long it is waited for, what a failure means.

use crate::client::Inner;
use crate::error::{RegistryError, Target};
use crate::host::is_loopback;
use crate::retry::{Failure, Hint};
use crate::stats::{self, Counters};
use futures_util::StreamExt as _;
use reqwest::{RequestBuilder, Url};
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::bytes::Bytes;
use tokio_util::io::ReaderStream;

/// Size of the pieces in which files are sent, in bytes.
const UPLOAD_CHUNK: usize = 256 * 1024;

/// A body that can be sent again.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Bytes(Bytes),
    /// The first `len` bytes of a file.
    File {
        path: PathBuf,
        len: u64,
    },
}

/// The message of an error that means: the server does not speak TLS.
pub(crate) const NOT_TLS: &str =
    "the server does not speak TLS (declare the registry insecure for plain HTTP)";

/// An answer whose body is still to be read. Holds its place among the registry's connections.
pub(crate) struct Response {
    inner: reqwest::Response,
    idle: Duration,
    counters: Arc<Counters>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// `404 Not Found`.
    pub(crate) fn status_text(&self) -> String {
        self.inner.status().to_string()
    }

    pub(crate) fn url(&self) -> &Url {
        self.inner.url()
    }

    /// The first value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn header_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// `Content-Length`, also of an answer to HEAD.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self, target: &Target) -> Result<Option<Bytes>, Failure> {
        let address = authority(self.inner.url());
        match tokio::time::timeout(self.idle, self.inner.chunk()).await {
            Ok(Ok(chunk)) => {
                stats::add(&self.counters.bytes_received, chunk.as_ref().map_or(0, |c| c.len() as u64));
                Ok(chunk)
            }
            Ok(Err(error)) => Err(classify(error, target, &address)),
            Err(_) => Err(timed_out(target, address, self.idle)),
        }
    }

    /// The whole body, which must not be longer than `limit` bytes.
    pub(crate) async fn bytes(&mut self, target: &Target, limit: usize) -> Result<Vec<u8>, Failure> {
        let too_large =
            |found: u64| RegistryError::TooLarge { target: target.clone(), limit: limit as u64, found };
        if let Some(length) = self.length().filter(|length| *length > limit as u64) {
            return Err(too_large(length).into());
        }
        let mut out = Vec::new();
        while let Some(chunk) = self.chunk(target).await? {
            if out.len() + chunk.len() > limit {
                return Err(too_large((out.len() + chunk.len()) as u64).into());
            }
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    }

    /// What can be read of an error's body; a broken one is no further problem.
    pub(crate) async fn error_text(&mut self, target: &Target) -> String {
        const MAX_ERROR_BODY: usize = 64 * 1024;
        let mut out = Vec::new();
        while let Ok(Some(chunk)) = self.chunk(target).await {
            out.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - out.len())]);
            if out.len() == MAX_ERROR_BODY {
                break;
            }
        }
        crate::error::server_message(&out)
    }
}

/// Sends one request, without looking at the answer's status.
pub(crate) async fn send(
    inner: &Inner,
    target: &Target,
    builder: RequestBuilder,
    url: &Url,
    payload: Option<&Payload>,
) -> Result<Response, Failure> {
    let timeouts = &inner.config.timeouts;
    let address = authority(url);
    stats::add(&inner.counters.requests, 1);
    let result = match payload {
        Some(Payload::File { path, len }) => {
            let sent = Arc::new(AtomicU64::new(0));
            let body = file_body(inner, target, path, *len, sent.clone()).await?;
            let request = builder.header("content-length", *len).body(body).send();
            upload(inner, target, &address, request, &sent, *len).await?
        }
        Some(Payload::Bytes(bytes)) => {
            stats::add(&inner.counters.bytes_sent, bytes.len() as u64);
            let request = builder.body(bytes.clone()).send();
            match tokio::time::timeout(timeouts.commit, request).await {
                Ok(result) => result,
                Err(_) => return Err(timed_out(target, address, timeouts.commit)),
            }
        }
        None => match tokio::time::timeout(timeouts.connect + timeouts.idle, builder.send()).await {
            Ok(result) => result,
            Err(_) => return Err(timed_out(target, address, timeouts.idle)),
        },
    };
    match result {
        Ok(response) => Ok(Response {
            inner: response,
            idle: timeouts.idle,
            counters: inner.counters.clone(),
            permit: None,
        }),
        Err(error) => {
            let mut failure = classify(error, target, &address);
            if let RegistryError::Timeout { waited, .. } = &mut failure.error {
                *waited = timeouts.connect;
            }
            Err(failure)
        }
    }
}

/// Waits for an upload as long as it moves.
async fn upload(
    inner: &Inner,
    target: &Target,
    address: &str,
    request: impl Future<Output = reqwest::Result<reqwest::Response>>,
    sent: &AtomicU64,
    len: u64,
) -> Result<reqwest::Result<reqwest::Response>, Failure> {
    let timeouts = &inner.config.timeouts;
    tokio::pin!(request);
    let mut before = None;
    loop {
        let now = sent.load(Ordering::Relaxed);
        let limit = if now >= len { timeouts.commit } else { timeouts.idle };
        if before == Some(now) {
            return Err(timed_out(target, address.to_owned(), limit));
        }
        before = Some(now);
        tokio::select! {
            result = &mut request => return Ok(result),
            () = tokio::time::sleep(limit) => {}
        }
    }
}

async fn file_body(
    inner: &Inner,
    target: &Target,
    path: &std::path::Path,
    len: u64,
    sent: Arc<AtomicU64>,
) -> Result<reqwest::Body, Failure> {
    let problem = |error: io::Error| RegistryError::Io {
        target: target.clone(),
        message: format!("cannot read {}: {error}", path.display()),
    };
    let file = tokio::fs::File::open(path).await.map_err(problem)?;
    let found = file.metadata().await.map_err(problem)?.len();
    if found < len {
        let short = io::Error::other(format!("{found} bytes long, expected {len}"));
        return Err(problem(short).into());
    }
    let counters = inner.counters.clone();
    let stream = ReaderStream::with_capacity(file.take(len), UPLOAD_CHUNK).inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            stats::add(&counters.bytes_sent, chunk.len() as u64);
        }
    });
    Ok(reqwest::Body::wrap_stream(stream))
}

/// `host:port` of a URL, as certs.d directories and messages name it; default ports are left out.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A URL that may be shown: query and user can hold secrets.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn timed_out(target: &Target, address: String, waited: Duration) -> Failure {
    Failure::transient(RegistryError::Timeout { target: target.clone(), address, waited, attempts: 1 })
}

/// What a failed exchange means, and whether it is worth another try.
pub(crate) fn classify(error: reqwest::Error, target: &Target, address: &str) -> Failure {
    if let Some(tls) = find::<rustls::Error>(&error) {
        let message = match tls {
            rustls::Error::InvalidMessage(_) => NOT_TLS.to_owned(),
            other if address == target.host => other.to_string(),
            other => format!("{address}: {other}"),
        };
        return RegistryError::Tls { target: target.clone(), message }.into();
    }
    if error.is_timeout() {
        return timed_out(target, address.to_owned(), Duration::ZERO);
    }
    let refused =
        find::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let hint = match error.is_connect() {
        // Nobody will start listening on this machine in the next seconds.
        true if refused && is_loopback(address) => Hint::Final,
        true => Hint::Unreachable,
        false => Hint::Backoff,
    };
    let message = chain(&error);
    let (target, address) = (target.clone(), address.to_owned());
    Failure { error: RegistryError::Connect { target, address, message, attempts: 1 }, hint }
}

/// The first error of type `E` among `error` and its causes, also inside `io::Error`s.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<E>(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error with its causes in one line, without the URL that reqwest adds (it may hold secrets).
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<reqwest::Error>() {
            Some(http) if http.is_connect() => "no connection".to_owned(),
            Some(http) if http.is_body() || http.is_decode() => "the connection broke".to_owned(),
            Some(http) if http.is_request() => "the request failed".to_owned(),
            Some(_) => "HTTP".to_owned(),
            None => error.to_string(),
        };
        if !parts.last().is_some_and(|last| last.ends_with(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    crate::error::one_line(&parts.join(": "))
}
