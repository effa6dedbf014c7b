//! Download of an image: its manifest, and the blobs that are missing.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use stanchion_runtime::{Error, ErrorKind, Progress, PullProgress, Result};
use stanchion_sdk::{
    limits,
    oci::{self, Descriptor, Found, Manifest, Next, Search},
};
use tokio_util::bytes::Bytes;

use super::repository::Repository;

/// Number of layers that are fetched at the same time.
const PARALLEL: usize = 3;
/// Tries for one blob; each resumes where the last one broke off.
const TRIES: u32 = 5;

/// Place that keeps blobs, by digest.
pub trait Blobs: Sync {
    /// Returns whether a blob is there, whole.
    ///
    /// # Errors
    /// Nobody can tell.
    fn has(&self, digest: &str) -> impl Future<Output = Result<bool>> + Send;

    /// Refuses blobs for which there is no room, before they are fetched.
    ///
    /// # Errors
    /// There is no room for that many bytes.
    fn check_room(&self, bytes: u64) -> impl Future<Output = Result<()>> + Send;

    /// Returns how much of a blob an earlier, broken write has left, bytes.
    fn written(&self, digest: &str) -> impl Future<Output = u64> + Send;

    /// Writes a blob from `offset` on, and checks its size and digest before it is there. What a stream that breaks off
    /// has brought stays, for the next write.
    ///
    /// # Errors
    /// That of the stream; the blob cannot be written; or it has another size or digest: `Invalid`.
    fn write(
        &self,
        blob: &Descriptor,
        offset: u64,
        parts: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Removes what a broken write has left of a blob: no try can resume it.
    fn abort(&self, digest: &str) -> impl Future<Output = ()> + Send;
}

/// Joins the failures of all hosts that were asked. The one that says most decides what happens next: an answer rather
/// than none, and the image's own registry rather than its mirrors.
#[must_use]
pub fn together(name: &str, mut failures: Vec<(String, Error)>) -> Error {
    let says = |(_, error): &(String, Error)| match error.kind() {
        ErrorKind::Unavailable if error.retry_delay().is_none() => 0,
        ErrorKind::NotFound | ErrorKind::Unavailable => 1,
        _ => 2,
    };
    let most = failures.iter().enumerate().max_by_key(|(_, failure)| says(failure)).map(|(index, _)| index);
    let Some((host, error)) = most.map(|index| failures.remove(index)) else {
        return Error::new(ErrorKind::Other, format!("no place to pull image {name} from"));
    };
    let error = error.context(format!("pulling image {name} from {host}"));
    failures.into_iter().fold(error, |error, (host, other)| error.because(format!("and {host}: {}", other.chain())))
}

impl Repository {
    /// Fetches the manifest for this node by tag or digest.
    ///
    /// # Errors
    /// The registry does not give it, or it cannot be used: `Invalid`. `NotFound` if there is none for this node.
    pub async fn find(&self, version: &str) -> Result<Box<Found>> {
        let (bytes, digest) = self.manifest(version).await?;
        let mut search = Search::of(bytes, digest)?;
        loop {
            let (blob, limit) = match search.step()? {
                Next::Found(found) => return Ok(found),
                Next::Read(blob, limit) => (blob, limit),
            };
            let bytes = match limit == limits::CONFIG {
                true => self.small_blob(&blob, limit).await?,
                false => self.manifest(&blob.digest).await?.0,
            };
            search.take(bytes)?;
        }
    }

    /// Fetches the configuration and all layers of an image, several at once, unless they are there.
    ///
    /// # Errors
    /// A blob cannot be fetched or written, there is no room for all, or the configuration is too large: `Invalid`.
    pub async fn fetch(&self, manifest: &Manifest, into: &impl Blobs, progress: &Progress) -> Result<()> {
        let config = &manifest.config;
        limits::CONFIG.check(config.size).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("the image configuration {}", config.digest)).caused_by(&error)
        })?;
        let mut seen = HashSet::new();
        let blobs: Vec<Descriptor> =
            manifest.layers.iter().chain([config]).filter(|blob| seen.insert(blob.digest.clone())).cloned().collect();
        let total = oci::total(&blobs);
        check_room(into, &blobs).await?;
        let layers = u32::try_from(manifest.layers.len()).unwrap_or(u32::MAX);
        let received = Arc::new(AtomicU64::new(0));
        let report = |received: u64| {
            progress.report(PullProgress { received, total, layers_done: 0, layers });
        };
        report(0);
        let fetches = stream::iter(blobs).map(|blob: Descriptor| {
            let received = Arc::clone(&received);
            async move {
                self.fetch_blob(into, &blob, &received).await?;
                report(received.load(Ordering::Relaxed));
                Ok(())
            }
        });
        fetches.buffer_unordered(PARALLEL).try_collect::<()>().await
    }

    async fn fetch_blob(&self, into: &impl Blobs, blob: &Descriptor, received: &Arc<AtomicU64>) -> Result<()> {
        if into.has(&blob.digest).await? {
            received.fetch_add(blob.size, Ordering::Relaxed);
            return Ok(());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.fetch_rest(into, blob, received).await {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && error.retry_delay().is_none() && tries < TRIES =>
                {
                    tracing::debug!(
                        blob = blob.digest,
                        tries,
                        error = error.chain(),
                        "going on with a broken transfer"
                    );
                    tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(tries)).await;
                }
                // No try can resume from wrong content.
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Other) => {
                    into.abort(&blob.digest).await;
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    /// Fetches a blob, from where the last try broke off.
    async fn fetch_rest(&self, into: &impl Blobs, blob: &Descriptor, received: &Arc<AtomicU64>) -> Result<()> {
        // A complete write that did not become a blob is wrong: it is overwritten.
        let written = Some(into.written(&blob.digest).await).filter(|written| *written < blob.size).unwrap_or(0);
        let (offset, parts) = self.blob(blob, written).await?;
        received.fetch_add(offset, Ordering::Relaxed);
        let counted = Arc::clone(received);
        let parts = parts.inspect_ok(move |part| {
            counted.fetch_add(part.len() as u64, Ordering::Relaxed);
        });
        into.write(blob, offset, parts).await
    }
}

/// Refuses an image whose missing blobs do not fit on the disk.
async fn check_room(into: &impl Blobs, blobs: &[Descriptor]) -> Result<()> {
    let mut missing = 0_u64;
    for blob in blobs {
        if !into.has(&blob.digest).await? {
            missing = missing.saturating_add(blob.size);
        }
    }
    if missing > 0 { into.check_room(missing).await } else { Ok(()) }
}
