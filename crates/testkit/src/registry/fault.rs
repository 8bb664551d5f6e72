//! What a registry can do wrong.

use super::http::Request;
use std::time::Duration;

/// One misbehaviour and the requests that it is for.
#[derive(Debug, Clone)]
pub struct Fault {
    method: Option<&'static str>,
    path: String,
    pub(crate) skip: u32,
    pub(crate) times: u32,
    pub(crate) action: Action,
}

/// How to misbehave.
#[derive(Debug, Clone)]
pub enum Action {
    /// Answer with a status, headers and a body instead.
    Status(u16, Vec<(String, String)>, String),
    /// Close the connection without an answer.
    Close,
    /// Close the connection before the request's body is read.
    HangUp,
    /// Announce the whole body, send only the first bytes, close.
    CutAfter(usize),
    /// Serve only the first bytes, consistently.
    Short(usize),
    /// Serve more than there is.
    Append(Vec<u8>),
    /// Serve more than there is, without announcing a length; the connection's end is the body's.
    AppendUnannounced(Vec<u8>),
    /// Flip a bit of the byte at this place of the body.
    Corrupt(usize),
    /// Wait before the answer.
    Delay(Duration),
    /// Announce another length than is sent, then close.
    ContentLength(u64),
    /// Redirect there (a `Location`).
    Redirect(String),
    /// Set a header of the proper answer; an empty value removes it.
    Header(String, String),
    /// Serve another body.
    Body(Vec<u8>),
    /// Answer a range request with the whole blob.
    IgnoreRange,
    /// Challenge for a token from this realm.
    ForeignRealm(String),
}

impl Fault {
    /// For all requests whose path and query contain `path`; once.
    pub fn new(path: &str, action: Action) -> Self {
        Self { method: None, path: path.to_owned(), skip: 0, times: 1, action }
    }

    /// For one method only.
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// How often.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Lets the first requests pass.
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    pub(crate) fn fits(&self, request: &Request) -> bool {
        self.times > 0
            && self.method.is_none_or(|method| method == request.method)
            && request.target.contains(&self.path)
    }
}
