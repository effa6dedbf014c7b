//! What containers wrote: from log files, or from a runtime that keeps it itself.

mod kept;

use std::{path::PathBuf, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use stanchion_pod::PodKey;
use stanchion_runtime::{ContainerId, Runtime};

use super::{Refusal, container, find};
use crate::{
    handle::Handle,
    logs::{Follow, LogOptions, read},
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
    since_seconds: Option<u64>,
    #[serde(default)]
    timestamps: bool,
}

pub(super) async fn log<R: Runtime>(
    State(handle): State<Handle<R>>,
    Path((namespace, name)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, Refusal> {
    let (key, view) = find(&handle, namespace, name)?;
    let name = container(&view, options.container)?;
    let status = view.statuses().find(|status| status.name == name);
    let attempt = status.and_then(|status| u32::try_from(status.restart_count).ok()).unwrap_or(0);
    let uid = view.pod.metadata.uid.clone().unwrap_or_default();
    let directory = handle.board.node().log_dir.join(format!("{}_{}_{uid}", key.namespace, key.name)).join(&name);
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let path = match (options.previous, attempt.checked_sub(1)) {
        (false, _) => directory.join(format!("{attempt}.log")),
        (true, Some(before)) => directory.join(format!("{before}.log")),
        (true, None) => return Err(bad(no_previous(&name, &key.name))),
    };
    let since = options
        .since_seconds
        .map(|seconds| crate::Clock::System.now().checked_sub(Duration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
    let wanted = LogOptions { tail: options.tail_lines, since, timestamps: options.timestamps };
    let is_over = {
        let (handle, key, name) = (handle.clone(), key.clone(), name.clone());
        move || is_over(&handle, &key, &name, attempt)
    };
    let id = status.and_then(|status| match options.previous {
        true => status.last_state.as_ref()?.terminated.as_ref()?.container_id.clone(),
        false => status.container_id.clone(),
    });
    let id = id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| ContainerId::from(id));
    if !path.exists()
        && let (Some(id), Some(runtime)) = (id, handle.runtime(&view.backend))
    {
        let follow = (options.follow && !options.previous).then(|| is_over.clone());
        if let Some(answer) = kept::answer(runtime, id, wanted, follow).await {
            return answer;
        }
    }
    if options.previous && !path.exists() {
        return Err(bad(no_previous(&name, &key.name)));
    }
    if !path.exists() {
        let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let why = why_not_yet(waiting.as_deref());
        return Err(bad(format!("container {name:?} in pod {:?} is waiting to start: {why}", key.name)));
    }
    let blocking = tokio::task::spawn_blocking({
        let path: PathBuf = path.clone();
        move || read(&path, &wanted)
    });
    let failed = |error: &dyn std::fmt::Display| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("reading {}: {error}", path.display()))
    };
    let (text, end) = blocking.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    if !options.follow || options.previous {
        return Ok(text.into_response());
    }
    let follow = Follow::new(path, end, wanted.timestamps);
    let parts = stream::unfold((Some(text), follow, is_over), |(first, mut follow, is_over)| async move {
        let part = match first {
            Some(text) => Some(Ok(text)),
            None => follow.next(&is_over).await,
        };
        Some((part?, (None, follow, is_over)))
    });
    Ok(Body::from_stream(parts).into_response())
}

/// Whether this life of a container is over: it runs no more, or another has begun.
fn is_over<R>(handle: &Handle<R>, key: &PodKey, name: &str, attempt: u32) -> bool {
    let view = handle.board.pod(key);
    let own = view.iter().flat_map(|view| view.statuses()).find(|status| status.name == name);
    own.is_none_or(|status| {
        let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        !is_running || u32::try_from(status.restart_count) != Ok(attempt)
    })
}

/// Why a container has no log yet, by the reason it waits for (R-LOG-10).
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
