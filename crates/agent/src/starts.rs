//! Starts on one backend: a limit for those that go on together, and removals that let them pass.
//!
//! Pods that are removed and pods that start share the node's processors. Nobody waits for the rest of a pod whose
//! containers have ended, but somebody waits for each start.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};

/// Longest time that a removal waits for starts.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest time that a removal waits while no start begins or ends. A start that hangs delays nobody (I8).
const STALLED: Duration = Duration::from_secs(1);

/// Starts on one backend.
#[derive(Debug)]
pub(crate) struct Starts {
    permits: Semaphore,
    /// Number of starts that go on or wait for a permit.
    count: watch::Sender<usize>,
}

/// A start that goes on.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    _counted: Counted<'a>,
}

#[derive(Debug)]
struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Starts {
    /// Makes a limit of `most` starts at the same time.
    pub fn new(most: usize) -> Self {
        Self { permits: Semaphore::new(most), count: watch::Sender::new(0) }
    }

    /// Waits until a start may begin. It goes on until the returned value is dropped.
    pub async fn begin(&self) -> Start<'_> {
        let counted = Counted::new(&self.count);
        // The semaphore is never closed. If it were, the start would begin without a permit rather than not at all.
        Start { _permit: self.permits.acquire().await.ok(), _counted: counted }
    }

    /// Waits until no start goes on, for at most [`LONGEST`], and while starts begin and end.
    ///
    /// *Cancel-safe:* it only waits.
    pub async fn pass(&self) {
        let mut count = self.count.subscribe();
        let passed = async {
            while *count.borrow_and_update() > 0 {
                let Ok(Ok(())) = timeout(STALLED, count.changed()).await else { return };
            }
        };
        // After that time the removal goes on beside the starts.
        timeout(LONGEST, passed).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const START: Duration = Duration::from_millis(400);

    /// Returns how long a removal waits beside `rows` rows of two starts, each of which takes [`START`].
    async fn waits(rows: u32) -> Duration {
        let (starts, begun) = (Starts::new(2), Instant::now());
        let start = || async {
            let _start = starts.begin().await;
            sleep(START).await;
        };
        let all = futures_util::future::join_all((0..2 * rows).map(|_| start()));
        let ((), passed) = tokio::join!(async { drop(all.await) }, async {
            starts.pass().await;
            begun.elapsed()
        });
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_waits_for_starts_for_a_while() {
        assert_eq!(waits(0).await, Duration::ZERO);
        assert_eq!(waits(5).await, 5 * START);
        assert_eq!(waits(100).await, LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_hangs_delays_a_removal_for_a_moment_only() {
        let (starts, begun) = (Starts::new(2), Instant::now());
        let _hangs = starts.begin().await;
        starts.pass().await;
        assert_eq!(begun.elapsed(), STALLED);
    }
}
