//! Sends logs of containers, from log files or from a runtime that stores them itself.

use std::{future::ready, io, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::{
    StreamExt,
    stream::{once, select, unfold},
};
use jiff::Timestamp;
use serde::Deserialize;
use stanchion_pod::{PodKey, k8s_openapi::api::core::v1 as wire};
use stanchion_runtime::{ContainerId, Error, ErrorKind, Runtime};
use tokio::sync::mpsc;

use super::{ApiError, container, find, stream};
use crate::{
    blocking,
    handle::Handle,
    listener::{Exchange, Stream},
    logs::{self, Log, LogOptions, RuntimeLog},
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    container: Option<String>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    previous: bool,
    tail_lines: Option<usize>,
    since_seconds: Option<f64>,
    since_time: Option<Timestamp>,
    #[serde(default)]
    timestamps: bool,
}

pub(super) async fn log<R: Runtime>(
    State(handle): State<Handle<R>>,
    Extension(exchange): Extension<Exchange>,
    Path((namespace, name)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, ApiError> {
    let (key, view) = find(&handle, namespace, name)?;
    let name = container(&view, options.container.clone())?;
    let status = view.statuses().find(|status| status.name == name);
    let attempt = status.and_then(|status| u32::try_from(status.restart_count).ok()).unwrap_or(0);
    let uid = view.pod.metadata.uid.clone().unwrap_or_default();
    let directory = handle.board.node().log_dir.join(format!("{}_{}_{uid}", key.namespace, key.name)).join(&name);
    let bad = |message: String| ApiError(StatusCode::BAD_REQUEST, message);
    let path = match (options.previous, attempt.checked_sub(1)) {
        (false, _) => directory.join(format!("{attempt}.log")),
        (true, Some(before)) => directory.join(format!("{before}.log")),
        (true, None) => return Err(bad(no_previous(&name, &key.name))),
    };
    let since = since(&options, handle.clock.now()).map_err(bad)?;
    let wanted = LogOptions { tail: options.tail_lines, since, timestamps: options.timestamps };
    let stream = stream(&exchange)?;
    let has_ended = {
        let (handle, key, name) = (handle.clone(), key.clone(), name.clone());
        move || has_ended(&handle, &key, &name, attempt)
    };
    let follow = (options.follow && !options.previous).then_some(has_ended);
    let (to, pieces) = mpsc::channel(1);
    let (opened, is_followed) = (path.clone(), follow.is_some());
    let opened = blocking(move || Log::open(&opened, wanted, is_followed)).await;
    let cannot_read = |error: &dyn std::fmt::Display| failed(format!("reading {}: {error}", path.display()));
    match opened {
        Ok(log) => {
            let copied = async move {
                match follow {
                    Some(has_ended) => logs::copy(log, has_ended, &to).await,
                    None => logs::copy_all(log, &to).await,
                }
            };
            return answer(copied, pieces, stream).await.map_err(|error| cannot_read(&error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot_read(&error)),
    }
    let id = status.and_then(|status| instance(status, options.previous));
    if let (Some(id), Some(runtime)) = (id, handle.runtime(&view.backend)) {
        let kept = RuntimeLog::new(runtime, id, wanted);
        match answer(async move { kept.copy(follow, &to).await }, pieces, stream).await {
            Ok(answer) => return Ok(answer),
            // This runtime's logs are files, and the file does not exist.
            Err(error) if kind(&error) == Some(ErrorKind::Unsupported) => {}
            Err(error) => return Err(failed(chain(&error))),
        }
    }
    if options.previous {
        return Err(bad(no_previous(&name, &key.name)));
    }
    let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let why = why_not_yet(waiting.as_deref());
    Err(bad(format!("container {name:?} in pod {:?} is waiting to start: {why}", key.name)))
}

/// Returns the time from which entries are wanted.
fn since(options: &Options, now: Timestamp) -> Result<Option<Timestamp>, String> {
    match (options.since_seconds, options.since_time) {
        (Some(_), Some(_)) => Err("at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned()),
        (Some(seconds), None) => {
            let before = Duration::try_from_secs_f64(seconds).map_err(|error| format!("sinceSeconds: {error}"))?;
            Ok(Some(now.checked_sub(before).unwrap_or(Timestamp::MIN)))
        }
        (None, time) => Ok(time),
    }
}

/// Returns the id of a container's present or previous instance in its runtime.
fn instance(status: &wire::ContainerStatus, is_previous: bool) -> Option<ContainerId> {
    let id = match is_previous {
        true => status.last_state.as_ref()?.terminated.as_ref()?.container_id.as_deref(),
        false => status.container_id.as_deref(),
    };
    id?.split_once("://").map(|(_, id)| ContainerId::from(id))
}

fn failed(message: String) -> ApiError {
    ApiError(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// Answers with the pieces that `copy` sends, as fast as the client reads. An error before the first piece becomes the
/// answer.
async fn answer(
    copy: impl Future<Output = ()> + Send + 'static,
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    stream: Stream,
) -> Result<Response, io::Error> {
    let copied = once(copy).filter_map(|()| ready(None));
    let received = unfold((pieces, stream), |(mut pieces, stream)| async move {
        let piece = pieces.recv().await?;
        Some((piece, (pieces, stream)))
    });
    let mut all = Box::pin(select(copied, received));
    match all.next().await {
        None => Ok(Body::empty().into_response()),
        Some(Err(error)) => Err(error),
        Some(first) => Ok(Body::from_stream(once(ready(first)).chain(all)).into_response()),
    }
}

fn kind(error: &io::Error) -> Option<ErrorKind> {
    error.get_ref()?.downcast_ref::<Error>().map(Error::kind)
}

fn chain(error: &io::Error) -> String {
    error.get_ref().and_then(|error| error.downcast_ref::<Error>()).map_or_else(|| error.to_string(), Error::chain)
}

/// Returns whether this attempt of a container has ended: it does not run, or a later one has begun.
fn has_ended<R>(handle: &Handle<R>, key: &PodKey, name: &str, attempt: u32) -> bool {
    let view = handle.board.pod(key);
    let own = view.iter().flat_map(|view| view.statuses()).find(|status| status.name == name);
    own.is_none_or(|status| {
        let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        !is_running || u32::try_from(status.restart_count) != Ok(attempt)
    })
}

/// Returns the reason why a container has no log yet, from the reason for which it waits (R-LOG-10).
fn why_not_yet(reason: Option<&str>) -> &str {
    match reason {
        Some("ErrImagePull") => "image can't be pulled",
        Some("ImagePullBackOff") => "trying and failing to pull image",
        Some(reason) => reason,
        None => "ContainerCreating",
    }
}

fn no_previous(container: &str, pod: &str) -> String {
    format!("previous terminated container {container:?} in pod {pod:?} not found")
}
