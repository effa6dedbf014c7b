//! The local API on the unix socket: HTTP with JSON, for the command line.
//!
//! # Layout
//! - [`serve`]: the server. `show`: state, once or on every change. `act`: restart, prune. `exec`, `log`: streams.

mod act;
mod exec;
mod log;
mod show;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use stanchion_board::view::PodView;
use stanchion_pod::PodKey;
use stanchion_runtime::Runtime;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::{
    handle::Handle,
    limits::{API_CONNECTIONS, API_STREAMS},
    listener::{self, Exchange, Stream},
};

/// Serves the local API until `shutdown`.
pub async fn serve<R: Runtime>(handle: Handle<R>, socket: UnixListener, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/v1/node", get(show::node::<R>))
        .route("/v1/pods", get(show::pods::<R>))
        .route("/v1/pods/{namespace}/{name}", get(show::pod::<R>))
        .route("/v1/removed", get(show::removed::<R>))
        .route("/v1/sources", get(show::sources::<R>))
        .route("/v1/backends", get(show::backends::<R>))
        .route("/v1/events", get(show::events::<R>))
        .route("/v1/images/prune", post(act::prune::<R>))
        .route("/v1/pods/{namespace}/{name}/restart", post(act::restart::<R>))
        .route("/v1/pods/{namespace}/{name}/log", get(log::log::<R>))
        .route("/v1/pods/{namespace}/{name}/exec", post(exec::exec::<R>))
        .with_state(handle);
    listener::serve(socket, routes, API_CONNECTIONS, API_STREAMS, shutdown).await;
}

/// Takes a permit for a long-lived answer.
fn stream(exchange: &Exchange) -> Result<Stream, ApiError> {
    exchange.stream().ok_or_else(|| {
        let message = format!("there are {} logs, execs and watches already; end one of them first", API_STREAMS.most);
        ApiError(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

/// Error of a request, sent as JSON.
#[derive(Debug)]
struct ApiError(StatusCode, String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "message": self.1 }))).into_response()
    }
}

/// Finds the pod that a request's path names.
fn find<R>(handle: &Handle<R>, namespace: String, name: String) -> Result<(PodKey, std::sync::Arc<PodView>), ApiError> {
    let key = PodKey { namespace, name };
    match handle.board.pod(&key) {
        Some(view) => Ok((key, view)),
        None => Err(ApiError(StatusCode::NOT_FOUND, format!("pod {key} not found"))),
    }
}

/// Returns the container of a request: the named one, or the first that is not an init container.
fn container(view: &PodView, wanted: Option<String>) -> Result<String, ApiError> {
    let names: Vec<_> = view.containers.iter().map(|container| container.name.as_str()).collect();
    let pod = view.pod.metadata.name.as_deref().unwrap_or_default();
    match wanted {
        Some(name) if names.contains(&name.as_str()) => Ok(name),
        Some(name) => {
            let message = format!("container {name} is not valid for pod {pod}; it has [{}]", names.join(" "));
            Err(ApiError(StatusCode::BAD_REQUEST, message))
        }
        None => match names.get(view.pod.spec.as_ref().map_or(0, |spec| spec.init_containers.iter().flatten().count()))
        {
            Some(first) => Ok((*first).to_owned()),
            None => Err(ApiError(StatusCode::CONFLICT, format!("pod {pod} has no containers"))),
        },
    }
}
