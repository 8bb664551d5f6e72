//! A session with one repository: authentication, redirects and retries around `transport`.

use crate::challenge;
use crate::client::Inner;
use crate::credentials::{self, Credential};
use crate::error::{Access, RegistryError, Target, one_line};
use crate::headers;
use crate::host::{Endpoint, Host};
use crate::retry::{Failure, Hint, Retry};
use crate::scope::Scopes;
use crate::tls::Trust;
use crate::token::{self, Issuer};
use crate::transport::{self, Payload, Response, shown};
use rbuild_oci::Reference;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use std::sync::Arc;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;
/// Times a request is sent again with fresh authentication.
const MAX_CHALLENGES: usize = 2;

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    Basic,
    Bearer(Issuer),
}

/// Access to one repository of one registry.
pub(crate) struct Session<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) host: Arc<Host>,
    pub(crate) reference: &'a Reference,
    pub(crate) access: Access,
    pub(crate) target: Target,
    pub(crate) scopes: Scopes,
}

/// One request of a session.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Option<Payload>,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), payload: None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

/// The strongest challenge of an answer that is understood.
pub(crate) fn best_scheme(response: &Response) -> Option<Scheme> {
    challenges(response).0
}

/// The scheme, the scope asked for, and the error that came with it.
fn challenges(response: &Response) -> (Option<Scheme>, Option<String>, Option<String>) {
    let all: Vec<_> = response.header_all("www-authenticate").flat_map(challenge::parse).collect();
    let bearer = all.iter().find(|c| c.scheme == "bearer" && c.params.contains_key("realm"));
    match bearer {
        Some(bearer) => {
            let param = |name: &str| bearer.params.get(name).cloned();
            let issuer = Issuer { realm: param("realm").unwrap_or_default(), service: param("service") };
            (Some(Scheme::Bearer(issuer)), param("scope"), param("error"))
        }
        None => (all.iter().any(|c| c.scheme == "basic").then_some(Scheme::Basic), None, None),
    }
}

impl Session<'_> {
    /// A new series of tries.
    pub(crate) fn retry(&self) -> Retry<'_> {
        let config = &self.inner.config;
        Retry::new(&config.retry, &*config.clock, &self.inner.retries)
    }

    /// `<endpoint>/v2/<repository>/<rest>`.
    pub(crate) async fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        let endpoint = self.host.endpoint(self.inner).await?;
        endpoint
            .base
            .join(&format!("v2/{}/{rest}", self.reference.path()))
            .map_err(|error| RegistryError::Config(format!("{}: {error}", self.host.name)))
    }

    pub(crate) fn protocol(&self, message: impl Into<String>) -> RegistryError {
        RegistryError::Protocol { target: self.target.clone(), message: message.into() }
    }

    /// Sends `request` until it is answered with one of the `accepted` statuses, or must be given up.
    pub(crate) async fn send(&self, request: &Request, accepted: &[u16]) -> Result<Response, RegistryError> {
        let mut retry = self.retry();
        loop {
            match self.try_once(request, accepted).await {
                Ok(response) => return Ok(response),
                Err(failure) => retry.wait(failure).await?,
            }
        }
    }

    /// One try: authentication and redirects are followed, other failures are not repeated.
    pub(crate) async fn try_once(&self, request: &Request, accepted: &[u16]) -> Result<Response, Failure> {
        let mut response = self.exchange(request).await?;
        if accepted.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.status_failure(&mut response, method_name(&request.method)).await)
    }

    /// Sends with authentication; gives whatever answer remains.
    async fn exchange(&self, request: &Request) -> Result<Response, Failure> {
        let endpoint = self.host.endpoint(self.inner).await?;
        let mut scopes = self.scopes.clone();
        let mut authorization = match self.scheme() {
            Some(scheme) if same_origin(&request.url, &endpoint.base) => {
                self.authorization(&scheme, &scopes, None).await?
            }
            _ => None,
        };
        for round in 0.. {
            // The permit is taken after the token: a token must not wait for those who wait for it.
            let permit = self.host.permits.clone().acquire_owned().await.ok();
            let mut response = self.follow(endpoint, request, authorization.as_ref()).await?;
            response.permit = permit;
            let ours = same_origin(response.url(), &endpoint.base);
            if response.status() != 401 || !ours || round == MAX_CHALLENGES {
                return Ok(response);
            }
            let (scheme, scope, _) = challenges(&response);
            let Some(scheme) = scheme else { return Ok(response) };
            let rejected = authorization.as_ref().and_then(|v| v.to_str().ok().map(ToOwned::to_owned));
            scopes.merge_challenge(scope.as_deref().unwrap_or_default());
            *self.host.scheme.lock().unwrap_or_else(|e| e.into_inner()) = Some(scheme.clone());
            let next = self.authorization(&scheme, &scopes, rejected.as_deref()).await?;
            if next.is_none() || next == authorization {
                return Ok(response);
            }
            authorization = next;
        }
        Err(self.protocol("no end of challenges").into())
    }

    /// Follows redirects; credentials go to the registry's own origin only.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let ours = same_origin(&url, &endpoint.base);
            let trust = if ours { endpoint.trust } else { foreign_trust(endpoint, &url) };
            let pool = self.inner.pool(&self.host.name, ours, trust, &url)?;
            let mut builder =
                pool.request(request.method.clone(), url.clone()).headers(request.headers.clone());
            if let Some(value) = authorization.filter(|_| ours) {
                builder = builder.header(AUTHORIZATION, value.clone());
            }
            let payload = request.payload.as_ref();
            let response = transport::send(self.inner, &self.target, builder, &url, payload).await?;
            let redirected = matches!(response.status(), 301 | 302 | 303 | 307 | 308)
                && (request.method == Method::GET || request.method == Method::HEAD);
            if !redirected {
                return Ok(response);
            }
            let Some(location) = response.header("location") else { return Ok(response) };
            url = self.safe_target(&url, location)?;
        }
        Err(self.protocol(format!("more than {MAX_REDIRECTS} redirects from {}", shown(&request.url))).into())
    }

    /// Resolves `location` against `from`; refuses to leave HTTP(S) or to go from https to http.
    pub(crate) fn safe_target(&self, from: &Url, location: &str) -> Result<Url, RegistryError> {
        let refuse = |why: &str| {
            let location = one_line(location.split('?').next().unwrap_or_default());
            self.protocol(format!("refusing to go from {} to `{location}`: {why}", shown(from)))
        };
        let mut url = from.join(location).map_err(|_| refuse("not a URL"))?;
        match (from.scheme(), url.scheme()) {
            _ if !url.has_host() => return Err(refuse("no host")),
            (_, "https") | ("http", "http") => {}
            (_, "http") => return Err(refuse("that would give up TLS")),
            _ => return Err(refuse("neither https nor http")),
        }
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(url)
    }

    fn scheme(&self) -> Option<Scheme> {
        self.host.scheme.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The credential for this repository; looked up once.
    pub(crate) async fn credential(&self) -> Result<Option<Credential>, RegistryError> {
        let mut known = self.host.credentials.lock().await;
        if let Some(credential) = known.get(self.reference.path()) {
            return Ok(credential.clone());
        }
        let credential = credentials::find(&self.inner.config, self.reference).await?;
        known.insert(self.reference.path().to_owned(), credential.clone());
        Ok(credential)
    }

    async fn authorization(
        &self,
        scheme: &Scheme,
        scopes: &Scopes,
        rejected: Option<&str>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let text = match scheme {
            Scheme::Basic => match self.credential().await?.and_then(|c| c.basic()) {
                Some(basic) => basic,
                None => return Ok(None),
            },
            Scheme::Bearer(issuer) => match self.credential().await? {
                Some(Credential::Bearer(token)) => format!("Bearer {token}"),
                _ => {
                    let rejected = rejected.and_then(|value| value.strip_prefix("Bearer "));
                    format!("Bearer {}", token::get(self, issuer, scopes, rejected).await?)
                }
            },
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| self.protocol("a token or password cannot be put into an HTTP header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The error that an unwanted status stands for.
    pub(crate) async fn status_failure(&self, response: &mut Response, method: &'static str) -> Failure {
        let target = self.target.clone();
        let status = response.status();
        let (scheme, _, challenge_error) = challenges(response);
        let wait = response
            .header("retry-after")
            .and_then(|value| headers::retry_after(value, self.inner.config.clock.wall()));
        let ours = match self.host.endpoint(self.inner).await {
            Ok(endpoint) => same_origin(response.url(), &endpoint.base),
            Err(error) => return error.into(),
        };
        let message = response.error_text(&self.target).await;
        match status {
            401 | 403 if ours => {
                let message = match (challenge_error, message.is_empty()) {
                    (Some(error), _) if error == "insufficient_scope" => {
                        "insufficient_scope: authorization failed".to_owned()
                    }
                    (Some(error), true) => one_line(&error),
                    (None, true) => response.status_text(),
                    (_, false) => message,
                };
                let refused_password = status == 401
                    && scheme == Some(Scheme::Basic)
                    && matches!(self.credential().await, Ok(Some(_)));
                if refused_password {
                    RegistryError::Unauthorized { target, message }.into()
                } else {
                    RegistryError::Denied { target, access: self.access, message }.into()
                }
            }
            404 if ours && method != "POST" => RegistryError::NotFound { target, message }.into(),
            _ => {
                let hint = match status {
                    429 | 503 if wait.is_some() => Hint::After(wait.unwrap_or_default()),
                    408 | 425 | 429 | 500..=599 => Hint::Backoff,
                    _ => Hint::Final,
                };
                let error = RegistryError::Status {
                    target: Box::new(target),
                    method,
                    url: shown(response.url()),
                    status: response.status_text(),
                    message: match wait {
                        Some(wait) => {
                            format!("{message} (retry after {} s)", wait.as_secs()).trim().to_owned()
                        }
                        None => message,
                    },
                    attempts: 1,
                };
                Failure { error, hint }
            }
        }
    }
}

/// The trust for a host that the registry, or its token service, sent us to.
pub(crate) fn foreign_trust(endpoint: &Endpoint, url: &Url) -> Trust {
    match url.scheme() {
        "http" => Trust::NoTls,
        _ if endpoint.trust == Trust::Anyone && url.host() == endpoint.base.host() => Trust::Anyone,
        _ => Trust::Verified,
    }
}

/// Scheme, host and port are equal.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        _ => "HTTP",
    }
}
