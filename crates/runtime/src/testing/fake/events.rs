//! Subscribers to events.

use futures_util::{Stream, stream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{FakeRuntime, lock, state::State};
use crate::{Error, Event, EventKind, Result};

/// Subscribers, and the script's treatment of their events.
#[derive(Default)]
pub(super) struct Events {
    subscribers: Vec<UnboundedSender<Result<Event>>>,
    drop_next: u32,
    double_next: u32,
    muted: bool,
}

impl Events {
    pub(super) fn send(&mut self, kind: EventKind) {
        if self.muted || take_one(&mut self.drop_next) {
            return;
        }
        let times = if take_one(&mut self.double_next) { 2 } else { 1 };
        for _ in 0..times {
            self.subscribers.retain(|subscriber| subscriber.send(Ok(kind.clone().into())).is_ok());
        }
    }

    /// Ends every stream with `error`.
    pub(super) fn end(&mut self, error: &Error) {
        for subscriber in self.subscribers.drain(..) {
            // A subscriber that has gone needs no error.
            subscriber.send(Err(error.clone())).ok();
        }
    }

    pub(super) fn subscribe(&mut self) -> UnboundedReceiver<Result<Event>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Ok(EventKind::Resync.into())).ok();
        self.subscribers.push(sender);
        receiver
    }
}

fn take_one(count: &mut u32) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

/// Streams the items of `receiver`; ends after an error, as the trait says.
pub(super) fn stream_of(receiver: UnboundedReceiver<Result<Event>>) -> impl Stream<Item = Result<Event>> + Send {
    stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        let item = receiver.recv().await?;
        let rest = item.is_ok().then_some(receiver);
        Some((item, rest))
    })
}

impl FakeRuntime {
    /// Drops the next `count` events.
    pub fn drop_events(&self, count: u32) {
        self.events(|events| events.drop_next += count);
    }

    /// Sends the next `count` events twice.
    pub fn double_events(&self, count: u32) {
        self.events(|events| events.double_next += count);
    }

    /// Sets whether all events are dropped from now on, while streams stay open.
    pub fn mute_events(&self, muted: bool) {
        self.events(|events| events.muted = muted);
    }

    /// Sends an event to every subscriber, whatever the script says.
    pub fn emit(&self, kind: EventKind) {
        self.events(|events| {
            for subscriber in &events.subscribers {
                subscriber.send(Ok(kind.clone().into())).ok();
            }
        });
    }

    /// Ends every event stream with `Unavailable`; new subscriptions work.
    pub fn break_events(&self) {
        let error = Error::new(crate::ErrorKind::Unavailable, "the fake's event stream was cut");
        self.events(|events| events.end(&error));
    }

    /// Returns the number of open event streams.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        lock(&self.shared.state).events.subscribers.iter().filter(|subscriber| !subscriber.is_closed()).count()
    }

    fn events<T>(&self, change: impl FnOnce(&mut Events) -> T) -> T {
        let state: &mut State = &mut lock(&self.shared.state);
        change(&mut state.events)
    }
}
