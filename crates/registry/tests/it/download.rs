//! Plain downloads: validators, redirects, broken connections, limits.

use crate::support::{config, noise};
use rbuild_oci::Digest;
use rbuild_registry::{Client, DownloadError, DownloadRequest, Downloaded, Validators};
use rbuild_testkit::{FileServer, Page};

/// `None` when the file is the known one.
async fn download(request: &DownloadRequest) -> Result<Option<(Vec<u8>, Validators)>, DownloadError> {
    match Client::new(config()).download(request, || Ok(Vec::new()), |_, _| {}).await? {
        Downloaded::NotModified => Ok(None),
        Downloaded::File { sink, digest, size, validators } => {
            assert_eq!((digest, size), (Digest::of(&sink), sink.len() as u64));
            Ok(Some((sink, validators)))
        }
    }
}

fn request(url: String) -> DownloadRequest {
    DownloadRequest { url, max_size: 1 << 20, ..DownloadRequest::default() }
}

async fn body(url: String) -> Result<Vec<u8>, DownloadError> {
    Ok(download(&request(url)).await?.unwrap().0)
}

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn validators_come_back_and_are_asked_for() {
    let server = FileServer::start();
    for (page, header) in [
        (Page::new("x").with("ETag", "\"1\"").with("Last-Modified", DATE), "if-none-match"),
        (Page::new("x").with("ETag", "W/\"1\""), "if-none-match"),
        (Page::new("x").with("Last-Modified", DATE), "if-modified-since"),
    ] {
        server.put("/a", page);
        let (_, validators) = download(&request(server.url("/a"))).await.unwrap().unwrap();
        let again = DownloadRequest { known: Some(validators.clone()), ..request(server.url("/a")) };
        server.take_log();
        assert!(download(&again).await.unwrap().is_none());
        let log = server.take_log();
        assert_eq!((log.len(), log[0].status), (1, 304));
        assert!(log[0].header(header).is_some());
    }
    let dated = Validators { last_modified: Some(DATE.into()), etag: None };
    assert_eq!(dated.modified(), Some(784_111_777));
}

#[tokio::test]
async fn a_server_without_conditions_is_recognised_by_its_etag() {
    let server = FileServer::start();
    server.put("/a", Page { plain: true, ..Page::new("x").with("ETag", "\"1\"") });
    let known = |etag: &str| Some(Validators { etag: Some(etag.into()), last_modified: None });
    let same = DownloadRequest { known: known("\"1\""), ..request(server.url("/a")) };
    assert!(download(&same).await.unwrap().is_none());
    let other = DownloadRequest { known: known("\"0\""), ..request(server.url("/a")) };
    assert_eq!(download(&other).await.unwrap().unwrap().0, b"x");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_may() {
    let server = FileServer::start();
    let bytes = noise(100_000);
    let whole = Page::new(bytes.clone()).with("ETag", "\"1\"");
    let broken = Page { cut: Some(40_000), ..whole.clone() };
    server.put_all("/a", [broken.clone(), whole.clone()]);
    assert!(body(server.url("/a")).await.unwrap() == bytes);
    let log = server.take_log();
    assert!(log[1].header("range").is_some() && log[1].header("if-range") == Some("\"1\""));
    assert_eq!(log[1].status, 206);

    // The file changed meanwhile: the parts must not be put together.
    let changed = noise(90_000).into_iter().rev().collect::<Vec<_>>();
    server.put_all("/b", [broken, Page::new(changed.clone()).with("ETag", "\"2\"")]);
    assert!(body(server.url("/b")).await.unwrap() == changed);

    // No strong validator: from the beginning.
    let weak = Page::new(bytes.clone()).with("ETag", "W/\"1\"");
    server.put_all("/c", [Page { cut: Some(10), ..weak.clone() }, weak]);
    server.take_log();
    assert!(body(server.url("/c")).await.unwrap() == bytes);
    assert!(server.take_log()[1].header("range").is_none());
}

#[tokio::test]
async fn a_download_that_always_breaks_is_given_up() {
    let server = FileServer::start();
    server.put("/a", Page { cut: Some(3), ..Page::new("abcdef") });
    let error = body(server.url("/a")).await.unwrap_err();
    assert!(matches!(error, DownloadError::Transport(_)), "{error}");
    assert!(server.log().len() > 2 && server.log().len() < 10);
}

#[tokio::test]
async fn statuses() {
    let server = FileServer::start();
    server.put_all("/busy", [Page::status(503).with("Retry-After", "1"), Page::status(502), Page::new("x")]);
    assert_eq!(body(server.url("/busy")).await.unwrap(), b"x");
    server.put("/down", Page::status(500));
    let down = body(server.url("/down?token=secret")).await.unwrap_err().to_string();
    assert!(down.contains("500") && down.contains("tried 5 times") && !down.contains("secret"), "{down}");
    for status in [400, 401, 403, 404, 410] {
        server.put("/no", Page::status(status));
        server.take_log();
        let error = body(server.url("/no")).await.unwrap_err();
        assert!(matches!(error, DownloadError::Status { attempts: 1, .. }), "{error}");
        assert_eq!(server.take_log().len(), 1);
    }
}

#[tokio::test]
async fn redirects_are_followed_without_credentials() {
    let server = FileServer::start();
    server.put("/end", Page::new("x"));
    let elsewhere = format!("http://localhost:{}/end", server.port());
    for (location, trusted) in [("/end", true), (elsewhere.as_str(), false)] {
        server.put("/start", Page::status(302).with("Location", location));
        let url = server.url("/start").replace("http://", "http://me:pw@");
        server.take_log();
        assert_eq!(body(url).await.unwrap(), b"x");
        let log = server.take_log();
        assert!(log[0].header("authorization").is_some());
        assert_eq!(log[1].header("authorization").is_some(), trusted, "{location}");

        let mut bearer = request(server.url("/start"));
        bearer.authorization = Some("Bearer t".into());
        download(&bearer).await.unwrap();
        assert_eq!(server.take_log()[1].header("authorization"), trusted.then_some("Bearer t"));
    }
}

#[tokio::test]
async fn wrong_redirects_are_refused() {
    let server = FileServer::start();
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "gopher:x"] {
        server.put("/a", Page::status(301).with("Location", location));
        let error = body(server.url("/a")).await.unwrap_err();
        assert!(matches!(error, DownloadError::Redirect { .. }), "{location}: {error}");
    }
    server.put("/loop", Page::status(301).with("Location", "/loop"));
    let error = body(server.url("/loop")).await.unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[tokio::test]
async fn nothing_is_longer_than_allowed() {
    let server = FileServer::start();
    server.put("/told", Page::new(vec![0; 2000]));
    server.put("/lying", Page::new("x").with("Content-Length", "1099511627776"));
    server.put("/silent", Page { cut: Some(2000), ..Page::new(vec![0; 2000]).with("Connection", "close") });
    for path in ["/told", "/lying", "/silent"] {
        let small = DownloadRequest { max_size: 1000, ..request(server.url(path)) };
        let error = download(&small).await.unwrap_err();
        assert!(matches!(error, DownloadError::TooLarge { limit: 1000, .. }), "{path}: {error}");
    }
}

#[tokio::test]
async fn other_schemes_are_no_urls() {
    for url in ["file:///etc/passwd", "ftp://h/x", "http://", "x", "http://u:secret@[", ""] {
        let error = body(url.into()).await.unwrap_err();
        assert!(matches!(error, DownloadError::BadUrl { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
