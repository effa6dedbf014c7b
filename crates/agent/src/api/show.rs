//! Requests for the state of node, pods, sources and backends, and for events.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use stanchion_board::view::{BackendView, NodeView, PodView, RemovedView, SourceView};
use stanchion_runtime::Runtime;
use tokio::sync::watch;

use super::{ApiError, find, stream};
use crate::{blocking, handle::Handle, listener::Exchange};

/// Options of requests that can be watched.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Options {
    /// `true` answers with a line of JSON now and after every change.
    #[serde(default)]
    watch: bool,
}

pub(super) async fn node<R: Runtime>(State(handle): State<Handle<R>>) -> Json<NodeView> {
    Json(handle.board.node())
}

pub(super) async fn pod<R: Runtime>(
    State(handle): State<Handle<R>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<PodView>, ApiError> {
    find(&handle, namespace, name).map(|(_, view)| Json((*view).clone()))
}

pub(super) async fn pods<R: Runtime>(
    State(handle): State<Handle<R>>,
    Extension(exchange): Extension<Exchange>,
    Query(options): Query<Options>,
) -> Result<Response, ApiError> {
    let board = Arc::clone(&handle.board);
    let changes = board.watch();
    answer(&options, &exchange, changes, move || board.pods().iter().map(|pod| (**pod).clone()).collect::<Vec<_>>())
}

pub(super) async fn removed<R: Runtime>(State(handle): State<Handle<R>>) -> Json<Vec<RemovedView>> {
    Json(blocking(move || handle.removed()).await)
}

pub(super) async fn sources<R: Runtime>(State(handle): State<Handle<R>>) -> Json<Vec<SourceView>> {
    Json(handle.board.sources())
}

pub(super) async fn backends<R: Runtime>(State(handle): State<Handle<R>>) -> Json<Vec<BackendView>> {
    Json(handle.board.backends())
}

pub(super) async fn events<R: Runtime>(
    State(handle): State<Handle<R>>,
    Extension(exchange): Extension<Exchange>,
    Query(options): Query<Options>,
) -> Result<Response, ApiError> {
    let events = Arc::clone(&handle.events);
    let changes = events.watch();
    let mut seen = 0;
    answer(&options, &exchange, changes, move || {
        let new = events.since(seen);
        seen = new.last().map_or(seen, |event| event.id);
        new
    })
}

/// Answers once, or with a line for every change.
fn answer<T: Serialize>(
    options: &Options,
    exchange: &Exchange,
    changes: watch::Receiver<u64>,
    mut read: impl FnMut() -> T + Send + 'static,
) -> Result<Response, ApiError> {
    if !options.watch {
        return Ok(Json(read()).into_response());
    }
    let held = stream(exchange)?;
    let lines = unfold((changes, read, true, held), |(mut changes, mut read, first, held)| async move {
        if !first && changes.changed().await.is_err() {
            return None;
        }
        changes.borrow_and_update();
        let line = serde_json::to_string(&read()).map(|line| line + "\n");
        Some((line, (changes, read, false, held)))
    });
    Ok(Body::from_stream(lines).into_response())
}
