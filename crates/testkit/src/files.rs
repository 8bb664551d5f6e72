//! A web server on loopback: files with validators and faults, and git repositories through `git http-backend`.

use crate::registry::base64;
use crate::registry::http::{self, Request, Response, Stream};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::{TcpListener, TcpStream};

/// An answer.
#[derive(Debug, Clone)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Headers, `ETag` and `Last-Modified` among them.
    pub headers: Vec<(String, String)>,
    /// Bytes.
    pub body: Vec<u8>,
    /// Only so many bytes are sent before the connection breaks.
    pub cut: Option<usize>,
    /// Conditions and ranges are not looked at.
    pub plain: bool,
}

impl Page {
    /// 200 with these bytes.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), cut: None, plain: false }
    }

    /// An empty answer of another status.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::new("") }
    }

    /// With a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A request that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was answered.
    pub status: u16,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    /// Answers by path; all but the last are given once.
    pages: BTreeMap<String, VecDeque<Page>>,
    /// Directory of repositories below `/git/`, and who may read them.
    git: Option<(PathBuf, Option<(String, String)>)>,
    log: Vec<Seen>,
}

/// A web server on 127.0.0.1 with its own thread; gone when dropped.
pub struct FileServer {
    state: Arc<Mutex<State>>,
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|e| e.into_inner())
}

impl FileServer {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// If loopback networking or threads do not work.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        listener.set_nonblocking(true).expect("sockets can be non-blocking");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let state: Arc<Mutex<State>> = Arc::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("the socket is non-blocking");
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { state, port, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT/path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives `page` from now on.
    pub fn put(&self, path: &str, page: Page) {
        self.put_all(path, [page]);
    }

    /// Gives these pages one after the other; the last one stays.
    pub fn put_all(&self, path: &str, pages: impl IntoIterator<Item = Page>) {
        locked(&self.state).pages.insert(path.to_owned(), pages.into_iter().collect());
    }

    /// Serves the repositories of a directory below `/git/`, to one user if one is given.
    pub fn serve_git(&self, dir: impl Into<PathBuf>, user: Option<(&str, &str)>) {
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        locked(&self.state).git = Some((dir.into(), user));
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Seen> {
        locked(&self.state).log.clone()
    }

    /// All requests since this was asked the last time.
    pub fn take_log(&self) -> Vec<Seen> {
        std::mem::take(&mut locked(&self.state).log)
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // A client that breaks off is none of the server's problems.
            let _ = connection(stream, &state).await;
        });
    }
}

async fn connection(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    let stream: &mut dyn Stream = &mut stream;
    while let Some(mut request) = http::read_head(stream, &mut buffer).await? {
        if request.header("expect").is_some() {
            tokio::io::AsyncWriteExt::write_all(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        http::read_body(stream, &mut buffer, &mut request).await?;
        let (response, cut) = answer(state, &request);
        http::write(stream, &response, request.method == "HEAD", cut).await?;
        if cut.is_some() {
            break;
        }
    }
    Ok(())
}

fn answer(state: &Mutex<State>, request: &Request) -> (Response, Option<usize>) {
    let git = locked(state).git.clone().filter(|_| request.path().starts_with("/git/"));
    let (response, cut) = match git {
        Some((dir, user)) => (backend(&dir, user.as_ref(), request), None),
        None => page(&mut locked(state), request),
    };
    let (method, target) = (request.method.clone(), request.target.clone());
    let seen = Seen { method, target, headers: request.headers.clone(), status: response.status };
    locked(state).log.push(seen);
    (response, cut)
}

fn page(state: &mut State, request: &Request) -> (Response, Option<usize>) {
    let Some(pages) = state.pages.get_mut(request.path()) else { return (Response::new(404), None) };
    let page = if pages.len() > 1 { pages.pop_front() } else { pages.front().cloned() };
    let Some(page) = page else { return (Response::new(404), None) };
    let mut response = Response::new(page.status);
    for (name, value) in &page.headers {
        response.set(name, value.as_str());
    }
    let etag = page.header("etag");
    let unchanged = match (request.header("if-none-match"), request.header("if-modified-since")) {
        (Some(known), _) => Some(known) == etag,
        (None, Some(date)) => Some(date) == page.header("last-modified"),
        (None, None) => false,
    };
    if unchanged && !page.plain {
        response.status = 304;
        return (response, None);
    }
    let from = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let same = request.header("if-range").is_none_or(|known| Some(known) == etag);
    let cut = page.cut;
    match from.filter(|from: &usize| *from < page.body.len() && same && !page.plain) {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", page.body.len() - 1, page.body.len());
            response.status = 206;
            response.set("Content-Range", range);
            (response.body(&page.body[from..]), cut)
        }
        None => (response.body(page.body), cut),
    }
}

/// One request to `git http-backend`, a CGI program.
fn backend(dir: &std::path::Path, user: Option<&(String, String)>, request: &Request) -> Response {
    if let Some((name, password)) = user {
        let wanted = format!("Basic {}", base64(format!("{name}:{password}").as_bytes()));
        if request.header("authorization") != Some(wanted.as_str()) {
            return Response::new(401).with("WWW-Authenticate", "Basic realm=\"test\"");
        }
    }
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "http-backend"]);
    command
        .env("GIT_PROJECT_ROOT", dir)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method);
    command.env("PATH_INFO", request.path().trim_start_matches("/git")).env("QUERY_STRING", query);
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = request.header(header) {
            command.env(variable, value);
        }
    }
    command.env("CONTENT_LENGTH", request.body.len().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return Response::new(500) };
    let (input, body) = (child.stdin.take(), request.body.clone());
    let writer = std::thread::spawn(move || input.map(|mut input| input.write_all(&body)));
    let Ok(output) = child.wait_with_output() else { return Response::new(500) };
    let _ = writer.join();
    let Some(end) = output.stdout.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Response::new(500);
    };
    let mut response = Response::new(200).body(&output.stdout[end + 4..]);
    for line in String::from_utf8_lossy(&output.stdout[..end]).lines() {
        match line.split_once(':') {
            Some(("Status", value)) => {
                response.status =
                    value.split_whitespace().next().and_then(|code| code.parse().ok()).unwrap_or(500);
            }
            Some((name, value)) => response.set(name, value.trim()),
            None => {}
        }
    }
    response
}
