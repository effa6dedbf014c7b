//! What containers wrote, from a runtime that keeps it itself.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use stanchion_runtime::{ContainerId, ErrorKind, Runtime};

use super::super::Refusal;
use crate::logs::{LogOptions, kept as read};

/// How often a followed log is read again: the runtime gives all that it has each time.
const PERIOD: Duration = Duration::from_secs(1);

/// The answer from what the runtime has kept; `None` when it keeps nothing itself.
pub(super) async fn answer<R: Runtime>(
    runtime: Arc<R>,
    id: ContainerId,
    options: LogOptions,
    follow: Option<impl Fn() -> bool + Send + Sync + 'static>,
) -> Option<Result<Response, Refusal>> {
    let (text, last) = match read(&*runtime, &id, options, None).await {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::Unsupported => return None,
        Err(error) => return Some(Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.chain()))),
    };
    let Some(is_over) = follow else { return Some(Ok(text.into_response())) };
    let state = (Some(text), last, runtime, id, is_over);
    let parts = stream::unfold(state, move |(first, mut last, runtime, id, is_over)| async move {
        if let Some(text) = first {
            return Some((Ok::<_, io::Error>(text), (None, last, runtime, id, is_over)));
        }
        loop {
            let over = is_over();
            let more = LogOptions { timestamps: options.timestamps, ..LogOptions::default() };
            match read(&*runtime, &id, more, last).await {
                Ok((text, seen)) if !text.is_empty() => {
                    last = seen;
                    return Some((Ok(text), (None, last, runtime, id, is_over)));
                }
                Ok(_) if over => return None,
                Ok(_) => tokio::time::sleep(PERIOD).await,
                Err(_) if over => return None,
                Err(error) => return Some((Err(io::Error::other(error)), (None, last, runtime, id, is_over))),
            }
        }
    });
    Some(Ok(Body::from_stream(parts).into_response()))
}
