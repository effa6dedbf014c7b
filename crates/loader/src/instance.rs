//! Opens a backend, starts and cancels its calls, and closes it at the end.
#![allow(unsafe_code, reason = "calls over the boundary")]

use std::{
    ffi::c_void,
    os::fd::{IntoRawFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use stanchion_abi as abi;
use stanchion_runtime::{Error, ErrorKind, OpenRequest, Result, blocking};
use tokio::sync::oneshot;

use crate::{
    OPENING,
    call::{self, Answer},
    descriptor::Descriptor,
    host::Host,
};

/// Time after which a cancelled call that has not ended counts as stuck.
const STUCK: Duration = Duration::from_secs(5);

/// An open backend. Shared by every call and stream; closed when the last of them is gone.
#[derive(Debug)]
pub(crate) struct Instance {
    pub descriptor: Descriptor,
    pub library: PathBuf,
    handle: Handle,
    host: &'static Host,
    next_id: AtomicU64,
    stuck: Arc<AtomicU64>,
}

/// Pointer that the backend's `open` returned.
#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: the boundary allows `start`, `cancel` and `close` from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above; `start` and `cancel` may run at the same time.
unsafe impl Sync for Handle {}

impl Instance {
    pub async fn open(descriptor: Descriptor, library: PathBuf, request: &OpenRequest) -> Result<Self> {
        let name = descriptor.name();
        let tried = || format!("opening backend {name}");
        let request =
            serde_json::to_vec(request).map_err(|error| Error::new(ErrorKind::Invalid, tried()).caused_by(&error))?;
        let (host, shown) = Host::leak(descriptor.name());
        let opening = blocking(move || {
            let (reply, answer) = call::reply(0, || {});
            let open = descriptor.0.open.expect("checked when the descriptor was");
            // SAFETY: the host struct is leaked, the request lives through the call.
            let handle = unsafe { open(shown, abi::Slice::new(&request), reply) };
            (Handle(handle), answer)
        });
        let (handle, answer) = opening.await;
        let is_null = handle.0.is_null();
        let instance = Self { descriptor, library, handle, host, next_id: AtomicU64::new(1), stuck: Arc::default() };
        let opened = match tokio::time::timeout(OPENING, answer.done).await {
            Ok(Ok(Ok(_))) if !is_null => return Ok(instance),
            Ok(Ok(Ok(_))) => Error::new(ErrorKind::Other, "it answered without a handle"),
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => Error::new(ErrorKind::Crashed, "it did not answer"),
            Err(_) => Error::new(ErrorKind::Timeout, format!("no answer within {OPENING:?}")),
        };
        Err(opened.context(tried()))
    }

    /// Returns the number of calls that were cancelled more than [`STUCK`] ago and have not ended.
    pub fn stuck(&self) -> u64 {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that the backend has not ended.
    pub fn under_way(&self) -> usize {
        self.host.under_way()
    }

    /// Starts a call; at most `room` items are buffered.
    pub fn start<T: Serialize + ?Sized>(
        self: &Arc<Self>,
        method: u32,
        request: &T,
        fds: Vec<Option<OwnedFd>>,
        room: usize,
        deadline: Option<Duration>,
    ) -> Result<(Answer, GiveUp)> {
        let request = serde_json::to_vec(request)
            .map_err(|error| Error::new(ErrorKind::Invalid, "the request cannot be written").caused_by(&error))?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.host.enter(id, tracing::Span::current());
        let host = self.host;
        let (ended, watch) = oneshot::channel::<()>();
        let (reply, answer) = call::reply(room, move || {
            host.leave(id);
            drop(ended);
        });
        // The backend owns the descriptors from here on, even if the call fails.
        let fds: Vec<i32> = fds.into_iter().map(|fd| fd.map_or(-1, IntoRawFd::into_raw_fd)).collect();
        let call = abi::Call {
            size: 80,
            method,
            id,
            deadline_ms: deadline.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            request: abi::Slice::new(&request),
            fds: fds.as_ptr(),
            fd_count: fds.len(),
            reply,
        };
        let start = self.descriptor.0.start.expect("checked when the descriptor was");
        // SAFETY: the handle is open (`self` lives), and everything the call borrows lives through this function.
        unsafe { start(self.handle.0, &raw const call) };
        Ok((answer, GiveUp { instance: Arc::clone(self), id, method, ended: Some(watch) }))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.handle.0.is_null() {
            return;
        }
        let name = self.descriptor.name();
        let (reply, _answer) = call::reply(0, move || tracing::debug!(backend = name, "closed"));
        let close = self.descriptor.0.close.expect("checked when the descriptor was");
        // SAFETY: every call holds an `Arc` of this instance, so none is being started or given up; this is the last use.
        unsafe { close(self.handle.0, reply) }
    }
}

/// Cancels its call when dropped before the call has ended.
pub(crate) struct GiveUp {
    instance: Arc<Instance>,
    id: u64,
    method: u32,
    ended: Option<oneshot::Receiver<()>>,
}

impl GiveUp {
    /// Drops the guard without cancelling: the call has ended.
    pub fn defuse(mut self) {
        self.ended = None;
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        let Some(ended) = self.ended.take() else { return };
        let cancel = self.instance.descriptor.0.cancel.expect("checked when the descriptor was");
        // SAFETY: the handle is open (the instance lives); an id that has ended is ignored.
        unsafe { cancel(self.instance.handle.0, self.id) }
        let (stuck, method, name) = (Arc::clone(&self.instance.stuck), self.method, self.instance.descriptor.name());
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            // The task ends with the call; nothing waits for it.
            #[allow(clippy::disallowed_methods, reason = "a watch over a call that was given up")]
            tokio.spawn(async move {
                watch(ended, &stuck, &name, method).await;
            });
        }
    }
}

/// Counts a cancelled call as stuck from [`STUCK`] on, until it ends.
async fn watch(mut ended: oneshot::Receiver<()>, stuck: &AtomicU64, backend: &str, method: u32) {
    if tokio::time::timeout(STUCK, &mut ended).await.is_ok() {
        return;
    }
    stuck.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(backend, method, "a cancelled call has not ended in time");
    // The sender is dropped at the end of the call.
    ended.await.ok();
    stuck.fetch_sub(1, Ordering::Relaxed);
    tracing::info!(backend, method, "a cancelled call has ended after all");
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use tokio::{
        sync::oneshot,
        time::{sleep, timeout},
    };

    use super::{STUCK, watch};

    #[tokio::test(start_paused = true)]
    async fn a_call_is_stuck_until_it_ends() {
        for (takes, is_stuck) in [(STUCK / 2, false), (STUCK + Duration::from_secs(1), true)] {
            let stuck = AtomicU64::new(0);
            let (call, ended) = oneshot::channel();
            let ends = async {
                sleep(takes).await;
                let seen = stuck.load(Ordering::Relaxed);
                drop(call);
                seen
            };
            let both = async { tokio::join!(ends, watch(ended, &stuck, "test", 1)) };
            let (seen, ()) = timeout(2 * STUCK, both).await.expect("the watch ends with the call");
            assert_eq!((seen, stuck.into_inner()), (u64::from(is_stuck), 0), "{takes:?}");
        }
    }
}
