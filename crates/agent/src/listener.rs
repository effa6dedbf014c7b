//! Connections to the agent's servers. Their number has a limit, and so has the time of each until its request is
//! complete.
//!
//! A connection serves one request. A new client may take the place of one that has not sent its request, so that idle
//! connections cannot keep others out. Long-lived answers, such as a followed log, have a lower limit of their own, so
//! that other requests always find a place.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use futures_util::FutureExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use stanchion_untrusted::Limit;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{elapsed, instant},
    limits::REQUEST_HEAD,
};

/// Time limit for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Time limit of an answer while another client waits for its place. Prunes and slow readers take longer, which is
/// harmless while there are places.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted because the process has too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Answer to a client that finds no place.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"message\":\"the agent answers as many requests as it can at once; try again\"}";

/// Listener for connections.
pub(crate) trait Accept {
    type Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// *Cancel-safe:* an accepted connection is always returned.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Accept for UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await.map(|(connection, _)| connection)
    }
}

impl Accept for TcpListener {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await.map(|(connection, _)| connection)
    }
}

/// State of a connection's request and answer. Handlers find it among the extensions of their request.
#[derive(Clone, Debug)]
pub(crate) struct Exchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stage: AtomicU8,
    since: Instant,
    streams: Arc<Semaphore>,
}

/// Stage: the head of the request is not complete.
const WAITS: u8 = 0;
/// Stage: the answer is being made or read.
const ANSWERS: u8 = 1;
/// Stage: the answer goes on until the client ends it.
const STREAMS: u8 = 2;

/// Permit for a long-lived answer.
#[derive(Debug)]
pub(crate) struct Stream {
    _permit: OwnedSemaphorePermit,
}

impl Exchange {
    /// Makes the answer a long-lived one; `None` if there are too many.
    pub fn stream(&self) -> Option<Stream> {
        let permit = Arc::clone(&self.0.streams).try_acquire_owned().ok()?;
        self.0.stage.store(STREAMS, Ordering::Relaxed);
        Some(Stream { _permit: permit })
    }

    /// Returns how readily the connection is closed for a new one; 0 means never.
    fn rank(&self) -> u8 {
        match self.0.stage.load(Ordering::Relaxed) {
            WAITS => 2,
            ANSWERS if elapsed(self.0.since) > ANSWER_TIME => 1,
            _ => 0,
        }
    }
}

/// An open connection.
struct Open {
    task: AbortHandle,
    exchange: Exchange,
}

/// Serves until `shutdown`: at most `most` connections at once, of which at most `streams` have long-lived answers.
pub(crate) async fn serve(
    listener: impl Accept,
    routes: Router,
    most: Limit,
    streams: Limit,
    shutdown: CancellationToken,
) {
    let streams = Arc::new(Semaphore::new(streams.size()));
    // Dropping the tasks at the end closes all connections. Long-lived answers would not end by themselves.
    let mut tasks = JoinSet::new();
    // Open connections, the oldest first.
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        // *Cancel-safe:* `accept` and `join_next` are, and the loop awaits nothing else but a pause.
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "answering a request panicked");
                }
                open.retain(|open| !open.task.is_finished());
            }
            accepted = listener.accept() => match accepted {
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be taken");
                    sleep(PAUSE).await;
                }
                Ok(mut connection) => {
                    if open.len() >= most.size() && !close_oldest(&mut open) {
                        // A new socket has space for that. A client that does not read sees the end of the connection.
                        drop(connection.write_all(BUSY).now_or_never());
                        continue;
                    }
                    let inner =
                        Inner { stage: AtomicU8::new(WAITS), since: instant(), streams: Arc::clone(&streams) };
                    let exchange = Exchange(Arc::new(inner));
                    let task = tasks.spawn(serve_connection(connection, routes.clone(), exchange.clone()));
                    open.push_back(Open { task, exchange });
                }
            },
        }
    }
}

/// Closes the oldest connection of the least important kind. Returns whether there was one.
fn close_oldest(open: &mut VecDeque<Open>) -> bool {
    let rank = |open: &Open| open.exchange.rank();
    let best = open.iter().map(rank).max().filter(|rank| *rank > 0);
    let found = best.and_then(|best| open.iter().position(|open| rank(open) == best));
    let ended = found.and_then(|at| open.remove(at));
    ended.map(|open| open.task.abort()).is_some()
}

/// Serves one connection: a request and its answer.
async fn serve_connection(
    connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    routes: Router,
    exchange: Exchange,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        exchange.0.stage.store(ANSWERS, Ordering::Relaxed);
        request.extensions_mut().insert(exchange.clone());
        routes.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(REQUEST_HEAD.size())
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection broke off");
    }
}
