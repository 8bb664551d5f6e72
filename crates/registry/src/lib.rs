//! A client of OCI registries (distribution-spec v1.1): pull, push, authentication, TLS, retries.
//!
//! Layers, outermost first: [`Client`] offers what a build needs; `pull` and `push` speak the protocol;
//! `transport` sends one request with authentication, redirects and retries; `host` knows how one registry
//! is reached. Everything from the environment comes in through [`ClientConfig`]. Nothing is opened, read
//! or connected before the first request.

mod auth;
mod certs;
mod challenge;
mod client;
mod config;
mod credentials;
mod download;
mod error;
mod headers;
mod helper;
mod host;
mod image;
mod manifest;
mod pull;
mod push;
mod retry;
mod scope;
mod sink;
mod stats;
mod tls;
mod token;
mod transport;

pub use client::Client;
pub use config::{ClientConfig, Proxies, Timeouts};
pub use credentials::Credential;
pub use download::{DownloadError, DownloadRequest, Downloaded, Validators};
pub use error::{Access, RegistryError, Target};
pub use image::ResolvedImage;
pub use manifest::{MAX_MANIFEST, Resolved};
pub use push::PushOutcome;
pub use retry::{Clock, RetryPolicy, SystemClock};
pub use sink::Blocking;
pub use stats::Stats;
