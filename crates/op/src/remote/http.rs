//! Files behind URLs.

use super::{PinnedFile, Remote, host_of, now};
use crate::error::OpFailure;
use rbuild_event::Event;
use rbuild_ir::HttpOp;
use rbuild_oci::Digest;
use rbuild_registry::{DownloadRequest, Downloaded, Validators};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::{Fetched, Store};
use std::io;

/// Longest file that is fetched, in bytes: 256 GiB.
const MAX_FILE: u64 = 1 << 38;
/// Bytes between two progress events.
const PROGRESS_STEP: u64 = 1 << 20;

/// A fetched file, which is a blob of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFile {
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// `Last-Modified`, seconds since 1970.
    pub modified: Option<i64>,
}

impl From<Fetched> for HttpFile {
    fn from(fetched: Fetched) -> Self {
        Self { digest: fetched.digest, size: fetched.size, modified: fetched.modified }
    }
}

impl From<PinnedFile> for HttpFile {
    fn from(pin: PinnedFile) -> Self {
        Self { digest: pin.digest, size: pin.size, modified: pin.modified }
    }
}

impl Remote {
    /// Brings the file into the store, unless it is there and the server says that it is still the same. A file whose
    /// digest is given or locked and which is in the store is not asked for.
    ///
    /// # Errors
    /// `DownloadError`, or [`OpFailure::WrongChecksum`], [`OpFailure::NotAsLocked`], [`OpFailure::NotLocked`],
    /// [`OpFailure::Offline`].
    pub async fn file(&self, op: &HttpOp, step: &StepContext) -> Result<HttpFile, OpError> {
        let url = op.url.redacted();
        let pin = match op.checksum {
            None => self.resolving.url(&url)?,
            Some(_) => None,
        };
        if let Some(file) = self.at_hand(op, &url, pin.as_ref())? {
            return Ok(file);
        }
        if self.resolving.offline {
            return Err(OpFailure::Offline(url).into());
        }
        let key = Digest::of(format!("http\n{url}"));
        let _lock = crate::cache::lock_key(&self.store, &key, &step.cancel, || {}).await?;
        // Another step or process may just have fetched it.
        if let Some(file) = self.at_hand(op, &url, pin.as_ref())? {
            return Ok(file);
        }
        let known = self.store.fetched(&url)?;
        let file = tokio::select! {
            file = self.download(op, &url, known, step) => file?,
            () = step.cancel.cancelled() => return Err(OpFailure::Canceled.into()),
        };
        match (op.checksum, pin) {
            (Some(expected), _) if expected != file.digest => {
                Err(OpFailure::WrongChecksum { url, expected, found: file.digest }.into())
            }
            (None, Some(pin)) if pin.digest != file.digest => {
                Err(OpFailure::NotAsLocked { url, expected: pin.digest, found: file.digest }.into())
            }
            (None, Some(pin)) => Ok(pin.into()),
            _ => Ok(file),
        }
    }

    /// The file, if nobody need be asked for it.
    fn at_hand(&self, op: &HttpOp, url: &str, pin: Option<&PinnedFile>) -> Result<Option<HttpFile>, OpError> {
        if let Some(pin) = pin {
            let here = self.store.blob_size(&pin.digest)? == Some(pin.size);
            return Ok(here.then(|| pin.clone().into()));
        }
        let Some(digest) = op.checksum else {
            let known = self.store.fetched(url)?;
            let fresh = known.filter(|known| self.resolving.is_fresh(known.asked, now()));
            return Ok(fresh.map(HttpFile::from));
        };
        if let Some(known) = self.store.fetched(url)?.filter(|known| known.digest == digest) {
            return Ok(Some(known.into()));
        }
        // Its length is known from nowhere: a blob that a power loss cut short must not be taken.
        let size = self.store.blob_size(&digest)?.filter(|_| self.store.verify_blob(&digest).is_ok());
        Ok(size.map(|size| HttpFile { digest, size, modified: None }))
    }

    /// Name of the secret that the file is asked for with.
    pub(crate) fn secret_name(&self, op: &HttpOp) -> Result<Option<String>, OpError> {
        Ok(self.http_authorization(host_of(op.url.secret()))?.map(|authorization| authorization.name))
    }

    async fn download(
        &self,
        op: &HttpOp,
        url: &str,
        known: Option<Fetched>,
        step: &StepContext,
    ) -> Result<HttpFile, OpError> {
        let authorization = self.http_authorization(host_of(op.url.secret()))?;
        let validators = known
            .as_ref()
            .map(|known| Validators { etag: known.etag.clone(), last_modified: known.last_modified.clone() });
        let request = DownloadRequest {
            url: op.url.secret().to_owned(),
            authorization: authorization.map(|authorization| authorization.header),
            known: validators,
            max_size: MAX_FILE,
        };
        let store: &Store = &self.store;
        let open = || store.ingest_unhashed().map_err(io::Error::other);
        match self.client.download(&request, open, progress(url, step)).await? {
            Downloaded::NotModified => {
                let known = known.ok_or("internal error: a file that nobody knew is not modified")?;
                let known = Fetched { asked: now(), ..known };
                store.remember_fetched(url, &known)?;
                Ok(known.into())
            }
            Downloaded::File { sink, digest, size, validators } => {
                sink.commit_as(digest, size)?;
                let modified = validators.modified();
                let Validators { etag, last_modified } = validators;
                let fetched = Fetched { digest, size, etag, last_modified, modified, asked: now() };
                store.remember_fetched(url, &fetched)?;
                Ok(fetched.into())
            }
        }
    }
}

fn progress(url: &str, step: &StepContext) -> impl FnMut(u64, u64) + Send {
    let (name, vertex, reporter) = (url.to_owned(), step.vertex, step.reporter.clone());
    let mut told = 0;
    move |current, total| {
        if current >= told + PROGRESS_STEP || current == total {
            told = current;
            let done = current == total;
            reporter.report(Event::Status { vertex, name: name.clone(), current, total, done });
        }
    }
}
