//! Transfers from a registry, bounded in size and in time.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use reqwest::Response;
use stanchion_runtime::{Error, ErrorKind, Result};
use stanchion_sdk::clock;
use stanchion_untrusted::{Limit, TooLarge};
use tokio::time::timeout;
use tokio_util::bytes::Bytes;

use super::refusal::Asked;
use crate::limits;

/// Time in which a registry has to send [`limits::SLOWEST`].
const PERIOD: Duration = Duration::from_secs(60);
/// Time limit for a document. The longest have 4 MiB; most have a few kilobytes.
const DOCUMENT: Duration = Duration::from_secs(300);

/// Streams the next `left` bytes of a blob. Fewer are a broken transfer, more are refused, and one that is too slow
/// ends. A part goes out only when it is known to belong to the blob.
pub(super) fn bounded(
    parts: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    left: u64,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let state = Transfer { parts: Box::pin(parts), left, size: left, waited: Duration::ZERO, received: 0 };
    stream::try_unfold(state, |mut state| async move { Ok(state.next().await?.map(|part| (part, state))) })
}

struct Transfer<S> {
    parts: std::pin::Pin<Box<S>>,
    left: u64,
    size: u64,
    /// Time spent waiting for the registry in this period, and the bytes that came in it.
    waited: Duration,
    received: u64,
}

impl<S: Stream<Item = reqwest::Result<Bytes>>> Transfer<S> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            // Only this is the registry's time: the receiver of the parts may be slow itself.
            let asked = clock::instant();
            let next = timeout(PERIOD.saturating_sub(self.waited), self.parts.next()).await;
            self.waited += asked.elapsed();
            let part = match next {
                Err(_) => None,
                Ok(Some(Ok(part))) => Some(part),
                Ok(Some(Err(error))) => return Err(broken().caused_by(&error)),
                Ok(None) if self.left > 0 => return Err(broken().because(format!("{} bytes are missing", self.left))),
                Ok(None) => return Ok(None),
            };
            let length = part.as_ref().map_or(0, |part| part.len() as u64);
            self.received += length;
            if self.waited >= PERIOD {
                self.check_rate()?;
            }
            if length > self.left {
                let message = format!("the registry sends more than the {} bytes that the manifest says", self.size);
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            self.left -= length;
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                return Ok(Some(part));
            }
        }
    }

    fn check_rate(&mut self) -> Result<()> {
        let Limit { name, most } = limits::SLOWEST;
        if self.received < most {
            let (received, seconds) = (self.received, PERIOD.as_secs());
            let message =
                format!("the registry sends too slowly: {received} bytes in {seconds} s, not {most} (limit {name:?})");
            return Err(Error::new(ErrorKind::Timeout, message));
        }
        (self.waited, self.received) = (Duration::ZERO, 0);
        Ok(())
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Unavailable, "the transfer broke off")
}

/// Reason why a document was not read.
pub(super) enum Unread {
    Broken(reqwest::Error),
    TooLarge(TooLarge),
    TooSlow,
}

impl Unread {
    pub fn into_error(self, asked: &Asked) -> Error {
        match self {
            Self::Broken(error) => asked.unanswered(error),
            Self::TooLarge(error) => Error::new(ErrorKind::Invalid, error.to_string()),
            Self::TooSlow => {
                let message = format!("it has not come in {} s", DOCUMENT.as_secs());
                Error::new(ErrorKind::Timeout, message)
            }
        }
    }
}

/// Reads the body of an answer. One that announces too large a size is not read.
pub(super) async fn whole(answer: Response, limit: Limit) -> std::result::Result<Vec<u8>, Unread> {
    limit.check(answer.content_length().unwrap_or(0)).map_err(Unread::TooLarge)?;
    match read(answer, limit).await? {
        (_, false) => Err(Unread::TooLarge(TooLarge(limit))),
        (bytes, true) => Ok(bytes),
    }
}

/// Reads the start of an answer's body, up to the limit; returns nothing if it does not come.
pub(super) async fn start(answer: Response, limit: Limit) -> Vec<u8> {
    read(answer, limit).await.map(|(bytes, _)| bytes).unwrap_or_default()
}

/// Reads up to the limit. Returns the bytes, and whether that is all.
async fn read(mut answer: Response, limit: Limit) -> std::result::Result<(Vec<u8>, bool), Unread> {
    let mut bytes = Vec::new();
    let read = timeout(DOCUMENT, async {
        while let Some(part) = answer.chunk().await? {
            let room = limit.size() - bytes.len();
            bytes.extend_from_slice(part.get(..room).unwrap_or(&part));
            if part.len() > room {
                return Ok(false);
            }
        }
        Ok(true)
    });
    let is_all = read.await.map_err(|_| Unread::TooSlow)?.map_err(Unread::Broken)?;
    Ok((bytes, is_all))
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    fn parts(sizes: &[usize], pause: Duration) -> impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static {
        let parts: Vec<_> = sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect();
        stream::iter(parts).then(move |part| async move {
            tokio::time::sleep(pause).await;
            Ok(part)
        })
    }

    async fn receive(sizes: &[usize], pause: Duration, size: u64) -> (u64, Result<()>) {
        let mut received = 0;
        let taken = bounded(parts(sizes, pause), size).try_for_each(|part| {
            received += part.len() as u64;
            std::future::ready(Ok(()))
        });
        let taken = taken.await;
        (received, taken)
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_ends_at_its_size() {
        let none = Duration::ZERO;
        assert!(matches!(receive(&[3, 0, 4], none, 7).await, (7, Ok(()))));
        assert!(matches!(receive(&[], none, 0).await, (0, Ok(()))));
        for sizes in [&[4, 4][..], &[8], &[4, 3, 1]] {
            let (received, error) = receive(sizes, none, 7).await;
            let error = error.expect_err("there is more");
            assert!(received <= 7 && error.kind() == ErrorKind::Invalid, "{}", error.chain());
            assert!(error.chain().contains("more than the 7 bytes"), "{}", error.chain());
        }
        let error = receive(&[3], none, 7).await.1.expect_err("there is less");
        assert!(error.kind() == ErrorKind::Unavailable && error.chain().contains("4 bytes are missing"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dribble_ends_and_a_slow_line_does_not() {
        let begun = clock::instant();
        let (_, error) = receive(&[1; 1000], Duration::from_secs(5), 1 << 20).await;
        let error = error.expect_err("it is a dribble");
        assert!(begun.elapsed() < PERIOD * 2 && error.kind() == ErrorKind::Timeout, "{}", error.chain());
        assert!(error.chain().contains("limit \"bytes of a blob in a minute\""), "{}", error.chain());
        // 6 KiB a second.
        assert!(receive(&[30 << 10; 1000], Duration::from_secs(5), 1000 * (30 << 10)).await.1.is_ok());
        // A transfer that falls silent at its end fails, too.
        let silent = parts(&[5], Duration::ZERO).chain(stream::pending());
        assert!(bounded(silent, 5).try_collect::<Vec<_>>().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_the_parts_may_be_slow() {
        let parts = bounded(parts(&[1; 10], Duration::ZERO), 10);
        let taken = parts.try_for_each(|_| async {
            tokio::time::sleep(PERIOD * 2).await;
            Ok(())
        });
        taken.await.expect("the registry is fast");
    }
}
