//! As much of HTTP/1.1 as a test server needs.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Largest request body, in bytes.
const MAX_BODY: usize = 1024 * 1024 * 1024;

/// A TCP or TLS connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, as sent.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// All values of a query parameter, decoded.
    pub(crate) fn query(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        pairs(query).into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// A field of a form body, decoded.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        pairs(&text).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let hex = String::from_utf8_lossy(&hex).into_owned();
                out.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Replaces a header; an empty value removes it.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value));
        }
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// distribution's `errors[]`.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::new(status).with("Content-Type", "application/json").body(body.to_string())
    }
}

/// Reads one request's head; `None` at the end of the connection.
pub(crate) async fn read_head(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > MAX_HEAD || !more(stream, buffer).await? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    buffer.drain(..head_end + 4);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some(Request { method: method.to_owned(), target: target.to_owned(), headers, body: Vec::new() }))
}

/// Reads the body that belongs to a head.
pub(crate) async fn read_body(
    stream: &mut dyn Stream,
    buffer: &mut Vec<u8>,
    request: &mut Request,
) -> io::Result<()> {
    if request.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        request.body = read_chunked(stream, buffer).await?;
    } else if let Some(length) = request.header("content-length") {
        let length: usize = length.parse().map_err(io::Error::other)?;
        request.body = read_exact(stream, buffer, length).await?;
    }
    Ok(())
}

async fn more(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.reserve(256 * 1024);
    Ok(stream.read_buf(buffer).await? > 0)
}

async fn read_exact(stream: &mut dyn Stream, buffer: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    if length > MAX_BODY {
        return Err(io::Error::other("body too large"));
    }
    while buffer.len() < length {
        if !more(stream, buffer).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = buffer.split_off(length);
    Ok(std::mem::replace(buffer, rest))
}

async fn read_chunked(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(at) = buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            if !more(stream, buffer).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let line = String::from_utf8_lossy(&buffer[..line_end]).into_owned();
        buffer.drain(..line_end + 2);
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let chunk = read_exact(stream, buffer, size + 2).await?;
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Ok(body);
        }
        if body.len() > MAX_BODY {
            return Err(io::Error::other("body too large"));
        }
    }
}

/// Sends `response`. With `cut`, only that many bytes of the body are sent and the connection is to be closed.
pub(crate) async fn write(
    stream: &mut dyn Stream,
    response: &Response,
    head_only: bool,
    cut: Option<usize>,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
    for (key, value) in &response.headers {
        head.push_str(&format!("{key}: {value}\r\n"));
    }
    // An answer that closes the connection leaves its length open.
    let told = ["content-length", "connection"];
    if !response.headers.iter().any(|(key, _)| told.iter().any(|name| key.eq_ignore_ascii_case(name))) {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    let mut out = head.into_bytes();
    if !head_only {
        out.extend_from_slice(&response.body[..cut.unwrap_or(usize::MAX).min(response.body.len())]);
    }
    stream.write_all(&out).await?;
    stream.flush().await
}
