//! Uploading blobs: skipped if present, mounted if possible, else streamed in one piece (F-010).

use crate::auth::{Request, Session, same_origin};
use crate::client::Client;
use crate::error::{Access, RegistryError};
use crate::retry::Failure;
use crate::stats;
use crate::transport::{Payload, Response};
use rbuild_oci::{Descriptor, Reference};
use reqwest::{Method, Url};
use std::path::Path;

/// Repositories that a blob is tried to be mounted from.
const MAX_MOUNTS: usize = 4;

/// How a blob got into the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was there.
    Existed,
    /// It was in another repository of the registry.
    Mounted {
        /// That repository's path.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Whether `reference`'s repository has the blob.
    pub async fn has_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<bool, RegistryError> {
        exists(&self.session(reference, Access::Pull), descriptor).await
    }

    /// Makes sure that `reference`'s repository has the blob `descriptor`, whose bytes are the file `source`.
    ///
    /// `mount_from` names repositories of the same registry (paths, without the host) that may have it.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &Path,
        mount_from: &[String],
    ) -> Result<PushOutcome, RegistryError> {
        let session = self.blob_session(reference, descriptor);
        let opened = match self.look_for(&session, descriptor, mount_from).await? {
            Sought::Found(outcome) => return Ok(outcome),
            Sought::Opened(url) => Some(url),
            Sought::Missing => None,
        };
        self.send(
            &session,
            descriptor,
            &Payload::File { path: source.to_owned(), len: descriptor.size },
            opened,
        )
        .await?;
        Ok(PushOutcome::Uploaded)
    }

    /// As [`Client::push_blob`], without the bytes: `None` if the blob is neither there nor could be mounted.
    pub async fn find_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        mount_from: &[String],
    ) -> Result<Option<PushOutcome>, RegistryError> {
        let session = self.blob_session(reference, descriptor);
        match self.look_for(&session, descriptor, mount_from).await? {
            Sought::Found(outcome) => Ok(Some(outcome)),
            // The registry forgets an upload that nobody continues.
            Sought::Opened(_) | Sought::Missing => Ok(None),
        }
    }

    /// Uploads a blob without looking whether it is there.
    pub async fn upload_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &Path,
    ) -> Result<(), RegistryError> {
        let session = self.blob_session(reference, descriptor);
        let payload = Payload::File { path: source.to_owned(), len: descriptor.size };
        self.send(&session, descriptor, &payload, None).await
    }

    /// [`Client::push_blob`] of a blob in memory that is mounted from nowhere.
    pub async fn push_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let session = self.blob_session(reference, descriptor);
        match self.look_for(&session, descriptor, &[]).await? {
            Sought::Found(_) => Ok(()),
            _ => self.send(&session, descriptor, &Payload::Bytes(bytes.to_vec().into()), None).await,
        }
    }

    fn blob_session<'a>(&'a self, reference: &'a Reference, descriptor: &Descriptor) -> Session<'a> {
        let mut session = self.session(reference, Access::Push);
        session.target.repository = format!("{}@{}", reference.path(), descriptor.digest);
        session
    }

    /// Whether the blob is there or can be mounted.
    async fn look_for(
        &self,
        session: &Session<'_>,
        descriptor: &Descriptor,
        mount_from: &[String],
    ) -> Result<Sought, RegistryError> {
        let counters = &self.inner.counters;
        if exists(session, descriptor).await? {
            stats::add(&counters.blobs_existed, 1);
            return Ok(Sought::Found(PushOutcome::Existed));
        }
        let own = session.reference.path();
        for from in mount_from.iter().filter(|from| *from != own).take(MAX_MOUNTS) {
            match mount(self, session, descriptor, from).await {
                Some(Mount::Mounted) => {
                    stats::add(&counters.blobs_mounted, 1);
                    return Ok(Sought::Found(PushOutcome::Mounted { from: from.clone() }));
                }
                // One upload session is enough; the registry forgets the one that is not used.
                Some(Mount::Opened(url)) => return Ok(Sought::Opened(url)),
                None => {}
            }
        }
        Ok(Sought::Missing)
    }

    async fn send(
        &self,
        session: &Session<'_>,
        descriptor: &Descriptor,
        payload: &Payload,
        mut opened: Option<Url>,
    ) -> Result<(), RegistryError> {
        let mut retry = session.retry();
        loop {
            match upload(session, descriptor, payload, opened.take()).await {
                Ok(()) => break,
                Err(failure) => retry.wait(failure).await?,
            }
        }
        stats::add(&self.inner.counters.blobs_uploaded, 1);
        Ok(())
    }
}

/// What looking for a blob came to.
enum Sought {
    Found(PushOutcome),
    /// Not there, and the registry opened an upload.
    Opened(Url),
    Missing,
}

async fn exists(session: &Session<'_>, descriptor: &Descriptor) -> Result<bool, RegistryError> {
    let url = session.url(&format!("blobs/{}", descriptor.digest)).await?;
    let response = session.send(&Request::new(Method::HEAD, url), &[200, 404]).await?;
    // A wrong length would be a registry that lost a part of it: send it again. Some say 0 for "not told".
    let told = response.length().filter(|length| *length > 0);
    Ok(response.status() == 200 && told.is_none_or(|length| length == descriptor.size))
}

enum Mount {
    Mounted,
    /// The registry opened an upload instead.
    Opened(Url),
}

/// Tries to mount from one repository. No failure here is the push's failure.
async fn mount(client: &Client, session: &Session<'_>, descriptor: &Descriptor, from: &str) -> Option<Mount> {
    let mut wider = client.session(session.reference, Access::Push);
    wider.target = session.target.clone();
    wider.scopes = wider.scopes.and_pull(from);
    let mut url = wider.url("blobs/uploads/").await.ok()?;
    url.query_pairs_mut().append_pair("mount", &descriptor.digest.to_string()).append_pair("from", from);
    let request = Request::new(Method::POST, url.clone()).header("content-length", "0");
    let response = wider.try_once(&request, &[201, 202]).await.ok()?;
    match response.status() {
        201 => Some(Mount::Mounted),
        _ => location(session, &url, &response).ok().map(Mount::Opened),
    }
}

/// One whole upload: POST, then PUT with the bytes.
async fn upload(
    session: &Session<'_>,
    descriptor: &Descriptor,
    payload: &Payload,
    opened: Option<Url>,
) -> Result<(), Failure> {
    let mut url = match opened {
        Some(url) => url,
        None => {
            let url = session.url("blobs/uploads/").await?;
            let request = Request::new(Method::POST, url.clone()).header("content-length", "0");
            let response = session.try_once(&request, &[202]).await?;
            location(session, &url, &response)?
        }
    };
    url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
    let mut request = Request::new(Method::PUT, url).header("content-type", "application/octet-stream");
    request.payload = Some(payload.clone());
    match session.try_once(&request, &[201, 204]).await {
        Ok(_) => Ok(()),
        // The upload session is gone: a new one may work.
        Err(failure) if failure.error.is_not_found() => Err(Failure::transient(failure.error)),
        Err(failure) => Err(failure),
    }
}

/// Where an upload continues. A registry behind a TLS proxy may say http: its own host is kept on https.
fn location(session: &Session<'_>, from: &Url, response: &Response) -> Result<Url, RegistryError> {
    let Some(location) = response.header("location") else {
        return Err(session.protocol("the registry opened an upload without saying where (no Location)"));
    };
    if let Ok(url) = from.join(location)
        && from.scheme() == "https"
        && url.scheme() == "http"
        && url.host() == from.host()
    {
        let mut same = from.clone();
        same.set_path(url.path());
        same.set_query(url.query());
        debug_assert!(same_origin(&same, from), "only path and query were set");
        return Ok(same);
    }
    session.safe_target(from, location)
}
