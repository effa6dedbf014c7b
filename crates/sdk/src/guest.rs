//! The four functions behind a backend's descriptor.
#![allow(unsafe_code, reason = "the boundary")]

use std::{
    collections::HashMap,
    ffi::c_void,
    os::fd::{FromRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use stanchion_abi as abi;
use stanchion_runtime::{Error, ErrorKind, OpenRequest};
use tokio::{runtime::Runtime as Tokio, task::AbortHandle};

use crate::{
    Backend,
    dispatch::{Request, dispatch},
    log::{CALL, Forward},
    reply::Replier,
};

/// Time limit for a closing backend's tasks to end.
const CLOSING: Duration = Duration::from_secs(5);

/// Returns the descriptor of a backend, which [`export_backend!`](crate::export_backend) exports, and which a host that
/// links the backend statically opens.
#[must_use]
pub const fn descriptor<B: Backend>(name: &'static str, version: &'static str) -> abi::Backend {
    check_name(name);
    abi::Backend {
        magic: abi::MAGIC,
        #[allow(clippy::cast_possible_truncation, reason = "104 bytes")]
        size: size_of::<abi::Backend>() as u32,
        major: abi::MAJOR,
        minor: abi::MINOR,
        flags: if cfg!(panic = "unwind") { abi::FLAG_UNWINDS } else { 0 },
        name: abi::Slice::new(name.as_bytes()),
        version: abi::Slice::new(version.as_bytes()),
        built_by: abi::Slice::new(concat!("stanchion-sdk ", env!("CARGO_PKG_VERSION")).as_bytes()),
        open: Some(open::<B>),
        start: Some(start::<B>),
        cancel: Some(cancel::<B>),
        close: Some(close::<B>),
    }
}

const fn check_name(name: &str) {
    let bytes = name.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= 32, "a backend's name has 1 to 32 characters");
    assert!(bytes[0].is_ascii_lowercase(), "a backend's name begins with a lower-case letter");
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        assert!(
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_',
            "a backend's name has only lower-case letters, digits and _"
        );
        index += 1;
    }
}

/// An open backend.
struct Guest<B> {
    tokio: Tokio,
    backend: Arc<OnceLock<Arc<B>>>,
    calls: Arc<Calls>,
}

/// Running calls, by id.
#[derive(Default)]
struct Calls(Mutex<HashMap<u64, AbortHandle>>);

impl Calls {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u64, AbortHandle>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

unsafe extern "C" fn open<B: Backend>(host: *const abi::Host, request: abi::Slice, reply: abi::Reply) -> *mut c_void {
    let replier = Replier::new(reply);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let log = Forward::new(host);
        install(log);
        // SAFETY: the host's slice lives through this call.
        let request = unsafe { request.bytes() };
        begin::<B>(request, log, replier)
    }));
    match opened {
        Ok(Some(guest)) => Box::into_raw(Box::new(guest)).cast(),
        // The replier has answered, at the latest when it was dropped.
        Ok(None) | Err(_) => std::ptr::null_mut(),
    }
}

fn begin<B: Backend>(request: &[u8], log: Forward, replier: Replier) -> Option<Guest<B>> {
    let fail = |replier: Replier, error: Error| {
        replier.done(Err(error));
        None
    };
    let OpenRequest { config, node } = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => return fail(replier, Error::new(ErrorKind::Invalid, "the request to open").caused_by(&error)),
    };
    let config = match serde_json::from_value::<B::Config>(config) {
        Ok(config) => config,
        Err(error) => {
            return fail(replier, Error::new(ErrorKind::Invalid, "invalid configuration").caused_by(&error));
        }
    };
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(8)
        .thread_name("st-backend")
        .on_thread_start(move || log.adopt_thread())
        .enable_all()
        .build();
    let tokio = match tokio {
        Ok(tokio) => tokio,
        Err(error) => return fail(replier, Error::new(ErrorKind::Other, "starting its threads").caused_by(&error)),
    };
    let backend = Arc::new(OnceLock::new());
    let place = Arc::clone(&backend);
    tokio.spawn(async move {
        match B::open(config, node).await {
            Ok(backend) => {
                // `open` runs once, so the value is not set yet.
                drop(place.set(Arc::new(backend)));
                replier.done(Ok(b"null".to_vec()));
            }
            Err(error) => replier.done(Err(error)),
        }
    });
    Some(Guest { tokio, backend, calls: Arc::default() })
}

/// Forwards log records and panics of this library to its hosts. The first opened backend of a library does this for
/// all.
fn install(log: Forward) {
    static ONCE: OnceLock<()> = OnceLock::new();
    // A host that keeps no errors has no log, so the panic hook stays as it is.
    if !log.is_wanted(tracing::Level::ERROR, module_path!()) {
        return;
    }
    ONCE.get_or_init(|| {
        // A statically linked library shares the host's subscriber, which is set already.
        if tracing::subscriber::set_global_default(log).is_ok() {
            std::panic::set_hook(Box::new(move |panic| log.send(tracing::Level::ERROR, "panic", panicked(panic))));
        }
    });
}

fn panicked(panic: &std::panic::PanicHookInfo<'_>) -> Map<String, Value> {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = format!("panicked: {}", text.unwrap_or("without a message"));
    Map::from_iter([("message".to_owned(), message.into()), ("at".to_owned(), place.into())])
}

unsafe extern "C" fn start<B: Backend>(guest: *mut c_void, call: *const abi::Call) {
    // SAFETY: the host passes the handle that `open` made and has not closed, and a call that lives through this
    // function.
    let (guest, call) = unsafe { (&*guest.cast::<Guest<B>>(), &*call) };
    // This side owns the descriptors from here on, whatever happens.
    let fds = match call.fd_count {
        0 => Vec::new(),
        // SAFETY: the host passes as many descriptors as it says, and they are this side's from now on.
        count => unsafe { std::slice::from_raw_parts(call.fds, count) }
            .iter()
            .map(|fd| (*fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(*fd) }))
            .collect(),
    };
    // SAFETY: the slice lives through this function; it is copied.
    let body = unsafe { call.request.bytes() }.to_vec();
    let (id, method, replier) = (call.id, call.method, Replier::new(call.reply));
    let started = catch_unwind(AssertUnwindSafe(|| {
        let Some(backend) = guest.backend.get().cloned() else {
            return replier.done(Err(Error::new(ErrorKind::Unavailable, "the backend is not open yet")));
        };
        let request = Request { method, body, fds };
        let calls = Arc::clone(&guest.calls);
        let (go, begin) = tokio::sync::oneshot::channel::<()>();
        let task = guest.tokio.spawn(async move {
            // The call is listed before it begins, so that it cannot end before it is listed.
            if begin.await.is_ok() {
                CALL.scope(id, dispatch(backend, request, replier)).await;
            }
            calls.with(|calls| calls.remove(&id));
        });
        guest.calls.with(|calls| calls.insert(id, task.abort_handle()));
        // The receiver is in the task that was just spawned.
        go.send(()).unwrap_or_default();
    }));
    if started.is_err() {
        tracing::error!(method, "starting a call panicked");
    }
}

unsafe extern "C" fn cancel<B: Backend>(guest: *mut c_void, id: u64) {
    // SAFETY: as in `start`.
    let guest = unsafe { &*guest.cast::<Guest<B>>() };
    if let Some(call) = guest.calls.with(|calls| calls.remove(&id)) {
        call.abort();
    }
}

unsafe extern "C" fn close<B: Backend>(guest: *mut c_void, reply: abi::Reply) {
    // SAFETY: the last use of the handle, which `open` made from a box.
    let guest = unsafe { Box::from_raw(guest.cast::<Guest<B>>()) };
    let replier = Replier::new(reply);
    // Ending a tokio runtime blocks, so it gets a thread of its own.
    std::thread::spawn(move || {
        let Guest { tokio, backend, .. } = *guest;
        tokio.shutdown_timeout(CLOSING);
        drop(backend);
        replier.done(Ok(b"null".to_vec()));
    });
}
