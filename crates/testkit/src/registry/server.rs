//! The registry in memory: listening, faults, the log.

use super::ca::CertAuthority;
use super::fault::{Action, Fault};
use super::handler;
use super::http::{self, Request, Response, Stream};
use super::state::{Entry, State};
use rbuild_oci::Digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How the registry is set up.
#[derive(Debug, Default)]
pub struct Options {
    /// Speak TLS with a certificate of this CA, for 127.0.0.1 and localhost.
    pub tls: Option<Arc<CertAuthority>>,
    /// Want TLS clients to show a certificate of this CA's.
    pub client_ca: Option<Arc<CertAuthority>>,
    /// Whom to let in.
    pub auth: Auth,
}

/// Whom the registry lets in.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody.
    #[default]
    None,
    /// One user and password.
    Basic(String, String),
    /// Tokens from the registry's own `/token`.
    Token {
        /// User.
        username: String,
        /// Password.
        password: String,
        /// Refresh token that is good for tokens, too.
        identity: Option<String>,
        /// Whether tokens that only read are given to everybody.
        anonymous_pull: bool,
        /// Lifetime that is announced, in seconds.
        expires_in: Option<u64>,
    },
}

/// An in-memory registry on 127.0.0.1 with its own thread; gone when dropped.
pub struct TestRegistry {
    shared: Arc<Shared>,
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    options: Options,
    /// `http://127.0.0.1:PORT`.
    origin: String,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl TestRegistry {
    /// Starts a registry on a free port.
    ///
    /// # Panics
    /// If loopback networking or threads do not work.
    pub fn start(options: Options) -> Self {
        let acceptor = options.tls.as_deref().map(|ca| acceptor(ca, options.client_ca.as_deref()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        listener.set_nonblocking(true).expect("sockets can be non-blocking");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://127.0.0.1:{port}");
        let shared = Arc::new(Shared { state: Mutex::default(), options, origin });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("the socket is non-blocking");
                tokio::select! {
                    () = accept(listener, acceptor, server) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { shared, port, stop: Some(stop), thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:PORT` or https.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Adds a blob.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> Digest {
        self.shared.state().put_blob(repository, bytes.into())
    }

    /// Adds a manifest under a tag or digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        version: &str,
        media_type: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Digest {
        self.shared.state().put_manifest(repository, version, media_type, bytes.into())
    }

    /// A blob of a repository.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        let state = self.shared.state();
        state.repositories.get(repository).filter(|r| r.blobs.contains(digest))?;
        state.content.get(digest).cloned()
    }

    /// Media type and bytes of a tagged manifest.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<(String, Vec<u8>)> {
        let state = self.shared.state();
        let repository = state.repositories.get(repository)?;
        let digest = repository.tags.get(tag)?;
        Some((repository.manifests.get(digest)?.clone(), state.content.get(digest)?.clone()))
    }

    /// Misbehaves from now on; faults are tried in the order of adding, one a request.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// No token that was given out is valid any more.
    pub fn revoke_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Entry> {
        self.shared.state().log.clone()
    }

    /// Requests so far of one method whose path and query contain `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.log().iter().filter(|e| e.method == method && e.target.contains(part)).count()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        self.shared.state().log.clear();
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn acceptor(ca: &CertAuthority, client_ca: Option<&CertAuthority>) -> TlsAcceptor {
    let pair = ca.sign(&["127.0.0.1", "localhost"]);
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM of our own")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM of our own");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            let certificate = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM of our own");
            roots.add(certificate).expect("a CA of our own");
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .expect("there is a root");
            builder.with_client_cert_verifier(verifier)
        }
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("key and certificate fit")))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            // A client that breaks off is none of the registry's problems.
            let _ = connection(stream, acceptor, &shared).await;
        });
    }
}

async fn connection(tcp: TcpStream, acceptor: Option<TlsAcceptor>, shared: &Shared) -> std::io::Result<()> {
    let _ = tcp.set_nodelay(true);
    let mut first = [0];
    tcp.peek(&mut first).await?;
    let is_tls = first[0] == 0x16;
    let mut stream: Box<dyn Stream> = match acceptor {
        Some(acceptor) if is_tls => Box::new(acceptor.accept(tcp).await?),
        Some(_) => {
            // As Go's server answers plain HTTP on a TLS port.
            let mut tcp = tcp;
            let mut buffer = Vec::new();
            http::read_head(&mut tcp, &mut buffer).await?;
            let response = Response::new(400).body("Client sent an HTTP request to an HTTPS server.\n");
            return http::write(&mut tcp, &response, false, None).await;
        }
        None if is_tls => {
            let mut tcp = tcp;
            return http::write(&mut tcp, &Response::new(400), false, None).await;
        }
        None => Box::new(tcp),
    };
    let mut buffer = Vec::new();
    while let Some(mut request) = http::read_head(&mut *stream, &mut buffer).await? {
        let action = take_fault(&mut shared.state(), &request);
        if let Some(Action::HangUp) = action {
            shared.state().log.push(entry(&request, 0, 0));
            break;
        }
        http::read_body(&mut *stream, &mut buffer, &mut request).await?;
        if !answer(&mut *stream, shared, &request, action).await? {
            break;
        }
    }
    Ok(())
}

fn entry(request: &Request, status: u16, sent: usize) -> Entry {
    Entry {
        method: request.method.clone(),
        target: request.target.clone(),
        authorization: request.header("authorization").map(ToOwned::to_owned),
        range: request.header("range").map(ToOwned::to_owned),
        content_length: request.header("content-length").and_then(|length| length.parse().ok()),
        status,
        received: request.body.len() as u64,
        sent: sent as u64,
    }
}

/// Answers one request; `false` when the connection is to be closed.
async fn answer(
    stream: &mut dyn Stream,
    shared: &Shared,
    request: &Request,
    action: Option<Action>,
) -> std::io::Result<bool> {
    if let Some(Action::Delay(duration)) = &action {
        tokio::time::sleep(*duration).await;
    }
    let mut cut = None;
    let response = {
        let mut state = shared.state();
        if let Some(Action::Close) = action {
            state.log.push(entry(request, 0, 0));
            return Ok(false);
        }
        let response = misbehave(&mut state, shared, request, action, &mut cut);
        let sent = if request.method == "HEAD" { 0 } else { cut.unwrap_or(response.body.len()) };
        state.log.push(entry(request, response.status, sent));
        response
    };
    http::write(stream, &response, request.method == "HEAD", cut).await?;
    Ok(cut.is_none())
}

fn take_fault(state: &mut State, request: &Request) -> Option<Action> {
    let fault = state.faults.iter_mut().find(|fault| fault.fits(request))?;
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    fault.times -= 1;
    Some(fault.action.clone())
}

fn misbehave(
    state: &mut State,
    shared: &Shared,
    request: &Request,
    action: Option<Action>,
    cut: &mut Option<usize>,
) -> Response {
    match &action {
        Some(Action::Status(status, headers, body)) => {
            let mut response = Response::new(*status).body(body.as_bytes());
            for (name, value) in headers {
                response.set(name, value.as_str());
            }
            return response;
        }
        Some(Action::Redirect(location)) => return Response::new(307).with("Location", location.as_str()),
        Some(Action::ForeignRealm(realm)) => {
            return Response::new(401)
                .with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"test\""));
        }
        _ => {}
    }
    let without_range;
    let request = match &action {
        Some(Action::IgnoreRange) => {
            let headers = request.headers.iter().filter(|(key, _)| key != "range").cloned().collect();
            without_range = Request {
                method: request.method.clone(),
                target: request.target.clone(),
                headers,
                body: Vec::new(),
            };
            &without_range
        }
        _ => request,
    };
    let mut response = handler::handle(state, &shared.options, &shared.origin, request);
    match action {
        Some(Action::CutAfter(n)) => *cut = Some(n.min(response.body.len())),
        Some(Action::Short(n)) => response.body.truncate(n),
        Some(Action::Append(bytes)) => response.body.extend_from_slice(&bytes),
        Some(Action::AppendUnannounced(bytes)) => {
            response.body.extend_from_slice(&bytes);
            response.set("Connection", "close");
            *cut = Some(response.body.len());
        }
        Some(Action::Corrupt(at)) => {
            if let Some(byte) = response.body.get_mut(at) {
                *byte ^= 1;
            }
        }
        Some(Action::ContentLength(length)) => {
            response.set("Content-Length", length.to_string());
            *cut = Some(response.body.len());
        }
        Some(Action::Header(name, value)) => response.set(&name, value),
        Some(Action::Body(body)) => response.body = body,
        _ => {}
    }
    response
}
