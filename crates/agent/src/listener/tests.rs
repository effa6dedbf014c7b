use axum::{Extension, body::Body, http::StatusCode, response::IntoResponse, routing::get};
use futures_util::stream;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::*;

const MOST: Limit = Limit::new("test connections", 4);
const STREAMING: Limit = Limit::new("test streams", 2);

/// Starts a server of `/`, and of `/follow`, whose answer never ends.
async fn server() -> (std::net::SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let follow = |Extension(exchange): Extension<Exchange>| async move {
        match exchange.stream() {
            None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Some(held) => {
                let first = stream::once(async { Ok::<_, io::Error>("first\n") });
                let never = stream::once(async move {
                    let _held = held;
                    std::future::pending().await
                });
                Body::from_stream(futures_util::StreamExt::chain(first, never)).into_response()
            }
        }
    };
    let routes = Router::new().route("/", get(|| async { "ok" })).route("/follow", get(follow));
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, routes, MOST, STREAMING, CancellationToken::new()));
    (address, tasks)
}

async fn sent(address: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    stream
}

async fn answer(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = sent(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is text");
    answer
}

#[tokio::test]
async fn idle_connections_and_half_requests_keep_nobody_out() {
    let (address, _server) = server().await;
    let mut idle = Vec::new();
    for count in 0..50 {
        let half = ["", "GET / HTTP/1.1\r\nHost: x\r\n", "GET /"][count % 3];
        idle.push(sent(address, half).await);
    }
    assert!(answer(address, "/").await.ends_with("ok"));
    let mut held = Vec::new();
    for _ in 0..STREAMING.most {
        let mut stream = sent(address, "GET /follow HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut got = Vec::new();
        while !got.ends_with(b"first\n\r\n") {
            assert!(stream.read_buf(&mut got).await.expect("it goes on") > 0);
        }
        held.push(stream);
    }
    assert!(answer(address, "/follow").await.starts_with("HTTP/1.1 503 "), "one stream too many");
    for _ in 0..50 {
        idle.push(sent(address, "").await);
    }
    assert!(answer(address, "/").await.ends_with("ok"), "streams and idle connections keep others out");
    drop(held.pop());
    let mut stream = sent(address, "GET /follow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut got = [0; 12];
    while stream.read_exact(&mut got).await.is_err() || got != *b"HTTP/1.1 200" {
        // A write or a read reveals that the other end is closed.
        stream = sent(address, "GET /follow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_is_given_up() {
    let (address, _server) = server().await;
    for half in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let (start, mut stream) = (Instant::now(), sent(address, half).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(start.elapsed() <= HEAD_TIME * 2, "{half:?} was kept for {:?}", start.elapsed());
    }
}
