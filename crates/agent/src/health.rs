//! Health endpoints of the agent: `/livez`, `/readyz` and `/healthz` over HTTP (R-LOOP-7).

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use stanchion_runtime::Runtime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::elapsed,
    handle::Handle,
    limits::{HEALTH_CONNECTIONS, HEALTH_STREAMS},
    listener,
};

/// Longest time between two rounds of the reconciler.
pub(crate) const MAX_PASS_INTERVAL: Duration = Duration::from_secs(60);
/// Time without a round after which the reconciler counts as stuck.
const LIMIT: Duration = Duration::from_secs(300);
/// Pause between two attempts to listen.
const RETRY: Duration = Duration::from_secs(10);

/// Time of the reconciler's last round.
#[derive(Debug)]
pub(crate) struct Heartbeat(Mutex<Instant>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Mutex::new(crate::clock::instant()))
    }
}

impl Heartbeat {
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = crate::clock::instant();
    }

    /// # Errors
    /// The reconciler has made no round for too long; the message contains the time.
    pub fn check(&self) -> CheckResult {
        let still = elapsed(*self.0.lock().unwrap_or_else(PoisonError::into_inner));
        match still <= LIMIT.max(2 * MAX_PASS_INTERVAL) {
            true => Ok(()),
            false => Err(format!("the loop has stood still for {}s", still.as_secs())),
        }
    }
}

/// Result of a check; the error is the fault.
type CheckResult = Result<(), String>;

/// Results of checks, by name.
type Checks = Vec<(&'static str, CheckResult)>;

/// Query options of a request, as the API server has them.
type QueryOptions = Query<Vec<(String, String)>>;

/// Serves the health endpoints until `shutdown`. It retries an address that is not available; meanwhile pods run.
pub async fn serve<R: Runtime>(handle: Handle<R>, address: SocketAddr, shutdown: CancellationToken) {
    let Some(listener) = shutdown.run_until_cancelled(listen(address)).await else { return };
    let mut routes = Router::new();
    for name in ["healthz", "livez", "readyz"] {
        let all = move |State(handle): State<Handle<R>>, Query(options): QueryOptions| async move {
            all(name, checks(name, &handle), &options)
        };
        let one = move |State(handle): State<Handle<R>>, Path(check): Path<String>| async move {
            one(checks(name, &handle), &check)
        };
        routes = routes.route(&format!("/{name}"), get(all)).route(&format!("/{name}/{{check}}"), get(one));
    }
    listener::serve(listener, routes.with_state(handle), HEALTH_CONNECTIONS, HEALTH_STREAMS, shutdown).await;
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut is_logged = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !is_logged => {
                tracing::warn!(%address, %error, "agent.health_address cannot be listened on; it is tried again");
                is_logged = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Makes the checks of an endpoint. The agent is alive while the reconciler makes rounds, and ready if sources and
/// backends can be used, too.
fn checks<R>(name: &str, handle: &Handle<R>) -> Checks {
    let mut checks = vec![("ping", Ok(())), ("syncloop", handle.is_alive())];
    if name == "readyz" {
        checks.extend([("sources", sources(handle)), ("backends", backends(handle))]);
    }
    checks
}

fn sources<R>(handle: &Handle<R>) -> CheckResult {
    let sources = handle.board.sources();
    match sources.iter().filter(|source| source.error.is_some()).count() {
        0 => Ok(()),
        unreadable => Err(format!("{unreadable} of {} cannot be read", sources.len())),
    }
}

fn backends<R>(handle: &Handle<R>) -> CheckResult {
    let backends = handle.board.backends();
    match backends.iter().any(|backend| backend.error.is_none() && !backend.runtime.is_empty()) {
        true => Ok(()),
        false => Err(format!("none of {} can be reached", backends.len())),
    }
}

/// Answers with all checks, in the API server's form: with a line for each if one has failed, or with `verbose`.
fn all(name: &str, checks: Checks, options: &[(String, String)]) -> Response {
    let is_excluded = |check: &str| options.iter().any(|(option, value)| option == "exclude" && value == check);
    let is_verbose = options.iter().any(|(option, _)| option == "verbose");
    let mut lines = String::new();
    let mut has_failed = false;
    for (check, verdict) in checks {
        match verdict {
            _ if is_excluded(check) => lines.push_str(&format!("[+]{check} excluded: ok\n")),
            Ok(()) => lines.push_str(&format!("[+]{check} ok\n")),
            Err(why) => {
                has_failed = true;
                lines.push_str(&format!("[-]{check} failed: {why}\n"));
            }
        }
    }
    match (has_failed, is_verbose) {
        (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n")),
        (false, true) => text(StatusCode::OK, format!("{lines}{name} check passed\n")),
        (false, false) => text(StatusCode::OK, "ok".to_owned()),
    }
}

fn one(checks: Checks, wanted: &str) -> Response {
    match checks.into_iter().find(|(check, _)| *check == wanted) {
        Some((_, Ok(()))) => text(StatusCode::OK, "ok".to_owned()),
        Some((_, Err(why))) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        None => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache, private"),
    ];
    (status, headers, body).into_response()
}
