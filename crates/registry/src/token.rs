//! Bearer tokens: fetching, keeping, one request at a time for each scope (F-003).

use crate::auth::{Session, foreign_trust};
use crate::credentials::Credential;
use crate::error::RegistryError;
use crate::retry::Failure;
use crate::scope::Scopes;
use crate::stats;
use crate::tls::Trust;
use crate::transport::{self, Payload};
use reqwest::Url;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Largest answer of a token service that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Lifetime of a token that does not say (distribution's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Longest lifetime that is believed.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A token that is about to expire is not used for something new.
const MARGIN: Duration = Duration::from_secs(5);
const CLIENT_ID: &str = "rbuild";

/// Tokens by scope.
#[derive(Default)]
pub(crate) struct Cache(Mutex<HashMap<String, Arc<Slot>>>);

#[derive(Default)]
struct Slot {
    /// Counts finished requests, so that who waited for one shares its outcome.
    generation: AtomicU64,
    outcome: tokio::sync::Mutex<Option<Result<Token, RegistryError>>>,
}

#[derive(Clone)]
struct Token {
    value: String,
    expires: Instant,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issuer {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
}

/// A token for `scopes` that is not `rejected`.
pub(crate) async fn get(
    session: &Session<'_>,
    issuer: &Issuer,
    scopes: &Scopes,
    rejected: Option<&str>,
) -> Result<String, RegistryError> {
    let list = scopes.list();
    let slot = {
        let mut slots = session.host.tokens.0.lock().unwrap_or_else(|e| e.into_inner());
        slots.entry(list.join(" ")).or_default().clone()
    };
    let seen = slot.generation.load(Ordering::Acquire);
    let mut outcome = slot.outcome.lock().await;
    let now = session.inner.config.clock.now();
    match &*outcome {
        Some(Ok(token)) if token.expires > now && Some(token.value.as_str()) != rejected => {
            return Ok(token.value.clone());
        }
        Some(Err(error)) if slot.generation.load(Ordering::Acquire) != seen => return Err(error.clone()),
        _ => {}
    }
    let result = fetch(session, issuer, &list).await;
    slot.generation.fetch_add(1, Ordering::Release);
    *outcome = Some(result.clone());
    result.map(|token| token.value)
}

async fn fetch(session: &Session<'_>, issuer: &Issuer, scopes: &[String]) -> Result<Token, RegistryError> {
    let realm = checked_realm(session, &issuer.realm).await?;
    let credential = session.credential().await?;
    let mut retry = session.retry();
    loop {
        match request(session, issuer, &realm, credential.as_ref(), scopes).await {
            Ok(token) => return Ok(token),
            Err(failure) => retry.wait(failure).await?,
        }
    }
}

/// The realm as a URL, if it is safe to show credentials there: https, or the insecure registry itself.
async fn checked_realm(session: &Session<'_>, realm: &str) -> Result<Url, RegistryError> {
    let refuse = |why: &str| RegistryError::Protocol {
        target: session.target.clone(),
        message: format!(
            "refusing to authenticate: the token realm `{}` {why}",
            crate::error::one_line(realm.split('?').next().unwrap_or_default())
        ),
    };
    let url = Url::parse(realm).map_err(|_| refuse("is no URL"))?;
    let endpoint = session.host.endpoint(session.inner).await?;
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if endpoint.trust == Trust::Verified => {
            Err(refuse("is not https (a registry with TLS must not send credentials in the clear)"))
        }
        "http" if url.host() == endpoint.base.host() => Ok(url),
        "http" => Err(refuse("is plain http on another host")),
        _ => Err(refuse("is neither https nor http")),
    }
}

async fn request(
    session: &Session<'_>,
    issuer: &Issuer,
    realm: &Url,
    credential: Option<&Credential>,
    scopes: &[String],
) -> Result<Token, Failure> {
    let inner = session.inner;
    let endpoint = session.host.endpoint(inner).await?;
    let trust = foreign_trust(endpoint, realm);
    let pool = inner.pool(&session.host.name, false, trust, realm)?;
    let asked_at = inner.config.clock.now();
    stats::add(&inner.counters.token_requests, 1);
    let mut url = realm.clone();
    let (builder, payload, kind) = match credential {
        Some(Credential::Identity(secret)) => {
            let scope = scopes.join(" ");
            let mut fields = vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", secret.as_str()),
                ("client_id", CLIENT_ID),
                ("access_type", "offline"),
                ("scope", &scope),
            ];
            fields.extend(issuer.service.as_deref().map(|service| ("service", service)));
            let form = form(&fields);
            let builder = pool.post(url.clone()).header("content-type", "application/x-www-form-urlencoded");
            (builder, Some(Payload::Bytes(form.into())), "oauth token")
        }
        _ => {
            {
                let mut query = url.query_pairs_mut();
                query.extend_pairs(issuer.service.as_deref().map(|service| ("service", service)));
                query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
                query.append_pair("client_id", CLIENT_ID);
            }
            let builder = pool.get(url.clone());
            match credential.and_then(Credential::basic) {
                Some(basic) => (builder.header("authorization", basic), None, "oauth token"),
                None => (builder, None, "anonymous token"),
            }
        }
    };
    let method = if payload.is_some() { "POST" } else { "GET" };
    let target = &session.target;
    let mut response = transport::send(inner, target, builder, &url, payload.as_ref()).await?;
    if response.status() != 200 {
        return Err(refused(session, &mut response, method, kind).await);
    }
    let body = response.bytes(target, MAX_ANSWER).await?;
    parse_answer(&body, asked_at).ok_or_else(|| {
        RegistryError::Protocol {
            target: target.clone(),
            message: format!("the token service {} sent no token", transport::shown(realm)),
        }
        .into()
    })
}

/// A token service's refusal. Only the client's own mistakes are final.
async fn refused(
    session: &Session<'_>,
    response: &mut transport::Response,
    method: &'static str,
    kind: &str,
) -> Failure {
    if matches!(response.status(), 400..=404) {
        let url = transport::shown(response.url());
        let status = response.status_text();
        let text = response.error_text(&session.target).await;
        let text = if text.is_empty() { text } else { format!(": {text}") };
        return RegistryError::Unauthorized {
            target: session.target.clone(),
            message: format!(
                "failed to fetch {kind}: unexpected status from {method} request to {url}: {status}{text}"
            ),
        }
        .into();
    }
    session.status_failure(response, method).await
}

fn parse_answer(body: &[u8], asked_at: Instant) -> Option<Token> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let value = [answer.token, answer.access_token].into_iter().flatten().find(|t| !t.is_empty())?;
    // Counted from the moment of asking: the service's clock (`issued_at`) may be wrong, ours is monotonic.
    let lifetime = answer
        .expires_in
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|lifetime| !lifetime.is_zero())
        .unwrap_or(DEFAULT_LIFETIME)
        .min(MAX_LIFETIME);
    Some(Token { value, expires: asked_at + lifetime.saturating_sub(MARGIN.min(lifetime / 2)) })
}

/// `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut url = Url::parse("form:").expect("a constant URL is valid");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let now = Instant::now();
        for (body, expected) in [
            (r#"{"token":"a"}"#, Some(("a", 55.0))),
            (r#"{"access_token":"b","expires_in":300}"#, Some(("b", 295.0))),
            (r#"{"token":"","access_token":"c","expires_in":2}"#, Some(("c", 1.0))),
            (r#"{"token":"d","expires_in":-5}"#, Some(("d", 55.0))),
            (r#"{"token":"e","expires_in":1e300}"#, Some(("e", 55.0))),
            (r#"{"token":"f","expires_in":1e9}"#, Some(("f", 86395.0))),
            (r#"{"token":null}"#, None),
            ("{}", None),
            ("nonsense", None),
        ] {
            let found = parse_answer(body.as_bytes(), now);
            let found = found.as_ref().map(|t| (t.value.as_str(), (t.expires - now).as_secs_f64()));
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "1 2"), ("b", "x&y=z")]), b"a=1+2&b=x%26y%3Dz");
    }
}
