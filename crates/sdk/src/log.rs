//! Log forwarding from the backend to the agent.
#![allow(unsafe_code, reason = "calls back over the boundary")]

use std::{cell::Cell, fmt};

use serde_json::{Map, Value};
use stanchion_abi::{Host, Slice};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

tokio::task_local! {
    /// Id of the call that a task works for.
    pub(crate) static CALL: u64;
}

thread_local! {
    /// Host of the backend that owns this thread: several backends of one library share its subscriber.
    static HOST: Cell<Option<Forward>> = const { Cell::new(None) };
}

/// Subscriber that forwards every record to the host.
#[derive(Clone, Copy)]
pub(crate) struct Forward(*const Host);

// SAFETY: the host's struct is constant, lives as long as the process, and its functions may be called from any thread.
unsafe impl Send for Forward {}
// SAFETY: as above.
unsafe impl Sync for Forward {}

impl Forward {
    pub fn new(host: *const Host) -> Self {
        Self(host)
    }

    /// Assigns this thread to the backend that this host has opened.
    pub fn adopt_thread(self) {
        HOST.set(Some(self));
    }

    fn host(&self) -> &Host {
        // At the end of a thread its thread-local values are gone; then this value's own host serves.
        let Self(host) = HOST.try_with(Cell::get).ok().flatten().unwrap_or(*self);
        // SAFETY: the host promises that it lives as long as the process.
        unsafe { &*host }
    }

    /// Returns whether the host would keep a record.
    pub fn is_wanted(&self, level: Level, target: &str) -> bool {
        match *self.host() {
            // SAFETY: the slice lives through the call.
            Host { ctx, enabled: Some(enabled), .. } => unsafe {
                enabled(ctx, number(level), Slice::new(target.as_bytes())) != 0
            },
            _ => false,
        }
    }

    /// Sends a record from outside `tracing`.
    pub fn send(&self, level: Level, target: &str, record: Map<String, Value>) {
        let record = Value::Object(record).to_string();
        let call = CALL.try_with(|call| *call).unwrap_or(0);
        if let Host { ctx, log: Some(log), .. } = *self.host() {
            // SAFETY: the slices live through the call.
            unsafe { log(ctx, number(level), call, Slice::new(target.as_bytes()), Slice::new(record.as_bytes())) }
        }
    }
}

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.is_wanted(*metadata.level(), metadata.target())
    }

    fn event(&self, event: &Event<'_>) {
        let mut record = Record(Map::new());
        event.record(&mut record);
        self.send(*event.metadata().level(), event.metadata().target(), record.0);
    }

    // Spans do not cross: the host puts every record below the span of its call.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Record(Map<String, Value>);

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
