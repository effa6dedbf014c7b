//! Requests to restart pods and to prune images.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use stanchion_board::view::PruneView;
use stanchion_runtime::Runtime;

use super::{ApiError, container, find};
use crate::handle::{Handle, Request};

#[derive(Debug, Deserialize)]
pub(super) struct Options {
    container: Option<String>,
}

pub(super) async fn restart<R: Runtime>(
    State(handle): State<Handle<R>>,
    Path((namespace, name)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Result<StatusCode, ApiError> {
    let (pod, view) = find(&handle, namespace, name)?;
    let container = options.container.map(|name| container(&view, Some(name))).transpose()?;
    handle.request(Request::Restart { pod, container }).await;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Debug, Deserialize)]
pub(super) struct PruneOptions {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn prune<R: Runtime>(
    State(handle): State<Handle<R>>,
    Query(options): Query<PruneOptions>,
) -> Json<Vec<PruneView>> {
    Json(handle.prune(options.dry_run).await)
}
