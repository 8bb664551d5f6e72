//! The distribution API over `State`.

use super::base64;
use super::http::{Request, Response};
use super::server::{Auth, Options};
use super::state::State;
use rbuild_oci::Digest;
use serde_json::json;

/// Answers one request properly.
pub(crate) fn handle(state: &mut State, options: &Options, origin: &str, request: &Request) -> Response {
    if request.path() == "/token" {
        return token(state, options, request);
    }
    if let Some(refusal) = refuse(state, options, origin, request) {
        return refusal;
    }
    let Some(rest) = request.path().strip_prefix("/v2/") else {
        return Response::error(404, "NOT_FOUND", "no such page");
    };
    if rest.is_empty() {
        return Response::new(200).body("{}");
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return tags(state, name, request);
    }
    if let Some((name, version)) = rest.rsplit_once("/manifests/") {
        return manifests(state, name, version, request);
    }
    if let Some((name, id)) = rest.rsplit_once("/blobs/uploads/") {
        return uploads(state, name, id, request);
    }
    if let Some((name, digest)) = rest.rsplit_once("/blobs/") {
        return blobs(state, name, digest, request);
    }
    Response::error(404, "NOT_FOUND", "no such page")
}

/// The challenge for a request that is not authorized.
fn refuse(state: &State, options: &Options, origin: &str, request: &Request) -> Option<Response> {
    let authorization = request.header("authorization").unwrap_or_default();
    match &options.auth {
        Auth::None => None,
        Auth::Basic(username, password) => {
            let expected = format!("Basic {}", base64(format!("{username}:{password}").as_bytes()));
            (authorization != expected).then(|| {
                Response::error(401, "UNAUTHORIZED", "authentication required")
                    .with("WWW-Authenticate", "Basic realm=\"test\"")
            })
        }
        Auth::Token { .. } => {
            let wanted = wanted_scopes(request);
            let held = authorization.strip_prefix("Bearer ").and_then(|token| state.tokens.get(token));
            let missing = match held {
                Some(held) => wanted.iter().any(|scope| !allows(held, scope)),
                None => true,
            };
            missing.then(|| {
                let error = if held.is_some() { ",error=\"insufficient_scope\"" } else { "" };
                let challenge = format!(
                    "Bearer realm=\"{origin}/token\",service=\"test\",scope=\"{}\"{error}",
                    wanted.join(" ")
                );
                Response::error(401, "UNAUTHORIZED", "authentication required")
                    .with("WWW-Authenticate", challenge)
            })
        }
    }
}

fn wanted_scopes(request: &Request) -> Vec<String> {
    let path = request.path().trim_start_matches("/v2/");
    let name = ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| path.rsplit_once(part));
    let Some((name, _)) = name else { return Vec::new() };
    let name = name.trim_end_matches("/blobs");
    let actions = if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
    let mut scopes = vec![format!("repository:{name}:{actions}")];
    scopes.extend(request.query("from").iter().map(|from| format!("repository:{from}:pull")));
    scopes
}

fn allows(held: &[String], wanted: &str) -> bool {
    let Some((resource, actions)) = wanted.rsplit_once(':') else { return false };
    actions.split(',').all(|action| {
        held.iter().any(|scope| {
            scope
                .rsplit_once(':')
                .is_some_and(|(r, have)| r == resource && have.split(',').any(|have| have == action))
        })
    })
}

fn token(state: &mut State, options: &Options, request: &Request) -> Response {
    let Auth::Token { username, password, identity, anonymous_pull, expires_in } = &options.auth else {
        return Response::new(404);
    };
    let (known, scopes) = if request.method == "POST" {
        let known = request.form("grant_type").as_deref() == Some("refresh_token")
            && request.form("refresh_token").as_ref() == identity.as_ref();
        let scope = request.form("scope").unwrap_or_default();
        (known, scope.split(' ').map(ToOwned::to_owned).collect())
    } else {
        let basic = format!("Basic {}", base64(format!("{username}:{password}").as_bytes()));
        (request.header("authorization") == Some(&basic), request.query("scope"))
    };
    let anonymous = request.method == "GET" && request.header("authorization").is_none();
    let allowed = known || (anonymous && *anonymous_pull);
    if !allowed {
        return Response::error(401, "UNAUTHORIZED", "incorrect username or password");
    }
    // An anonymous token is given, but it only reads.
    let granted = scopes
        .into_iter()
        .map(|scope: String| match scope.rsplit_once(':') {
            Some((resource, _)) if !known => format!("{resource}:pull"),
            _ => scope,
        })
        .collect();
    let value = format!("token-{}", state.id());
    state.tokens.insert(value.clone(), granted);
    let mut body = json!({ "token": value });
    if let Some(seconds) = expires_in {
        body["expires_in"] = json!(seconds);
    }
    Response::new(200).with("Content-Type", "application/json").body(body.to_string())
}

fn tags(state: &State, name: &str, request: &Request) -> Response {
    let Some(repository) = state.repositories.get(name) else {
        return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    // Pages are small, whatever the client asks for.
    const PAGE: usize = 2;
    let last = request.query("last").pop().unwrap_or_default();
    let rest: Vec<&String> = repository.tags.keys().filter(|tag| **tag > last).collect();
    let page: Vec<&String> = rest.iter().take(PAGE).copied().collect();
    let mut response = Response::new(200).body(json!({ "name": name, "tags": page }).to_string());
    if rest.len() > PAGE {
        let next = format!("</v2/{name}/tags/list?last={}&n=2>; rel=\"next\"", page[PAGE - 1]);
        response.set("Link", next);
    }
    response
}

fn manifests(state: &mut State, name: &str, version: &str, request: &Request) -> Response {
    let unknown = || Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    if request.method == "PUT" {
        let media_type = request.header("content-type").unwrap_or_default();
        let digest = state.put_manifest(name, version, media_type, request.body.clone());
        return Response::new(201)
            .with("Docker-Content-Digest", digest.to_string())
            .with("Location", format!("/v2/{name}/manifests/{digest}"));
    }
    let Some(repository) = state.repositories.get(name) else { return unknown() };
    let digest = version.parse::<Digest>().ok().or_else(|| repository.tags.get(version).copied());
    let Some((digest, media_type)) = digest.and_then(|d| repository.manifests.get_key_value(&d)) else {
        return unknown();
    };
    Response::new(200)
        .with("Content-Type", media_type.as_str())
        .with("Docker-Content-Digest", digest.to_string())
        .body(state.content.get(digest).cloned().unwrap_or_default())
}

fn blobs(state: &State, name: &str, digest: &str, request: &Request) -> Response {
    let found = digest
        .parse::<Digest>()
        .ok()
        .filter(|digest| state.repositories.get(name).is_some_and(|r| r.blobs.contains(digest)))
        .and_then(|digest| state.content.get(&digest));
    let Some(bytes) = found else {
        return Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let response = Response::new(200)
        .with("Content-Type", "application/octet-stream")
        .with("Docker-Content-Digest", digest);
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.split('-').next())
        .and_then(|first| first.parse::<usize>().ok());
    match range {
        None => response.body(bytes.clone()),
        Some(first) if first < bytes.len() => {
            let mut response = response.body(&bytes[first..]);
            response.status = 206;
            response.with("Content-Range", format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len()))
        }
        Some(_) => Response::new(416),
    }
}

fn uploads(state: &mut State, name: &str, id: &str, request: &Request) -> Response {
    if request.method == "POST" {
        let mount = request.query("mount").pop().and_then(|d| d.parse::<Digest>().ok());
        let from = request.query("from").pop().unwrap_or_default();
        if let Some(digest) = mount
            && state.repositories.get(&from).is_some_and(|r| r.blobs.contains(&digest))
        {
            state.repository(name).blobs.insert(digest);
            return Response::new(201).with("Docker-Content-Digest", digest.to_string());
        }
        let id = state.id();
        state.uploads.insert(id, (name.to_owned(), Vec::new()));
        return Response::new(202).with("Location", format!("/v2/{name}/blobs/uploads/{id}?_state=a%3Db"));
    }
    let id = id.parse::<u64>().ok().filter(|_| request.query("_state") == ["a=b"]);
    let Some((_, mut bytes)) = id.and_then(|id| state.uploads.remove(&id)) else {
        return Response::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    bytes.extend_from_slice(&request.body);
    let expected = request.query("digest").pop().and_then(|d| d.parse::<Digest>().ok());
    match expected {
        Some(expected) if expected == Digest::of(&bytes) => {
            state.put_blob(name, bytes);
            Response::new(201).with("Docker-Content-Digest", expected.to_string())
        }
        _ => Response::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
    }
}
