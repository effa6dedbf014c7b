//! Host side of a backend: passes its log records to the agent's log.
#![allow(unsafe_code, reason = "called over the boundary")]

use std::{
    collections::HashMap,
    ffi::c_void,
    sync::{Mutex, PoisonError},
};

use serde_json::{Map, Value};
use stanchion_abi as abi;
use tracing::Span;

/// Host as one backend sees it. Lives as long as the process.
#[derive(Debug)]
pub(crate) struct Host {
    backend: String,
    /// Tracing spans of the calls under way: log records appear in the span of their call.
    spans: Mutex<HashMap<u64, Span>>,
}

impl Host {
    /// Makes a host for a backend, and its ABI struct. Neither is ever freed.
    pub fn leak(backend: String) -> (&'static Self, &'static abi::Host) {
        let host: &'static Self = Box::leak(Box::new(Self { backend, spans: Mutex::default() }));
        let shown = abi::Host {
            size: 32,
            minor: abi::MINOR,
            reserved: 0,
            ctx: std::ptr::from_ref(host).cast_mut().cast(),
            enabled: Some(enabled),
            log: Some(log),
        };
        (host, Box::leak(Box::new(shown)))
    }

    pub fn enter(&self, call: u64, span: Span) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).insert(call, span);
    }

    pub fn leave(&self, call: u64) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).remove(&call);
    }

    /// Returns the number of calls under way.
    pub fn under_way(&self) -> usize {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn emit(&self, level: u32, call: u64, target: &str, mut record: Map<String, Value>) {
        let span = self.spans.lock().unwrap_or_else(PoisonError::into_inner).get(&call).cloned();
        let _entered = span.as_ref().map(Span::enter);
        let message = record.remove("message").unwrap_or_default();
        let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        let fields = if record.is_empty() { String::new() } else { Value::Object(record).to_string() };
        let backend = &self.backend;
        macro_rules! emit {
            ($level:ident) => {
                tracing::event!(target: "stanchion::backend", tracing::Level::$level, %backend, module = target, fields, "{message}")
            };
        }
        match level {
            1 => emit!(ERROR),
            2 => emit!(WARN),
            3 => emit!(INFO),
            4 => emit!(DEBUG),
            _ => emit!(TRACE),
        }
    }
}

unsafe extern "C" fn enabled(_: *mut c_void, level: u32, _: abi::Slice) -> u32 {
    let enabled = match level {
        1 => tracing::enabled!(target: "stanchion::backend", tracing::Level::ERROR),
        2 => tracing::enabled!(target: "stanchion::backend", tracing::Level::WARN),
        3 => tracing::enabled!(target: "stanchion::backend", tracing::Level::INFO),
        4 => tracing::enabled!(target: "stanchion::backend", tracing::Level::DEBUG),
        _ => tracing::enabled!(target: "stanchion::backend", tracing::Level::TRACE),
    };
    u32::from(enabled)
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, call: u64, target: abi::Slice, record: abi::Slice) {
    // SAFETY: `ctx` is the leaked host, and the slices live through this call.
    let (host, target, record) = unsafe { (&*ctx.cast::<Host>(), target.bytes(), record.bytes()) };
    let target = String::from_utf8_lossy(target);
    let record = serde_json::from_slice(record)
        .unwrap_or_else(|_| Map::from_iter([("message".to_owned(), String::from_utf8_lossy(record).into())]));
    host.emit(level, call, &target, record);
}
