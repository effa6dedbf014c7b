//! Subscription to a backend's events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, Stream, StreamExt};
use stanchion_runtime::{Error, Event, EventKind, Runtime};

use super::RETRY;
use crate::clock::{instant, sleep_until};

/// Reason for an observation.
pub(super) enum Trigger {
    /// Events of the backend.
    Events(Vec<EventKind>),
    /// A request, the interval, or a broken subscription.
    Anything,
}

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// Subscription to a backend's events. It is renewed when it breaks.
pub(super) struct Subscription {
    stream: Option<Events>,
    /// Wait before the latest renewal; zero after an event.
    retry: Duration,
    /// Time of the renewal, after the end of the stream.
    renew_at: Option<Instant>,
}

impl Subscription {
    pub fn new() -> Self {
        Self { stream: None, retry: Duration::ZERO, renew_at: None }
    }

    /// Waits for the next event, or until the subscription must be renewed.
    ///
    /// *Cancel-safe:* the stream keeps its events, and the renewal keeps its time.
    pub async fn next<R: Runtime>(&mut self, runtime: &Arc<R>) -> Trigger {
        if self.renew_at.is_none() {
            let stream = self.stream.get_or_insert_with(|| Box::pin(runtime.events().fuse()));
            match stream.next().await {
                Some(Ok(event)) => {
                    self.retry = Duration::ZERO;
                    let mut events = vec![event.kind];
                    while let Some(Some(Ok(event))) = stream.next().now_or_never() {
                        events.push(event.kind);
                    }
                    return Trigger::Events(events);
                }
                Some(Err(error)) => tracing::debug!(error = error.chain(), "the event stream ended"),
                None => {}
            }
        }
        let retry = RETRY.after(self.retry);
        sleep_until(*self.renew_at.get_or_insert_with(|| instant() + retry)).await;
        self.retry = retry;
        (self.stream, self.renew_at) = (None, None);
        Trigger::Anything
    }

    /// Drops the pending events: the next observation covers them.
    pub fn forget_pending(&mut self) {
        while let Some(Some(Some(Ok(_)))) = self.stream.as_mut().map(|stream| stream.next().now_or_never()) {}
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use stanchion_runtime::testing::{FakeRuntime, Method};
    use tokio::time::timeout;

    use super::{RETRY, Subscription, Trigger};

    #[tokio::test(start_paused = true)]
    async fn a_subscription_is_renewed_although_requests_interrupt_every_wait_for_it() {
        let runtime = Arc::new(FakeRuntime::new());
        let mut subscription = Subscription::new();
        assert!(matches!(subscription.next(&runtime).await, Trigger::Events(_)));
        runtime.break_events();
        for _ in 0..20 {
            timeout(RETRY.first / 4, subscription.next(&runtime)).await.ok();
        }
        assert_eq!((runtime.count(Method::Events), runtime.subscribers()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn subscriptions_that_fail_are_renewed_ever_more_rarely() {
        let runtime = Arc::new(FakeRuntime::new());
        runtime.set_available(false);
        let mut subscription = Subscription::new();
        let ask = async {
            loop {
                timeout(RETRY.first, subscription.next(&runtime)).await.ok();
            }
        };
        timeout(Duration::from_secs(60), ask).await.expect_err("it never ends");
        assert!((10..20).contains(&runtime.count(Method::Events)), "{}", runtime.count(Method::Events));
    }
}
