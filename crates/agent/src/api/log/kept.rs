//! What containers wrote, from a runtime that keeps it itself.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use jiff::Timestamp;
use stanchion_runtime::{ContainerId, Error, ErrorKind, Runtime};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use super::super::Refusal;
use crate::logs::{Lines, LogOptions};

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

/// Text after a time, and the time of its last line.
async fn read<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    options: LogOptions,
    after: Option<Timestamp>,
) -> Result<(String, Option<Timestamp>), Error> {
    let failed = |error: io::Error| Error::new(ErrorKind::Other, "a pipe for a log").caused_by(&error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut from = BufReader::new(pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?);
    let mut lines = Lines::new(options, after);
    let receive = async {
        let mut raw = Vec::new();
        while from.read_until(b'\n', &mut raw).await? > 0 {
            lines.add(&raw);
            raw.clear();
        }
        Ok::<_, io::Error>(())
    };
    let (copied, received) = tokio::join!(runtime.logs(id.clone(), writer.into()), receive);
    copied?;
    received.map_err(failed)?;
    Ok(lines.finish())
}
