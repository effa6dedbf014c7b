//! The event log: the latest events, in memory, oldest first; repeated events are counted. [`journal`] keeps them on
//! disk.

mod journal;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use stanchion_pod::PodKey;
use tokio::sync::watch;

pub use journal::Journal;

use crate::{
    limits::{EVENT_MESSAGE, EVENT_REASON, EVENTS},
    view::{EventType, EventView},
};

/// Number of latest events that are searched for an equal one before a new one is added.
const MERGE_WINDOW: usize = 200;

/// Log of events.
pub struct EventLog {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
    /// Clock for the time of day.
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    events: VecDeque<EventView>,
}

impl State {
    fn forget_oldest(&mut self) {
        while EVENTS.check_count(self.events.len()).is_err() {
            self.events.pop_front();
        }
    }
}

/// Object of an event.
#[derive(Clone, Debug)]
pub struct Subject {
    object: String,
    field: String,
}

impl Subject {
    /// Returns the subject of a whole pod.
    #[must_use]
    pub fn pod(key: &PodKey) -> Self {
        Self { object: format!("Pod/{key}"), field: String::new() }
    }

    /// Returns the subject of one container of a pod.
    #[must_use]
    pub fn container(key: &PodKey, container: &str) -> Self {
        Self { object: format!("Pod/{key}"), field: format!("spec.containers{{{container}}}") }
    }

    /// Returns the subject of one init container of a pod (R-EVT-1).
    #[must_use]
    pub fn init_container(key: &PodKey, container: &str) -> Self {
        Self { object: format!("Pod/{key}"), field: format!("spec.initContainers{{{container}}}") }
    }

    /// Returns the subject of a manifest file or a source.
    #[must_use]
    pub fn manifest(path: &str) -> Self {
        Self { object: format!("Manifest/{path}"), field: String::new() }
    }

    /// Returns the subject of a backend.
    #[must_use]
    pub fn backend(name: &str) -> Self {
        Self { object: format!("Backend/{name}"), field: String::new() }
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("newest", &*self.newest.borrow()).finish_non_exhaustive()
    }
}

impl EventLog {
    /// Creates an empty log; `now` gives the time of day of each event.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), newest: watch::Sender::new(0), now: Box::new(now) }
    }

    /// Puts the events of an earlier agent before those of this one, whose ids follow theirs.
    pub fn restore(&self, earlier: Vec<EventView>) {
        let newest = {
            let mut state = self.lock();
            let first = earlier.last().map_or(0, |event| event.id);
            state.next_id += first;
            state.events.iter_mut().for_each(|event| event.id += first);
            for event in earlier.into_iter().rev() {
                state.events.push_front(event);
            }
            state.forget_oldest();
            state.next_id
        };
        self.newest.send_replace(newest);
    }

    /// Adds an event of type `Normal`.
    pub fn normal(&self, subject: &Subject, reason: &str, message: impl Into<String>) {
        self.add(subject, EventType::Normal, reason, message.into());
    }

    /// Adds an event of type `Warning`.
    pub fn warning(&self, subject: &Subject, reason: &str, message: impl Into<String>) {
        self.add(subject, EventType::Warning, reason, message.into());
    }

    /// Returns all events, oldest first. An event that happened again has moved to the end with a new id.
    #[must_use]
    pub fn all(&self) -> Vec<EventView> {
        self.lock().events.iter().cloned().collect()
    }

    /// Returns the events with an id above `id`, oldest first.
    #[must_use]
    pub fn since(&self, id: u64) -> Vec<EventView> {
        self.lock().events.iter().filter(|event| event.id > id).cloned().collect()
    }

    /// Returns a receiver of the newest event's id.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Adds an event. All events go through here: reason and message, which may be another program's text, are cut.
    fn add(&self, subject: &Subject, kind: EventType, reason: &str, message: String) {
        let (reason, message) = (&*EVENT_REASON.cut(reason), EVENT_MESSAGE.cut(&message).into_owned());
        match kind {
            EventType::Normal => tracing::info!(object = subject.object, field = subject.field, reason, "{message}"),
            EventType::Warning => tracing::warn!(object = subject.object, field = subject.field, reason, "{message}"),
        }
        let now = (self.now)();
        let id = {
            let mut state = self.lock();
            state.next_id += 1;
            let id = state.next_id;
            let same = |event: &EventView| {
                event.object == subject.object
                    && event.field == subject.field
                    && event.reason == reason
                    && event.message == message
            };
            let start = state.events.len().saturating_sub(MERGE_WINDOW);
            let event = match state.events.range(start..).position(same).and_then(|i| state.events.remove(start + i)) {
                Some(event) => EventView { id, last: now, count: event.count.saturating_add(1), ..event },
                None => EventView {
                    id,
                    first: now,
                    last: now,
                    count: 1,
                    kind,
                    reason: reason.to_owned(),
                    object: subject.object.clone(),
                    field: subject.field.clone(),
                    message,
                },
            };
            state.events.push_back(event);
            state.forget_oldest();
            id
        };
        self.newest.send_replace(id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_is_cut_and_counted_all_the_same() {
        let (events, subject) = (EventLog::new(|| Timestamp::UNIX_EPOCH), Subject::backend("b"));
        let long = "ä".repeat(1 << 20);
        events.warning(&subject, &long, &long);
        events.warning(&subject, &long, &long);
        let all = events.all();
        assert_eq!((all.len(), all[0].count), (1, 2));
        assert!(all[0].message.len() <= 1024 && all[0].message.ends_with("limit \"message of an event\")"));
        assert!(all[0].reason.len() <= 128, "{}", all[0].reason);
    }
}
