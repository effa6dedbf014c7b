//! Tests against servers on the loopback.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hyper::{HeaderMap, Response, body::Bytes};
use stanchion_pod::{Endpoint, HttpGet, TargetPort};
use tokio::{net::TcpListener, task::JoinSet};

use super::{grpc, http, server::Server};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(10);

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((HERE, 0)).await.expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    (listener, port)
}

/// Starts a gRPC server that answers each call with this status, and this message or body.
async fn grpc_server(code: &'static str, said: &'static str, body: &'static [u8]) -> (u16, JoinSet<()>) {
    let (listener, port) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (stream, _) = listener.accept().await.expect("it is called");
        let mut connection = h2::server::handshake(stream).await.expect("it speaks HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert_eq!(request.headers()["user-agent"], "kube-probe/1.36", "R-PRB-31");
            let head = Response::builder().header("content-type", "application/grpc");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().expect("it is a number"));
            trailers.insert("grpc-message", said.parse().expect("it is text"));
            if body.is_empty() {
                let mut head = head.body(()).expect("it is whole");
                head.headers_mut().extend(trailers);
                respond.send_response(head, true).expect("it is heard");
            } else {
                let head = head.body(()).expect("it is whole");
                let mut stream = respond.send_response(head, false).expect("it is heard");
                stream.send_data(Bytes::from_static(body), false).expect("it is heard");
                stream.send_trailers(trailers).expect("it is heard");
            }
        }
    });
    (port, server)
}

#[tokio::test]
async fn grpc_health_is_what_the_server_says() {
    let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
    let lacking =
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown method";
    let unhealthy = "service unhealthy (responded with \"NOT_SERVING\")";
    type Case = (&'static str, &'static str, &'static [u8], Result<(), &'static str>);
    let table: [Case; 4] = [
        ("0", "", &[0, 0, 0, 0, 2, 8, 1], Ok(())),
        ("0", "", &[0, 0, 0, 0, 2, 8, 2], Err(unhealthy)),
        ("5", "unknown service", &[], Err(unknown)),
        ("12", "unknown method", &[], Err(lacking)),
    ];
    for (code, said, body, expected) in table {
        let (port, _server) = grpc_server(code, said, body).await;
        let found = grpc::check(HERE, port, "some.Service", LIMIT).await;
        assert_eq!(found, expected.map_err(str::to_owned), "R-PRB-31");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_port_that_nobody_listens_on_is_waited_for() {
    let (listener, port) = listener().await;
    drop(listener);
    let found = grpc::check(HERE, port, "", Duration::from_secs(3)).await;
    let expected =
        format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 3s: context deadline exceeded");
    assert_eq!(found, Err(expected), "R-PRB-31");
}

fn get(port: u16, is_https: bool) -> HttpGet {
    HttpGet {
        to: Endpoint { host: None, port: TargetPort::Number(port) },
        is_https,
        path: "/".to_owned(),
        headers: Vec::new(),
    }
}

async fn ask(get: &HttpGet, pod: IpAddr, agent: &str, timeout: Duration) -> Result<http::HttpAnswer, String> {
    http::get(get, pod, agent, timeout).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn https_believes_whoever_answers() {
    let certificate = (&include_bytes!("testdata/cert.der")[..], &include_bytes!("testdata/key.der")[..]);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned();
    let server = Server::secured(vec![answer], certificate).await;
    let answer = ask(&get(server.port, true), HERE, "kube-probe/1.36", LIMIT).await.expect("R-PRB-21");
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, "ok"));
}

// Go takes the server's name from the URL, not from the `Host` header, and sends no address as a name.
#[tokio::test]
async fn https_reaches_any_address_and_host_header() {
    let certificate = (&include_bytes!("testdata/cert.der")[..], &include_bytes!("testdata/key.der")[..]);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned();
    let here6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for (address, to, header, name) in [
        (here6, None, None, None),
        (here6, None, Some("[fd00::5]"), None),
        (here6, None, Some("a.example:8443"), None),
        (here6, Some("::1%1"), None, None),
        (HERE, None, Some("[fd00::5]:8443"), None),
        (HERE, Some("localhost"), None, Some("localhost")),
        (HERE, Some("localhost"), Some("a.example"), Some("localhost")),
    ] {
        let server = Server::secured_at(address, vec![answer.clone()], certificate).await;
        let mut get = get(server.port, true);
        get.to.host = to.map(str::to_owned);
        get.headers.extend(header.map(|value| ("Host".to_owned(), value.to_owned())));
        let answer = ask(&get, address, "kube-probe/1.36", LIMIT).await;
        assert_eq!(answer.map(|answer| answer.body).as_deref(), Ok("ok"), "R-PRB-21: {to:?} {header:?}");
        assert_eq!(server.names(), [name.map(str::to_owned)], "{to:?} {header:?}");
        let sent = format!("\r\nhost: {}", header.unwrap_or_default());
        assert!(server.requests()[0].contains(&sent), "R-PRB-21: {:?}", server.requests());
    }
}

// People search the web for Go's texts.
#[tokio::test]
async fn a_server_without_tls_is_told_in_go_s_words() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let table: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http: server gave HTTP response to HTTPS client"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", "http: server gave HTTP response to HTTPS client"),
        (b"-ERR unknown command\r\n", "tls: first record does not look like a TLS handshake"),
        (b"", "EOF"),
    ];
    for (said, words) in table {
        let (listener, port) = listener().await;
        let serve = async {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let mut hello = [0; 5];
            connection.read_exact(&mut hello).await.expect("a greeting");
            connection.write_all(said).await.expect("answered");
            connection.shutdown().await.expect("ended");
            // The client is read to its end, so that its connection is not reset.
            connection.read_to_end(&mut Vec::new()).await.ok();
        };
        let to = get(port, true);
        let (asked, ()) = tokio::join!(ask(&to, HERE, "kube-probe/1.36", LIMIT), serve);
        let expected = format!("Get \"https://127.0.0.1:{port}/\": {words}");
        assert_eq!(asked, Err(expected), "{}", String::from_utf8_lossy(said));
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_and_bodies_cut() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".to_owned();
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n{}", "x".repeat(20000));
    let server = Server::start(vec![redirect.clone(), long]).await;
    let answer = ask(&get(server.port, false), HERE, "a", LIMIT).await;
    assert_eq!(answer.map(|answer| answer.status.as_u16()), Ok(200), "R-PRB-23, R-PRB-24");
    let server = Server::start(vec![redirect]).await;
    let answer = ask(&get(server.port, false), HERE, "a", LIMIT).await;
    assert!(answer.is_err_and(|error| error.contains("stopped after 10 redirects")), "R-PRB-23");
    assert_eq!(server.requests().len(), 11, "R-PRB-23");
}

#[tokio::test]
async fn long_heads_many_headers_and_odd_ones_are_taken() {
    let answer = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok");
    let many = |count: usize, length: usize| {
        (0..count).map(|number| format!("X-{number}: {}\r\n", "v".repeat(length))).collect::<String>()
    };
    let folded = "X-Folded: one\r\n two\r\n\tthree\r\n".to_owned();
    let spaced = "X-Spaced : one\r\n".to_owned();
    for headers in [many(1, 20_000), many(150, 10), many(4000, 10), many(10, 50_000), folded, spaced] {
        let server = Server::start(vec![answer(&headers)]).await;
        let found = ask(&get(server.port, false), HERE, "a", LIMIT).await;
        let found = found.map(|answer| (answer.status.as_u16(), answer.body));
        assert_eq!(found, Ok((200, "ok".to_owned())), "R-PRB-24: {} bytes of headers", headers.len());
    }
    // The client checks the length between two reads, of which the last can be as long as the limit.
    let server = Server::start(vec![answer(&many(80, 50_000))]).await;
    let found = ask(&get(server.port, false), HERE, "a", LIMIT).await;
    assert!(found.is_err(), "a head of 4 MB is taken");
}

#[tokio::test]
async fn a_grpc_answer_has_headers_of_16_kib_at_most() {
    let long: &'static str = String::leak("x".repeat(1 << 20));
    let (port, _server) = grpc_server("5", long, b"").await;
    let error = grpc::check(HERE, port, "", LIMIT).await.expect_err("it does not serve");
    assert!(error.starts_with("error: health rpc probe failed: ") && error.len() < 20 << 10, "{} bytes", error.len());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_in_time_has_failed() {
    let (listener, port) = listener().await;
    let error = ask(&get(port, false), HERE, "a", Duration::from_secs(2)).await;
    assert!(error.is_err_and(|error| error.contains("context deadline exceeded")), "R-PRB-24");
    drop(listener);
    let error = ask(&get(port, false), HERE, "a", LIMIT).await;
    let expected = format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(error, Err(expected), "R-PRB-12");
}
