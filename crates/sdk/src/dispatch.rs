//! Mapping from a numbered call to a method of the trait.

use std::{os::fd::OwnedFd, pin::pin, sync::Arc, sync::Mutex, sync::PoisonError};

use futures_util::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use stanchion_abi::method;
use stanchion_runtime::{ContainerId, Error, ErrorKind, ExecStdio, Progress, Result, Runtime};

use crate::reply::Replier;

/// A call with its body still encoded.
pub(crate) struct Request {
    pub method: u32,
    pub body: Vec<u8>,
    pub fds: Vec<Option<OwnedFd>>,
}

impl Request {
    fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::new(ErrorKind::Invalid, "the request cannot be read").caused_by(&error))
    }

    fn fd(&mut self, index: usize) -> Option<OwnedFd> {
        self.fds.get_mut(index).and_then(Option::take)
    }
}

/// Runs a call and sends its answer.
pub(crate) async fn dispatch<R: Runtime>(runtime: Arc<R>, request: Request, mut replier: Replier) {
    match request.method {
        method::EVENTS => {
            let mut events = pin!(runtime.events());
            let ended = loop {
                match events.next().await {
                    Some(Ok(event)) => match serde_json::to_vec(&event) {
                        Ok(item) if replier.item(&item) => {}
                        Ok(_) => break Ok(b"null".to_vec()),
                        Err(error) => break Err(unwritable(&error)),
                    },
                    Some(Err(error)) => break Err(error),
                    None => break Ok(b"null".to_vec()),
                }
            };
            replier.done(ended);
        }
        method::PULL_IMAGE => {
            let request = match request.read() {
                Ok(request) => request,
                Err(error) => return replier.done(Err(error)),
            };
            // Progress reports may come from any thread of the backend; the lock sends them one at a time.
            let replier = Arc::new(Mutex::new(Some(replier)));
            let listener = Arc::clone(&replier);
            let progress = Progress::new(move |progress| {
                let mut replier = listener.lock().unwrap_or_else(PoisonError::into_inner);
                if let (Some(replier), Ok(item)) = (replier.as_mut(), serde_json::to_vec(&progress)) {
                    replier.item(&item);
                }
            });
            let answer = encode(runtime.pull_image(request, progress).await);
            let replier = replier.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(replier) = replier {
                replier.done(answer);
            }
        }
        _ => {
            let answer = answer(&*runtime, request).await;
            replier.done(answer);
        }
    }
}

async fn answer<R: Runtime>(runtime: &R, mut request: Request) -> Result<Vec<u8>> {
    match request.method {
        method::VERSION => encode(runtime.version().await),
        method::HEALTH => encode(runtime.health().await),
        method::LIST_IMAGES => encode(runtime.list_images().await),
        method::INSPECT_IMAGE => encode(runtime.inspect_image(request.read()?).await),
        method::REMOVE_IMAGE => encode(runtime.remove_image(request.read()?).await),
        method::REMOVE_UNUSED_IMAGE => encode(runtime.remove_unused_image(request.read()?).await),
        method::IMAGE_STORE => encode(runtime.image_store().await),
        method::IMPORT_IMAGES => encode(runtime.import_images(request.read()?).await),
        method::CREATE_SANDBOX => encode(runtime.create_sandbox(request.read()?).await),
        method::STOP_SANDBOX => encode(runtime.stop_sandbox(request.read()?).await),
        method::REMOVE_SANDBOX => encode(runtime.remove_sandbox(request.read()?).await),
        method::CREATE_CONTAINER => encode(runtime.create_container(request.read()?).await),
        method::START_CONTAINER => encode(runtime.start_container(request.read()?).await),
        method::STOP_CONTAINER => {
            let (id, grace): (ContainerId, stanchion_runtime::Millis) = request.read()?;
            encode(runtime.stop_container(id, grace.into()).await)
        }
        method::REMOVE_CONTAINER => encode(runtime.remove_container(request.read()?).await),
        method::LIST => encode(runtime.list().await),
        method::LIST_POD => encode(runtime.list_pod(request.read()?).await),
        method::STATS => encode(runtime.stats().await),
        method::DISK_USAGE => encode(runtime.disk_usage(request.read()?).await),
        method::EXEC => {
            let stdio = ExecStdio { stdin: request.fd(0), stdout: request.fd(1), stderr: request.fd(2) };
            encode(runtime.exec(request.read()?, stdio).await)
        }
        method::LOGS => match request.fd(0) {
            Some(sink) => encode(runtime.logs(request.read()?, sink).await),
            None => Err(Error::new(ErrorKind::Invalid, "a descriptor to write the logs to is missing")),
        },
        method::RESIZE_EXEC => {
            let (id, size) = request.read()?;
            encode(runtime.resize_exec(id, size).await)
        }
        other => Err(Error::unsupported(format!("method {other}"))),
    }
}

fn encode<T: Serialize>(answer: Result<T>) -> Result<Vec<u8>> {
    serde_json::to_vec(&answer?).map_err(|error| unwritable(&error))
}

fn unwritable(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Other, "the answer cannot be written").caused_by(error)
}
