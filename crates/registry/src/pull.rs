//! Downloading blobs: streamed, verified, resumed.

use crate::auth::{Request, Session};
use crate::client::Client;
use crate::error::{Access, RegistryError};
use crate::headers;
use crate::manifest::MAX_MANIFEST;
use crate::retry::Failure;
use crate::sink::Blocking;
use crate::stats;
use crate::transport::Response;
use rbuild_oci::{Descriptor, Digest, Reference};
use reqwest::Method;
use sha2::Digest as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// A download in progress; survives broken connections.
struct Download<'a, W, P> {
    session: &'a Session<'a>,
    descriptor: &'a Descriptor,
    sink: &'a mut W,
    on_progress: P,
    hasher: sha2::Sha256,
    /// Bytes hashed and written.
    received: u64,
}

impl Client {
    /// Downloads the blob `descriptor` of `reference`'s repository into `sink`, while verifying it.
    ///
    /// `on_progress` gets the bytes written so far. The sink holds the blob only if this returns `Ok`: after
    /// an error, its content is worthless and must be thrown away. Use [`Blocking`] for a `std::io::Write`.
    pub async fn pull_blob<W>(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut W,
        on_progress: impl FnMut(u64) + Send,
    ) -> Result<(), RegistryError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let mut session = self.session(reference, Access::Pull);
        session.target.repository = format!("{}@{}", reference.path(), descriptor.digest);
        let mut download = Download {
            session: &session,
            descriptor,
            sink,
            on_progress,
            hasher: sha2::Sha256::new(),
            received: 0,
        };
        let mut retry = session.retry();
        loop {
            let before = download.received;
            match download.attempt().await {
                Ok(()) => break,
                Err(failure) => {
                    if download.received > before {
                        retry.progressed();
                    }
                    retry.wait(failure).await?;
                }
            }
        }
        download.finish().await?;
        stats::add(&self.inner.counters.blobs_pulled, 1);
        Ok(())
    }

    /// The bytes of a small blob, such as an image config: at most [`MAX_MANIFEST`] bytes.
    pub async fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > MAX_MANIFEST as u64 {
            return Err(RegistryError::TooLarge {
                target: self.session(reference, Access::Pull).target,
                limit: MAX_MANIFEST as u64,
                found: descriptor.size,
            });
        }
        let mut sink = Blocking(Vec::new());
        self.pull_blob(reference, descriptor, &mut sink, |_| {}).await?;
        Ok(sink.0)
    }
}

impl<W, P> Download<'_, W, P>
where
    W: AsyncWrite + Unpin + Send,
    P: FnMut(u64) + Send,
{
    /// Gets what is missing over one connection.
    async fn attempt(&mut self) -> Result<(), Failure> {
        let session = self.session;
        let size = self.descriptor.size;
        if self.received == size && size > 0 {
            return Ok(());
        }
        let url = session.url(&format!("blobs/{}", self.descriptor.digest)).await?;
        let mut request = Request::new(Method::GET, url);
        if self.received > 0 {
            request = request.header("range", &format!("bytes={}-", self.received));
        }
        let mut response = session.try_once(&request, &[200, 206, 416]).await?;
        let mut skip = self.bytes_to_skip(&response)?;
        while let Some(mut chunk) = response.chunk(&session.target).await? {
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            // The cast is exact: `known` is at most the chunk's length.
            let chunk = chunk.split_off(known as usize);
            let received = self.received + chunk.len() as u64;
            if received > size {
                return Err(self.too_large(received).into());
            }
            self.sink.write_all(&chunk).await.map_err(|error| self.sink_error(&error))?;
            self.hasher.update(&chunk);
            self.received = received;
            (self.on_progress)(received);
        }
        if self.received < size {
            return Err(Failure::transient(self.truncated()));
        }
        Ok(())
    }

    /// How much of the answer's body was received before; checks what the answer announces.
    fn bytes_to_skip(&self, response: &Response) -> Result<u64, RegistryError> {
        let size = self.descriptor.size;
        match response.status() {
            416 => Err(self.truncated()),
            206 => {
                let range = response.header("content-range").and_then(headers::content_range);
                match range {
                    Some((first, total)) if first == self.received && total.is_none_or(|t| t == size) => {
                        Ok(0)
                    }
                    _ => Err(self.session.protocol(format!(
                        "asked for the bytes from {} on, the registry answered with another range",
                        self.received
                    ))),
                }
            }
            _ => match response.length() {
                Some(length) if length > size => Err(self.too_large(length)),
                _ => Ok(self.received),
            },
        }
    }

    async fn finish(self) -> Result<(), RegistryError> {
        let flushed = self.sink.flush().await;
        flushed.map_err(|error| self.sink_error(&error))?;
        let found = Digest::from_bytes(self.hasher.finalize().into());
        if found != self.descriptor.digest {
            return Err(RegistryError::DigestMismatch {
                target: self.session.target.clone(),
                expected: self.descriptor.digest,
                found,
            });
        }
        Ok(())
    }

    fn too_large(&self, found: u64) -> RegistryError {
        RegistryError::TooLarge { target: self.session.target.clone(), limit: self.descriptor.size, found }
    }

    fn truncated(&self) -> RegistryError {
        RegistryError::Truncated {
            target: self.session.target.clone(),
            expected: self.descriptor.size,
            found: self.received,
        }
    }

    fn sink_error(&self, error: &std::io::Error) -> RegistryError {
        RegistryError::Io {
            target: self.session.target.clone(),
            message: format!("cannot keep the blob: {error}"),
        }
    }
}
