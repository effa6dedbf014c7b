//! Answers to calls: exactly one per call.
#![allow(unsafe_code, reason = "calls back over the boundary")]

use stanchion_abi::{Reply, Slice};
use stanchion_runtime::{Error, ErrorKind};

/// Answer to a call, sent even if it is dropped unanswered: then as `Crashed` when unwinding, else as `Cancelled`.
pub(crate) struct Replier {
    reply: Option<Reply>,
}

// SAFETY: the host allows `item` and `done` from any thread, and this type calls them one at a time.
unsafe impl Send for Replier {}

impl Replier {
    pub fn new(reply: Reply) -> Self {
        Self { reply: Some(reply) }
    }

    /// Sends one item of a stream and returns whether the host still listens.
    pub fn item(&mut self, item: &[u8]) -> bool {
        match &self.reply {
            Some(Reply { ctx, item: Some(send), .. }) => {
                // SAFETY: `ctx` is the host's and lives until `done`, which has not been called: `reply` is still
                // there.
                unsafe { send(*ctx, Slice::new(item)) == 0 }
            }
            _ => false,
        }
    }

    /// Ends the call with an answer.
    pub fn done(mut self, answer: Result<Vec<u8>, Error>) {
        self.finish(&answer);
    }

    fn finish(&mut self, answer: &Result<Vec<u8>, Error>) {
        let Some(Reply { ctx, done: Some(done), .. }) = self.reply.take() else { return };
        let (code, body) = match answer {
            Ok(body) => (0, body.clone()),
            Err(error) => (error.kind().code(), error.to_body()),
        };
        // SAFETY: `ctx` is the host's, and taking `reply` makes this the only call of `done`.
        unsafe { done(ctx, code, Slice::new(&body)) }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        let error = match std::thread::panicking() {
            true => Error::new(ErrorKind::Crashed, "the backend panicked; its message is in the log"),
            false => Error::new(ErrorKind::Cancelled, "the call was given up"),
        };
        self.finish(&Err(error));
    }
}
