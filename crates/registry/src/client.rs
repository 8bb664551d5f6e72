//! The client: what it shares between registries, and its small operations.

use crate::auth::{Request, Session, same_origin};
use crate::config::ClientConfig;
use crate::error::{Access, RegistryError, Target};
use crate::headers;
use crate::host::Host;
use crate::scope::Scopes;
use crate::stats::{Counters, Stats};
use crate::tls::{self, PoolKey, SystemRoots, Trust};
use crate::transport;
use rbuild_oci::Reference;
use reqwest::{Method, Url};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Pages of a tag list that are read.
const MAX_TAG_PAGES: usize = 1000;
/// Largest page of a tag list, in bytes.
const MAX_TAG_PAGE: usize = 8 * 1024 * 1024;

/// A client for any number of registries. Cheap to make and to clone: connections, certificates and
/// credentials are opened and read when the first request needs them.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What clones of a client share.
pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    pub(crate) counters: Arc<Counters>,
    /// Retries made, against the policy's budget.
    pub(crate) retries: AtomicU32,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    pools: Mutex<HashMap<PoolKey, reqwest::Client>>,
    roots: SystemRoots,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Inner {
    /// The connections for `url`, which is the registry's own or (not `own`) one that it points to.
    pub(crate) fn pool(
        &self,
        registry: &str,
        own: bool,
        trust: Trust,
        url: &Url,
    ) -> Result<reqwest::Client, RegistryError> {
        let address = transport::authority(url);
        let key = PoolKey {
            proxied: !crate::host::is_loopback(&address),
            host: if own { registry.to_owned() } else { address },
            behalf: (!own).then(|| registry.to_owned()),
            trust,
        };
        let mut pools = self.pools.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        let pool = tls::pool(&self.config, &self.roots, &key)?;
        pools.insert(key, pool.clone());
        Ok(pool)
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner());
        hosts
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Host::new(name, self.config.connections)))
            .clone()
    }
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                counters: Arc::default(),
                retries: AtomicU32::new(0),
                hosts: Mutex::default(),
                pools: Mutex::default(),
                roots: SystemRoots::default(),
            }),
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        self.inner.counters.snapshot(self.inner.retries.load(Ordering::Relaxed))
    }

    pub(crate) fn session<'a>(&'a self, reference: &'a Reference, access: Access) -> Session<'a> {
        let repository = match (reference.tag(), reference.digest()) {
            (_, Some(digest)) => format!("{}@{digest}", reference.path()),
            (Some(tag), None) => format!("{}:{tag}", reference.path()),
            (None, None) => reference.path().to_owned(),
        };
        Session {
            inner: &self.inner,
            host: self.inner.host(reference.domain()),
            reference,
            access,
            target: Target { host: reference.domain().to_owned(), repository },
            scopes: Scopes::repository(reference.path(), access),
        }
    }

    /// All tags of `reference`'s repository, page by page (distribution-spec, "Listing Tags").
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let session = self.session(reference, Access::Pull);
        let mut url = session.url("tags/list?n=1000").await?;
        let mut tags = Vec::new();
        for _ in 0..MAX_TAG_PAGES {
            let mut response = session.send(&Request::new(Method::GET, url.clone()), &[200]).await?;
            let body = response.bytes(&session.target, MAX_TAG_PAGE).await.map_err(|f| f.error)?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|error| session.protocol(format!("the tag list is no JSON: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            let Some(next) = response.header("link").and_then(headers::next_link) else {
                return Ok(tags);
            };
            let next = session.safe_target(&url, next)?;
            if !same_origin(&next, &url) {
                return Err(session.protocol("the tag list continues on another host"));
            }
            url = next;
        }
        Err(session.protocol(format!("the tag list has more than {MAX_TAG_PAGES} pages")))
    }
}
