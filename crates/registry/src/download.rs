//! Plain downloads of files over HTTP(S), with the connections, certificates, proxies and retries of the registry
//! client. Credentials of registries are never sent.

use crate::auth::same_origin;
use crate::client::{Client, Inner};
use crate::error::{RegistryError, Target, one_line};
use crate::headers;
use crate::retry::{Failure, Hint, Retry};
use crate::tls::Trust;
use crate::transport::{self, Response, authority, shown};
use rbuild_oci::Digest;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use sha2::Digest as _;
use std::io::{self, Write};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// A file to be downloaded.
#[derive(Clone, Default)]
pub struct DownloadRequest {
    /// `http://…` or `https://…`; user name and password in it are sent to its own origin only.
    pub url: String,
    /// `Authorization`, sent to the URL's own origin only.
    pub authorization: Option<String>,
    /// What is known of an earlier download: the file is not sent again if the server knows it by these.
    pub known: Option<Validators>,
    /// Longest file that is taken, in bytes.
    pub max_size: u64,
}

/// What a server says to tell versions of a file apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// `ETag`, with its quotes.
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    pub last_modified: Option<String>,
}

impl Validators {
    fn of(response: &Response) -> Self {
        let header = |name| {
            response.header(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        Self { etag: header("etag"), last_modified: header("last-modified") }
    }

    /// `Last-Modified` in seconds since 1970.
    pub fn modified(&self) -> Option<i64> {
        i64::try_from(headers::http_date(self.last_modified.as_deref()?)?).ok()
    }

    /// The strong one that ties two parts of a file together (RFC 9110, 13.1.5).
    fn for_range(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }
}

/// How a download ended.
#[derive(Debug)]
pub enum Downloaded<W> {
    /// The file is the one that was known.
    NotModified,
    /// Here it is.
    File {
        /// What the bytes were written to.
        sink: W,
        /// Their digest.
        digest: Digest,
        /// How many.
        size: u64,
        /// For the next time.
        validators: Validators,
    },
}

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The URL is none, or of a scheme that is not spoken.
    #[error("`{url}` is no http or https URL: {reason}")]
    BadUrl {
        /// As given, without credentials.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server has no such file for us.
    #[error("{url}: the server answered {status}{} (check the URL, and whether it wants credentials)", tries(*attempts))]
    Status {
        /// Where, without query and user.
        url: String,
        /// `404 Not Found`.
        status: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The file is longer than allowed.
    #[error("{url}: larger than allowed: the limit is {limit} bytes")]
    TooLarge {
        /// Where.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The server sends us around, or to where we do not go.
    #[error("{url}: {reason}")]
    Redirect {
        /// Where it began.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// What was downloaded cannot be kept.
    #[error("{url}: cannot keep the file: {source}")]
    Sink {
        /// Where from.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// No connection, no TLS, or it broke.
    #[error(transparent)]
    Transport(#[from] RegistryError),
}

fn tries(attempts: u32) -> String {
    if attempts > 1 { format!(" (tried {attempts} times)") } else { String::new() }
}

/// A failed try: repeated or final.
enum Stop {
    Again(Failure),
    Final(DownloadError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Again(failure)
    }
}

impl From<DownloadError> for Stop {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}

impl Client {
    /// Downloads a file. `open` makes the writer that the bytes go to, again whenever the file has to be taken from its
    /// beginning; the last one made is given back. `on_progress` gets the bytes so far and the length, 0 if unknown.
    ///
    /// A broken connection is resumed where the server can tell that the file is still the same.
    ///
    /// # Errors
    /// See [`DownloadError`]; what was written then is worthless.
    pub async fn download<W: Write + Send>(
        &self,
        request: &DownloadRequest,
        open: impl FnMut() -> io::Result<W> + Send,
        on_progress: impl FnMut(u64, u64) + Send,
    ) -> Result<Downloaded<W>, DownloadError> {
        let url = parse(&request.url)?;
        let inner = &*self.inner;
        let target =
            Target { host: authority(&url), repository: url.path().trim_start_matches('/').to_owned() };
        let mut transfer = Transfer { inner, request, url, target, open, on_progress, state: None };
        let mut retry = Retry::new(&inner.config.retry, &*inner.config.clock, &inner.retries);
        loop {
            let before = transfer.received();
            match transfer.attempt().await {
                Ok(true) => break,
                Ok(false) => return Ok(Downloaded::NotModified),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Again(failure)) => {
                    if transfer.received() > before {
                        retry.progressed();
                    }
                    retry.wait(failure).await.map_err(|error| transfer.given_up(error))?;
                }
            }
        }
        transfer.finish()
    }
}

/// An absolute http or https URL with a host.
fn parse(text: &str) -> Result<Url, DownloadError> {
    let bad = |reason: String| {
        let url = Url::parse(text)
            .map_or_else(|_| one_line(text.split('@').next_back().unwrap_or_default()), |url| shown(&url));
        DownloadError::BadUrl { url, reason }
    };
    let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        "http" | "https" => Err(bad("it has no host".into())),
        _ => Err(bad("another scheme".into())),
    }
}

/// What was received so far.
struct State<W> {
    sink: W,
    hasher: sha2::Sha256,
    received: u64,
    validators: Validators,
}

struct Transfer<'a, F, P, W> {
    inner: &'a Inner,
    request: &'a DownloadRequest,
    url: Url,
    target: Target,
    open: F,
    on_progress: P,
    state: Option<State<W>>,
}

impl<F, P, W> Transfer<'_, F, P, W>
where
    F: FnMut() -> io::Result<W> + Send,
    P: FnMut(u64, u64) + Send,
    W: Write + Send,
{
    fn received(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.received)
    }

    fn shown(&self) -> String {
        shown(&self.url)
    }

    /// One try; `false` if the file is the known one.
    async fn attempt(&mut self) -> Result<bool, Stop> {
        let mut response = self.follow().await?;
        let known = self.request.known.as_ref().filter(|_| self.state.is_none());
        match response.status() {
            304 if known.is_some() => return Ok(false),
            200 | 206 => {}
            _ => return Err(self.refused(&mut response).await),
        }
        let validators = Validators::of(&response);
        // A server that ignores conditions still says which version it sends.
        if known.is_some_and(|known| known.etag.is_some() && known.etag == validators.etag) {
            return Ok(false);
        }
        let resumed = response.status() == 206;
        if resumed {
            let range = response.header("content-range").and_then(headers::content_range);
            if self.received() == 0 || range.is_none_or(|(first, _)| first != self.received()) {
                self.state = None;
                let message = "the server sent another part of the file than was asked for".to_owned();
                return Err(Failure::transient(RegistryError::Protocol {
                    target: self.target.clone(),
                    message,
                })
                .into());
            }
        } else {
            let sink = (self.open)().map_err(|source| DownloadError::Sink { url: self.shown(), source })?;
            self.state = Some(State { sink, hasher: sha2::Sha256::new(), received: 0, validators });
        }
        self.receive(&mut response).await?;
        Ok(true)
    }

    async fn receive(&mut self, response: &mut Response) -> Result<(), Stop> {
        let limit = self.request.max_size;
        let url = self.shown();
        let too_large = || DownloadError::TooLarge { url: url.clone(), limit };
        let state = self.state.as_mut().expect("a state was made before the body is read");
        let total = response.length().map_or(0, |length| length.saturating_add(state.received));
        if total > limit {
            return Err(too_large().into());
        }
        while let Some(chunk) = response.chunk(&self.target).await? {
            if state.received + chunk.len() as u64 > limit {
                return Err(too_large().into());
            }
            state
                .sink
                .write_all(&chunk)
                .map_err(|source| DownloadError::Sink { url: url.clone(), source })?;
            state.hasher.update(&chunk);
            state.received += chunk.len() as u64;
            (self.on_progress)(state.received, total);
        }
        if total > 0 && state.received < total {
            let (expected, found) = (total, state.received);
            return Err(Failure::transient(RegistryError::Truncated {
                target: self.target.clone(),
                expected,
                found,
            })
            .into());
        }
        Ok(())
    }

    /// Sends the request, following redirects; credentials go to the first origin only.
    async fn follow(&self) -> Result<Response, Stop> {
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let trust = if url.scheme() == "https" { Trust::Verified } else { Trust::NoTls };
            let pool = self.inner.pool(&authority(&url), true, trust, &url).map_err(DownloadError::from)?;
            let mut builder = pool.get(url.clone());
            if let Some(text) = self.request.authorization.as_ref().filter(|_| same_origin(&url, &self.url)) {
                let value = HeaderValue::from_str(text)
                    .map_err(|_| self.around("the credentials are no HTTP header"))?;
                builder = builder.header(AUTHORIZATION, value);
            }
            for (name, value) in self.conditions() {
                builder = builder.header(name, value);
            }
            let response = transport::send(self.inner, &self.target, builder, &url, None).await?;
            let location = match response.status() {
                301 | 302 | 303 | 307 | 308 => response.header("location"),
                _ => None,
            };
            let Some(location) = location else { return Ok(response) };
            url = self.redirected(&url, location)?;
        }
        Err(self.around(&format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    /// `If-None-Match` and such for a first request, `Range` for one that goes on.
    fn conditions(&self) -> Vec<(&'static str, String)> {
        if let Some(state) = self.state.as_ref().filter(|state| state.received > 0) {
            let Some(validator) = state.validators.for_range() else { return Vec::new() };
            return vec![("range", format!("bytes={}-", state.received)), ("if-range", validator.to_owned())];
        }
        let Some(known) = self.request.known.as_ref() else { return Vec::new() };
        match (&known.etag, &known.last_modified) {
            (Some(etag), _) => vec![("if-none-match", etag.clone())],
            (None, Some(date)) => vec![("if-modified-since", date.clone())],
            (None, None) => Vec::new(),
        }
    }

    fn redirected(&self, from: &Url, location: &str) -> Result<Url, DownloadError> {
        let place = one_line(location.split(['?', '#']).next().unwrap_or_default());
        let mut url = from
            .join(location)
            .map_err(|_| self.around(&format!("redirected to `{place}`, which is no URL")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(self.around(&format!("redirected to `{place}`, which is neither http nor https")));
        }
        let own = same_origin(&url, &self.url);
        let _ = url.set_username(if own { self.url.username() } else { "" });
        let _ = url.set_password(self.url.password().filter(|_| own));
        Ok(url)
    }

    fn around(&self, reason: &str) -> DownloadError {
        DownloadError::Redirect { url: self.shown(), reason: reason.to_owned() }
    }

    /// What an unwanted status means, and whether it may change.
    async fn refused(&self, response: &mut Response) -> Stop {
        let now = self.inner.config.clock.wall();
        let wait = response.header("retry-after").and_then(|value| headers::retry_after(value, now));
        let hint = match response.status() {
            429 | 503 if wait.is_some() => Hint::After(wait.unwrap_or_default()),
            408 | 425 | 429 | 500..=599 => Hint::Backoff,
            _ => {
                return DownloadError::Status {
                    url: self.shown(),
                    status: response.status_text(),
                    attempts: 1,
                }
                .into();
            }
        };
        let error = RegistryError::Status {
            target: Box::new(self.target.clone()),
            method: "GET",
            url: self.shown(),
            status: response.status_text(),
            message: String::new(),
            attempts: 1,
        };
        Stop::Again(Failure { error, hint })
    }

    /// The error of the last try.
    fn given_up(&self, error: RegistryError) -> DownloadError {
        match error {
            RegistryError::Status { status, attempts, url, .. } => {
                DownloadError::Status { url, status, attempts }
            }
            error => DownloadError::Transport(error),
        }
    }

    fn finish(mut self) -> Result<Downloaded<W>, DownloadError> {
        let url = self.shown();
        let mut state = self.state.take().expect("a download that ended well has a state");
        state.sink.flush().map_err(|source| DownloadError::Sink { url, source })?;
        let digest = Digest::from_bytes(state.hasher.finalize().into());
        Ok(Downloaded::File { sink: state.sink, digest, size: state.received, validators: state.validators })
    }
}
