//! One call to a backend: its answer, and its stream of items.
#![allow(unsafe_code, reason = "called over the boundary")]

use std::ffi::c_void;

use stanchion_abi as abi;
use stanchion_runtime::{Error, Result};
use tokio::sync::{mpsc, oneshot};

/// Sending ends of a call's answers: the context of its reply. `done` frees it.
struct Pending {
    items: Option<mpsc::Sender<Vec<u8>>>,
    overflow: Option<mpsc::Sender<()>>,
    done: Option<oneshot::Sender<Result<Vec<u8>>>>,
    ended: Option<Box<dyn FnOnce() + Send>>,
}

/// Receiving ends of a call's answers.
pub(crate) struct Answer {
    /// Result of the call.
    pub done: oneshot::Receiver<Result<Vec<u8>>>,
    /// Items of the call, if it has any.
    pub items: mpsc::Receiver<Vec<u8>>,
    /// Signal that items were lost because nobody took them in time.
    pub overflow: mpsc::Receiver<()>,
}

/// Makes a reply for a call, and the receiving ends of its answers. At most `room` items are buffered; `ended` is
/// called after `done`.
pub(crate) fn reply(room: usize, ended: impl FnOnce() + Send + 'static) -> (abi::Reply, Answer) {
    let (items, received) = mpsc::channel(room.max(1));
    let (overflow, overflowed) = mpsc::channel(1);
    let (done, end) = oneshot::channel();
    let pending = Pending {
        items: (room > 0).then_some(items),
        overflow: Some(overflow),
        done: Some(done),
        ended: Some(Box::new(ended)),
    };
    let ctx = Box::into_raw(Box::new(pending)).cast();
    (
        abi::Reply { ctx, item: Some(item), done: Some(self::done) },
        Answer { done: end, items: received, overflow: overflowed },
    )
}

unsafe extern "C" fn item(ctx: *mut c_void, item: abi::Slice) -> u32 {
    // SAFETY: the backend calls this only before `done`, never twice at once; the slice lives through the call.
    let (pending, item) = unsafe { (&*ctx.cast::<Pending>(), item.bytes()) };
    match pending.items.as_ref().map(|items| items.try_send(item.to_vec())) {
        Some(Ok(())) => 0,
        Some(Err(mpsc::error::TrySendError::Full(_))) => {
            // One signal is enough: its reader then lists everything.
            if let Some(Err(mpsc::error::TrySendError::Closed(()))) =
                pending.overflow.as_ref().map(|it| it.try_send(()))
            {
                return 1;
            }
            0
        }
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => 1,
    }
}

unsafe extern "C" fn done(ctx: *mut c_void, code: u32, body: abi::Slice) {
    // SAFETY: `done` is called exactly once: the box made in `reply` ends here. The slice lives through the call.
    let (mut pending, body) = unsafe { (Box::from_raw(ctx.cast::<Pending>()), body.bytes()) };
    let answer = if code == 0 { Ok(body.to_vec()) } else { Err(Error::from_body(code, body)) };
    if let Some(done) = pending.done.take() {
        // The caller may have given up.
        drop(done.send(answer));
    }
    if let Some(ended) = pending.ended.take() {
        ended();
    }
}
